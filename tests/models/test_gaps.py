"""Designs with gaps: what a mixture and a flow learn from them, against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.flow.gaps import filled
from genopt.models.flow.given import GivenColumns
from genopt.models.flow.transforms import DesignTransform
from genopt.models.mixture import Mixture
from genopt.models.multitask import FlexibleMultiTaskModel
from genopt.models.options import FitOptions
from genopt.space import Space, Variable

torch.set_num_threads(1)
F64 = torch.float64
NAN = math.nan
SMALL = {"network": {"kind": "adaln", "width": 32, "depth": 2, "embedding": 32}}
X_SPACE = Space((Variable("a"), Variable("b"), Variable("c")))
Y_SPACE = Space((Variable("u"),))
MIXED = Space(
    (
        Variable("p", 0.0, 1.0),
        Variable("s", 0.0, 1.0),
        Variable("t", 0.0, 1.0),
        Variable("r", 0.0, 1.0),
        Variable("kind", kind="categorical", labels=("oak", "ash", "fir")),
    ),
    (("s", "t", "r"),),
)

# (a, b, c, u) jointly normal: every conditional is a known normal
ROOT = np.array([[1.0, 0, 0, 0], [0.8, 0.6, 0, 0], [-0.5, 0.5, 0.7, 0], [0.6, -0.9, 0.2, 0.4]])
MEAN = np.array([3.0, 0.0, -4.0, 1.0])
COVARIANCE = ROOT @ ROOT.T


def joint_rows(n, share, seed=0):
    """Rows of the normal; entries of x are lost by chance."""
    rng = np.random.default_rng(seed)
    rows = rng.multivariate_normal(MEAN, COVARIANCE, n)
    x = rows[:, :3].copy()
    x[rng.random(x.shape) < share] = NAN
    return torch.from_numpy(x), torch.from_numpy(rows[:, 3:].copy())


def exact(u):
    """Mean and covariance of (a, b, c) given u."""
    gain = COVARIANCE[:3, 3] / COVARIANCE[3, 3]
    return MEAN[:3] + gain * (u - MEAN[3]), COVARIANCE[:3, :3] - np.outer(gain, COVARIANCE[3, :3])


def whitened(x, u):
    mean, covariance = exact(u)
    return np.linalg.solve(np.linalg.cholesky(covariance), (x.numpy() - mean).T)


# -- flow ------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def flow():
    """Two rows of three have a gap."""
    x, y = joint_rows(9000, 0.3)
    model = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, given_x=0.3, learning_rate=3e-3, ema=0.99)
    return model.fit(x, y, epochs=25, batch_size=256)


@pytest.mark.parametrize("u", [1.0, 2.2])
def test_a_flow_draws_complete_designs_of_the_true_law(flow, u):
    z = whitened(flow.sample(torch.tensor([[u]]), 4000)[0], u)
    np.testing.assert_allclose(z.mean(1), 0.0, atol=0.2)
    np.testing.assert_allclose(np.cov(z), np.eye(3), atol=0.25)


def test_held_columns_and_densities_work_after_gaps(flow):
    inverse = np.linalg.inv(COVARIANCE[np.ix_([0, 3], [0, 3])])
    gain = COVARIANCE[np.ix_([1, 2], [0, 3])] @ inverse
    mean = MEAN[1:3] + gain @ (np.array([3.5, 1.5]) - MEAN[[0, 3]])
    covariance = COVARIANCE[1:3, 1:3] - gain @ COVARIANCE[np.ix_([0, 3], [1, 2])]
    x = flow.sample(torch.tensor([[1.5]]), 3000, fixed={"a": 3.5})[0]
    assert bool((x[:, 0] == 3.5).all())
    z = np.linalg.solve(np.linalg.cholesky(covariance), (x[:, 1:].numpy() - mean).T)
    np.testing.assert_allclose(z.mean(1), 0.0, atol=0.25)
    points = torch.from_numpy(MEAN[:3].copy())[None]
    _, spread = exact(1.0)
    truth = -0.5 * np.linalg.slogdet(2 * np.pi * spread)[1]
    assert float(flow.log_prob(points, torch.tensor([[1.0]]))) == pytest.approx(truth, abs=0.3)


def test_what_fills_a_gap_is_not_learned():
    """The loss is the same whatever stands in a gap, and not the same in its place."""
    x, y = joint_rows(64, 0.3, seed=3)
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, draws=1)
    flow.fit(x, y, epochs=1, batch_size=32)
    columns, generator = flow.given, torch.Generator().manual_seed(0)
    whole, absent = filled(x, columns, generator)
    losses = []
    for change in (0.0, 5.0):
        for where in (absent, ~absent):
            moved = torch.where(where, whole + change, whole)
            rows = (*flow._tensors(moved, flow.conditions.check(y)), absent.float())
            torch.manual_seed(0)
            losses.append(float(flow.batch_loss(*rows).detach()))
    same, also, unmoved, moved = losses
    assert same == also == unmoved != moved


def test_a_flow_that_learned_from_gaps_is_saved_and_loaded(flow, tmp_path):
    y = torch.tensor([[0.5]])
    loaded = ConditionalFlow.load(flow.save(tmp_path / "flow.ckpt"))
    torch.testing.assert_close(loaded.sample(y, 5), flow.sample(y, 5))
    x, z = joint_rows(80, 0.2, seed=1)
    table = Table.with_gaps(x, z, X_SPACE, Y_SPACE).with_split(0.2, 0.0)
    small = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, epochs=2)
    small.fit_table(table, FitOptions(folder=tmp_path, progress=False))
    again = ConditionalFlow.load(tmp_path / "checkpoints" / "last.ckpt")
    assert again.marks_gaps
    assert bool(torch.isfinite(again.sample(y, 5)).all())


def test_classes_simplexes_reflow_and_few_calls_go_with_gaps():
    generator = torch.Generator().manual_seed(0)
    shares = torch.distributions.Dirichlet(torch.ones(3, dtype=F64)).sample((120,))
    p = torch.rand(120, 1, generator=generator, dtype=F64)
    kind = torch.randint(0, 3, (120, 1), generator=generator).double()
    x = torch.cat([p, shares, kind], 1)
    y = p + shares[:, :1]
    x[torch.rand(x.shape, generator=generator) < 0.15] = NAN
    flow = ConditionalFlow(MIXED, Space.of(y=(0, 2)), **SMALL, reflow=True, epochs=2)
    draws = flow.fit(x, y).sample(torch.tensor([[0.9]]), 50, sampler={"calls": 2})
    assert bool(MIXED.contains(draws).all())


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.0, 0.8))
def test_filled_designs_are_valid_and_keep_what_was_there(seed, share):
    generator = torch.Generator().manual_seed(seed)
    x = MIXED.project(torch.rand(40, 5, generator=generator, dtype=F64) * 2)
    gaps = torch.rand(x.shape, generator=generator) < share
    gaps[0] = False
    columns = GivenColumns(DesignTransform(MIXED))
    whole, absent = filled(torch.where(gaps, NAN, x), columns, generator)
    assert bool(MIXED.contains(whole).all())
    assert absent.shape == (40, len(columns.units))
    wide = torch.zeros(x.shape, dtype=torch.bool)
    for number, unit in enumerate(columns.units):
        wide[:, list(unit)] = absent[:, number, None]
    # a fraction that the others tell is no gap
    torch.testing.assert_close(whole[~wide], x[~wide])
    assert bool((gaps | ~wide | gaps[:, 1:4].any(1, keepdim=True)).all())


def test_a_flow_refuses_what_gaps_make_impossible():
    x, y = joint_rows(30, 0.0)
    hidden = x.clone()
    hidden[3:, 0] = NAN
    with pytest.raises(GenoptError, match="at least 4 training rows, got 3, and more with gaps"):
        ConditionalFlow(X_SPACE, Y_SPACE, **SMALL).fit(hidden, y)
    x[0, 0] = NAN
    with pytest.raises(GenoptError, match="1 rows have gaps in x, and x_pca mixes"):
        ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, x_pca=True).fit(x, y)


# -- mixture ---------------------------------------------------------------------------------------
def test_a_mixture_counts_rows_by_the_entries_that_they_have():
    x, y = joint_rows(3000, 0.3)
    model = Mixture(X_SPACE, Y_SPACE, max_components=1).fit(x, y)
    np.testing.assert_allclose(model.gmm.means[0], MEAN, atol=0.1)
    np.testing.assert_allclose(model.gmm.covariances[0], COVARIANCE, atol=0.1)
    z = whitened(model.sample(torch.tensor([[2.0]]), 3000)[0], 2.0)
    np.testing.assert_allclose(np.cov(z), np.eye(3), atol=0.15)


def test_a_table_hands_its_rows_with_gaps_to_a_mixture():
    x, y = joint_rows(400, 0.3)
    table = Table.with_gaps(x, y, X_SPACE, Y_SPACE)
    model = Mixture(X_SPACE, Y_SPACE, max_components=1)
    model.fit_table(table, FitOptions(progress=False))
    again = Mixture(X_SPACE, Y_SPACE, max_components=1).fit(*table.with_incomplete()[:2])
    alone = Mixture(X_SPACE, Y_SPACE, max_components=1).fit(table.x, table.y)
    np.testing.assert_allclose(model.gmm.means, again.gmm.means)
    assert not np.allclose(model.gmm.means, alone.gmm.means)


def test_a_density_counts_the_entries_that_are_there():
    x, y = joint_rows(500, 0.0)
    model = Mixture(X_SPACE, Y_SPACE, max_components=2).fit(x, y)
    point = torch.tensor([[3.0, NAN, -4.0], [NAN, NAN, NAN]], dtype=F64)
    law = model.condition({"u": [1.0]}, wanted=["a", "c"])
    density = model.log_prob(point, torch.tensor([[1.0], [1.0]], dtype=F64))
    expected = law.log_prob(torch.tensor([[[3.0, -4.0]]], dtype=F64))
    assert float(density[0]) == pytest.approx(float(expected[0, 0]))
    assert float(density[1]) == 0.0


def test_classes_and_gaps_choose_a_mixture_together():
    generator = torch.Generator().manual_seed(0)
    kind = torch.randint(0, 2, (300, 1), generator=generator).double()
    number = 3.0 * kind + 0.3 * torch.randn(300, 1, generator=generator, dtype=F64)
    x = torch.cat([number, kind], 1)
    x[torch.rand(x.shape, generator=generator) < 0.2] = NAN
    space = Space((Variable("n"), Variable("kind", kind="categorical", labels=("oak", "ash"))))
    model = Mixture(space, Space((Variable("y"),)), max_components=4).fit(x, number)
    drawn = model.sample(torch.tensor([[0.0], [3.0]], dtype=F64), 200)
    assert float((drawn[0, :, 1] == 0).double().mean()) > 0.95
    assert float((drawn[1, :, 1] == 1).double().mean()) > 0.95


# -- the others ------------------------------------------------------------------------------------
def test_a_model_that_leaves_them_out_says_so():
    x, y = joint_rows(60, 0.3)
    table = Table.with_gaps(x, y, X_SPACE, Y_SPACE)
    model = FlexibleMultiTaskModel(x_space=X_SPACE, y_space=Y_SPACE, epochs=1)
    with pytest.warns(UserWarning, match="the multi-task model leaves them out"):
        model.fit_table(table, FitOptions(progress=False))
