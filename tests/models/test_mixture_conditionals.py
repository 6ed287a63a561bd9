"""`Mixture.condition`: any columns given any others, against closed forms, scipy and rejection."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genopt import GenoptError, Mixture, Space, Variable
from genopt.errors import UnknownNameError

NAN = math.nan
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def linear():
    """One Gaussian of a, b | p, q whose moments are numpy's."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 2))
    y = np.c_[x @ [1.0, 1.0], x @ [1.0, -1.0]] + rng.normal(size=(3000, 2)) * [0.5, 0.2]
    infinite = (-math.inf, math.inf)
    spaces = Space.of(a=infinite, b=infinite), Space.of(p=infinite, q=infinite)
    model = Mixture(*spaces, max_components=1, regularization=1e-9)
    return model.fit(x, y), np.c_[x, y]


@pytest.fixture(scope="module")
def bent():
    """Several Gaussians: s = a^2 + b + noise in a box."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, size=(500, 2))
    s = x[:, :1] ** 2 + x[:, 1:] + 0.1 * rng.normal(size=(500, 1))
    spaces = Space.of(a=(-2.0, 2.0), b=(-2.0, 2.0)), Space.of(s=(-3.0, 7.0))
    return Mixture(*spaces, max_components=5, min_components=5, criterion="bic").fit(x, s)


@pytest.fixture(scope="module")
def blend():
    """Fractions a, b, c, a count and a class; a number and a class follow from them."""
    rng = np.random.default_rng(0)
    f, count = rng.dirichlet([2, 2, 2], 500), rng.integers(0, 5, 500)
    kind = rng.integers(0, 3, 500)
    x = np.c_[f, count, kind]
    s = f @ [1, 2, 3] + 0.3 * count + 0.2 * rng.normal(size=500)
    y = np.c_[s, ((kind == 2) | (count > 3)).astype(float)]
    x_space = Space(
        (
            Variable("a", 0, 1),
            Variable("b", 0, 1),
            Variable("c", 0, 1),
            Variable("count", 0, 4, kind="integer"),
            Variable("kind", kind="categorical", labels=("u", "v", "w")),
        ),
        (("a", "b", "c"),),
    )
    y_space = Space((Variable("s", 0, 6), Variable("ok", kind="categorical", labels=("no", "yes"))))
    model = Mixture(x_space, y_space, max_components=5, min_components=5, criterion="bic")
    return model.fit(x, y), x, y


class TestOneGaussian:
    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            ({"p": 1.0}, ["a", "b", "q"]),
            ({"p": 1.0, "q": -0.5}, ["b", "a"]),
            ({"a": 0.3, "q": 0.1}, ["p"]),
            ({"b": -1.0}, ["q", "p"]),
        ],
    )
    def test_moments_and_densities_are_those_of_the_normal_equations(self, linear, given, wanted):
        model, rows = linear
        order = ["a", "b", "p", "q"]
        known, asked = [order.index(n) for n in given], [order.index(n) for n in wanted]
        mean, covariance = rows.mean(0), np.cov(rows.T, bias=True)
        gain = covariance[np.ix_(asked, known)] @ np.linalg.inv(covariance[np.ix_(known, known)])
        exact = mean[asked] + gain @ (np.array(list(given.values())) - mean[known])
        left = covariance[np.ix_(asked, asked)] - gain @ covariance[np.ix_(known, asked)]
        answer = model.condition(given, wanted)
        assert answer.names == tuple(wanted)
        assert len(answer) == 1
        np.testing.assert_allclose(answer.mean()[0], exact, atol=1e-6)
        np.testing.assert_allclose(answer.covariance()[0], left, atol=1e-6)
        np.testing.assert_allclose(answer.std()[0], np.sqrt(np.diag(left)), atol=1e-6)
        law = stats.multivariate_normal(exact, left)
        points = np.random.default_rng(0).normal(size=(1, 5, len(wanted)))
        np.testing.assert_allclose(
            answer.log_prob(points), law.logpdf(points).reshape(1, 5), atol=1e-4
        )
        one = stats.norm(exact[-1], np.sqrt(left[-1, -1]))
        np.testing.assert_allclose(
            answer.quantile([0.05, 0.5], wanted[-1])[0], one.ppf([0.05, 0.5]), atol=1e-5
        )
        np.testing.assert_allclose(answer.cdf([0.2], wanted[-1]), [[one.cdf(0.2)]], atol=1e-5)
        modes = answer.modes()
        assert modes.count.tolist() == [1]
        np.testing.assert_allclose(modes.points[0, 0], exact, atol=1e-6)
        draws = answer.sample(8000)[0].numpy()
        np.testing.assert_allclose(draws.mean(0), exact, atol=0.06)
        np.testing.assert_allclose(np.cov(draws.T).reshape(left.shape), left, atol=0.1)
        assert answer.mixture().names == tuple(wanted)
        np.testing.assert_allclose(answer.mixture().means[0], exact, atol=1e-6)

    def test_nothing_given_is_the_whole_law(self, linear):
        model, rows = linear
        answer = model.condition({})
        assert answer.names == ("a", "b", "p", "q")
        np.testing.assert_allclose(answer.mean()[0], rows.mean(0), atol=1e-9)

    def test_a_forward_question_is_predict_y(self, linear):
        model, rows = linear
        x = rows[:20, :2]
        answer = model.condition({"a": x[:, 0], "b": torch.tensor(x[:, 1])}, ["p", "q"])
        np.testing.assert_allclose(answer.mean(), model.predict_y(torch.tensor(x)), atol=1e-9)
        np.testing.assert_allclose(answer.std(), model.predict_spread(torch.tensor(x)), atol=1e-9)


class TestManyQueries:
    def test_gaps_are_free_and_queries_do_not_see_each_other(self, bent):
        given = {"s": [1.0, NAN, 2.5, None], "a": [NAN, 0.5, -1.0, NAN]}
        together = bent.condition(given)
        assert together.names == ("a", "b", "s")
        singles = [
            bent.condition({"s": 1.0}, ["a", "b", "s"]),
            bent.condition({"a": 0.5}, ["a", "b", "s"]),
            bent.condition({"s": 2.5, "a": -1.0}, ["a", "b", "s"]),
            bent.condition({}, ["a", "b", "s"]),
        ]
        point = np.array([[0.4, 0.2, 1.5]])
        for c, one in enumerate(singles):
            np.testing.assert_allclose(together.mean()[c], one.mean()[0])
            np.testing.assert_allclose(together.covariance()[c], one.covariance()[0], atol=1e-12)
            np.testing.assert_allclose(together.weights[c], one.weights[0])
            np.testing.assert_allclose(
                together.log_prob(point.repeat(4, 0))[c], one.log_prob(point)
            )
            for column in range(3):
                np.testing.assert_allclose(
                    together.quantile([0.2, 0.9], column)[c], one.quantile([0.2, 0.9], column)[0]
                )
                np.testing.assert_allclose(
                    together.cdf([0.1, 1.0], column)[c], one.cdf([0.1, 1.0], column)[0]
                )
            count = together.modes().count[c]
            assert count == one.modes().count[0]
            np.testing.assert_allclose(together.modes().points[c, :count], one.modes().points[0])

    def test_what_is_known_comes_back_as_it_is(self, bent):
        answer = bent.condition({"s": 1.5, "b": [0.5, NAN]}, ["s", "b", "a"])
        np.testing.assert_array_equal(answer.mean()[:, 0], 1.5)
        assert answer.mean()[0, 1] == 0.5
        assert not answer.covariance()[0, :2].any()
        assert answer.covariance()[1, 1, 1] > 0
        np.testing.assert_array_equal(answer.quantile([0.1, 0.9], "s"), 1.5)
        assert answer.cdf([1.4, 1.5, 1.6], "s")[0].tolist() == [0.0, 1.0, 1.0]
        draws = answer.sample(50)
        assert bool((draws[..., 0] == 1.5).all())
        assert bool((draws[0, :, 1] == 0.5).all())
        assert float(draws[1, :, 1].std()) > 0.1

    def test_draws_follow_the_law_and_stay_inside_the_bounds_of_x(self, bent):
        answer = bent.condition({"s": 2.0})
        x = answer.sample(4000, torch.Generator().manual_seed(0))[0].numpy()
        assert bool((np.abs(x) <= 2).all())
        exact = bent.gmm.condition([2], [2.0]).sample(40_000, random_state=0)
        exact = exact[(np.abs(exact) <= 2).all(1)]
        # rejected draws are drawn again, the last few are projected onto the edge
        free = (np.abs(x) < 2).all(1)
        assert free.mean() > 0.95
        for column in (0, 1):
            assert stats.ks_2samp(x[free, column], exact[:, column]).pvalue > 1e-3
        again = answer.sample(4000, torch.Generator().manual_seed(0))[0].numpy()
        np.testing.assert_array_equal(x, again)

    def test_the_density_of_designs_is_that_of_log_prob(self, bent):
        x = torch.tensor([[0.5, 1.0], [-1.0, 0.2]], dtype=torch.float64)
        y = torch.tensor([[1.0], [1.5]], dtype=torch.float64)
        answer = bent.condition({"s": [1.0, 1.5]}, ["a", "b"])
        np.testing.assert_allclose(answer.log_prob(x), bent.log_prob(x, y), atol=1e-10)

    def test_modes_are_the_peaks_on_a_grid(self, bent):
        modes = bent.condition({"s": 3.0, "b": 0.0}, ["a"]).modes()
        grid = np.linspace(-4, 4, 8001)
        logs = bent.gmm.log_prob(np.c_[grid, np.zeros(8001), np.full(8001, 3.0)])
        top = (logs[1:-1] > logs[:-2]) & (logs[1:-1] > logs[2:]) & (logs[1:-1] > logs.max() - 15)
        peaks = grid[1:-1][top]
        found = modes.points[0, : modes.count[0], 0]
        assert len(peaks) > 1
        assert np.abs(found[:, None] - peaks).min(0).max() < 2e-3
        assert np.abs(found[:, None] - peaks).min(1)[0] < 2e-3
        assert float(modes.weights.sum()) == pytest.approx(1.0)


class TestClassesAndFractions:
    def test_fractions_sum_to_one_whatever_is_known(self, blend):
        model, _, _ = blend
        answer = model.condition({"s": [2.0, 3.0, NAN], "a": [0.2, NAN, 0.6]}, ["a", "b", "c"])
        np.testing.assert_allclose(answer.mean().sum(1), 1.0, atol=1e-12)
        np.testing.assert_allclose(answer.covariance().sum((1, 2)), 0.0, atol=1e-12)
        for c, count in enumerate(answer.modes().count):
            np.testing.assert_allclose(answer.modes().points[c, :count].sum(1), 1.0, atol=1e-9)
        draws = answer.sample(300)
        np.testing.assert_allclose(draws.sum(-1), 1.0, atol=1e-9)
        assert float(draws.min()) >= 0.0
        assert bool((draws[0, :, 0] == 0.2).all())
        # c follows from a and b: its quantiles are those of one minus b where a is known
        np.testing.assert_allclose(
            answer.quantile([0.3], "c")[0], 0.8 - answer.quantile([0.7], "b")[0], atol=1e-9
        )
        # so do fractions that are known while others are not asked for
        part = model.condition({"a": 0.3, "c": 0.2}, ["b"])
        assert part.mean()[0, 0] == pytest.approx(0.5, abs=1e-9)
        assert part.std()[0, 0] == pytest.approx(0.0, abs=1e-6)

    def test_known_fractions_bound_the_draws_of_the_others(self, blend):
        model, _, _ = blend
        draws = model.condition({"a": 0.7}, ["b", "c"]).sample(200)
        assert float(draws.max()) <= 0.3 + 1e-9
        np.testing.assert_allclose(draws.sum(-1), 0.3, atol=1e-9)

    def test_class_probabilities_are_the_frequencies_in_the_table(self, blend):
        model, x, y = blend
        alone = model.condition({}, ["ok", "kind"])
        for name, codes in (("ok", y[:, 1]), ("kind", x[:, 4])):
            counts = np.bincount(codes.astype(int)) / len(codes)
            np.testing.assert_allclose(alone.probabilities(name)[0], counts, atol=1e-6)
        # all rows of class w are ok
        assert model.condition({"kind": "w"}, ["ok"]).probabilities()[0, 1] > 0.95
        assert alone.numbers == ()
        assert alone.mean().shape == (1, 0)

    def test_labels_codes_and_draws(self, blend):
        model, _, _ = blend
        by_label = model.condition({"ok": ["no", "yes"], "kind": "u"})
        by_code = model.condition({"ok": [0, 1.0], "kind": np.int64(0)})
        np.testing.assert_array_equal(by_label.mean(), by_code.mean())
        draws = by_label.sample(100)
        place = by_label.names.index("count")
        counts = set(draws[..., place].flatten().tolist())
        assert counts <= {0.0, 1.0, 2.0, 3.0, 4.0}
        y = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
        held = model.sample(y, 20, fixed={"kind": "w", "a": 0.25})
        same = model.sample(y, 20, fixed={4: 2.0, 0: 0.25})
        assert torch.equal(held, same)
        several = model.sample(y.repeat(2, 1), 5, fixed={"kind": ["u", "w"]})
        assert several[:, 0, 4].tolist() == [0.0, 2.0]

    def test_the_density_is_that_of_log_prob(self, blend):
        model, x, y = blend
        rows, known = torch.tensor(x[:6]), torch.tensor(y[:6])
        answer = model.condition({"s": y[:6, 0], "ok": y[:6, 1]}, model.x_space.names)
        np.testing.assert_allclose(answer.log_prob(rows), model.log_prob(rows, known), atol=1e-9)


class TestHostile:
    @pytest.mark.parametrize("given", [{"s": 1e155}, {"s": 1e308, "a": 0.1}, {"s": -1e200}])
    def test_far_queries_are_finite_and_flagged(self, blend, given):
        model, _, _ = blend
        answer = model.condition(given)
        assert answer.far.tolist() == [True]
        draws = answer.sample(20)
        for value in (
            answer.mean(), answer.covariance(), answer.weights, answer.quantile([0.5], "b"),
            answer.probabilities("kind"), answer.log_prob(draws), draws.numpy(),
        ):  # fmt: skip
            assert np.isfinite(value).all()
        assert not model.condition({"s": 2.0}).far.any()

    @pytest.mark.parametrize(
        ("given", "wanted", "message"),
        [
            ({"ss": 1}, None, "unknown column 'ss': did you mean 's'"),
            ({"a": "x"}, None, "'a' is a number, got 'x'"),
            ({"kind": "z"}, None, "unknown class of 'kind'"),
            ({"kind": 0.5}, None, "takes one of u, v, w"),
            ({"s": math.inf}, None, "infinite"),
            ({"s": [1.0, 2.0], "a": [0.1, 0.2, 0.3]}, None, "queries: s 2, a 3"),
            ({"s": []}, None, "'s' has no values"),
            ({"s": [[1.0, 2.0]]}, None, "one value or a list"),
            ({"s": object()}, None, "one value or a list"),
            ({"a": 0.9, "b": [0.0, 0.9]}, None, "a, b do not leave a sum of one in query 1"),
            ({"a": 0.1, "b": 0.1, "c": 0.1}, None, "their sum is 0.3"),
            (["s"], None, "given must map names"),
            ({"s": 1}, ["s", "s"], "names a column twice"),
            ({"s": 1}, ["q"], "unknown column 'q'"),
            ({"s": 1}, [], "wanted names no column"),
        ],
    )
    def test_one_line_says_what_is_wrong(self, blend, given, wanted, message):
        with pytest.raises(GenoptError, match=message):
            blend[0].condition(given, wanted)

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda c: c.quantile([0.5], "kind"), "ask for probabilities"),
            (lambda c: c.quantile([0.5], "bb"), "did you mean 'b'"),
            (lambda c: c.cdf(np.zeros((3, 2))), r"expected \(n,\) or \(1, n\)"),
            (lambda c: c.probabilities("a"), "holds numbers"),
            (lambda c: c.probabilities(), "2 wanted columns hold classes"),
            (lambda c: c.mixture(4), "query=4"),
            (lambda c: c.log_prob([[1.0]]), "for columns a, b, c"),
            (lambda c: c.sample(0), "n must be"),
        ],
    )
    def test_bad_questions(self, blend, call, message):
        with pytest.raises(GenoptError, match=message):
            call(blend[0].condition({"s": 2.0}))

    def test_nothing_left_to_ask_for(self, bent):
        with pytest.raises(GenoptError, match="nothing is left"):
            bent.condition({"a": 0.1, "b": 0.1, "s": 0.1})
        everything = bent.condition({"a": 0.1, "b": 0.1, "s": 0.1}, ["s"])
        assert everything.mean().tolist() == [[0.1]]
        assert everything.modes().points.tolist() == [[[0.1]]]
        assert everything.log_prob([[0.1]]).tolist() == [0.0]
        with pytest.raises(GenoptError, match="leaves no number open"):
            everything.mixture()

    def test_a_column_that_is_not_modelled(self):
        x = torch.linspace(0, 1, 40, dtype=torch.float64)[:, None]
        y = torch.cat([x, torch.full_like(x, NAN)], 1)
        y[0, 1] = 0.5
        model = Mixture(Space.of(a=(0, 1)), Space.of(p=(0, 1), q=(0, 1)), max_components=1)
        with pytest.warns(UserWarning, match="q"):
            model.fit(x, y)
        with pytest.raises(GenoptError, match="'q' had too few labels"):
            model.condition({"q": 1.0})
        with pytest.raises(UnknownNameError):
            model.condition({"r": 1.0})

    def test_it_is_there_after_loading(self, blend, tmp_path):
        model, _, _ = blend
        again = Mixture.load(model.save(tmp_path / "m.ckpt"))
        assert again.gmm.names == model.gmm.names == tuple(model.columns.fitted_names)
        assert again.gmm.n_parameters == model.gmm.n_parameters
        np.testing.assert_array_equal(
            again.condition({"s": 2.0}).mean(), model.condition({"s": 2.0}).mean()
        )
