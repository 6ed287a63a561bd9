"""Measured tables: those that come with genopt, and the user's own file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.problems import Hplc, Photostability, Problem, SuzukiCoupling, TableProblem

SHIPPED: dict[str, Problem] = {
    "photostability": Photostability(),
    "suzuki_coupling": SuzukiCoupling(),
    "hplc": Hplc(),
}


def raw(name: str) -> pd.DataFrame:
    with (files("genopt.problems") / "tables" / f"{name}.csv").open() as file:
        return pd.read_csv(file)


@pytest.mark.parametrize(
    ("name", "rows", "inputs", "outputs", "missing", "author"),
    [
        ("photostability", 1040, 4, 2, 0.0, "Langner"),
        ("suzuki_coupling", 385, 4, 8, 0.75, "Reizman"),
        ("hplc", 1386, 6, 1, 0.0, "Roch"),
    ],
)
def test_shipped_table(
    name: str, rows: int, inputs: int, outputs: int, missing: float, author: str
) -> None:
    problem = SHIPPED[name]
    table = problem.table()
    assert problem.name == name
    assert table.x.shape == (rows, inputs)
    assert table.y.shape == (rows, outputs)
    assert float(torch.isnan(table.y).double().mean()) == pytest.approx(missing)
    assert author in problem.citation
    assert "MIT" in problem.citation
    assert not problem.has_simulator
    assert bool(problem.x_space.contains(table.x, tolerance=1e-12).all())
    seen = torch.nan_to_num(table.y, nan=0.0)
    assert bool(problem.y_space.contains(seen).all())
    Goal(problem.default_goal, problem.x_space, problem.y_space)
    frame = raw(name)
    for i, v in enumerate(problem.x_space):
        column = [v.labels[int(c)] for c in table.x[:, i]] if v.labels else table.x[:, i].numpy()
        if v.labels:
            assert column == frame[v.name].tolist()
        else:
            np.testing.assert_allclose(column, frame[v.name], rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(table.y.numpy(), frame[list(problem.y_space.names)])


def test_photostability_is_a_simplex_with_repeats() -> None:
    problem = SHIPPED["photostability"]
    table = problem.table()
    assert problem.x_space.simplexes == (("mat_1", "mat_2", "mat_3", "mat_4"),)
    assert float((table.x.sum(1) - 1.0).abs().max()) <= 2.3e-16
    assert len(table) - len(torch.unique(table.x.mul(1e4).round(), dim=0)) == 20
    # without the second material the two series measured the same films
    without = table.x[:, 1] == 0.0
    assert int(without.sum()) > 50
    assert torch.equal(table.y[without, 0], table.y[without, 1])


def test_suzuki_measures_one_case_a_row() -> None:
    problem = SHIPPED["suzuki_coupling"]
    known = ~torch.isnan(problem.table().y)
    assert bool((known.sum(1) == 2).all())
    assert torch.equal(known[:, 0::2], known[:, 1::2])
    assert len(problem.x_space["catalyst"].labels) == 8


@pytest.fixture
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    a = rng.uniform(0.0, 1.0, 30)
    return pd.DataFrame(
        {
            "a": a,
            "b": 1.0 - a,
            "count": rng.integers(1, 6, 30),
            "solvent": rng.choice(["water", "ethanol"], 30),
            "yield": rng.uniform(0.0, 100.0, 30),
            "phase": ["solid", "liquid", None] * 10,
        }
    )


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_own_file(frame: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"mine{suffix}"
    if suffix == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)
    problem = TableProblem(
        path,
        x=["solvent", "a", "b", "count"],
        y=["yield", "phase"],
        goal={"yield": "max", "phase": "solid", "solvent": "water"},
        bounds={"yield": (0.0, 100.0)},
        kinds={"count": "integer"},
        units={"yield": "%"},
        simplexes=[["a", "b"]],
    )
    rows = {row["column"]: row for row in problem.describe()}
    assert problem.name == "mine"
    assert rows["solvent"]["range"] == "ethanol, water"
    assert rows["count"]["kind"] == "integer"
    assert rows["count"]["source"] == "given"
    assert rows["a"]["kind"] == "continuous, sums to 1 with its group"
    assert rows["yield"]["range"] == "0 to 100"
    assert rows["yield"]["unit"] == "%"
    assert rows["phase"]["missing"] == "10 of 30"
    assert rows["phase"]["source"] == "data"
    assert problem.x_space["count"].lower == frame["count"].min()
    table = problem.table()
    assert len(table) == problem.default_rows == 30
    np.testing.assert_allclose(table.y[:, 0].numpy(), frame["yield"], rtol=1e-12)
    assert int(torch.isnan(table.y[:, 1]).sum()) == 10


def test_a_part_of_the_rows(frame: pd.DataFrame, tmp_path: Path) -> None:
    frame.to_csv(tmp_path / "mine.csv", index=False)
    problem = TableProblem(tmp_path / "mine.csv", x="a", y="yield")
    part = problem.table(12, seed=1)
    assert [int(i) for i in part.row_ids] == sorted({int(i) for i in part.row_ids})
    assert len(part) == 12
    assert part.row_ids == problem.table(12, seed=1).row_ids
    assert part.row_ids != problem.table(12, seed=2).row_ids
    assert torch.equal(problem.design(12, seed=1), part.x)
    with pytest.raises(GenoptError, match="30 measured rows, 31 were asked"):
        problem.table(31)


def test_fractions_are_scaled_within_rounding(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [0.333, 0.5, 0.0], "b": [0.666, 0.505, 1.0], "y": [1.0, 2.0, 3.0]})
    frame.to_csv(tmp_path / "mix.csv", index=False)
    problem = TableProblem(tmp_path / "mix.csv", x=["a", "b"], y=["y"], simplexes=[["a", "b"]])
    x = problem.table().x
    assert x[0].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert x.sum(1).tolist() == pytest.approx([1.0] * 3, abs=1e-15)
    assert bool(problem.x_space.contains(x, tolerance=1e-12).all())


class TestBadInput:
    @pytest.fixture
    def path(self, frame: pd.DataFrame, tmp_path: Path) -> Path:
        frame["empty"] = np.nan
        frame["typo"] = frame["yield"].astype(str)
        frame.loc[7, "typo"] = "n/d"
        frame.to_csv(tmp_path / "mine.csv", index=False)
        return tmp_path / "mine.csv"

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(GenoptError, match=r"nowhere\.csv does not exist"):
            TableProblem(tmp_path / "nowhere.csv", x=["a"], y=["b"])

    def test_unknown_column_offers_the_nearest(self, path: Path) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'yield'"):
            TableProblem(path, x=["a"], y=["yeild"])
        with pytest.raises(UnknownNameError, match="did you mean 'solvent'"):
            TableProblem(path, x=["solvant"], y=["yield"])

    def test_text_where_a_number_is_needed(self, path: Path) -> None:
        with pytest.raises(GenoptError, match=r"'typo' needs numbers.*row 7 .*'n/d'"):
            TableProblem(path, x=["a"], y=["typo"])

    def test_all_labels_missing(self, path: Path) -> None:
        with pytest.raises(GenoptError, match=r"'empty' has no .*30"):
            TableProblem(path, x=["a"], y=["yield", "empty"])

    def test_a_gap_in_a_design(self, path: Path) -> None:
        with pytest.raises(GenoptError, match=r"gaps in x \(phase .*first row '2'"):
            TableProblem(path, x=["phase"], y=["yield"], incomplete="refuse")

    def test_no_rows(self, tmp_path: Path) -> None:
        (tmp_path / "none.csv").write_text("a,b\n")
        with pytest.raises(GenoptError, match=r"row|no entry"):
            TableProblem(tmp_path / "none.csv", x=["a"], y=["b"])

    def test_roles_that_clash(self, path: Path) -> None:
        with pytest.raises(GenoptError, match="'a' is named under both x and y"):
            TableProblem(path, x=["a", "b"], y=["a"])
        with pytest.raises(GenoptError, match=r"problem\.x names column 'a' twice"):
            TableProblem(path, x=["a", "a"], y=["yield"])
        with pytest.raises(GenoptError, match="x names no column"):
            TableProblem(path, x=[], y=["yield"])

    def test_goal_outside_the_columns(self, path: Path) -> None:
        with pytest.raises(UnknownNameError, match=r"goal column 'yeld'.*'yield'"):
            TableProblem(path, x=["a"], y=["yield"], goal={"yeld": "max"})

    def test_simplex_that_is_none(self, path: Path) -> None:
        with pytest.raises(GenoptError, match=r"row 0 .*sum to one"):
            TableProblem(path, x=["a", "count"], y=["yield"], simplexes=[["a", "count"]])
        with pytest.raises(UnknownNameError, match=r"problem\.simplexes 'c'"):
            TableProblem(path, x=["a", "b"], y=["yield"], simplexes=[["a", "c"]])

    def test_rows_outside_given_bounds_are_told(self, path: Path) -> None:
        with pytest.warns(UserWarning, match="of 30 rows of mine.csv lie outside the given bounds"):
            TableProblem(path, x=["a"], y=["yield"], bounds={"a": (0.0, 0.5)})
