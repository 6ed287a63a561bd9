"""Rows that count more or less: kept by a Table, heeded by the engines that learn densities."""

from __future__ import annotations

import pytest
import torch

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.mixture.engine import Mixture
from genopt.models.options import FitOptions
from genopt.space import Space

X, Y = Space.of(x=(-2.0, 2.0)), Space.of(y=(-1.0, 1.0))


def two_heaps(n: int = 400, share: float = 0.9) -> Table:
    """Most rows near -1, few near 1, with weights that make both heaps count alike."""
    generator = torch.Generator().manual_seed(0)
    left = torch.arange(n) < share * n
    x = torch.where(left, -1.0, 1.0) + 0.1 * torch.randn(n, generator=generator)
    y = torch.rand(n, 1, generator=generator) * 2 - 1
    weight = torch.where(left, 0.5 / share, 0.5 / (1 - share))
    return Table(x[:, None], y, X, Y, weight=weight)


def test_weights_follow_their_rows(tmp_path):
    table = Table(
        torch.linspace(-1, 1, 6)[:, None],
        torch.zeros(6, 1),
        X,
        Y,
        weight=torch.arange(1.0, 7.0),
    )
    assert table.rows(torch.tensor([4, 0])).weight.tolist() == [5.0, 1.0]
    split = table.with_split(0.3, 0.3, seed=1)
    parts = [split.part(name) for name in ("train", "validation", "test")]
    for part in parts:
        assert torch.allclose(part.weight, (part.x[:, 0] + 1) * 2.5 + 1)
    for suffix in ("parquet", "csv"):
        path = table.write(tmp_path / f"rows.{suffix}")
        back = Table.read(path, ["x"], ["y"], bounds={"x": [-2, 2], "y": [-1, 1]})
        assert torch.allclose(back.weight, table.weight)
    assert Table(table.x, table.y, X, Y).rows(torch.tensor([1])).weight is None
    assert "row_weight" not in Table(table.x, table.y, X, Y).to_frame()


@pytest.mark.parametrize(
    ("weight", "words"),
    [([1.0, 0.0], "row 1 is 0"), ([1.0, float("nan")], "row 1"), ([1.0], r"\(1,\)")],
)
def test_weights_that_cannot_be_used(weight, words):
    with pytest.raises(GenoptError, match=words):
        Table(torch.zeros(2, 1), torch.zeros(2, 1), X, Y, weight=torch.tensor(weight))


def test_both_engines_give_the_weighted_share():
    torch.set_num_threads(1)
    table = two_heaps()
    options = FitOptions(seed=0)
    mixture = Mixture(X, Y, max_components=4)
    mixture.fit_table(table, options)
    flow = ConditionalFlow(X, Y, network={"kind": "adaln", "width": 32, "depth": 2}, epochs=20)
    flow.fit_table(table.with_split(0.2, 0.0), options)
    for model in (mixture, flow):
        drawn = model.sample(torch.tensor([[0.0]]), 1000)
        # unweighted, nine designs of ten are negative
        assert float((drawn < 0).double().mean()) == pytest.approx(0.5, abs=0.12)
