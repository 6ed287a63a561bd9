"""Any-conditional flows: held columns of x, guidance, peaks and densities against exact answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.flow.density import draw_probes
from genopt.models.flow.given import GivenColumns
from genopt.models.flow.transforms import DesignTransform
from genopt.routines.sample import generate
from genopt.space import Space, Variable

torch.set_num_threads(1)
F64 = torch.float64
NAN = math.nan
SMALL = {"network": {"kind": "adaln", "width": 32, "depth": 2, "embedding": 32}}
X_SPACE = Space((Variable("a"), Variable("b"), Variable("c")))
Y_SPACE = Space((Variable("u"),))

# (a, b, c, u) jointly normal, so that every conditional of any columns is a known normal
ROOT = np.array([[2.0, 0, 0], [0.8, 0.6, 0], [-5.0, 5.0, 7.0]])
COVARIANCE = np.zeros((4, 4))
COVARIANCE[:3, :3] = ROOT @ ROOT.T
COVARIANCE[3, :3] = COVARIANCE[:3, 3] = COVARIANCE[:3, :3] @ [0.5, -1.0, 0.05]
COVARIANCE[3, 3] = np.array([0.5, -1.0, 0.05]) @ COVARIANCE[:3, 3] + 0.25
MEAN = np.array([3.0, 0.0, -40.0, 1.0])


def exact(known):
    """The normal of the columns of x that are not among the known ones, which are by index."""
    index, values = list(known), np.array(list(known.values()))
    free = [i for i in range(3) if i not in known]
    gain = COVARIANCE[np.ix_(free, index)] @ np.linalg.inv(COVARIANCE[np.ix_(index, index)])
    mean = MEAN[free] + gain @ (values - MEAN[index])
    return mean, COVARIANCE[np.ix_(free, free)] - gain @ COVARIANCE[np.ix_(index, free)]


@pytest.fixture(scope="module")
def flow():
    joint = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, 10_000)
    x, y = torch.from_numpy(joint[:, :3].copy()), torch.from_numpy(joint[:, 3:].copy())
    model = ConditionalFlow(
        X_SPACE, Y_SPACE, **SMALL, given_x=0.5, learning_rate=3e-3, ema=0.99, coupling="independent"
    )
    return model.fit(x, y, epochs=25, batch_size=256)


def test_all_columns_are_drawn_where_none_is_held(flow):
    mean, covariance = exact({3: 2.0})
    x = flow.sample(torch.tensor([[2.0]]), 4000)[0].numpy()
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T)
    np.testing.assert_allclose(whitened.mean(1), 0.0, atol=0.2)
    np.testing.assert_allclose(np.cov(whitened), np.eye(3), atol=0.3)


@pytest.mark.parametrize("held", [{"a": 4.0}, {"b": -0.5}, {"a": 1.0, "c": -45.0}])
def test_held_columns_condition_the_others_exactly(flow, held):
    columns = {X_SPACE.index(name): value for name, value in held.items()}
    mean, covariance = exact(columns | {3: 2.0})
    free = [i for i in range(3) if i not in columns]
    x = flow.sample(torch.tensor([[2.0]]), 4000, fixed=held)[0].numpy()
    for i, value in columns.items():
        assert set(x[:, i]) == {value}
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (x[:, free] - mean).T)
    np.testing.assert_allclose(whitened.mean(1), 0.0, atol=0.25)
    np.testing.assert_allclose(np.cov(whitened), np.eye(len(free)), atol=0.35)
    normal = stats.multivariate_normal(mean, covariance)
    points = np.zeros((300, 3))
    points[:, list(columns)] = list(columns.values())
    points[:, free] = normal.rvs(300, random_state=1).reshape(300, -1)
    found = flow.log_prob(torch.from_numpy(points), torch.tensor([[2.0]]), given=list(held))
    error = found.numpy() - normal.logpdf(points[:, free])
    assert abs(error.mean()) < 0.1
    assert np.abs(error).mean() < 0.25


def test_each_condition_may_hold_its_own_value(flow):
    y = torch.tensor([[2.0], [0.0], [NAN]])
    values = torch.tensor([1.0, 3.0, 5.0])
    noise = torch.randn(3, 6, 3, generator=torch.Generator().manual_seed(0))
    together = flow.transport(noise, y, fixed={"a": values})
    assert together[:, :, 0].tolist() == [[1.0] * 6, [3.0] * 6, [5.0] * 6]
    for i in range(3):
        alone = flow.transport(noise[i : i + 1], y[i : i + 1], fixed={0: float(values[i])})
        torch.testing.assert_close(alone[0], together[i], atol=1e-4, rtol=1e-5)
    noisy = flow.sample(y[:1], 1500, sampler="sde", fixed={"a": 1.0})[0].numpy()
    mean, covariance = exact({0: 1.0, 3: 2.0})
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (noisy[:, 1:] - mean).T)
    assert set(noisy[:, 0]) == {1.0}
    np.testing.assert_allclose(np.cov(whitened), np.eye(2), atol=0.35)
    way = flow.transport(noise, y, fixed={"a": values}, n_steps=4, return_trajectory=True)
    assert way.shape == (3, 6, 5, 3)
    assert bool((way[..., 0] == values.to(F64)[:, None, None]).all())


def test_a_goal_holds_columns_through_the_routine(flow):
    goal = Goal({"u": [0.0, 2.0], "b": 0.3}, X_SPACE, Y_SPACE)
    found = generate(flow, goal, samples=400, trajectory=True)
    assert bool((found.x[..., 1] == 0.3).all())
    for i, u in enumerate((0.0, 2.0)):
        mean, covariance = exact({1: 0.3, 3: u})
        x = found.x[i][:, [0, 2]].numpy()
        whitened = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T)
        np.testing.assert_allclose(whitened.mean(1), 0.0, atol=0.3)
    # a alone and b alone are usual; together they are not
    y = torch.tensor([[2.0]])
    alone = [flow.ood_score(y, held) for held in (None, {"a": 7.0}, {"b": -1.5})]
    together = flow.ood_score(y, {"a": 7.0, "b": -1.5})
    assert float(max(alone)) < 1.0 < float(together)


def test_guidance_adds_the_velocities(flow):
    """Between normals both velocities are known, so the guided one is too."""
    y, weight = torch.tensor([[2.0]], dtype=F64), 2.0
    unit, _ = flow.transform.encode(torch.stack([torch.zeros(3), torch.ones(3)]))
    scale = torch.diag(unit[1] - unit[0])
    drive = flow._drive(y, guidance=weight)
    field = drive.field(flow.average)
    generator = torch.Generator().manual_seed(0)
    eye = torch.eye(3, dtype=F64)
    for t in (0.3, 0.7):
        noise = torch.randn(300, 3, dtype=F64, generator=generator)
        velocities, x = [], noise
        for known in ({3: 2.0}, {}):
            mean, covariance = exact(known) if known else (MEAN[:3], COVARIANCE[:3, :3])
            m = flow.transform.encode(torch.from_numpy(mean)[None])[0][0]
            s = scale @ torch.from_numpy(covariance) @ scale
            c = (1 - t) ** 2 * eye + t**2 * s
            x = x if velocities else t * m + noise @ torch.linalg.cholesky(c).T
            slope = (t * s - (1 - t) * eye) @ torch.linalg.inv(c)
            velocities.append(m + (x - t * m) @ slope.T)
        wanted = velocities[1] + weight * (velocities[0] - velocities[1])
        with torch.no_grad():
            found = field(t, x[None].float())[0].double()
        # about the error of the two velocities apart, which scatter by 1 to 1.5
        assert float((found - wanted).square().mean().sqrt()) < 0.25
    free = torch.tensor([[NAN]])
    plain = flow.sample(free, 20)
    torch.testing.assert_close(flow.sample(free, 20, guidance=3.0), plain, rtol=1e-3, atol=1e-3)


def test_most_probable_designs_are_the_means_of_normals(flow):
    y = torch.tensor([[2.0], [0.0]])
    peaks = flow.map(y, starts=3, steps=18)
    assert peaks.x.shape == (2, 3, 3)
    assert bool((peaks.log_density.diff(dim=1) <= 0).all())
    for i, u in enumerate((2.0, 0.0)):
        mean, covariance = exact({3: u})
        away = peaks.best[i].numpy() - mean
        # the peak of a briefly trained flow lies within half a deviation
        assert away @ np.linalg.solve(covariance, away) < 0.25
    exactly = flow.log_prob(peaks.best, y)
    torch.testing.assert_close(exactly, peaks.log_density[:, 0], atol=1e-3, rtol=0)
    held = flow.map(y[:1], starts=2, steps=20, fixed={"a": 4.0})
    mean, covariance = exact({0: 4.0, 3: 2.0})
    away = held.best[0, 1:].numpy() - mean
    assert float(held.best[0, 0]) == 4.0
    assert away @ np.linalg.solve(covariance, away) < 0.15
    draws = flow.map(y[:1], starts=3, steps=0)
    assert float(draws.log_density.max()) < float(peaks.log_density[0, 0]) + 1e-6


def test_peaks_of_a_bounded_design_count_the_raw_units():
    """X = u^2 of a uniform u has the density 1 / (2 sqrt x): the peak lies on the lower bound."""
    u = torch.linspace(0.0, 1.0, 500, dtype=F64)[:, None]
    flow = ConditionalFlow(Space.of(x=(0.0, 1.0)), Space.of(y=(0.0, 1.0)), **SMALL)
    flow.fit(u**2, torch.zeros_like(u), epochs=15)
    peaks = flow.map(torch.tensor([[0.0]]), starts=3, steps=12)
    assert float(peaks.best) < 0.01
    assert bool(flow.x_space.contains(peaks.x).all())


def test_hutchinson_agrees_with_the_exact_divergence(flow):
    x = torch.from_numpy(np.random.default_rng(3).multivariate_normal(MEAN, COVARIANCE, 60))[:, :3]
    y = torch.tensor([[2.0]])
    one = flow.log_prob(x, y)
    two = flow.log_prob(x, y, divergence="hutchinson")
    assert not torch.equal(one, two)
    assert abs(float((one - two).mean())) < 0.2
    assert torch.equal(two, flow.log_prob(x, y, divergence="hutchinson"))
    assert draw_probes(torch.zeros(2, 50), "auto", 0) is None
    signs = draw_probes(torch.zeros(2, 51), "auto", 0)
    assert signs is not None
    assert set(signs.flatten().tolist()) == {-1.0, 1.0}
    with pytest.raises(UnknownNameError, match="hutchinson"):
        flow.log_prob(x, y, divergence="hutchinsen")


# -- what is held, by kind of column ---------------------------------------------------------------
BLEND = Space(
    (
        Variable("p", 0.0, 1.0),
        Variable("n", 1, 3, kind="integer"),
        Variable("q", 0.0, 0.6),
        Variable("kind", kind="categorical", labels=("u", "v")),
        Variable("r", 0.0, 1.0),
    ),
    simplexes=(("p", "q", "r"),),
)


@pytest.fixture(scope="module")
def blend():
    generator = torch.Generator().manual_seed(0)
    share = torch.rand(400, 3, generator=generator, dtype=F64) * torch.tensor([1.0, 0.5, 1.0])
    share /= share.sum(1, keepdim=True)
    share[:, 1].clamp_(max=0.6)
    share[:, 2] = 1.0 - share[:, 0] - share[:, 1]
    kind = torch.randint(0, 2, (400,), generator=generator)
    n = 1 + kind + torch.randint(0, 2, (400,), generator=generator)
    x = torch.stack([share[:, 0], n, share[:, 1], kind, share[:, 2]], 1)
    y = x[:, :1] + n[:, None]
    flow = ConditionalFlow(BLEND, Y_SPACE, **SMALL, given_x=0.4, learning_rate=3e-3, ema=0.98)
    return flow.fit(x, y, epochs=200, batch_size=100)


def test_classes_integers_and_whole_simplexes_can_be_held(blend):
    y = torch.tensor([[NAN], [2.5]])
    x = blend.sample(y, 500, fixed={"kind": "v", "p": 0.3, "r": 0.5})
    assert bool(BLEND.contains(x).all())
    torch.testing.assert_close(
        x[..., [0, 2, 4]], torch.tensor([0.3, 0.2, 0.5]).to(x).expand(2, 500, 3)
    )
    assert bool((x[..., 3] == 1.0).all())
    # with the class v an integer is 2 or 3, never 1
    assert float((x[0, :, 1] == 1.0).double().mean()) < 0.05
    assert float((x[0, :, 1] == 2.0).double().mean()) == pytest.approx(0.5, abs=0.16)
    x = blend.sample(y[:1], 500, fixed={"n": 1})
    assert float((x[0, :, 3] == 0.0).double().mean()) > 0.85
    given = blend.log_prob(x[0], y[:1], given=["n", "kind"])
    assert bool(torch.isfinite(given).all())


def test_what_cannot_be_held_is_refused(blend, flow):
    y = torch.tensor([[2.0], [1.0]])
    for fixed, message in (
        ({"p": 0.3}, "part of the simplex p, q, r"),
        ({"p": 0.9, "q": 0.3}, "do not leave a sum of one"),
        ({"kind": "w"}, r"'kind' is 'w'.*labels u, v"),
        ({"n": 1.5}, r"'n' is 1.5: not valid.*integer in \[1, 3\]"),
        ({"n": 7}, "'n' is 7"),
        ({9: 1.0}, "columns 0 to 4"),
        ({"n": [1, 2, 3]}, "3 entries; expected 1 or 2"),
        ({"n": None}, "must be a number"),
    ):
        with pytest.raises(GenoptError, match=message):
            blend.sample(y, 3, fixed=fixed)
    with pytest.raises(UnknownNameError, match="kind"):
        blend.sample(y, 3, fixed={"kin": "u"})
    with pytest.raises(GenoptError, match="log_prob has no meaning for the class columns n, kind"):
        blend.log_prob(blend.sample(y[:1], 2)[0], y[:1])
    with pytest.raises(GenoptError, match="map has no meaning"):
        blend.map(y)
    with pytest.raises(GenoptError, match="starts=0"):
        flow.map(y, starts=0)
    with pytest.raises(GenoptError, match="guidance"):
        flow.sample(y, 3, guidance=NAN)


def test_a_flow_that_was_not_trained_for_it_says_so():
    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    plain = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, condition_dropout=0.0)
    goal = Goal({"u": 1.0, "a": 0.0}, X_SPACE, Y_SPACE)
    with pytest.raises(GenoptError, match=r"cannot hold design columns fixed \(a\).*given_x=0.3"):
        generate(plain, goal, samples=3)
    plain.fit(x, x[:, :1], epochs=1)
    with pytest.raises(GenoptError, match="cannot hold design columns"):
        plain.sample(torch.zeros(1, 1), 3, fixed={"a": 0.0})
    with pytest.raises(GenoptError, match="condition_dropout above 0"):
        plain.sample(torch.zeros(1, 1), 3, guidance=2.0)
    with pytest.raises(GenoptError, match=r"given_x=1\.5"):
        ConditionalFlow(X_SPACE, Y_SPACE, given_x=1.5)


def test_rows_are_given_every_subset_of_their_units():
    columns = GivenColumns(DesignTransform(BLEND))
    assert columns.units == ((1,), (3,), (0, 2, 4))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        drawn = columns.draw(torch.zeros(30_000, 7), 0.6)
    # a uniform rate makes 0 to 3 of three units equally likely among the chosen 60 %
    counts = torch.bincount(drawn.sum(-1).long(), minlength=4) / len(drawn)
    np.testing.assert_allclose(counts.numpy(), [0.55, 0.15, 0.15, 0.15], atol=0.01)
    assert columns.widen(drawn).shape == (30_000, 7)


def test_a_saved_flow_holds_the_same_columns(tmp_path, flow):
    again = ConditionalFlow.load(flow.save(tmp_path / "flow.ckpt"))
    y = torch.tensor([[2.0]])
    assert torch.equal(again.sample(y, 9, fixed={"b": 0.0}), flow.sample(y, 9, fixed={"b": 0.0}))
    held = {"b": 0.0}
    assert torch.equal(again.ood_score(y, held), flow.ood_score(y, held))


def test_principal_directions_keep_the_exact_density():
    joint = np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, 4000)
    x, y = torch.from_numpy(joint[:, :3].copy()), torch.from_numpy(joint[:, 3:].copy())
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, x_pca=True, learning_rate=3e-3, ema=0.99)
    flow.fit(x, y, epochs=25, batch_size=256)
    mean, covariance = exact({3: 2.0})
    normal = stats.multivariate_normal(mean, covariance)
    points = normal.rvs(300, random_state=1)
    found = flow.log_prob(torch.from_numpy(points), torch.tensor([[2.0]])).numpy()
    error = found - normal.logpdf(points)
    assert abs(float(error.mean())) < 0.08
    drawn = flow.sample(torch.tensor([[2.0]]), 3000)[0].numpy()
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (drawn - mean).T)
    np.testing.assert_allclose(whitened.mean(1), 0.0, atol=0.2)
    np.testing.assert_allclose(np.cov(whitened), np.eye(3), atol=0.3)
    peak = flow.map(torch.tensor([[2.0]]), starts=2, steps=15).best[0].numpy() - mean
    assert peak @ np.linalg.solve(covariance, peak) < 0.3
    with pytest.raises(GenoptError, match="x_pca=false or given_x=0"):
        ConditionalFlow(X_SPACE, Y_SPACE, x_pca=True, given_x=0.2)
