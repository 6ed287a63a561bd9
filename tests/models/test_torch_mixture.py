"""The mixture in torch: against scipy, finite differences and the mixture in numpy."""

import gmr
import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import logsumexp
from sklearn.mixture import BayesianGaussianMixture
from sklearn.mixture import GaussianMixture as ScikitMixture

from genopt.errors import GenoptError
from genopt.models.mixture.gmm import GaussianMixture


def make(seed=0, k=3, p=4):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(k, p, p))
    covariances = half @ half.transpose(0, 2, 1) / p + 0.2 * np.eye(p)
    return GaussianMixture(k, rng.dirichlet(np.ones(k)), 2 * rng.normal(size=(k, p)), covariances)


def points(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_log_prob_agrees_with_scipy_and_its_gradient_with_differences():
    mixture = make()
    there = points(2, 5, 4)
    flat = there.reshape(-1, 4).numpy()
    parts = zip(mixture.priors, mixture.means, mixture.covariances, strict=True)
    terms = [np.log(w) + stats.multivariate_normal(m, c).logpdf(flat) for w, m, c in parts]
    in_torch = mixture.to_torch()
    assert isinstance(in_torch, torch.distributions.MixtureSameFamily)
    np.testing.assert_allclose(
        in_torch.log_prob(there).reshape(-1).numpy(), logsumexp(terms, axis=0), atol=1e-10
    )
    assert torch.autograd.gradcheck(in_torch.log_prob, there.requires_grad_(True))


def test_conditionals_are_those_of_numpy():
    mixture = make(1)
    x = points(3, 2, 2)
    batch = mixture.condition_batch([3, 0], x.reshape(-1, 2).numpy())
    found = mixture.to_torch().condition([3, 0], x)
    assert found.batch_shape == (3, 2)
    np.testing.assert_allclose(found.mean.reshape(-1, 2).numpy(), batch.mean(), atol=1e-10)
    np.testing.assert_allclose(
        found.variance.reshape(-1, 2).numpy(),
        np.diagonal(batch.covariance(), axis1=1, axis2=2),
        atol=1e-10,
    )
    there = points(3, 2, 2, seed=1)
    np.testing.assert_allclose(
        found.log_prob(there).reshape(-1).numpy(),
        batch.log_prob(there.reshape(-1, 2).numpy()),
        atol=1e-10,
    )


def test_gradients_pass_through_conditioning():
    in_torch = make(2).to_torch()
    x, there = points(3, 2).requires_grad_(True), points(3, 2, seed=1).requires_grad_(True)

    def moments(x):
        conditional = in_torch.condition([1, 2], x)
        return conditional.mean, conditional.variance

    assert torch.autograd.gradcheck(moments, x)
    assert torch.autograd.gradcheck(
        lambda x, y: in_torch.condition([1, 2], x).log_prob(y), (x, there)
    )


def test_conditioning_twice_is_conditioning_once():
    in_torch = make(3).to_torch()
    x = points(6, 2)
    once = in_torch.condition([0, 2], x)
    # column 2 is the second of the columns that are left
    twice = in_torch.condition([0], x[:, :1]).condition([1], x[:, 1:])
    torch.testing.assert_close(twice.mean, once.mean, atol=1e-9, rtol=0)
    torch.testing.assert_close(twice.log_prob(x), once.log_prob(x), atol=1e-9, rtol=0)


def test_far_away_values_and_gradients_are_finite():
    in_torch = make(4, k=5).to_torch()
    x = torch.tensor([[1e3, -1e3], [1e155, 0.0]], dtype=torch.float64, requires_grad=True)
    conditional = in_torch.condition([0, 1], x)
    (conditional.mean.clamp(-1e9, 1e9).sum() + conditional.log_prob(points(2, 2)).sum()).backward()
    assert bool(torch.isfinite(conditional.mean).all())
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())
    assert bool(
        torch.isfinite(in_torch.log_prob(torch.full((1, 4), 1e155, dtype=torch.float64))).all()
    )


def test_draws_follow_their_density_and_leave_the_global_generator_alone():
    in_torch = make(5, p=2).to_torch()
    conditional = in_torch.condition([0], torch.tensor([[0.0], [2.0]]).double())
    before = torch.get_rng_state()
    draws = conditional.sample((3000,), generator=torch.Generator().manual_seed(1))
    assert draws.shape == (3000, 2, 1)
    assert torch.equal(before, torch.get_rng_state())
    weights = conditional.log_weights.exp().numpy()
    deviations = conditional.lower[:, 0, 0].numpy()
    for c in range(2):
        means = conditional.means[c, :, 0].numpy()

        def cdf(v, means=means, share=weights[c]):
            return stats.norm.cdf(v[:, None], means, deviations) @ share

        assert stats.kstest(draws[:, c, 0].numpy(), cdf).pvalue > 1e-3
    torch.testing.assert_close(make(5).to_torch().sample((4,)), make(5).to_torch().sample((4,)))
    assert not torch.equal(in_torch.sample((4,)), in_torch.sample((4,)))


def test_a_dead_component_is_left_out():
    priors, means = [0.4, 0.0, 0.6], [[0.0, 0.0], [9.0, 9.0], [1.0, 1.0]]
    mixture = GaussianMixture(3, priors, means, np.tile(np.eye(2), (3, 1, 1)))
    in_torch = mixture.to_torch()
    assert in_torch.n_components == 2
    there = points(5, 2).requires_grad_(True)
    np.testing.assert_allclose(
        in_torch.log_prob(there).detach().numpy(), mixture.log_prob(there.detach().numpy())
    )
    assert torch.autograd.gradcheck(in_torch.log_prob, there)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.log_prob(torch.zeros(3)), r"expected \(\.\.\., 4\)"),
        (lambda t: t.condition([4], torch.zeros(1)), "between 0 and 3"),
        (lambda t: t.condition([0, 0], torch.zeros(2)), "a column twice"),
        (lambda t: t.condition([0], torch.zeros(2)), r"expected \(\.\.\., 1\)"),
    ],
)
def test_bad_calls_say_what_is_wrong(call, message):
    with pytest.raises(GenoptError, match=message):
        call(make().to_torch())


class TestConversions:
    def test_a_gmr_mixture_keeps_its_answers(self):
        data = make(6, p=3).sample(200, random_state=0)
        theirs = gmr.GMM(2, random_state=0).from_samples(data, n_iter=20)
        ours = GaussianMixture.from_gmr(theirs)
        np.testing.assert_allclose(
            ours.predict([0], data[:20, :1]), theirs.predict([0], data[:20, :1]), atol=1e-9
        )
        ours.means[:] = 0.0
        assert np.abs(theirs.means).max() > 0.1

    @pytest.mark.parametrize("kind", ["full", "tied", "diag", "spherical"])
    @pytest.mark.parametrize("family", [ScikitMixture, BayesianGaussianMixture])
    def test_a_scikit_mixture_keeps_its_density(self, kind, family):
        data = make(7, p=3).sample(200, random_state=0)
        theirs = family(n_components=2, covariance_type=kind, random_state=0, max_iter=200).fit(
            data
        )
        ours = GaussianMixture.from_sklearn(theirs)
        parts = zip(theirs.weights_, theirs.means_, ours.covariances, strict=True)
        if family is ScikitMixture:
            expected = theirs.score_samples(data)
        else:  # its own density integrates over the posterior; the weighted Gaussians are the mean
            terms = [np.log(w) + stats.multivariate_normal(m, c).logpdf(data) for w, m, c in parts]
            expected = logsumexp(terms, axis=0)
            np.testing.assert_allclose(
                np.linalg.inv(ours.covariances).trace(axis1=1, axis2=2),
                _trace_of_precisions(theirs),
                rtol=1e-6,
            )
        np.testing.assert_allclose(ours.log_prob(data), expected, atol=1e-8)

    def test_unfitted_mixtures_are_refused(self):
        with pytest.raises(GenoptError, match="GMM has no priors"):
            GaussianMixture.from_gmr(gmr.GMM(2))
        with pytest.raises(GenoptError, match="call its fit first"):
            GaussianMixture.from_sklearn(ScikitMixture(2))


def _trace_of_precisions(model):
    found, (k, p) = model.precisions_, model.means_.shape
    return {
        "full": lambda: np.trace(found, axis1=1, axis2=2),
        "tied": lambda: np.full(k, np.trace(found)),
        "diag": lambda: found.sum(1),
        "spherical": lambda: found * p,
    }[model.covariance_type]()


class TestConfidenceRegions:
    @pytest.mark.parametrize("dim", [1, 2, 5])
    @pytest.mark.parametrize("alpha", [0.5, 0.9])
    def test_of_one_gaussian_holds_its_share_where_the_chi_square_law_says(self, dim, alpha):
        mixture = make(8, k=1, p=dim)
        draws = np.random.default_rng(1).multivariate_normal(
            mixture.means[0], mixture.covariances[0], size=20_000
        )
        inside = mixture.is_in_confidence_region(draws, alpha)
        assert inside.mean() == pytest.approx(alpha, abs=0.012)
        away = draws - mixture.means[0]
        square = np.einsum("ni,ij,nj->n", away, np.linalg.inv(mixture.covariances[0]), away)
        np.testing.assert_array_equal(inside, square <= stats.chi2(dim).ppf(alpha))

    @pytest.mark.parametrize("alpha", [0.3, 0.9])
    def test_of_a_mixture_holds_its_share_and_is_no_larger_than_needed(self, alpha):
        mixture = GaussianMixture(2, [0.7, 0.3], [[-4.0], [5.0]], [[[1.0]], [[0.04]]])
        grid = np.linspace(-12, 12, 48_001)
        density = 0.7 * stats.norm(-4, 1).pdf(grid) + 0.3 * stats.norm(5, 0.2).pdf(grid)
        inside = mixture.is_in_confidence_region(grid, alpha)
        step = grid[1] - grid[0]
        assert (density * inside).sum() * step == pytest.approx(alpha, abs=0.01)
        largest_first = np.sort(density)[::-1]
        needed = np.searchsorted(largest_first.cumsum() * step, alpha) * step
        assert inside.sum() * step == pytest.approx(needed, rel=0.05)

    def test_draws_lie_inside_and_follow_the_mixture_there(self):
        mixture = make(9, p=2)
        draws = mixture.sample_confidence_region(2000, 0.5, random_state=0)
        assert draws.shape == (2000, 2)
        assert mixture.is_in_confidence_region(draws, 0.5).all()
        others = mixture.sample(6000, random_state=5)
        others = others[mixture.is_in_confidence_region(others, 0.5)]
        assert stats.ks_2samp(draws[:, 0], others[:, 0]).pvalue > 1e-3
        again = mixture.sample_confidence_region(2000, 0.5, random_state=0)
        np.testing.assert_array_equal(draws, again)

    def test_everything_and_nothing(self):
        mixture = make(9, p=2)
        assert mixture.is_in_confidence_region([1e3, 1e3], 1.0) is True
        assert mixture.is_in_confidence_region(mixture.means[0], 0.0) is False
        with pytest.raises(GenoptError, match="between 0 and 1"):
            mixture.is_in_confidence_region([0.0, 0.0], 95)
        with pytest.raises(GenoptError, match="take a larger one"):
            mixture.sample_confidence_region(1, 0.0)
