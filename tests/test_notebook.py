"""The notebooks: kept with their pictures, and run from end to end."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from sklearn.metrics import r2_score

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
FILMS = ROOT / "src" / "genopt" / "problems" / "tables" / "photostability.csv"
MEGABYTE = 1_000_000

# what each notebook found, told by its kernel as plain numbers
QUICKSTART = """
import json
print(json.dumps({
    "modes": modes.to_dict("records"),
    "x": best.x.reshape(-1).tolist(),
    "claimed": best.y_predicted.reshape(-1).tolist(),
    "verified": best.y_verified.reshape(-1).tolist(),
    "asked": wanted.tolist(),
    "reached": designs.y_verified[:, 0].tolist(),
    "folder": str(study.folder),
}))
"""
SPARSE = """
import json
print(json.dumps({
    "truth": truth[:, 0].tolist(),
    "shared": guesses[:, 0].tolist(),
    "alone": guesses[:, 1].tolist(),
    "measured": full.part("test").y.tolist(),
    "mean": mean.tolist(),
    "std": std.tolist(),
    "blends": best[list(problem.x_space.names)].to_numpy().tolist(),
    "claims": best[[f"{first}_predicted", f"{second}_predicted"]].to_numpy().tolist(),
    "known": known.x[:, 3].max().item(),
    "mat_4": {name: found.x[0, :, 3].tolist() for name, found in searches.items()},
    "r_1": r_1,
    "r_50": study.metrics["resimulation/r_50"],
    "folder": str(study.folder),
}))
"""
ROUTINES = """
import json
print(json.dumps({
    "roots": roots["root"].astype(float).tolist(),
    "shares": roots["share"].tolist(),
    "residual": refined.y_verified.abs().max().item(),
    "flat": flat.x[0].tolist(),
    "kinds": flat.header["kinds"],
    "front": front.y_verified[0].tolist(),
    "share": front.header["numbers"]["hypervolume_share"],
    "reference": front.header["front"]["reference"],
    "calls": learned.header["numbers"]["calls"],
    "least": learned.top(3).x[0].tolist(),
    "found": learned.top(3).y_verified[0, :, 0].tolist(),
    "tanks": designs.x[0].tolist(),
    "outlets": designs.y_verified[0].tolist(),
    "faults": [finding.fault for finding in coarse.findings],
    "left": len(better.findings),
    "reached": better.candidates.y_verified[0].tolist(),
    "folder": str(better.folder),
}))
"""


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def exits(k1, k2):
    """Exit flows of the reactor, in closed form for k1 != k2."""
    a = math.exp(-2 * k1)
    return a, k1 / (k2 - k1) * (a - math.exp(-2 * k2))


@pytest.mark.parametrize(
    ("name", "pictures"), [("quickstart", 7), ("sparse_properties", 4), ("routines", 4)]
)
def test_a_kept_notebook_shows_its_pictures_and_stays_small(name, pictures):
    path = NOTEBOOKS / f"{name}.ipynb"
    kept = nbformat.read(path, as_version=4)
    nbformat.validate(kept)
    assert path.stat().st_size < MEGABYTE
    assert [cell.execution_count for cell in code_cells(kept)] == list(
        range(1, len(code_cells(kept)) + 1)
    )
    assert not [output for output in outputs(kept) if output.output_type == "error"]
    assert not [o for o in outputs(kept) if o.get("name") == "stderr"]
    assert not [cell for cell in kept.cells if "execution" in cell.metadata]
    assert len([o for o in outputs(kept) if "image/png" in o.get("data", {})]) >= pictures
    for output in outputs(kept):
        output.get("data", {}).pop("image/png", None)
    assert not re.search(r"/(root|home|tmp|Users|work)/", nbformat.writes(kept))


def run(name, report, folder):
    """Run a notebook, its own closing cell included, and return what its kernel tells."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    notebook.cells.append(nbformat.v4.new_code_cell(report))
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert not [o for o in outputs(notebook) if o.get("name") == "stderr"]
    return json.loads(notebook.cells[-1].outputs[-1]["text"])


def check_quickstart(found, folder):
    for engine in ("mixture", "flow"):
        modes = sorted(
            (mode for mode in found["modes"] if mode["engine"] == engine),
            key=lambda mode: mode["mean"],
        )
        assert [mode["mean"] for mode in modes] == pytest.approx([-0.75, 0.75], abs=0.03)
        assert [mode["weight"] for mode in modes] == pytest.approx([0.5, 0.5], abs=0.1)
        # y has noise of .05 and the slope is one, so x is known to about as much
        assert [mode["std"] for mode in modes] == pytest.approx([0.05, 0.05], abs=0.02)

    assert found["verified"] == pytest.approx(exits(*found["x"]), rel=1e-9)
    assert found["verified"] == pytest.approx([0.02, 0.05], abs=5e-3)
    assert found["claimed"] == pytest.approx([0.02, 0.05], abs=1e-4)
    misses = [
        abs(value - goal)
        for reached, asked in zip(found["reached"], found["asked"], strict=True)
        for value, goal in zip(reached, asked, strict=True)
    ]
    assert sorted(misses)[len(misses) // 2] < 5e-3
    assert list((folder / found["folder"] / "figures").glob("*.png"))


def check_sparse(found, folder):
    shared, alone = (r2_score(found["truth"], found[name]) for name in ("shared", "alone"))
    assert shared > max(alone, 0.3)

    miss = np.abs(np.array(found["measured"]) - found["mean"]) / found["std"]
    # half of a Gaussian lies within .6745 standard deviations, nine tenths within 1.6449
    for width, share in ((0.6745, 0.5), (1.6449, 0.9)):
        assert (miss < width).mean(0) == pytest.approx([share, share], abs=0.1)

    films = pd.read_csv(FILMS)
    blends = films[[f"mat_{i}" for i in (1, 2, 3, 4)]].to_numpy()
    measured = films[["degradation_pce10", "degradation_wf3"]].to_numpy()
    assert np.sum(found["blends"], 1) == pytest.approx(1.0, abs=1e-9)
    for blend, claim in zip(found["blends"], found["claims"], strict=True):
        nearest = np.linalg.norm(blends - blend, axis=1).argmin()
        assert claim == pytest.approx(measured[nearest], abs=0.1)

    assert found["known"] <= 0.5
    beyond = {name: (np.array(x) > 0.5).sum() for name, x in found["mat_4"].items()}
    assert beyond["spread_penalty=100"] < beyond["spread_penalty=0"]

    proposals = pd.read_parquet(folder / found["folder"] / "candidates.parquet")
    height = np.sin(3 * np.pi * proposals["x1"]) + np.cos(3 * np.pi * proposals["x2"])
    assert proposals["y_verified"].to_numpy() == pytest.approx(height.to_numpy(), abs=1e-9)
    assert proposals.groupby("goal").size().tolist() == [64] * 50
    assert 0 < found["r_50"] <= found["r_1"] < 1e-4


def propane():
    """Coefficients of the Peng-Robinson cubic of propane at 300 K and 10 bar."""
    critical_t, critical_p, w, gas = 369.83, 42.48e5, 0.1523, 8.314
    kappa = 0.37464 + 1.54226 * w - 0.26992 * w**2
    alpha = (1 + kappa * (1 - math.sqrt(300 / critical_t))) ** 2
    a = 0.45724 * (gas * critical_t) ** 2 / critical_p * alpha * 10e5 / (gas * 300) ** 2
    b = 0.07780 * gas * critical_t / critical_p * 10e5 / (gas * 300)
    return [1, b - 1, a - 3 * b**2 - 2 * b, b**3 + b**2 - a * b]


def dominated_area(front, reference):
    """The area between a front and a point behind it, strip by strip."""
    total, roof = 0.0, reference[1]
    for first, second in sorted(front):
        if first < reference[0] and second < roof:
            total += (reference[0] - first) * (roof - second)
            roof = second
    return total


def check_routines(found, folder):
    cubic = propane()
    exact = np.sort(np.roots(cubic).real)
    assert found["roots"] == pytest.approx(exact, abs=1e-9)
    mass = 1 / np.abs(np.polyval(np.polyder(cubic), exact))
    assert found["shares"] == pytest.approx(mass / mass.sum(), abs=0.08)
    assert found["residual"] < 1e-11

    # one minimum near each integer, one maximum near each half, a saddle where the two cross
    points, kinds = np.array(found["flat"]), np.array(found["kinds"])
    at_integer = (np.abs(points - np.round(points)) < 0.1).sum(1)
    named = np.array(["maximum", "saddle", "minimum"])[at_integer]
    assert (named == kinds).all()
    assert [int((kinds == k).sum()) for k in ("minimum", "maximum", "saddle")] == [25, 16, 40]

    first, second = found["reference"]
    # under f2 = 1 - sqrt(f1) and before the reference point
    whole = first * second - 1 + 2 / 3
    share = dominated_area(found["front"], found["reference"]) / whole
    assert share == pytest.approx(found["share"], abs=0.005)
    assert share > 0.97

    assert found["calls"] == 50
    minima = np.array([[math.pi, 2.275], [-math.pi, 12.275], [3 * math.pi, 2.475]])
    gaps = np.linalg.norm(np.array(found["least"])[:, None] - minima, axis=2)
    assert sorted(gaps.argmin(1)) == [0, 1, 2]
    assert gaps.min(1).max() < 0.3
    assert min(found["found"]) == pytest.approx(10 / (8 * math.pi), abs=0.02)

    for (radius, thermal), (c_a, c_b) in zip(found["tanks"], found["outlets"], strict=True):
        assert math.hypot(c_a - 0.58, c_b - 0.30) <= 0.08 + 1e-9
        # what flows in is what flows out and what reacts
        made = math.pi * radius**2 * math.exp(-3 / thermal) * c_a**2
        lost = math.pi * radius**2 * math.exp(-10 / thermal) * c_a
        assert c_b == pytest.approx(made, abs=1e-9)
        assert 1 - c_a - made - lost == pytest.approx(0, abs=1e-9)

    assert "too few components" in found["faults"]
    assert found["left"] < len(found["faults"])
    reached = np.array(found["reached"])
    assert reached == pytest.approx(np.tile([0.02, 0.05], (len(reached), 1)), abs=1e-9)
    assert list((folder / found["folder"] / "figures").glob("*.png"))


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("name", "report", "check"),
    [
        ("quickstart", QUICKSTART, check_quickstart),
        ("sparse_properties", SPARSE, check_sparse),
        ("routines", ROUTINES, check_routines),
    ],
    ids=["quickstart", "sparse_properties", "routines"],
)
def test_a_notebook_runs_and_finds_what_it_tells(tmp_path, name, report, check):
    found = run(name, report, tmp_path)
    check(found, tmp_path)
    status = json.loads((tmp_path / found["folder"] / "status.json").read_text())
    assert status["state"] == "finished"
