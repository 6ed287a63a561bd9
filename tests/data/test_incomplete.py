"""Rows whose designs have gaps: kept beside a Table's own, learned from, seen by nothing else."""

import logging
import math

import pytest
import torch

from genopt import GenoptError, Table
from genopt.data.frames import read_frame
from genopt.problems import TableProblem
from genopt.space import Space

NAN = math.nan
X = torch.tensor([[1.0, 5.0], [NAN, 6.0], [2.0, NAN], [3.0, 7.0], [4.0, 8.0]], dtype=torch.float64)
Y = torch.tensor([[0.1], [0.2], [0.3], [NAN], [0.5]], dtype=torch.float64)
SPACES = Space.of(a=(0, 5), b=(0, 10)), Space.of(c=(0, 1))
CSV = """a,b,kind,c,name
1,0.5,oak,2.0,p
2,,ash,3.0,q
2,0.25,,4.0,r
3,0.75,oak,,s
4,0.5,ash,1.0,t
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "wood.csv"
    file.write_text(CSV)
    return file


def test_complete_rows_are_the_table_and_the_others_lie_beside_it():
    table = Table.with_gaps(X, Y, *SPACES, tuple("pqrst"), weight=torch.arange(1.0, 6.0))
    assert table.row_ids == ("p", "s", "t")
    assert table.incomplete.row_ids == ("q", "r")
    assert table.incomplete.weight.tolist() == [2.0, 3.0]
    x, y, weight = table.with_incomplete()
    order = [0, 3, 4, 1, 2]
    torch.testing.assert_close(x, X[order], equal_nan=True)
    torch.testing.assert_close(y, Y[order], equal_nan=True)
    assert weight.tolist() == [1.0, 4.0, 5.0, 2.0, 3.0]


def test_rows_with_gaps_are_for_training_alone():
    split = ("train", "test", "train", "validation", "test")
    table = Table.with_gaps(X, Y, *SPACES, split=split)
    assert table.incomplete.row_ids == ("2",)
    assert len(table.part("train").incomplete) == 1
    assert table.part("test").incomplete is None
    assert table.part("validation").incomplete is None
    assert table.complete().incomplete is None
    again = table.with_split(0.0, 0.34, seed=3)
    assert len(again.incomplete) == 1
    assert again.split.count("test") == 1


def test_a_table_without_gaps_has_nothing_beside_it():
    rows = [0, 3, 4]
    table = Table.with_gaps(X[rows], Y[rows], *SPACES)
    assert table.incomplete is None
    assert table.with_incomplete()[2] is None


def test_no_complete_row_and_gaps_given_as_complete_are_refused():
    with pytest.raises(
        GenoptError, match=r"no row has a complete design: 2 rows have gaps in x \(a 1, b 1\)"
    ):
        Table.with_gaps(X[1:3], Y[1:3], *SPACES)
    with pytest.raises(GenoptError, match=r"'a' has no finite value in row 1 .*with_gaps"):
        Table(X, Y, *SPACES)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_they_survive_a_file(path, tmp_path, suffix):
    table = Table.read(path, ["a", "b", "kind"], ["c"], row_id="name")
    assert table.row_ids == ("p", "s", "t")
    file = table.with_split(0.0, 0.34).write(tmp_path / f"out{suffix}")
    back = Table.from_frame(read_frame(file), table.x_space, table.y_space, "row_id")
    assert back.incomplete.row_ids == ("q", "r")
    torch.testing.assert_close(back.incomplete.x, table.incomplete.x, equal_nan=True)
    torch.testing.assert_close(back.x, table.x)
    assert back.split.count("test") == 1


def test_a_problem_learns_from_them_drops_them_or_refuses(path, caplog):
    def problem(**options):
        return TableProblem(path, ["a", "b", "kind"], ["c"], row_id="name", **options)

    with caplog.at_level(logging.INFO, "genopt"):
        learned = problem()
    assert "2 rows have gaps in x (b 1, kind 1)" in caplog.text
    assert len(learned.table().incomplete) == 2
    missing = {row["column"]: row["missing"] for row in learned.describe()}
    assert missing == {"a": "none", "b": "1 of 5", "kind": "1 of 5", "c": "1 of 5"}
    dropped = problem(incomplete="drop")
    assert dropped.table().incomplete is None
    assert len(dropped.table()) == 3
    # what the file says of the columns stays, with and without these rows
    assert dropped.x_space == learned.x_space
    with pytest.raises(GenoptError, match=r"first row 'q': fill them, or set problem.incomplete"):
        problem(incomplete="refuse")
    with pytest.raises(GenoptError, match=r"unknown problem.incomplete 'keep'"):
        problem(incomplete="keep")


def test_fewer_rows_take_as_large_a_share_of_both(tmp_path):
    file = tmp_path / "t.csv"
    lines = [f"{i},{'' if i % 3 == 0 else i},{i}" for i in range(90)]
    file.write_text("\n".join(["a,b,c", *lines]))
    problem = TableProblem(file, ["a", "b"], ["c"])
    assert (len(problem.table()), len(problem.table().incomplete)) == (60, 30)
    part = problem.table(20, seed=1)
    assert (len(part), len(part.incomplete)) == (20, 10)
    assert set(part.incomplete.row_ids) < set(problem.table().incomplete.row_ids)


def test_one_missing_fraction_is_what_the_others_leave(tmp_path):
    file = tmp_path / "mix.csv"
    file.write_text("u,v,w,c\n.2,.3,.5,1\n.1,,.6,2\n,,.4,3\n.6,.2,.2,4\n")
    table = TableProblem(file, ["u", "v", "w"], ["c"], simplexes=[["u", "v", "w"]]).table()
    assert table.row_ids == ("0", "3", "1")
    torch.testing.assert_close(table.x[2], torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64))
    assert table.incomplete.row_ids == ("2",)
    assert table.x_space.lower.tolist() == [0.1, 0.2, 0.2]
    file.write_text("u,v,w,c\n.2,.3,.5,1\n.9,,.6,2\n.6,.2,.2,4\n")
    with pytest.raises(GenoptError, match=r"row 1 holds .* with the sum 1\.5"):
        TableProblem(file, ["u", "v", "w"], ["c"], simplexes=[["u", "v", "w"]])
