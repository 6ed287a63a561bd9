"""The density of designs in torch: against scipy and the mixture itself, and as a penalty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.engine import Mixture
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.torch_density import TorchDensity, design_density
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.routines.latent_candidates import optimize_latent_candidates
from genopt.space import Space, Variable

Y = Space.of(y=(-1.0, 3.0))


def two_components(dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(dim)
    half = rng.normal(size=(2, dim, dim))
    return (
        np.array([0.3, 0.7]),
        rng.normal(size=(2, dim)),
        half @ half.transpose(0, 2, 1) + 0.1 * np.eye(dim),
    )


@pytest.mark.parametrize("dim", [1, 4])
def test_log_density_and_gradient(dim):
    priors, means, covariances = two_components(dim)
    space = Space.from_bounds([(-5.0, 5.0)] * dim)
    density = TorchDensity(
        GaussianMixture(2, priors, means, covariances), JointColumns(space, Y, ())
    )
    x = torch.randn(2, 7, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0, 0] = 60.0  # far away: no underflow
    x.requires_grad_(True)
    logs = density(x)
    flat = x.detach().reshape(-1, dim).numpy()
    expected = np.logaddexp(
        *(
            np.log(w) + multivariate_normal.logpdf(flat, m, c)
            for w, m, c in zip(priors, means, covariances, strict=True)
        )
    )
    np.testing.assert_allclose(logs.detach().reshape(-1).numpy(), expected, rtol=1e-9)
    assert torch.autograd.gradcheck(density, x)


def test_it_is_the_mixtures_own_density_with_properties_summed_out():
    names = ("a", "b", "c")
    space = Space(
        (Variable("t", 0.0, 5.0), *(Variable(n, 0.0, 1.0) for n in names)), simplexes=(names,)
    )
    rng = np.random.default_rng(0)
    x = torch.from_numpy(np.c_[rng.uniform(0, 5, 300), rng.dirichlet([2, 3, 4], 300)])
    y = (x[:, :1] / 5 + x[:, 1:2]).double()
    mixture = Mixture(space, Y, max_components=3).fit(x, y)
    nothing = torch.full((50, 1), torch.nan, dtype=torch.float64)
    torch.testing.assert_close(
        mixture.torch_density()(x[:50]), mixture.log_prob(x[:50], nothing), atol=1e-9, rtol=1e-9
    )


def test_classes_count_by_their_probability():
    space = Space((Variable("t", 0.0, 1.0), Variable("s", kind="categorical", labels=("u", "v"))))
    rng = np.random.default_rng(1)
    code = (rng.random(400) < 0.25).astype(float)
    x = torch.from_numpy(np.c_[np.where(code, 0.8, 0.2) + 0.05 * rng.normal(size=400), code])
    density = design_density(x, space, max_components=4)
    with pytest.raises(GenoptError, match=r"expected \(..., 2\)"):
        density(x[:, :1])
    grid = torch.linspace(-0.5, 1.5, 4001, dtype=torch.float64)
    share = []
    for c in (0.0, 1.0):
        points = torch.stack([grid, torch.full_like(grid, c)], -1)
        share.append(float(torch.trapezoid(density(points).exp(), grid)))
    # all classes and numbers together have probability one, each class its share of the rows
    assert sum(share) == pytest.approx(1.0, abs=2e-3)
    assert share[1] == pytest.approx(float(code.mean()), abs=0.03)
    # a half-half block has the mean of both probabilities
    relaxed = torch.tensor([[0.2, 0.5, 0.5]], dtype=torch.float64)
    both = density(torch.tensor([[0.2, 0.0], [0.2, 1.0]], dtype=torch.float64))
    assert float(density.of_wide(relaxed)) == pytest.approx(float(both.exp().mean().log()))


def test_the_penalty_keeps_a_search_among_the_rows():
    torch.set_num_threads(1)
    space = Space.of(a=(0.0, 1.0), b=(0.0, 1.0))
    generator = torch.Generator().manual_seed(0)
    # rows along the diagonal only; y grows with b, so that a free search leaves it
    t = torch.rand(300, generator=generator, dtype=torch.float64)
    x = torch.stack([t, t + 0.03 * torch.randn(300, generator=generator)], -1).clamp(0.0, 1.0)
    y = (x[:, 1:] - 0.5 * (x[:, :1] - 0.4).square()).double()
    table = Table(x, y, space, Y)
    model = FlexibleMultiTaskModel.for_spaces(
        space, Y, "auto", {"kind": "mlp", "hidden_dims": [16], "latent_dim": 8}, epochs=30
    )
    model.fit_table(table)
    goal = Goal({"y": 0.5}, space, Y)
    options = {"starts": 8, "restarts": 2, "steps": 60, "density_penalty": 0.001}
    free = optimize_latent_candidates(
        model, goal, table=table, **{**options, "density_penalty": 0.0}, seed=1
    )
    held = optimize_latent_candidates(
        model, goal, table=table, density="mixture", **options, seed=1
    )
    off = [float((c.x[0, :, 0] - c.x[0, :, 1]).abs().max()) for c in (free, held)]
    assert off[0] > 0.3
    assert off[1] < 0.15
    assert bool(held.best().feasible.all())
    assert float(held.feasible.double().mean()) > 0.7
    assert held.log_density is not None
    assert float(held.log_density.min()) > 0.0
    fitted = Mixture(space, Y, max_components=3).fit(x, y)
    own = model.optimize_latent(
        "y", [[0.1, 0.9]], target_value=0.5, density_penalty=0.01, density=fitted, steps=60
    )
    a, b = own["optimized_input"].unbind(-1)
    assert float((a - b).abs().max()) < 0.2
    with pytest.raises(GenoptError, match="give table="):
        optimize_latent_candidates(model, goal, density="mixture", **options)
    with pytest.raises(UnknownNameError, match="density"):
        optimize_latent_candidates(model, goal, density="gaussian", **options)
    with pytest.raises(GenoptError, match="at least 4 rows"):
        design_density(x[:3], space)
