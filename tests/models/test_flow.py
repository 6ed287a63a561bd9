"""The conditional flow against closed forms, and what a user may rely on."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.options import FitOptions
from genopt.protocols import ConditionalModel
from genopt.space import Space, Variable

torch.set_num_threads(1)
F64 = torch.float64
NAN = math.nan
X_SPACE = Space((Variable("a"), Variable("b")))
Y_SPACE = Space((Variable("u"), Variable("v")))
SMALL = {"network": {"kind": "adaln", "width": 32, "depth": 2, "embedding": 32}}

# (a, b) normal, (u, v) linear in it with noise: every conditional is a known normal
MEAN_X = np.array([1.0, -20.0])
COV_X = np.array([[4.0, 3.0], [3.0, 9.0]])
MAP = np.array([[1.0, 0.0], [0.5, -1.0]])
NOISE = np.diag([0.8, 1.0])


def posterior(y):
    """Mean and covariance of (a, b) given y, NaN where free."""
    known = ~np.isnan(y)
    gain = MAP[known]
    cross = COV_X @ gain.T
    inverse = np.linalg.inv(gain @ cross + NOISE[np.ix_(known, known)])
    mean = MEAN_X + cross @ inverse @ (np.asarray(y)[known] - gain @ MEAN_X)
    return mean, COV_X - cross @ inverse @ cross.T


def linear_pairs(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.multivariate_normal(MEAN_X, COV_X, n)
    y = x @ MAP.T + rng.multivariate_normal(np.zeros(2), NOISE, n)
    return torch.from_numpy(x), torch.from_numpy(y)


@pytest.fixture(scope="module")
def linear():
    """Half of the rows know both properties, a quarter only u, a quarter only v."""
    x, y = linear_pairs(10_000)
    y[::4, 0], y[1::4, 1] = NAN, NAN
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, learning_rate=3e-3, ema=0.99)
    return flow.fit(x, y, epochs=28, batch_size=256)


CONDITIONS = [[2.0, 21.0], [0.0, 17.0], [2.0, NAN], [NAN, 23.0], [NAN, NAN]]


@pytest.mark.parametrize("y", CONDITIONS)
def test_samples_follow_the_exact_posterior(linear, y):
    mean, covariance = posterior(np.array(y))
    x = linear.sample(torch.tensor([y]), 4000)[0].numpy()
    whitened = np.linalg.solve(np.linalg.cholesky(covariance), (x - mean).T)
    np.testing.assert_allclose(whitened.mean(1), 0.0, atol=0.2)
    np.testing.assert_allclose(np.cov(whitened), np.eye(2), atol=0.25)


@pytest.mark.parametrize("y", CONDITIONS)
def test_log_prob_is_the_exact_density(linear, y):
    mean, covariance = posterior(np.array(y))
    exact = stats.multivariate_normal(mean, covariance)
    x = exact.rvs(300, random_state=1)
    found = linear.log_prob(torch.from_numpy(x), torch.tensor([y])).numpy()
    error = found - exact.logpdf(x)
    # the mean error is minus the Kullback-Leibler divergence from the truth to the flow
    assert abs(error.mean()) < 0.06
    assert np.abs(error).mean() < 0.2


def test_velocity_is_the_gaussians(linear):
    """In latent units the target is normal, and the velocity between normals is known."""
    y = torch.tensor([[2.0, 21.0]], dtype=F64)
    mean, covariance = (torch.from_numpy(part) for part in posterior(y[0].numpy()))
    z, _ = linear.transform.encode(torch.stack([mean, mean + 1.0]))
    m, scale = z[0], torch.diag(z[1] - z[0])
    s = scale @ covariance @ scale
    embedded = linear.average.embed(linear.conditions.join(*linear.conditions.encode(y)))
    generator = torch.Generator().manual_seed(0)
    for t in (0.1, 0.5, 0.9):
        c = (1 - t) ** 2 * torch.eye(2, dtype=F64) + t**2 * s
        noise = torch.randn(500, 2, dtype=F64, generator=generator)
        x = t * m + noise @ torch.linalg.cholesky(c).T
        slope = (t * s - (1 - t) * torch.eye(2, dtype=F64)) @ torch.linalg.inv(c)
        exact = m + (x - t * m) @ slope.T
        with torch.no_grad():
            found = linear.average(x.float(), torch.tensor(t), embedded).double()
        # single velocities scatter by 1 to 1.4 around the mean that is learned
        assert float((found - exact).square().mean().sqrt()) < 0.12


def test_samplers_agree(linear):
    y = torch.tensor([[2.0, 21.0], [NAN, 17.0]])
    noise = torch.randn(2, 50, 2, generator=torch.Generator().manual_seed(0))
    exact = linear.transport(noise, y, sampler={"kind": "dopri5", "tolerance": 1e-6})
    for name, steps, close in (("midpoint", None, 0.02), ("rk4", 16, 2e-3), ("euler", 400, 0.03)):
        x = linear.transport(noise, y, sampler=name, n_steps=steps)
        assert float((x - exact).abs().max()) < close
    x = torch.from_numpy(posterior(np.array([2.0, 21.0]))[0]) + torch.randn(20, 2)
    one = linear.log_prob(x, y[:1])
    two = linear.log_prob(x, y[:1], sampler={"kind": "dopri5", "tolerance": 1e-6})
    torch.testing.assert_close(one, two, atol=0.02, rtol=0)


def test_conditions_in_one_solve_equal_one_by_one(linear):
    y = torch.tensor(CONDITIONS)
    noise = torch.randn(5, 40, 2, generator=torch.Generator().manual_seed(0))
    together = linear.transport(noise, y)
    for i in range(5):
        alone = linear.transport(noise[i : i + 1], y[i : i + 1])[0]
        torch.testing.assert_close(together[i], alone, atol=1e-4, rtol=1e-5)
    x = torch.randn(5, 2) + torch.tensor(MEAN_X)
    singly = torch.cat([linear.log_prob(x[i : i + 1], y[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(linear.log_prob(x, y), singly, atol=1e-4, rtol=1e-4)


def test_large_requests_are_cut_into_pieces_that_fit_together(linear, monkeypatch):
    y = torch.tensor(CONDITIONS)
    noise = torch.randn(5, 30, 2, generator=torch.Generator().manual_seed(0))
    whole = linear.transport(noise, y)
    for rows in (7, 64):
        monkeypatch.setattr(ConditionalFlow, "_rows_at_once", lambda _, rows=rows: rows)
        torch.testing.assert_close(linear.transport(noise, y), whole, atol=1e-4, rtol=1e-5)


def test_trajectories_run_from_noise_to_the_sample(linear):
    y = torch.tensor([[2.0, 21.0], [0.0, NAN]])
    noise = torch.randn(2, 9, 2, generator=torch.Generator().manual_seed(4))
    way = linear.transport(noise, y, n_steps=5, return_trajectory=True)
    assert way.shape == (2, 9, 6, 2)
    torch.testing.assert_close(way[:, :, 0], linear.transform.decode(noise))
    torch.testing.assert_close(way[:, :, -1], linear.transport(noise, y, n_steps=5))


def test_samples_are_differentiable_in_the_noise(linear):
    y = torch.tensor([[2.0, 21.0]])
    noise = torch.zeros(1, 1, 2, requires_grad=True)
    linear.transport(noise, y).sum().backward()
    step = 1e-2
    for i in range(2):
        shift = torch.zeros(1, 1, 2)
        shift[..., i] = step
        with torch.no_grad():
            pair = [float(linear.transport(s * shift, y).sum()) for s in (1.0, -1.0)]
        slope = (pair[0] - pair[1]) / (2 * step)
        assert float(noise.grad[0, 0, i]) == pytest.approx(slope, rel=0.02, abs=0.02)


def test_properties_that_never_meet_are_both_learned():
    """No row knows u and v at once, so a model of complete rows would have nothing to learn."""
    x, y = linear_pairs(2000, 3)
    y[::2, 0], y[1::2, 1] = NAN, NAN
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, learning_rate=3e-3, ema=0.99)
    flow.fit(x, y, epochs=20, batch_size=128)
    for condition, column in (([4.0, NAN], 0), ([NAN, 26.0], 1)):
        mean, covariance = posterior(np.array(condition))
        found = flow.sample(torch.tensor([condition]), 2000)[0].numpy()
        deviation = math.sqrt(covariance[column, column])
        assert abs(found[:, column].mean() - mean[column]) < 0.3 * deviation
        assert abs(found[:, column].std() / deviation - 1.0) < 0.25


def test_far_from_the_data_nothing_is_nan(linear):
    y = torch.tensor([[1e30, -1e30], [-1e12, NAN]])
    assert bool(torch.isfinite(linear.sample(y, 20)).all())
    assert bool((linear.ood_score(y) > 5).all())
    typical = linear.ood_score(torch.tensor([[1.0, 20.5]]))
    assert float(typical) < 1.0
    far = linear.log_prob(torch.tensor([[1e6, 1e6]]), torch.tensor([[2.0, 21.0]]))
    assert float(far) < -100


# -- repeatability and files -----------------------------------------------------------------------
def quick(seed=0, **options):
    x, y = linear_pairs(200, 1)
    return ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, seed=seed, **options).fit(x, y, epochs=2)


def test_seeds_repeat_and_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    y = torch.tensor([[2.0, NAN]])
    one, two, other = quick(0).sample(y, 20), quick(0).sample(y, 20), quick(1).sample(y, 20)
    assert torch.equal(one, two)
    assert not torch.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), state)
    flow = quick(0)
    draws = [flow.sample(y, 20, torch.Generator().manual_seed(s)) for s in (5, 5, 6)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.allclose(draws[0], draws[2])


def test_saved_flow_gives_the_same_samples(tmp_path, linear):
    path = linear.save(tmp_path / "flow.ckpt")
    assert torch.load(path, weights_only=True)["hyper_parameters"]["learning_rate"] == 3e-3
    again = ConditionalFlow.load(path)
    y, x = torch.tensor([[2.0, 21.0], [NAN, 19.0]]), torch.tensor([[1.0, -20.0], [0.0, -19.0]])
    assert torch.equal(again.sample(y, 30), linear.sample(y, 30))
    assert torch.equal(again.log_prob(x, y), linear.log_prob(x, y))
    assert torch.equal(again.ood_score(y), linear.ood_score(y))
    assert isinstance(again, ConditionalModel)


def test_files_of_something_else_are_refused(tmp_path):
    box = ConditionalFlow(Space.of(x=(-1.0, 1.0)), Space.of(y=(0.0, 1.0)), **SMALL)
    with pytest.raises(GenoptError, match="does not exist"):
        ConditionalFlow.load(tmp_path / "none.ckpt")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    with pytest.raises(GenoptError, match="cannot be read"):
        ConditionalFlow.load(tmp_path / "text.ckpt")
    torch.save({"state_dict": {}, "model": "Other"}, tmp_path / "other.ckpt")
    with pytest.raises(GenoptError, match="not a checkpoint of ConditionalFlow but of Other"):
        ConditionalFlow.load(tmp_path / "other.ckpt")
    with pytest.raises(GenoptError, match=r"y columns y, not to z.*model alone has y"):
        box.check_spaces(box.x_space, Space.of(z=(0.0, 1.0)))
    with pytest.raises(GenoptError, match=r"'x' of the model.*\[-1, 1\].*\[-1, 2\]"):
        box.check_spaces(Space.of(x=(-1.0, 2.0)), box.y_space)


def table(n=120, x_space=X_SPACE):
    x, y = linear_pairs(n, 2)
    return Table(x, y, x_space, Y_SPACE).with_split(0.2, 0.1)


def test_a_fit_goes_on_from_its_folder(tmp_path):
    def run(epochs, folder):
        flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, epochs=epochs)
        flow.fit_table(table(), FitOptions(folder=folder))
        return flow

    first = run(2, tmp_path)
    resumed = run(4, tmp_path)
    assert [h["epoch"] for h in resumed.history] == [0, 1, 2, 3]
    assert resumed.history[:2] == first.history
    saved = ConditionalFlow.load(tmp_path / "checkpoints" / "last.ckpt")
    assert bool(torch.isfinite(saved.sample(torch.tensor([[2.0, NAN]]), 3)).all())
    renamed = Space((Variable("a"), Variable("c")))
    other = ConditionalFlow(renamed, Y_SPACE, **SMALL, epochs=6)
    with pytest.raises(GenoptError, match="x columns a, c, not to a, b"):
        other.fit_table(table(x_space=renamed), FitOptions(folder=tmp_path))


def test_only_training_rows_are_learned_from():
    rows = table(400)
    poisoned = rows.x.clone()
    poisoned[[label == "test" for label in rows.split]] += 1e6
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, epochs=1)
    flow.fit_table(Table(poisoned, rows.y, X_SPACE, Y_SPACE, split=rows.split))
    train = rows.part("train").x
    torch.testing.assert_close(flow.transform.mean, train.mean(0), rtol=1e-9, atol=1e-9)


def test_mixed_precision_runs():
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, epochs=2)
    flow.fit_table(table(), FitOptions(trainer={"precision": "bf16-mixed", "accelerator": "cpu"}))
    x = flow.sample(torch.tensor([[2.0, 21.0]]), 10)
    assert bool(torch.isfinite(x).all())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_samples(linear):
    y = torch.tensor(CONDITIONS)
    noise = torch.randn(5, 40, 2, generator=torch.Generator().manual_seed(0))
    x = linear.transport(noise, y)
    moved = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL)
    moved.load_state_dict(linear.state_dict())
    moved.cuda()
    torch.testing.assert_close(moved.transport(noise, y), x, atol=1e-2, rtol=1e-2)
    density, away = linear.log_prob(x[0], y[:1]), linear.ood_score(y)
    torch.testing.assert_close(moved.log_prob(x[0], y[:1]), density, atol=0.05, rtol=0.05)
    torch.testing.assert_close(moved.ood_score(y), away, atol=1e-3, rtol=1e-3)
    moved.fit_table(table(), FitOptions(trainer={"accelerator": "gpu"}))
    assert bool(torch.isfinite(moved.sample(y, 5)).all())


# -- bad input -------------------------------------------------------------------------------------
def test_bad_tables_are_refused_before_training():
    x, y = linear_pairs(50)
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL)
    with pytest.raises(GenoptError, match=r"expected \(N, 2\) and \(N, 2\)"):
        flow.fit(x, y[:-1])
    with pytest.raises(GenoptError, match="'v' has no label"):
        flow.fit(x, torch.cat([y[:, :1], torch.full((50, 1), NAN)], 1))
    with pytest.raises(GenoptError, match="'b' has no finite value"):
        flow.fit(torch.where(torch.arange(50)[:, None] == 7, torch.tensor([0.0, math.inf]), x), y)
    with pytest.raises(GenoptError, match="at least 4"):
        flow.fit(x[:3], y[:3])
    with pytest.raises(GenoptError, match="x columns a, b, not to a, c"):
        flow.fit_table(table(x_space=Space((Variable("a"), Variable("c")))))
    with pytest.raises(GenoptError, match="not fitted"):
        flow.sample(y[:1], 3)


def test_bad_queries_name_the_argument(linear):
    with pytest.raises(GenoptError, match=r"y has shape \(2,\)"):
        linear.sample(torch.zeros(2), 3)
    with pytest.raises(GenoptError, match="n must be positive"):
        linear.sample(torch.zeros(1, 2), 0)
    with pytest.raises(GenoptError, match=r"noise has shape.*expected \(1, n, 2\)"):
        linear.transport(torch.zeros(2, 3, 2), torch.zeros(1, 2))
    with pytest.raises(GenoptError, match=r"x has shape \(3, 1\)"):
        linear.log_prob(torch.zeros(3, 1), torch.zeros(1, 2))
    with pytest.raises(UnknownNameError, match="did you mean 'adaln'"):
        ConditionalFlow(X_SPACE, Y_SPACE, network="adanl")
    with pytest.raises(GenoptError, match="condition_dropout=2"):
        ConditionalFlow(X_SPACE, Y_SPACE, condition_dropout=2)
