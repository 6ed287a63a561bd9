"""The mixture's mathematics against closed forms, scipy and gmr."""

import warnings

import gmr
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import logsumexp
from sklearn.mixture import GaussianMixture as ScikitMixture

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.selection import MixtureFit, best_gmm


def random_parameters(seed, n_components, dim, scale=None):
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n_components, dim, dim))
    covariances = factors @ factors.transpose(0, 2, 1) / dim + 0.2 * np.eye(dim)
    means = 2.0 * rng.normal(size=(n_components, dim))
    if scale is not None:
        covariances, means = covariances * scale[:, None] * scale, means * scale
    return rng.dirichlet(np.ones(n_components)), means, covariances


def make(seed=0, n_components=3, dim=4, scale=None):
    parameters = random_parameters(seed, n_components, dim, scale)
    return GaussianMixture(n_components, *parameters, random_state=seed)


def reference(mixture):
    return gmr.GMM(
        mixture.n_components,
        mixture.priors,
        mixture.means,
        mixture.covariances,
        random_state=0,
    )


class TestConditional:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10**6), dim=st.integers(2, 6), data=st.data())
    def test_one_gaussian_agrees_with_its_precision_matrix(self, seed, dim, data):
        q = data.draw(st.integers(1, dim - 1))
        known = data.draw(st.permutations(range(dim)))[:q]
        free = [i for i in range(dim) if i not in known]
        _, means, covariances = random_parameters(seed, 1, dim)
        query = np.random.default_rng(seed + 1).normal(size=q)
        conditional = GaussianMixture(1, [1.0], means, covariances).condition(known, query)
        precision = np.linalg.inv(covariances[0])
        covariance = np.linalg.inv(precision[np.ix_(free, free)])
        pull = precision[np.ix_(free, known)] @ (query - means[0, known])
        np.testing.assert_allclose(conditional.covariances[0], covariance, rtol=1e-9, atol=1e-10)
        np.testing.assert_allclose(
            conditional.means[0], means[0, free] - covariance @ pull, rtol=1e-8, atol=1e-9
        )

    @pytest.mark.parametrize("known", [[0], [2, 0], [1, 3], [0, 1, 2]])
    def test_agrees_with_gmr_on_ordinary_queries(self, known):
        mixture = make(1, n_components=5)
        oracle = reference(mixture)
        queries = oracle.sample(40)[:, known]
        np.testing.assert_allclose(
            mixture.predict(known, queries), oracle.predict(known, queries), atol=1e-10
        )
        batch = mixture.condition_batch(known, queries)
        for c in (0, 7, 39):
            expected = oracle.condition(known, queries[c])
            single = batch.component(c)
            np.testing.assert_allclose(single.priors, expected.priors, atol=1e-11)
            np.testing.assert_allclose(single.means, expected.means, atol=1e-10)
            np.testing.assert_allclose(single.covariances, expected.covariances, atol=1e-10)

    def test_one_query_returns_a_mixture_that_gmr_functions_take(self):
        mixture = make(2, dim=3)
        conditional = mixture.condition([1], [[0.75]])
        assert isinstance(conditional, GaussianMixture)
        assert isinstance(conditional, gmr.GMM)
        assert conditional.sample(1000).shape == (1000, 2)
        assert len(conditional.to_ellipses()) == 3
        assert isinstance(conditional.extract_mvn(0), gmr.MVN)

    def test_all_queries_at_once_equal_one_by_one(self):
        mixture = make(3, n_components=4)
        queries = np.random.default_rng(0).normal(size=(30, 2))
        batch = mixture.condition_batch([3, 1], queries)
        for c, query in enumerate(queries):
            single = mixture.condition_batch([3, 1], query)
            np.testing.assert_allclose(batch.weights[c], single.weights[0], atol=1e-13)
            np.testing.assert_allclose(batch.mean()[c], single.mean()[0], atol=1e-13)
            np.testing.assert_allclose(batch.log_marginal[c], single.log_marginal[0], atol=1e-12)

    def test_many_queries_pass_in_chunks_without_a_seam(self):
        mixture = make(4, n_components=20, dim=10)
        queries = mixture.sample(5000, random_state=0)[:, :5]
        whole = mixture.predict(range(5), queries)
        parts = [mixture.predict(range(5), queries[i : i + 7]) for i in (0, 1300, 4990)]
        for start, part in zip((0, 1300, 4990), parts, strict=True):
            np.testing.assert_allclose(whole[start : start + 7], part, atol=1e-12)

    def test_moments_are_those_of_the_collapsed_mixture(self):
        mixture = make(5)
        batch = mixture.condition_batch([0], [[0.3], [-2.0]])
        for c in range(2):
            collapsed = reference(batch.component(c)).to_mvn()
            np.testing.assert_allclose(batch.mean()[c], collapsed.mean, atol=1e-12)
            np.testing.assert_allclose(batch.covariance()[c], collapsed.covariance, atol=1e-12)
        own = mixture.to_mvn()
        np.testing.assert_allclose(
            own.covariance, reference(mixture).to_mvn().covariance, atol=1e-12
        )


class TestDensity:
    def test_agrees_with_scipy(self):
        mixture = make(6)
        points = mixture.sample(50, random_state=1)
        parts = zip(mixture.priors, mixture.means, mixture.covariances, strict=True)
        terms = [np.log(p) + stats.multivariate_normal(m, c).logpdf(points) for p, m, c in parts]
        np.testing.assert_allclose(mixture.log_prob(points), logsumexp(terms, axis=0), atol=1e-10)
        shares = np.exp(np.array(terms) - logsumexp(terms, axis=0)).T
        np.testing.assert_allclose(mixture.to_responsibilities(points), shares, atol=1e-10)

    def test_joint_is_marginal_times_conditional(self):
        mixture = make(7)
        points = mixture.sample(25, random_state=2)
        batch = mixture.condition_batch([2, 0], points[:, [2, 0]])
        product = batch.log_marginal + batch.log_prob(points[:, [1, 3]])
        np.testing.assert_allclose(product, mixture.log_prob(points), atol=1e-10)
        np.testing.assert_allclose(
            batch.log_marginal, mixture.marginal([2, 0]).log_prob(points[:, [2, 0]]), atol=1e-11
        )

    def test_conditional_density_integrates_to_one(self):
        batch = make(8, dim=2).condition_batch([0], [[-1.0], [0.4], [3.0]])
        for c in range(3):
            one = batch.take([c])
            mass, _ = integrate.quad(
                lambda v, one=one: float(np.exp(one.log_prob([[v]])[0])), -30, 30, limit=200
            )
            assert mass == pytest.approx(1.0, abs=1e-8)

    def test_n_points_a_query_equal_one_at_a_time(self):
        batch = make(9).condition_batch([1], [[0.0], [1.0]])
        points = np.random.default_rng(3).normal(size=(2, 5, 3))
        together = batch.log_prob(points)
        for j in range(5):
            np.testing.assert_allclose(together[:, j], batch.log_prob(points[:, j]), atol=1e-12)

    @settings(max_examples=25, deadline=None)
    @given(exponents=st.lists(st.integers(-8, 8), min_size=3, max_size=3), seed=st.integers(0, 99))
    def test_units_change_nothing_but_the_jacobian(self, exponents, seed):
        scale = 10.0 ** np.array(exponents)
        plain, scaled = make(seed, dim=3), make(seed, dim=3, scale=scale)
        points = plain.sample(8, random_state=0)
        np.testing.assert_allclose(
            scaled.log_prob(points * scale), plain.log_prob(points) - np.log(scale).sum(), atol=1e-8
        )
        np.testing.assert_allclose(
            scaled.predict([2], points[:, [2]] * scale[2]) / scale[:2],
            plain.predict([2], points[:, [2]]),
            rtol=1e-8,
            atol=1e-10,
        )

    def test_criteria_agree_with_scikit_learn(self):
        data = make(10, dim=2).sample(300, random_state=0)
        oracle = ScikitMixture(3, random_state=0).fit(data)
        mixture = GaussianMixture(3, oracle.weights_, oracle.means_, oracle.covariances_)
        assert mixture.bic(data) == pytest.approx(oracle.bic(data), rel=1e-10)
        assert mixture.aic(data) == pytest.approx(oracle.aic(data), rel=1e-10)


class TestFarAndDegenerate:
    @pytest.mark.parametrize("far", [1e3, 1e20, 1e155, -1e155])
    def test_far_queries_are_finite(self, far):
        mixture = make(11, n_components=5)
        batch = mixture.condition_batch([0, 1], [[far, far], [far, 0.0]])
        for values in (batch.weights, batch.mean(), batch.covariance(), batch.log_marginal):
            assert np.isfinite(values).all()
        np.testing.assert_allclose(batch.weights.sum(1), 1.0)
        assert np.isfinite(mixture.predict([0, 1], [[far, far]])).all()
        assert np.isfinite(mixture.log_prob(np.full((1, 4), far))).all()
        assert np.isfinite(mixture.to_responsibilities(np.full((2, 4), far))).all()
        assert np.isfinite(mixture.condition([0, 1], [far, far]).sample(5)).all()
        assert np.isfinite(batch.log_prob(np.zeros((2, 2)))).all()

    @pytest.mark.parametrize("far", [1e30, 1e155, -1e200])
    def test_far_away_the_broadest_component_explains(self, far):
        covariances = [[[1.0, 0.9], [0.9, 1.0]], [[9.0, -3.0], [-3.0, 2.0]]]
        mixture = GaussianMixture(2, [0.999, 0.001], np.zeros((2, 2)), covariances)
        batch = mixture.condition_batch([0], [[far]])
        np.testing.assert_allclose(batch.weights, [[0.0, 1.0]])
        np.testing.assert_allclose(batch.mean() / far, [[-1.0 / 3.0]])

    def test_a_dead_component_stays_dead(self):
        _, means, covariances = random_parameters(12, 3, 2)
        mixture = GaussianMixture(3, [0.4, 0.0, 0.6], means, covariances)
        points = np.vstack([means, [[1e155, -1e155]]])
        assert (mixture.to_responsibilities(points)[:, 1] == 0.0).all()
        assert (mixture.condition_batch([0], points[:, :1]).weights[:, 1] == 0.0).all()
        apart = GaussianMixture(2, [0.0, 1.0], [[0.0], [100.0]], [[[1.0]], [[1.0]]], random_state=0)
        assert (apart.sample(500) > 50).all()

    @pytest.mark.parametrize("unit", [1e-9, 1.0, 1e7])
    def test_near_singular_covariances_warn_and_stay_finite(self, unit):
        covariance = unit**2 * np.array([[[1.0, 1.0], [1.0, 1.0]]])
        mixture = GaussianMixture(1, [1.0], [[0.0, 0.0]], covariance, random_state=0)
        with pytest.warns(RuntimeWarning, match="near singular"):
            conditional = mixture.condition([0], [2.0 * unit])
        assert conditional.means[0, 0] == pytest.approx(2.0 * unit, rel=1e-6)
        assert 0.0 < conditional.covariances[0, 0, 0] < 1e-8 * unit**2

    def test_a_tight_cluster_far_from_another_is_not_widened(self):
        mixture = GaussianMixture(
            2, [0.5, 0.5], [[0.0, 0.0], [1e6, 1e6]], np.array([np.eye(2), 1e-6 * np.eye(2)])
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = mixture.log_prob([[1e6, 1e6]])
        expected = np.log(0.5) - np.log(2 * np.pi) - np.log(1e-6)
        np.testing.assert_allclose(found, expected, rtol=1e-9)

    def test_inputs_are_neither_kept_nor_changed(self):
        priors, means, covariances = random_parameters(13, 2, 3)
        copies = priors.copy(), means.copy(), covariances.copy()
        mixture = GaussianMixture(2, priors, means, covariances, random_state=0)
        queries = np.ones((3, 1))
        mixture.predict([0], queries)
        mixture.from_samples(np.random.default_rng(0).normal(size=(50, 3)), n_iter=3)
        for now, before in zip((priors, means, covariances), copies, strict=True):
            np.testing.assert_array_equal(now, before)
        np.testing.assert_array_equal(queries, np.ones((3, 1)))

    def test_gmr_fit_runs_on_it(self):
        rng = np.random.default_rng(1)
        data = np.concatenate([rng.normal(-5, 1, (150, 2)), rng.normal(5, 1, (150, 2))])
        mixture = GaussianMixture(2, random_state=3).from_samples(data, init_params="kmeans++")
        np.testing.assert_allclose(np.sort(mixture.means[:, 0]), [-5, 5], atol=0.3)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda g: g.condition([0], [[1.0], [2.0]]), "condition_batch"),
            (lambda g: g.condition_batch([9], [[1.0]]), "between 0 and 3"),
            (lambda g: g.condition_batch([0, 0], [[1.0, 1.0]]), "twice"),
            (lambda g: g.predict([0], [[np.nan]]), "row 0"),
            (lambda g: g.log_prob(np.zeros((2, 3))), r"expected \(N, 4\)"),
            (lambda g: g.condition_batch([0], [[1.0]]).log_prob([[1.0]]), "expected"),
            (lambda g: GaussianMixture(2, [0.5, 0.6], g.means[:2]), "sum to one"),
            (lambda g: GaussianMixture(2, [0.5, 0.5], g.means), "means has shape"),
            (
                lambda _: GaussianMixture(
                    1, [1.0], [[0.0, 0.0]], [[[1.0, 2.0], [2.0, 1.0]]]
                ).log_prob([[0.0, 0.0]]),
                "not positive semi-definite",
            ),
        ],
    )
    def test_bad_calls_say_what_is_wrong(self, call, message):
        with pytest.raises(GenoptError, match=message):
            call(make(14))


class TestSampling:
    def test_draws_have_the_mixture_moments(self):
        mixture = make(15, dim=2)
        draws = mixture.sample(40_000, random_state=0)
        exact = reference(mixture).to_mvn()
        np.testing.assert_allclose(draws.mean(0), exact.mean, atol=0.05)
        np.testing.assert_allclose(np.cov(draws.T), exact.covariance, rtol=0.05, atol=0.05)

    def test_conditional_draws_follow_their_density(self):
        batch = make(16, dim=2).condition_batch([0], [[0.0], [2.5]])
        draws = batch.sample(3000, seed=1)
        for c in range(2):
            single = batch.component(c)
            deviations = np.sqrt(single.covariances[:, 0, 0])

            def cdf(v, single=single, deviations=deviations):
                return stats.norm.cdf(v[:, None], single.means[:, 0], deviations) @ single.priors

            assert stats.kstest(draws[c, :, 0], cdf).pvalue > 1e-3

    def test_the_same_seed_gives_the_same_draws_and_numpy_global_state_is_left_alone(self):
        shared = gmr.utils.check_random_state(None)
        before = shared.get_state()[1].copy()
        mixture = make(17)
        np.testing.assert_array_equal(
            mixture.sample(5, random_state=4), mixture.sample(5, random_state=4)
        )
        np.testing.assert_array_equal(make(17).sample(5), make(17).sample(5))
        assert not np.array_equal(mixture.sample(5), mixture.sample(5))
        GaussianMixture(1, [1.0], [[0.0]], [[[1.0]]]).sample(3)
        np.testing.assert_array_equal(shared.get_state()[1], before)


def clusters(n_clusters, rows=120, seed=0):
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(n_clusters) / n_clusters
    centers = 10 * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.concatenate([center + rng.normal(size=(rows, 2)) for center in centers])


class TestBestGmm:
    @pytest.mark.parametrize("n_clusters", [1, 3, 5])
    def test_finds_well_separated_clusters_whatever_the_units(self, n_clusters):
        data = clusters(n_clusters)
        for scale in ([1.0, 1.0], [1e-5, 1e4]):
            fit = best_gmm(data * scale, max_components=6)
            gmm, n_components = fit
            assert n_components == gmm.n_components == n_clusters
            assert fit.scores[n_clusters] == min(fit.scores.values())

    def test_scores_are_those_of_the_raw_data(self):
        data = clusters(2) * [1e-3, 5.0]
        for criterion in ("bic", "aic"):
            fit = best_gmm(data, max_components=3, criterion=criterion)
            assert isinstance(fit, MixtureFit)
            own = getattr(fit.gmm, criterion)(data)
            assert fit.scores[fit.n_components] == pytest.approx(own, rel=1e-9)

    def test_conditional_answers_do_not_depend_on_units(self):
        data = clusters(3)
        scale = np.array([1e-5, 1.0])
        plain, scaled = best_gmm(data, 4).gmm, best_gmm(data * scale, 4).gmm
        query = np.array([[0.3], [8.0]])
        np.testing.assert_allclose(
            scaled.predict([1], query) / 1e-5, plain.predict([1], query), rtol=1e-5
        )

    def test_same_seed_same_mixture(self):
        first, second = (best_gmm(clusters(3), 4, seed=5) for _ in range(2))
        np.testing.assert_array_equal(first.gmm.means, second.gmm.means)
        np.testing.assert_array_equal(first.gmm.sample(4), second.gmm.sample(4))

    def test_the_published_call_shape(self):
        rng = np.random.default_rng(0)
        x = np.concatenate([rng.uniform(-1, -0.5, 150), rng.uniform(0.5, 1, 150)])
        data = np.stack([x, np.abs(x) + rng.normal(0, 0.05, 300)], 1)
        gmm, _ = best_gmm(data, max_components=10)
        draws = gmm.condition([1], [[0.75]]).sample(1000)
        assert draws.shape == (1000, 1)
        assert 0.4 < (draws > 0).mean() < 0.6
        np.testing.assert_allclose(np.median(np.abs(draws)), 0.75, atol=0.03)

    def test_a_vector_is_one_column(self):
        data = np.concatenate([np.random.default_rng(0).normal(m, 0.1, 100) for m in (0, 5)])
        gmm, n_components = best_gmm(data, 3)
        assert n_components == 2
        assert gmm.means.shape == (2, 1)

    def test_constant_columns_warn_and_are_reproduced(self):
        data = np.column_stack([clusters(2), np.full(240, 7.5)])
        with pytest.warns(UserWarning, match="column 'c'"):
            fit = best_gmm(data, 3, names=["a", "b", "c"])
        assert fit.n_components == 2
        np.testing.assert_allclose(fit.gmm.predict([0], [[9.0]])[:, 1], 7.5, rtol=1e-6)

    def test_fewer_rows_than_components(self):
        data = np.random.default_rng(0).normal(size=(4, 2))
        with pytest.warns(UserWarning, match="4 distinct rows"):
            fit = best_gmm(data, 9)
        assert max(fit.scores) == 4
        assert np.isfinite(fit.gmm.log_prob(data)).all()

    @pytest.mark.parametrize(
        ("data", "options", "message"),
        [
            (np.zeros((1, 2)), {}, "at least two"),
            (np.zeros((2, 2, 2)), {}, "expected"),
            ([["a", "b"]], {}, "numbers"),
            (np.zeros((5, 2)), {"max_components": 0}, "max_components"),
            (np.zeros((5, 2)), {"n_init": 0}, "n_init"),
            (np.eye(3), {"criterion": "heldout"}, "at least 4 rows"),
            (np.eye(5), {"criterion": "heldout", "folds": 1}, "folds=1"),
            (np.eye(5), {"criterion": "heldout", "given": [5]}, "given"),
            (np.eye(5), {"criterion": "heldout", "given": range(5)}, "not all"),
            (np.eye(5), {"given": [0]}, "no effect"),
            (np.full((5, 2), np.inf), {}, "infinite"),
        ],
    )
    def test_bad_input(self, data, options, message):
        with pytest.raises(GenoptError, match=message):
            best_gmm(data, **options)

    def test_unknown_criterion_offers_the_nearest(self):
        with pytest.raises(UnknownNameError, match="did you mean 'bic'"):
            best_gmm(clusters(1), criterion="bicc")
