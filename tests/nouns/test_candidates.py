import pytest
import torch

from genopt import Candidates, GenoptError, Goal, Space, Variable, cluster_stats

X = Space((Variable("a", 0, 1), Variable("k", labels=("u", "v"), kind="categorical")))
Y = Space.of(p=(0.0, 1.0))


def candidates(x, p, **extra) -> Candidates:
    goal = Goal({"p": 0.5}, X, Y)
    return Candidates.from_claims(goal, torch.tensor(x), torch.tensor(p), **extra)


def test_order_puts_feasible_first_and_nan_last():
    c = candidates(
        [[[0.1, 0.0], [0.2, 1.0], [2.0, 0.0], [0.3, 0.0]]],
        [[[0.9], [0.51], [0.5], [float("nan")]]],
    )
    # 0.51 is within the tolerance; x = 2 is outside the box; 0.9 misses the goal
    assert c.feasible.tolist() == [[False, True, False, False]]
    assert c.order().tolist() == [[1, 2, 0, 3]]
    assert c.best().x[0, 0].tolist() == pytest.approx([0.2, 1.0])


def test_top_is_diverse():
    x = [[[0.10, 0.0], [0.11, 0.0], [0.10, 1.0], [0.90, 0.0]]]
    p = [[[0.50], [0.501], [0.502], [0.503]]]
    c = candidates(x, p)
    assert c.top(3).x[0].tolist() == [
        pytest.approx([0.1, 0.0]),
        pytest.approx([0.1, 1.0]),
        pytest.approx([0.9, 0.0]),
    ]
    assert c.top(3, diverse=False).x[0, 1].tolist() == pytest.approx([0.11, 0.0])


def test_saved_and_loaded_candidates_are_the_same(tmp_path):
    trajectory = torch.rand(1, 2, 5, 2, dtype=torch.float64)
    c = candidates(
        [[[0.1, 0.0], [0.2, 1.0]]],
        [[[0.4], [0.5]]],
        log_density=torch.tensor([[1.0, 2.0]], dtype=torch.float64),
        trajectory=trajectory,
        header={"seconds": 1.5},
    )
    back = Candidates.load(c.save(tmp_path / "c"))
    for name in ("x", "y_predicted", "y_verified", "loss", "feasible", "log_density", "trajectory"):
        torch.testing.assert_close(getattr(back, name), getattr(c, name), equal_nan=True)
    assert back.x_space == X
    assert back.goal == c.goal
    assert back.header == c.header
    assert back.ood is None
    assert list(c.to_frame()["k"]) == ["u", "v"]


def test_wrong_shapes_are_named():
    with pytest.raises(GenoptError, match=r"loss has shape \(3,\); expected \(1, 2\)"):
        Candidates(
            x=torch.zeros(1, 2, 2),
            x_space=X,
            y_space=Y,
            y_predicted=torch.zeros(1, 2, 1),
            loss=torch.zeros(3),
            feasible=torch.zeros(1, 2, dtype=torch.bool),
        )
    with pytest.raises(GenoptError, match="does not exist"):
        Candidates.load("nowhere.parquet")


def test_modes_are_found_in_raw_units():
    space = Space.of(a=(0.0, 1000.0))
    goal = Goal({"p": 0.5}, space, Y)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 400, 1, generator=generator) * 5
    centre = torch.where(torch.arange(400) < 300, 200.0, 800.0)[None, :, None]
    c = Candidates.from_claims(goal, centre + noise, torch.full((1, 400, 1), 0.5))
    (modes,) = c.modes()
    assert [m["size"] for m in modes] == [300, 100]
    assert [float(m["mean"][0]) for m in modes] == pytest.approx([200, 800], abs=2)
    assert [m["weight"] for m in modes] == [0.75, 0.25]


def test_cluster_stats_leaves_noise_out():
    modes = cluster_stats([[0.0], [0.1], [0.2], [9.0]], eps=0.3, min_samples=2)
    assert len(modes) == 1
    assert modes[0]["size"] == 3
    assert modes[0]["weight"] == 0.75
    with pytest.raises(GenoptError, match="1 rows that are not finite"):
        cluster_stats([[0.0], [float("inf")]])
    assert cluster_stats([]) == []
