import pytest
import torch

import genopt
from genopt import GenoptError, Table

CSV = """a,b,kind,c,d,note
1,0.5,oak,2.0,,x
2,0.25,ash,,3.0,y
2,0.25,ash,4.0,3.5,z
3,0.75,oak,6.0,4.0,w
"""


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "t.csv"
    file.write_text(CSV)
    return file


def test_kinds_and_bounds_are_inferred_and_can_be_overridden(path):
    table = Table.read(
        path, ["a", "b", "kind"], ["c", "d"], bounds={"a": [0, 5]}, kinds={"a": "integer"}
    )
    a, b, kind = table.x_space.variables
    assert (a.kind, a.lower, a.upper) == ("integer", 0, 5)
    assert (b.kind, b.lower, b.upper) == ("continuous", 0.25, 0.75)
    assert kind.labels == ("ash", "oak")
    assert table.x[:, 2].tolist() == [1, 0, 0, 1]
    assert torch.isnan(table.y).sum() == 2
    assert table.missing_share == pytest.approx(0.25)
    assert len(table.complete()) == 2


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_survives_its_file(path, tmp_path, suffix):
    table = Table.read(path, ["a", "kind"], ["c", "d"], row_id="note").with_split(0.0, 0.34, seed=1)
    back_path = table.write(tmp_path / f"out{suffix}")
    from genopt.data.frames import read_frame

    back = Table.from_frame(read_frame(back_path), table.x_space, table.y_space, "row_id")
    torch.testing.assert_close(back.x, table.x)
    torch.testing.assert_close(back.y, table.y, equal_nan=True)
    assert back.row_ids == ("x", "y", "z", "w")
    assert back.split == table.split


def test_replicates_of_a_design_stay_in_one_split():
    x = torch.arange(20.0).repeat(2)[:, None]
    table = Table(x, torch.rand(40, 1), genopt.Space.of(a=(0, 20)), genopt.Space.of(c=(0, 1)))
    for seed in range(5):
        split = table.with_split(0.2, 0.2, seed).split
        assert split[:20] == split[20:]
        assert split.count("test") == split.count("validation") == 8


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (["a", "bb"], ["c"], {}, "unknown x column 'bb'"),
        (["a"], ["c", "nothing"], {}, "unknown y column 'nothing'"),
        (["a"], ["a"], {}, "named under both x and y"),
        (["kind"], ["c"], {"kinds": {"kind": "continuous"}}, "row 0 holds 'oak'"),
        (["a"], ["c"], {"bounds": {"z": [0, 1]}}, "unknown column under bounds 'z'"),
        ([], ["c"], {}, "names no column"),
    ],
)
def test_bad_input_is_one_clear_error(path, x, y, options, message):
    with pytest.raises(GenoptError, match=message):
        Table.read(path, x, y, **options)


def test_text_among_numbers_and_missing_labels_are_named(tmp_path):
    file = tmp_path / "bad.csv"
    file.write_text("a,c,d\n1,2,\n2,much,\n3,4,\n")
    with pytest.raises(GenoptError, match="y column 'c' needs numbers, but row 1 holds 'much'"):
        Table.read(file, ["a"], ["c"])
    with pytest.raises(GenoptError, match="'d' has no entry: all 3 values are missing"):
        Table.read(file, ["a"], ["d"])
    with pytest.raises(GenoptError, match=r"none\.csv does not exist"):
        Table.read(tmp_path / "none.csv", ["a"], ["c"])
    (tmp_path / "t.txt").write_text("a")
    with pytest.raises(GenoptError, match=r"neither \.csv nor \.parquet"):
        Table.read(tmp_path / "t.txt", ["a"], ["c"])
