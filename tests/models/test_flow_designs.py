"""Flows over bounded, discrete and composed designs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate

from genopt.errors import GenoptError
from genopt.models.flow.conditional import ConditionalFlow
from genopt.space import Space, Variable

torch.set_num_threads(1)
F64 = torch.float64
NAN = math.nan
SMALL = {"network": {"kind": "adaln", "width": 32, "depth": 2, "embedding": 32}}
BOX = Space.of(x=(-1.0, 1.0))
Y1 = Space.of(y=(0.0, 1.0))


@pytest.fixture(scope="module")
def box():
    x = torch.linspace(-1.0, 1.0, 400, dtype=F64)[:, None]
    flow = ConditionalFlow(BOX, Y1, **SMALL, learning_rate=3e-3, ema=0.98)
    return flow.fit(x, x.abs(), epochs=40, batch_size=64)


@pytest.mark.parametrize("y", [0.75, 0.3, NAN])
def test_log_prob_integrates_to_one(box, y):
    grid = torch.linspace(-1.0, 1.0, 2001, dtype=F64)[1:-1, None]
    density = box.log_prob(grid, torch.tensor([[y]])).exp().numpy()
    # what is missing is the mass of the two bounds themselves
    x = box.sample(torch.tensor([[y]]), 20_000)[0, :, 0]
    atoms = float(((x == -1.0) | (x == 1.0)).double().mean())
    assert integrate.simpson(density, x=grid[:, 0].numpy()) + atoms == pytest.approx(1.0, abs=0.01)


def test_two_answers_with_equal_weights(box):
    x = box.sample(torch.tensor([[0.75]]), 4000)[0, :, 0]
    assert float((x > 0).double().mean()) == pytest.approx(0.5, abs=0.06)
    assert float((x.abs() - 0.75).abs().median()) < 0.05


def test_designs_outside_have_no_density(box):
    density = box.log_prob(torch.tensor([[1.5], [0.5]]), torch.tensor([[0.5]]))
    assert density[0] == -math.inf
    assert bool(torch.isfinite(density[1]))


@pytest.mark.parametrize("bounded", [True, False])
def test_units_do_not_matter(bounded):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(200, 1, generator=generator, dtype=F64)
    y = x**2 + 0.1 * torch.randn(200, 1, generator=generator, dtype=F64)
    found = []
    for unit in (1.0, 1e-5):
        space = Space.of(x=(0.0, unit)) if bounded else Space((Variable("x"),))
        flow = ConditionalFlow(space, Space((Variable("y"),)), **SMALL)
        flow.fit(x * unit, y * unit, epochs=5)
        q = torch.tensor([[0.3]], dtype=F64) * unit
        inside = torch.tensor([[0.2], [0.6]], dtype=F64)
        log_prob = flow.log_prob(inside * unit, q) + math.log(unit)
        found.append((flow.sample(q, 50) / unit, log_prob))
    torch.testing.assert_close(found[0], found[1], rtol=2e-3, atol=2e-3)


MIXED = Space(
    (
        Variable("t", -2.0, 5.0),
        Variable("p", 0.0, 1.0),
        Variable("n", 1, 4, kind="integer"),
        Variable("q", 0.1, 1.0),
        Variable("kind", kind="categorical", labels=("u", "v")),
        Variable("r", 0.0, 1.0),
    ),
    simplexes=(("p", "q", "r"),),
)


@pytest.fixture(scope="module")
def mixed_pairs():
    rng = np.random.default_rng(0)
    n = 400
    share = rng.dirichlet([1, 1, 1], n) * 0.9
    share[:, 1] += 0.1
    share[:120, 2] += share[:120, 0]
    share[:120, 0] = 0.0  # three rows of ten leave p out
    kind = rng.integers(0, 2, n)
    number = 1 + kind + rng.integers(0, 3, n)
    x = np.column_stack(
        [rng.uniform(-2, 5, n), share[:, 0], number, share[:, 1], kind, share[:, 2]]
    )
    phase = np.where(rng.random(n) < 0.1, np.nan, kind)
    y = np.column_stack([x[:, 0] + x[:, 1], phase])
    return torch.from_numpy(x), torch.from_numpy(y)


def test_mixed_designs_are_valid_and_keep_their_shares(mixed_pairs):
    x, y = mixed_pairs
    y_space = Space((Variable("s"), Variable("phase", kind="categorical", labels=("u", "v"))))
    flow = ConditionalFlow(MIXED, y_space, **SMALL, learning_rate=3e-3, ema=0.98)
    flow.fit(x, y, epochs=50, batch_size=64)
    drawn = flow.sample(torch.tensor([[NAN, NAN], [NAN, 1.0], [3.0, 0.0]]), 1500)
    assert bool(MIXED.contains(drawn).all())
    assert float((drawn[0, :, 1] == 0.0).double().mean()) == pytest.approx(0.3, abs=0.1)
    assert float((drawn[1, :, 4] == 1.0).double().mean()) > 0.9
    assert float(drawn[1, :, 2].mean()) - float(drawn[2, :, 2].mean()) > 0.5
    with pytest.raises(GenoptError, match="class columns n, kind"):
        flow.log_prob(drawn[0], torch.tensor([[3.0, 0.0]]))
