"""Validation of mixtures against closed forms and scikit-learn; pictures hold what they claim."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.mixture import GaussianMixture as ScikitMixture

from genopt import GaussianMixture, GenoptError, Mixture, Space, Variable
from genopt.analysis.mixtures import estimate_sample_size, validate_gmm
from genopt.analysis.plots.mixtures import (
    plot_conditional_density,
    plot_ellipses,
    plot_responsibilities,
)

# y = x + noise of variance 1/4
LINE = GaussianMixture(1, [1.0], [[0.0, 0.0]], [[[1.0, 1.0], [1.0, 1.25]]])
PAIR = GaussianMixture(
    2,
    [0.3, 0.7],
    [[-2.0, 0.0], [1.0, 1.0]],
    [[[0.5, 0.3], [0.3, 0.4]], [[0.2, -0.1], [-0.1, 0.6]]],
    random_state=0,
)


def line_rows(n):
    rows = torch.from_numpy(LINE.sample(n, random_state=0))
    return rows[:, :1], rows[:, 1:]


def test_predictions_are_scored_as_scikit_learn_does():
    x, y = line_rows(400)
    found = validate_gmm(LINE, x, y, draws=1)
    # E[y | x] = x
    torch.testing.assert_close(found.predicted, x)
    assert found.scores["r2/y1"] == pytest.approx(r2_score(y, x))
    assert found.scores["mae/y1"] == pytest.approx(mean_absolute_error(y, x))
    assert found.scores["rmse/y1"] == pytest.approx(float((y - x).square().mean().sqrt()))


def test_the_round_trip_of_a_line_is_known():
    x, y = line_rows(300)
    found = validate_gmm(LINE, x, y, draws=4000)
    # x' given y is N(0.8 y, 0.2), and E[y | x'] = x'
    exact = (0.04 * y.square() + 0.2).sqrt().flatten()
    torch.testing.assert_close(found.round_trip * y.std(correction=0), exact, rtol=0.1, atol=0)
    overall = float((0.04 * y.square() + 0.2).mean().sqrt())
    assert found.scores["round_trip/y1"] == pytest.approx(overall, rel=5e-3)


def test_a_simulator_decides_the_round_trip():
    x, y = line_rows(50)
    found = validate_gmm(LINE, x, y, simulate=lambda x: 3.0 * x, draws=7)
    torch.testing.assert_close(found.returned, 3.0 * found.designs)
    again = validate_gmm(LINE, x, y, draws=7)
    assert torch.equal(found.designs, again.designs)
    assert found.scores["r2/y1"] == again.scores["r2/y1"]


def test_named_columns_classes_and_gaps():
    x_space = Space.of(a=(0.0, 1.0))
    y_space = Space(
        (Variable("n", 0.0, 2.0), Variable("c", labels=("low", "high"), kind="categorical"))
    )
    x = torch.linspace(0, 1, 120, dtype=torch.float64)[:, None]
    y = torch.cat([2 * x, (x > 0.5).to(x)], 1)
    model = Mixture(x_space, y_space, max_components=2, min_components=2, criterion="bic")
    model.fit(x, y)
    y[::3, 0], y[1::3, 1], y[0] = math.nan, math.nan, math.nan
    found = validate_gmm(model, x, y, draws=5)
    assert found.round_trip[0].isnan()
    assert found.round_trip[1:].isfinite().all()
    known = ~y[:, 0].isnan()
    assert found.scores["mae/n"] == pytest.approx(
        mean_absolute_error(y[known, 0], found.predicted[known, 0])
    )
    assert found.scores["accuracy/c"] > 0.95
    wrong = (found.returned[..., 1] != y[:, None, 1])[~y[:, 1].isnan()]
    assert found.scores["round_trip/c"] == pytest.approx(float(wrong.double().mean()))
    assert len(found.plot("unseen rows").axes) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": 0}, "draws=0"),
        ({"x": torch.zeros(3, 2).double()}, "3 in all|2 in all"),
        ({"x": torch.zeros(1, 1).double(), "y": torch.zeros(1, 1).double()}, "at least 2"),
        ({"simulate": lambda x: x[:-1]}, "simulate returned shape"),
    ],
)
def test_bad_input_is_named(change, message):
    x, y = line_rows(3)
    with pytest.raises(GenoptError, match=message):
        validate_gmm(LINE, **({"x": x, "y": y} | change))


def test_so_many_rows_lose_what_the_estimate_says():
    """Held-out loss of fits by scikit-learn to three components far apart."""
    rng = np.random.default_rng(0)
    means, n = (
        np.array([[0.0, 0.0], [40.0, 0.0], [0.0, 40.0]]),
        estimate_sample_size(2, 3, loss=0.02),
    )
    draw = [rng.integers(0, 3, size) for size in (4000, *[n] * 120)]
    test, *tables = (means[owner] + rng.standard_normal((len(owner), 2)) for owner in draw)
    exact = norm.logpdf(test - means[draw[0]]).sum(1).mean() - math.log(3.0)
    start = {"means_init": means, "weights_init": [1 / 3] * 3, "precisions_init": [np.eye(2)] * 3}
    fits = [ScikitMixture(3, reg_covar=0.0, **start).fit(table) for table in tables]
    assert exact - np.mean([fit.score(test) for fit in fits]) == pytest.approx(0.02, rel=0.15)


def test_sample_size_grows_and_a_component_has_more_rows_than_columns():
    assert estimate_sample_size(1, 1) == 20
    assert estimate_sample_size(30, 2, loss=1e3) == 62
    for wrong in ({"dimensions": 0}, {"components": 0}, {"loss": 0.0}):
        with pytest.raises(GenoptError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
            estimate_sample_size(**({"dimensions": 2, "components": 2} | wrong))


def test_ellipses_hold_the_share_they_stand_for():
    gmm = GaussianMixture(
        2, [1.0, 0.0], [[1.0, 5.0, -1.0]] * 2, [[[2.0, 0.0, 0.9], [0.0, 1, 0], [0.9, 0.0, 1.0]]] * 2
    )
    rows = gmm.sample(20_000, random_state=1)
    figure = plot_ellipses(gmm, rows, [("a", "c"), (1, 0)], ["a", "b", "c"])
    axes = figure.axes[0]
    # the component without weight is not drawn
    assert len(axes.patches) == 2
    for patch, level in zip(axes.patches, (0.5, 0.9), strict=True):
        outline = patch.get_patch_transform().transform_path(patch.get_path())
        inside = outline.contains_points(rows[:, [0, 2]]).mean()
        assert inside == pytest.approx(level, abs=0.012)
    assert [a.get_xlabel() for a in figure.axes] == ["a", "b"]


def test_conditional_density_is_a_density_however_narrow():
    narrow = GaussianMixture(2, [0.5, 0.5], [[0.0], [1.0]], [[[1e-8]], [[1e-2]]])
    figure = plot_conditional_density(narrow, ["x"], modes=[[0.0], [1.0]])
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    line, height = lines["density"].get_data()
    assert np.trapezoid(height, line) == pytest.approx(1.0, abs=2e-3)
    assert height.max() == pytest.approx(0.5 * norm.pdf(0.0, scale=1e-4), rel=1e-3)
    assert lines["mode"].get_xdata()[0] == 0.0


def test_two_free_columns_have_a_plane(tmp_path):
    figure = plot_conditional_density(PAIR, modes=PAIR.means, bounds=[(-4, 3), (-3, 4)], title="t")
    assert len(figure.axes) == 3
    np.testing.assert_allclose(figure.axes[2].collections[-1].get_offsets(), PAIR.means)
    figure.savefig(tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 5000


def test_responsibilities_are_those_of_bayes():
    rows = PAIR.sample(200, random_state=0)
    figure = plot_responsibilities(PAIR, rows, ("u", "v"), ["u", "v"])
    shown = np.asarray(figure.axes[1].images[0].get_array())
    joint = np.stack(
        [
            w * multivariate_normal(m, c).pdf(rows)
            for w, m, c in zip(PAIR.priors, PAIR.means, PAIR.covariances, strict=True)
        ],
        1,
    )
    exact = joint / joint.sum(1, keepdims=True)
    np.testing.assert_allclose(np.sort(shown[:, 0]), np.sort(exact[:, 0]), atol=1e-9)
    owner = shown.argmax(1)
    assert (np.diff(owner) >= 0).all()
    assert sum(len(c.get_offsets()) for c in figure.axes[0].collections) == 200


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot_ellipses(PAIR, np.zeros((3, 3))), "rows has shape"),
        (lambda: plot_ellipses(PAIR, np.zeros((3, 2)), [("u", "w")], ["u", "v"]), "'w'"),
        (lambda: plot_responsibilities(PAIR, np.zeros((3, 2)), (0, 2)), "column 2"),
        (lambda: plot_conditional_density(PAIR, ["u"]), "names has 1"),
        (lambda: plot_conditional_density(PAIR, modes=[[1.0]]), "modes has shape"),
        (lambda: plot_conditional_density(PAIR, bounds=[(0, 1)]), "bounds has 1"),
    ],
)
def test_pictures_name_what_does_not_fit(draw, message):
    with pytest.raises(GenoptError, match=message):
        draw()
