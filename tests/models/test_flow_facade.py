"""The call shapes of the facade, as a user writes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from genopt.errors import GenoptError
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.flow.facade import ConditionalFlowMatching

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def pairs():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (150, 2))
    return x, (x**2).sum(1, keepdims=True)


@pytest.fixture(scope="module")
def fitted(pairs):
    fm = ConditionalFlowMatching(
        x_dim=2, c_dim=1, hidden_dim=16, n_layers=2, bounds=[(-1, 1), (-1, 1)]
    )
    return fm.fit(*pairs, epochs=5, batch_size=64, verbose=False)


def test_numpy_in_numpy_out(fitted, pairs):
    one = fitted.sample(c_values=[[0.75]], n_samples=100, n_steps=10)
    several = fitted.sample(np.array([[0.75], [0.2], [np.nan]]), n_samples=50)
    assert isinstance(one, np.ndarray)
    assert one.shape == (100, 2)
    assert several.shape == (3, 50, 2)
    assert np.abs(several).max() <= 1.0
    log_prob = fitted.log_prob(*pairs)
    assert isinstance(log_prob, np.ndarray)
    assert log_prob.shape == (150,)
    assert np.isfinite(log_prob).all()


def test_torch_in_torch_out(fitted, pairs):
    x, c = (torch.from_numpy(part) for part in pairs)
    assert isinstance(fitted.log_prob(x, c[:1]), torch.Tensor)
    drawn = fitted.sample(torch.tensor([0.75, 0.5]), 10)
    assert isinstance(drawn, torch.Tensor)
    assert drawn.shape == (2, 10, 2)
    fm = ConditionalFlowMatching(x_dim=2, hidden_dim=8, n_layers=1).fit(x, c, epochs=1)
    assert isinstance(fm.sample([[0.75]], 5), torch.Tensor)
    assert isinstance(fm.sample(np.array([[0.75]]), 5), np.ndarray)


def test_one_dimensional_arrays_are_columns():
    x = np.linspace(0.0, 1.0, 60)
    fm = ConditionalFlowMatching(x_dim=1, c_dim=1, hidden_dim=8, n_layers=1, seed=3)
    fm.fit(x, x**2, epochs=1)
    assert fm.sample([0.5], n_samples=4).shape == (4, 1)
    np.testing.assert_allclose(fm.log_prob(x, x**2), fm.log_prob(x[:, None], (x**2)[:, None]))
    assert isinstance(fm.model, ConditionalFlow)


def test_the_facade_is_the_flow(fitted):
    drawn = fitted.sample([[0.4]], n_samples=30)
    direct = fitted.model.sample(torch.tensor([[0.4]], dtype=torch.float64), 30)[0]
    np.testing.assert_array_equal(drawn, direct.numpy())


def test_errors_name_argument_and_shape(fitted, pairs):
    x, c = pairs
    with pytest.raises(GenoptError, match=r"x has shape \(150, 1\); expected \(N, 2\)"):
        fitted.fit(x[:, :1], c)
    with pytest.raises(GenoptError, match="same number of rows"):
        fitted.fit(x, c[:-1])
    with pytest.raises(GenoptError, match=r"x1.*bounds"):
        fitted.fit(3 * x, c)
    with pytest.raises(GenoptError, match=r"c has shape \(3, 1\); expected \(150, 1\)"):
        fitted.log_prob(x, c[:3])
    with pytest.raises(GenoptError, match=r"c_values has shape \(1, 2\)"):
        fitted.sample([[0.5, 0.5]])
    with pytest.raises(GenoptError, match="c_values must be an array of numbers"):
        fitted.sample([["a"]])
    with pytest.raises(GenoptError, match="n_steps must be positive"):
        fitted.sample([[0.5]], n_steps=0)


def test_bad_sizes_are_refused():
    with pytest.raises(GenoptError, match=r"bounds has shape \(1, 2\)"):
        ConditionalFlowMatching(2, bounds=[(0, 1)])
    with pytest.raises(GenoptError, match="x_dim must be positive"):
        ConditionalFlowMatching(x_dim=0)
    with pytest.raises(GenoptError, match="not fitted"):
        ConditionalFlowMatching().sample([[0.5]])


def test_columns_of_x_may_be_held_and_conditions_be_weighted(pairs):
    x, c = pairs
    flow = ConditionalFlowMatching(
        x_dim=2, hidden_dim=16, n_layers=2, bounds=[(-1, 1)] * 2, given_x=0.5
    ).fit(x, c, epochs=5)
    held = flow.sample([[0.75]], 20, fixed={1: 0.25})
    np.testing.assert_allclose(held[:, 1], 0.25, atol=1e-9)
    assert held[:, 0].std() > 0.0
    plain, guided = (flow.sample([[0.75]], 20, guidance=weight) for weight in (1.0, 2.0))
    assert not np.allclose(plain, guided)


def test_a_flow_that_was_not_made_for_it_says_so(fitted):
    with pytest.raises(GenoptError, match="given_x"):
        fitted.sample([[0.75]], 5, fixed={0: 0.1})
