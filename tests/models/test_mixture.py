"""The mixture engine against linear Gaussian answers, known roots and the rules of a Space."""

import logging
import math

import numpy as np
import pytest
import torch
from scipy import integrate

from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.mixture import Mixture
from genopt.models.options import FitOptions
from genopt.protocols import ConditionalModel, ForwardModel
from genopt.space import Space, Variable

NAN = math.nan


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def wide(names):
    return Space.of(**dict.fromkeys(names, (-9.0, 9.0)))


def linear_table(n=4000, seed=0):
    """Normal x, y1 = x1 + x2 + .5 e, y2 = x1 - x2 + .2 e: every conditional is known."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64) * rows(0.5, 0.2)
    matrix = rows([1.0, 1.0], [1.0, -1.0])
    return x, x @ matrix.T + noise


def exact_posterior(y, columns):
    """Mean and covariance of x given some columns of y, by the normal equations."""
    matrix = np.array([[1.0, 1.0], [1.0, -1.0]])[columns]
    precision = np.diag(1.0 / np.array([0.25, 0.04])[columns])
    covariance = np.linalg.inv(np.eye(2) + matrix.T @ precision @ matrix)
    return covariance @ matrix.T @ precision @ np.asarray(y), covariance


@pytest.fixture(scope="module")
def linear():
    x, y = linear_table()
    model = Mixture(
        Space.of(a=(-math.inf, math.inf), b=(-math.inf, math.inf)),
        Space.of(p=(-10.0, 10.0), q=(-10.0, 10.0)),
        max_components=2,
    )
    return model.fit(x, y)


@pytest.fixture(scope="module")
def averages():
    """Noisy points of a circle: one mixture of eight components, and the average of three."""

    def circle(n, seed):
        rng = np.random.default_rng(seed)
        angle = rng.uniform(0.0, 2.0 * np.pi, n)
        points = np.stack([np.cos(angle), np.sin(angle)]) + rng.normal(0.0, 0.03, (2, n))
        return [torch.from_numpy(column[:, None]) for column in points]

    def fitted(members):
        spaces = Space.of(x=(-1.5, 1.5)), Space.of(y=(-1.5, 1.5))
        size = {"max_components": 8, "min_components": 8, "criterion": "bic"}
        return Mixture(*spaces, members=members, **size).fit(*circle(400, 0))

    return fitted(1), fitted(3), circle(2000, 1)


@pytest.fixture(scope="module")
def blend():
    """Three fractions on a simplex, an integer and a class; y from all of them."""
    rng = np.random.default_rng(0)
    fractions = rng.dirichlet(np.ones(3), 400)
    count, kind = rng.integers(1, 5, 400), rng.integers(0, 3, 400)
    y = 2.0 * fractions[:, 0] + 0.5 * count + 3.0 * (kind == 2) + 0.05 * rng.normal(size=400)
    grade = (y > np.median(y)).astype(float)
    x_space = Space(
        (
            *(Variable(name, 0.0, 1.0) for name in "abc"),
            Variable("count", 1, 4, kind="integer"),
            Variable("kind", kind="categorical", labels=("u", "v", "w")),
        ),
        (("a", "b", "c"),),
    )
    y_space = Space(
        (Variable("y", 0.0, 8.0), Variable("grade", kind="categorical", labels=("low", "high")))
    )
    x = torch.from_numpy(np.column_stack([fractions, count, kind]))
    model = Mixture(x_space, y_space, max_components=8)
    return model.fit(x, torch.from_numpy(np.column_stack([y, grade]))), x


class TestLinearGaussian:
    def test_it_keeps_both_protocols(self, linear):
        assert isinstance(linear, ConditionalModel)
        assert isinstance(linear, ForwardModel)
        assert linear.selection.n_components == 1

    @pytest.mark.parametrize(
        ("condition", "columns"), [([1.0, 0.5], [0, 1]), ([1.5, NAN], [0]), ([NAN, -1.0], [1])]
    )
    def test_any_subset_of_y_gives_its_posterior(self, linear, condition, columns):
        known = [condition[c] for c in columns]
        mean, covariance = exact_posterior(known, columns)
        draws = linear.sample(rows(condition), 6000)[0].numpy()
        np.testing.assert_allclose(draws.mean(0), mean, atol=0.06)
        np.testing.assert_allclose(np.cov(draws.T), covariance, atol=0.06)

    def test_log_prob_is_the_exact_density(self, linear):
        mean, covariance = exact_posterior([1.0, 0.5], [0, 1])
        points = np.random.default_rng(0).multivariate_normal(mean, covariance, 20)
        away = points - mean
        quadratic = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away)
        exact = -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])
        found = linear.log_prob(torch.from_numpy(points), rows([1.0, 0.5]).expand(20, 2))
        np.testing.assert_allclose(found, exact, atol=0.15)

    def test_mixed_patterns_equal_one_by_one(self, linear):
        y = rows([1.0, 0.5], [NAN, -1.0], [NAN, NAN], [0.3, NAN], [2.0, 0.0])
        x = rows([0.1, 0.2]).expand(5, 2)
        for method in (lambda c: linear.log_prob(x[: len(c)], c), linear.ood_score):
            alone = torch.cat([method(condition[None]) for condition in y])
            torch.testing.assert_close(method(y), alone)

    def test_regression_and_its_spread(self, linear):
        x = rows([0.5, -1.0], [2.0, 1.0])
        exact = torch.stack([x.sum(1), x[:, 0] - x[:, 1]], 1)
        torch.testing.assert_close(linear.predict_y(x), exact, atol=0.06, rtol=0)
        expected = rows([0.5, 0.2]).expand(2, 2)
        torch.testing.assert_close(linear.predict_spread(x), expected, atol=0.03, rtol=0)
        assert linear.predict_y(x.float().reshape(1, 2, 2)).shape == (1, 2, 2)
        assert linear.predict_y(x.float()).dtype == torch.float32

    def test_a_held_x_column_is_conditioned_on(self, linear):
        # x2 = y1 - x1 with noise .5 against a standard normal prior
        draws = linear.sample(rows([1.0, NAN], [1.0, NAN]), 4000, fixed={0: rows(0.0, 2.0)})
        torch.testing.assert_close(draws[..., 0], rows(0.0, 2.0)[:, None].expand(2, 4000))
        torch.testing.assert_close(draws[..., 1].mean(1), rows(0.8, -0.8), atol=0.05, rtol=0)

    def test_the_generator_decides_the_draws(self, linear):
        y = rows([1.0, 0.5])
        seeds = [torch.Generator().manual_seed(s) for s in (3, 3, 4)]
        first, second, other = (linear.sample(y, 5, generator=g) for g in seeds)
        assert torch.equal(first, second)
        assert not torch.equal(first, other)

    def test_units_change_nothing_but_the_jacobian(self, linear):
        x, y = linear_table()
        scale_x, scale_y = rows(1e-5, 1e3), rows(1e4, 1e-4)
        scaled = Mixture(linear.x_space, linear.y_space, max_components=1)
        scaled.fit(x * scale_x, y * scale_y)
        plain = Mixture(linear.x_space, linear.y_space, max_components=1).fit(x, y)
        torch.testing.assert_close(
            scaled.predict_y(x[:9] * scale_x) / scale_y,
            plain.predict_y(x[:9]),
            rtol=1e-7,
            atol=1e-7,
        )
        torch.testing.assert_close(
            scaled.log_prob(x[:9] * scale_x, y[:9] * scale_y) + scale_x.log().sum(),
            plain.log_prob(x[:9], y[:9]),
            rtol=1e-7,
            atol=1e-7,
        )


class TestFarAway:
    @pytest.mark.parametrize("far", [50.0, 1e20, 1e155])
    def test_everything_is_finite(self, linear, far):
        y = rows([far, -far], [far, NAN])
        assert torch.isfinite(linear.sample(y, 10)).all()
        assert torch.isfinite(linear.ood_score(y)).all()
        assert torch.isfinite(linear.log_prob(rows([0.0, 0.0], [far, far]), y)).all()
        for method in (linear.predict_y, linear.predict_spread):
            assert torch.isfinite(method(rows([far, -far]))).all()

    def test_ood_score_grows_and_passes_one_outside_all_that_was_seen(self, linear):
        _, y = linear_table()
        scores = linear.ood_score(y)
        assert scores.max() <= 1.0 + 1e-9
        assert scores.median() < 0.2
        outside = linear.ood_score(rows([0, 0], [3, 0], [8, 0], [30, 0], [1e6, 0]))
        assert (outside.diff() > 0).all()
        assert outside[0] < 0.1
        assert (outside[2:] > 1).all()
        assert linear.ood_score(rows([NAN, NAN])) == 0.0

    def test_a_gap_between_clusters_is_outside(self):
        generator = torch.Generator().manual_seed(0)
        y = torch.randn(400, 1, generator=generator, dtype=torch.float64) * 0.1
        y[200:] += 5.0
        model = Mixture(Space.of(x=(-20.0, 20.0)), Space.of(y=(-1.0, 6.0)), max_components=3)
        model.fit(2 * y + torch.randn(400, 1, generator=generator, dtype=torch.float64), y)
        scores = model.ood_score(rows([0.0], [2.5], [5.0]))
        assert scores[1] > 1.0 > scores[[0, 2]].max()


class TestCalibrationOfTheScore:
    """Fresh rows of the law that the training rows came from."""

    @staticmethod
    def law(n, seed):
        """A designless mixture of two Gaussians in y; x knows nothing of it."""
        rng = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(n, d, generator=rng, dtype=torch.float64) for d in (1, 2))
        shifted = 0.5 * y + rows(3.0, 1.0)
        second = torch.rand(n, 1, generator=rng, dtype=torch.float64) < 0.3
        return x, torch.where(second, shifted, y @ rows([1.0, 0.8], [0.0, 0.6]))

    @pytest.mark.parametrize("columns", [[0, 1], [0]])
    def test_the_share_above_a_score_is_the_one_that_is_claimed(self, columns):
        n, fits, fresh = 200, 8, self.law(20_000, 999)[1]
        free = [k for k in (0, 1) if k not in columns]
        fresh[:, free] = NAN
        scores = []
        for seed in range(fits):
            model = Mixture(
                wide("a"), wide("pq"), max_components=2, min_components=2, criterion="bic"
            )
            scores.append(model.fit(*self.law(n, seed)).ood_score(fresh))
        above = torch.stack(scores)
        # one in N rows is as unusual as the most unusual of N: that share of one table scatters
        # like an exponential variable, that of eight tables by a third
        share = float((above > 1.0).double().mean())
        assert 0.3 / n < share < 2.5 / n
        # at half the score the tail is N^-1/2
        half = float((above > 0.5).double().mean())
        assert half == pytest.approx(n**-0.5, rel=0.25)


class TestKnownAnswers:
    def test_both_branches_of_the_absolute_value(self):
        rng = np.random.default_rng(1)
        x = np.concatenate([rng.uniform(-1, -0.5, 150), rng.uniform(0.5, 1, 150)])
        y = np.abs(x) + rng.normal(0, 0.05, 300)
        model = Mixture(Space.of(x=(-1.0, 1.0)), Space.of(y=(0.0, 1.2)), max_components=6)
        model.fit(torch.from_numpy(x[:, None]), torch.from_numpy(y[:, None]))
        draws = model.sample(rows([0.75]), 4000)[0, :, 0]
        assert (draws > 0).double().mean() == pytest.approx(0.5, abs=0.08)
        assert (draws.abs() < 0.4).double().mean() < 0.01
        for side in (draws[draws > 0], -draws[draws < 0]):
            assert side.median() == pytest.approx(0.75, abs=0.03)

    def test_the_three_roots_of_peng_robinson(self):
        a, b = 0.1837705279, 0.0225775063
        z = torch.linspace(0.01, 0.99, 600, dtype=torch.float64)[:, None]
        residual = z**3 - (1 - b) * z**2 + (a - 3 * b**2 - 2 * b) * z - (a * b - b**2 - b**3)
        bounds = Space.of(r=(float(residual.min()), float(residual.max())))
        model = Mixture(Space.of(z=(0.01, 0.99)), bounds, min_components=24, max_components=24).fit(
            z, residual
        )
        draws = model.sample(rows([0.0]), 3000)[0, :, 0]
        roots = torch.tensor([0.0347832004, 0.1280355998, 0.8146036935], dtype=torch.float64)
        nearest = (draws[:, None] - roots).abs()
        assert nearest.min(1).values.median() < 0.01
        shares = torch.bincount(nearest.argmin(1), minlength=3) / 3000
        # 1 / |dr/dz| at the roots for a uniform z
        assert (shares - torch.tensor([0.4402, 0.5, 0.0598])).abs().sum() / 2 < 0.08


class TestMembers:
    def test_an_average_is_nearer_to_the_truth(self, averages):
        one, three, (x, y) = averages
        assert three.gmm.n_components == 3 * one.gmm.n_components
        assert three.log_prob(x, y).mean() > one.log_prob(x, y).mean() + 0.01

    def test_a_saved_average_goes_on_as_one(self, averages, tmp_path):
        _, three, (x, y) = averages
        again = Mixture.load(three.save(tmp_path / "average.pt"))
        assert again.selection.n_components == three.selection.n_components == 8
        torch.testing.assert_close(again.log_prob(x, y), three.log_prob(x, y))
        more = again.fit(x, y, warm_start=True)
        assert (more.selection.n_components, more.gmm.n_components) == (8, 24)
        np.testing.assert_allclose(more.gmm.priors.reshape(3, 8).sum(1), 1.0 / 3.0)

    def test_none_is_one_clear_error(self):
        with pytest.raises(GenoptError, match="members=0 must be at least 1"):
            Mixture(wide("a"), wide("b"), members=0)


class TestSpaces:
    @pytest.mark.parametrize(
        "condition", [[3.0, NAN], [NAN, 1.0], [NAN, NAN], [6.5, 1.0], [500.0, 0.0]]
    )
    def test_draws_are_valid_points(self, blend, condition):
        model, _ = blend
        draws = model.sample(rows(condition, condition), 200)
        assert draws.shape == (2, 200, 5)
        assert model.x_space.contains(draws, tolerance=1e-9).all()

    def test_classes_and_integers_follow_the_condition(self, blend):
        model, _ = blend
        draws = model.sample(rows([7.0, 1.0]), 300)[0]
        assert (draws[:, 4] == 2).double().mean() > 0.95
        assert draws[:, 3].mean() > 3.0
        graded = model.sample(rows([NAN, 0.0], [NAN, 1.0]), 500)
        kinds = (graded[..., 4] == 2).double().mean(1)
        assert kinds[1] > kinds[0] + 0.3

    def test_held_columns_stay_and_the_simplex_closes(self, blend):
        model, _ = blend
        held = {2: 0.25, 3: 2.0, 4: rows(0.0, 2.0)}
        draws = model.sample(rows([3.0, NAN], [5.0, NAN]), 100, fixed=held)
        assert (draws[..., 2:4] == rows(0.25, 2.0)).all()
        assert (draws[..., 4] == rows(0.0, 2.0)[:, None]).all()
        assert model.x_space.contains(draws, tolerance=1e-9).all()

    def test_predictions_with_classes(self, blend):
        model, x = blend
        predicted = model.predict_y(x)
        exact = 2 * x[:, 0] + 0.5 * x[:, 3] + 3.0 * (x[:, 4] == 2)
        assert (predicted[:, 0] - exact).abs().mean() < 0.25
        assert set(predicted[:, 1].tolist()) <= {0.0, 1.0}
        assert (predicted[:, 1] == (exact > exact.median())).double().mean() > 0.8
        spread = model.predict_spread(x)
        assert ((spread[:, 1] >= 0) & (spread[:, 1] <= 0.6)).all()

    def test_the_joint_log_density_leaves_out_the_classes_of_y(self, blend):
        model, x = blend
        y = rows([3.0, 1.0], [NAN, 1.0], [4.0, NAN])
        joint = model.density.log_joint(x[:3], y)
        numbers = model.density.log_joint(x[:3], torch.cat([y[:, :1], y[:, :1] * NAN], 1))
        alone = numbers - model.log_prob(x[:3], torch.cat([y[:, :1], y[:, :1] * NAN], 1))
        torch.testing.assert_close(joint, model.log_prob(x[:3], y) + alone)
        assert alone[1] == 0.0
        assert (alone[[0, 2]] < 0.0).all()

    def test_class_probabilities_sum_to_one_and_the_density_integrates(self):
        rng = np.random.default_rng(2)
        kind = rng.integers(0, 3, 300)
        x = np.column_stack([rng.normal(kind, 0.4), kind])
        space = Space(
            (Variable("a", -9, 9), Variable("k", kind="categorical", labels=("u", "v", "w")))
        )
        model = Mixture(space, Space.of(y=(-9.0, 9.0)), max_components=4)
        y = torch.from_numpy(x[:, :1] + rng.normal(0, 0.5, (300, 1)))
        model.fit(torch.from_numpy(x), y)

        grid = torch.linspace(-9, 9, 1001, dtype=torch.float64)
        y = rows([1.3]).expand(1001, 1)
        mass = []
        for code in range(3):
            points = torch.stack([grid, torch.full_like(grid, code)], 1)
            density = model.log_prob(points, y).exp()
            mass.append(float(integrate.simpson(density.numpy(), x=grid.numpy())))
        assert sum(mass) == pytest.approx(1.0, abs=1e-6)
        assert mass[1] == max(mass)

    def test_draws_outside_are_redrawn_before_they_are_projected(self, caplog):
        x, y = linear_table(600)
        box = Space.of(a=(-0.5, 3.0), b=(-3.0, 3.0))
        keep = box.contains(x)
        model = Mixture(box, wide("pq"), max_components=2)
        model.fit(x[keep], y[keep])
        draws = model.sample(rows([0.0, 0.0]), 2000)[0]
        assert box.contains(draws).all()
        assert (draws[:, 0] == -0.5).double().mean() < 0.01
        with caplog.at_level(logging.INFO, logger="genopt.models.mixture"):
            far = model.sample(rows([-90.0, -90.0]), 50)
        assert "100 %" in caplog.text
        assert (far[..., 0] == -0.5).all()

    def test_gradients_agree_with_finite_differences(self, blend):
        x, y = linear_table(500)
        folded = Mixture(
            Space.of(a=(-4.0, 4.0), b=(-4.0, 4.0)), Space.of(p=(0.0, 9.0)), max_components=3
        )
        folded.fit(x, y[:, :1] ** 2)
        points = x[:3].clone().requires_grad_()
        assert torch.autograd.gradcheck(folded.predict_y, (points,))
        assert torch.autograd.gradcheck(folded.predict_spread, (points,))


class TestTables:
    def test_save_and_load_give_the_same_answers(self, blend, tmp_path):
        model, x = blend
        again = Mixture.load(model.save(tmp_path / "deep" / "mixture.pt"))
        y = rows([3.0, NAN], [NAN, 1.0])
        assert (again.x_space, again.y_space) == (model.x_space, model.y_space)
        assert again.selection.scores == model.selection.scores
        torch.testing.assert_close(again.sample(y, 7), model.sample(y, 7), rtol=0, atol=0)
        torch.testing.assert_close(again.predict_y(x), model.predict_y(x), rtol=0, atol=0)
        torch.testing.assert_close(again.ood_score(y), model.ood_score(y), rtol=0, atol=0)

    def test_loading_something_else_is_one_clear_error(self, tmp_path):
        (tmp_path / "text.pt").write_text("no mixture")
        torch.save({"format": "other"}, tmp_path / "other.pt")
        for name, message in (
            ("text", "not a saved"),
            ("other", "of this version"),
            ("no", "exist"),
        ):
            with pytest.raises(GenoptError, match=message):
                Mixture.load(tmp_path / f"{name}.pt")

    def test_a_table_is_fitted_on_its_training_rows(self):
        x, y = linear_table(300)
        y[:, 1] = 7.0 + 0.01 * y[:, 1]
        spaces = wide("ab"), Space.of(p=(-9.0, 9.0), q=(0.0, 9.0))
        split = tuple("train" if i < 200 else "test" for i in range(300))
        y[200:] += 100.0
        table = Table(x, y, *spaces, split=split)
        model = Mixture(*spaces, max_components=1)
        model.fit_table(table, FitOptions(seed=3))
        torch.testing.assert_close(model.predict_y(x[:200]).mean(0), y[:200].mean(0))
        with pytest.raises(GenoptError, match="x columns are a, b; the mixture was made for c"):
            Mixture(Space.of(c=(0.0, 1.0)), spaces[1]).fit_table(table, FitOptions())

    def test_a_column_with_too_few_labels_is_left_out_with_a_warning(self):
        x, y = linear_table(300)
        y[5:, 1] = NAN
        model = Mixture(wide("ab"), wide("pq"), max_components=1)
        with pytest.warns(UserWarning, match=r"q \(5 labels\)"):
            model.fit(x, y)
        assert torch.isnan(model.predict_y(x[:3])).all(0).tolist() == [False, True]
        assert model.sample(rows([1.0, NAN]), 4).shape == (1, 4, 2)
        with pytest.raises(GenoptError, match="'q' had too few labels"):
            model.sample(rows([1.0, 1.0]), 4)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x, y: (x, y.fill_(NAN)), "'p' has no label: all 50"),
            (lambda x, y: (x[:, :1], y), "expected"),
            (lambda x, y: (x[:9], y), "same N"),
            (lambda x, y: (x[:1], y[:1]), "at least two"),
            (lambda x, y: (x.fill_(NAN), y), "'a' has no value: all 50"),
            (lambda x, y: (x, y / 0), "infinite"),
            (lambda x, _: (x, "text"), "tensor of numbers"),
        ],
    )
    def test_bad_tables_are_one_clear_error(self, change, message):
        x, y = linear_table(50)
        model = Mixture(wide("ab"), wide("pq"))
        with pytest.raises(GenoptError, match=message):
            model.fit(*change(x, y))

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda m: m.sample(rows([1.0]), 3), "expected"),
            (lambda m: m.sample(rows([1.0, 0.0]), 0), "n must be"),
            (lambda m: m.sample(rows([1.0, 5.0]), 3), "class code"),
            (lambda m: m.sample(rows([math.inf, 0.0]), 3), "infinite"),
            (lambda m: m.sample(rows([1.0, 0.0]), 3, fixed={9: 0.0}), "fixed holds 9"),
            (lambda m: m.sample(rows([1.0, 0.0]), 3, fixed={3: 2.5}), "'count' is not valid"),
            (lambda m: m.sample(rows([1.0, 0.0]), 3, fixed={0: 0.7, 1: 0.7}), "sum of one"),
            (lambda m: m.sample(rows([1.0, 0.0]), 3, fixed={0: rows(0.1, 0.2)}), "expected 1"),
            (lambda m: m.log_prob(rows([0.2, 0.3, 0.5, 1, 0]), rows([1.0, 0.0], [1, 0])), "same N"),
            (lambda m: m.predict_y(rows([0.2, 0.3])), "expected"),
        ],
    )
    def test_bad_calls_are_one_clear_error(self, blend, call, message):
        with pytest.raises(GenoptError, match=message):
            call(blend[0])

    def test_an_unfitted_mixture_says_so(self):
        with pytest.raises(GenoptError, match="call fit"):
            Mixture(wide("a"), wide("b")).predict_y(rows([0.5]))
