"""Tables larger than memory: the file is passed wholly, the sample is fair, the split is stable."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from genopt import (
    ArrowTable,
    ConditionalFlow,
    FlexibleMultiTaskModel,
    GenoptError,
    Mixture,
    Table,
    compose,
    run_study,
)
from genopt.data.arrow_file import ArrowFile, numbers
from genopt.data.stream_loader import EncodedStream, StreamLoader
from genopt.data.streaming import design_hash
from genopt.errors import UnknownNameError
from genopt.models.options import FitOptions
from genopt.problems.big_table import BigTableProblem

ROWS = 6000


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (ROWS, 2))
    y = x[:, 0] ** 2 + x[:, 1]
    y[::10] = np.nan
    side = np.where(x[:, 0] > 0, "right", "left")
    number = np.arange(ROWS, dtype=float)
    return pd.DataFrame({"a": x[:, 0], "b": x[:, 1], "y": y, "side": side, "number": number})


@pytest.fixture(scope="module", params=["parquet", "arrow"])
def path(request, frame, tmp_path_factory):
    file = tmp_path_factory.mktemp("big") / f"big.{request.param}"
    if request.param == "parquet":
        frame.to_parquet(file, row_group_size=700)
    else:
        table = pa.Table.from_pandas(frame, preserve_index=False)
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=700)
    return file


def opened(path, **options):
    return ArrowTable.open(path, ["a", "b"], ["y", "side"], **options)


def test_what_is_read_off_the_file_is_what_a_table_in_memory_says(path, frame, tmp_path):
    frame.to_parquet(tmp_path / "t.parquet")
    plain = Table.read(tmp_path / "t.parquet", ["a", "b"], ["y", "side"])
    table = opened(path, rows=ROWS)
    assert table.x_space == plain.x_space
    assert table.y_space == plain.y_space
    torch.testing.assert_close(table.x, plain.x)
    torch.testing.assert_close(table.y, plain.y, equal_nan=True)


def test_the_sample_is_drawn_from_everywhere_and_keeps_rows_whole(path, frame):
    table = opened(path, rows=600)
    places = np.array([int(i) for i in table.row_ids])
    assert len(set(places)) == 600
    # a fair draw of 600 of 6,000 row numbers has its mean within 71 (one sigma) of the middle
    assert abs(places.mean() - ROWS / 2) < 300
    np.testing.assert_array_equal(table.x.numpy(), frame.loc[places, ["a", "b"]])
    assert (table.y[:, 1].numpy() == (frame.loc[places, "side"] == "right")).all()


def test_each_training_row_comes_once_in_a_pass(path, frame):
    table = opened(path, rows=50, validation=0.2, test=0.1, seed=3)
    held = set()
    expected = np.flatnonzero(table.stream.split(_designs(frame)) == "train")
    chunks = table.stream.one_pass(np.random.default_rng(0))
    seen = torch.cat([x[:, 0] for x, _ in chunks]).tolist()
    assert sorted(seen) == sorted(frame["a"].to_numpy()[expected].tolist())
    assert seen != frame["a"].to_numpy()[expected].tolist(), "rows come in the file's order"
    for label in ("validation", "test"):
        held |= set(table.part(label).x[:, 0].tolist())
    assert held.isdisjoint(seen)


def _designs(frame):
    return torch.from_numpy(frame[["a", "b"]].to_numpy().copy())


def test_the_split_has_its_shares_and_keeps_equal_designs_together():
    x = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    level = design_hash(x.numpy(), 1)
    # Kolmogorov-Smirnov distance of 20,000 uniform numbers: above .0138 once in a thousand draws
    sorted_levels = np.sort(level)
    distance = np.abs(sorted_levels - (np.arange(20_000) + 0.5) / 20_000).max()
    assert distance < 0.0138
    again = design_hash(x.flip(0).numpy().copy(), 1)[::-1]
    np.testing.assert_array_equal(level, again)
    other = design_hash(x.numpy(), 2)
    assert abs(np.corrcoef(level, other)[0, 1]) < 0.03
    assert design_hash(np.array([[0.0]]), 1) == design_hash(np.array([[-0.0]]), 1)
    # columns that change places make another design
    assert (design_hash(x[:, [1, 0, 2]].numpy().copy(), 1) != level).all()


def test_an_epoch_has_the_rows_it_says_and_the_next_one_goes_on(path, frame):
    stream = opened(path, rows=50, validation=0.0).stream
    source = EncodedStream(stream, lambda x, y: (x, y), ROWS // 2)
    loader = StreamLoader(source, batch_size=64, block=8)
    first, second = (list(loader) for _ in range(2))
    assert len(first) == len(loader)
    assert all(len(x) == 512 for x, _ in first[:-1])
    seen = torch.cat([x for x, _ in first + second])
    assert len(seen) == ROWS
    # two halves of a pass make the whole pass
    assert sorted(seen[:, 0].tolist()) == sorted(frame["a"].tolist())
    x, y = first[0]
    known = ~torch.isnan(y[:, 0])
    torch.testing.assert_close(y[known, 0], x[known, 0] ** 2 + x[known, 1])


def test_rows_are_mixed_beyond_their_neighbours(path):
    table = ArrowTable.open(path, ["a"], ["number"], rows=50, validation=0.0)
    source = EncodedStream(table.stream, lambda _, y: (y,), ROWS)
    (number,) = next(iter(StreamLoader(source, batch_size=256, block=1)))
    # a uniform draw has a standard deviation of 1,732; neighbours would have 74
    assert float(number.std()) > 1000


def test_the_flow_learns_from_the_whole_file(tmp_path):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20_000, 1))
    y = 0.6 * x + 0.8 * rng.normal(size=(20_000, 1))
    pd.DataFrame({"x": x[:, 0], "y": y[:, 0]}).to_parquet(tmp_path / "g.parquet")
    table = ArrowTable.open(tmp_path / "g.parquet", ["x"], ["y"], rows=200)
    flow = ConditionalFlow(
        table.x_space, table.y_space, network={"kind": "adaln", "width": 32, "depth": 2},
        epochs=4, batch_size=128, learning_rate=3e-3, condition_dropout=0.0,
    )  # fmt: skip
    flow.fit_table(table)
    drawn = flow.sample(torch.tensor([[-1.0], [1.0]]), 4000)[..., 0]
    # the exact conditional of the joint normal; 180 training rows alone would leave .07 of error
    torch.testing.assert_close(drawn.mean(1), torch.tensor([-0.6, 0.6]).double(), atol=0.06, rtol=0)
    torch.testing.assert_close(drawn.std(1), torch.full((2,), 0.8).double(), atol=0.06, rtol=0)


def test_a_part_of_the_sample_is_an_ordinary_table(path):
    part = opened(path, rows=100).part("train")
    assert type(part) is Table


def test_the_problem_gives_samples_of_the_size_that_is_asked(path):
    problem = BigTableProblem(path, ["a", "b"], ["y"], goal={"y": 0.5})
    assert problem.total == ROWS
    assert len(problem.table()) == ROWS
    table = problem.table(70, seed=2)
    assert len(table) == 70
    assert set(table.split) == {"train"}
    assert set(table.with_split(0.3, 0.3, 0).split) == {"train", "validation", "test"}
    with pytest.raises(GenoptError, match=r"data\.rows=9999: big\..* has 6000 rows"):
        problem.table(9999)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ((["z"], ["y"]), {}, "x column 'z'"),
        ((["a"], ["y"]), {"bounds": {"a": [-0.5, 1]}}, r"bounds\.a: the file holds values from -0"),
        ((["y"], ["a"]), {}, "x column 'y' has no finite value in row 0"),
        ((["a"], ["y"]), {"rows": 0}, "at least 1"),
        ((["a"], ["y"]), {"validation": 0.6, "test": 0.5}, "sum below 1"),
        ((["a", "b"], ["y"]), {"simplexes": [["a", "b"]]}, "simplex a, b: row 0 has the sum"),
        ((["a"], ["side"]), {"labels": {"side": ["left", "up"]}}, "side"),
    ],
)
def test_what_cannot_work_is_said_before_any_training(path, columns, options, message):
    with pytest.raises(GenoptError, match=message):
        ArrowTable.open(path, *columns, **options)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(GenoptError, match="cannot be read in pieces"):
        ArrowFile(tmp_path / "t.csv")
    with pytest.raises(GenoptError, match="does not exist"):
        ArrowFile(tmp_path / "no.parquet")
    (tmp_path / "t.parquet").write_text("no table")
    with pytest.raises(GenoptError, match=r"t\.parquet"):
        ArrowTable.open(tmp_path / "t.parquet", ["a"], ["b"])


def test_columns_become_numbers():
    batch = pa.record_batch(
        {
            "count": pa.array([1, None, 3], pa.int32()),
            "flag": pa.array([True, None, False]),
            "word": pa.array(["u", "v", None]).dictionary_encode(),
            "text": pa.array(["u", "v", None]),
        }
    )
    labels = {"flag": ["False", "True"], "word": ["v", "u"]}
    found = numbers(batch, ["count", "flag", "word"], labels)
    expected = [[1, 1, 1], [np.nan, np.nan, 0], [3, 0, np.nan]]
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(UnknownNameError, match="class of column 'word'"):
        numbers(batch, ["word"], {"word": ["v"]})
    with pytest.raises(GenoptError, match="column 'text' needs numbers"):
        numbers(batch, ["text"], {})


def test_a_study_trains_on_the_file_and_notices_when_it_changes(tmp_path, frame):
    path = tmp_path / "study.parquet"
    frame.head(2000).to_parquet(path)
    options = [
        "problem=big_table", f"problem.path={path}", "problem.x=[a,b]", "problem.y=[y]",
        "goal={y: 0.5}", "model=flow", "model.epochs=1", "network=small", "data.rows=500",
        "data.test=0.2", "judge=null", "figures=false", "progress=false",
    ]  # fmt: skip
    result = run_study(compose(options), tmp_path / "out", show=False)
    rows = pd.read_parquet(result.folder / "data.parquet")
    assert len(rows) == 500
    assert (rows["split"] == "test").mean() == pytest.approx(0.2, abs=0.08)
    assert bool(result.candidates.feasible.all())
    mark = (result.folder / "status.json").read_text()
    run_study(compose(options), tmp_path / "out", show=False)
    assert (result.folder / "status.json").read_text() == mark
    frame.tail(2000).to_parquet(path)
    run_study(compose(options), tmp_path / "out", show=False)
    assert (result.folder / "status.json").read_text() != mark


def test_models_that_cannot_stream_say_that_they_see_a_sample(tmp_path, frame):
    path = tmp_path / "many.parquet"
    frame.head(2000).to_parquet(path)
    table = ArrowTable.open(path, ["a", "b"], ["y"], rows=300)
    mixture = Mixture(table.x_space, table.y_space, max_components=1)
    with pytest.warns(UserWarning, match="the mixture learns from 300 sampled rows of the 2,000"):
        mixture.fit_table(table, FitOptions())
    spaces = {"x_space": table.x_space, "y_space": table.y_space}
    multitask = FlexibleMultiTaskModel(**spaces, epochs=1)
    with pytest.warns(UserWarning, match="multi-task model learns from 300"):
        multitask.fit_table(table, FitOptions())
