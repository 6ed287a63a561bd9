"""The quickstart notebook: kept with its pictures, and run from end to end."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "quickstart.ipynb"
MEGABYTE = 1_000_000

# what the notebook found, told by its kernel as plain numbers
REPORT = """
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


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook):
    return [output for cell in code_cells(notebook) for output in cell.outputs]


def exits(k1, k2):
    """Exit flows of the reactor, in closed form for k1 != k2."""
    a = math.exp(-2 * k1)
    return a, k1 / (k2 - k1) * (a - math.exp(-2 * k2))


def test_the_kept_notebook_shows_its_pictures_and_stays_small():
    kept = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(kept)
    assert NOTEBOOK.stat().st_size < MEGABYTE
    assert [cell.execution_count for cell in code_cells(kept)] == list(
        range(1, len(code_cells(kept)) + 1)
    )
    assert not [output for output in outputs(kept) if output.output_type == "error"]
    assert not [o for o in outputs(kept) if o.get("name") == "stderr"]
    pictures = [o for o in outputs(kept) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 7
    for output in outputs(kept):
        output.get("data", {}).pop("image/png", None)
    assert not re.search(r"/(root|home|tmp|Users|work)/", nbformat.writes(kept))


@pytest.mark.e2e
def test_the_notebook_runs_and_finds_what_it_tells(tmp_path):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    notebook.cells.append(nbformat.v4.new_code_cell(REPORT))
    NotebookClient(
        notebook,
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    ).execute()
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    found = json.loads(notebook.cells[-1].outputs[-1]["text"])

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

    status = json.loads((tmp_path / found["folder"] / "status.json").read_text())
    assert status["state"] == "finished"
    assert list((tmp_path / found["folder"] / "figures").glob("*.png"))
