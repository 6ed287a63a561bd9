"""How a flow trains: calibrated scores, shares of discrete designs, plans, compiled networks."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch

from genopt.errors import GenoptError
from genopt.models.flow.compiling import _can_compile
from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.flow.conditions import ConditionEncoder
from genopt.models.flow.familiarity import Familiarity
from genopt.models.flow.plan import TrainingPlan
from genopt.models.options import FitOptions
from genopt.space import Space, Variable

torch.set_num_threads(1)
F64 = torch.float64
NAN = math.nan
SMALL = {"network": {"kind": "adaln", "width": 32, "depth": 2, "embedding": 32}}


# -- not knowing -----------------------------------------------------------------------------------
def banana(n, generator):
    """Conditions on a curve, which a box around the data would not tell from its inside."""
    u = 4.0 * torch.rand(n, 1, generator=generator, dtype=F64) - 2.0
    v = u**2 + 0.1 * torch.randn(n, 1, generator=generator, dtype=F64)
    w = torch.rand(n, 1, generator=generator, dtype=F64)
    return torch.cat([u, v, w], 1)


@pytest.mark.parametrize("held", [0, 40, 400])
def test_one_fresh_condition_in_a_hundred_scores_above_one(held):
    generator = torch.Generator().manual_seed(0)
    space = Space((Variable("u"), Variable("v"), Variable("w")))
    shares, partial = [], []
    for _ in range(5):
        y = banana(1000 + held, generator)
        encoder, familiarity = ConditionEncoder(space), Familiarity(space)
        encoder.fit(y[:1000])
        familiarity.fit(encoder.encode(y[:1000]), encoder.encode(y[1000:]), generator)
        fresh = banana(2000, generator)
        shares.append(float((familiarity.score(*encoder.encode(fresh)) > 1.0).double().mean()))
        fresh[:, 0] = NAN
        partial.append(float((familiarity.score(*encoder.encode(fresh)) > 1.0).double().mean()))
        # inside the bounds of each column, far from the curve
        off = torch.tensor([[0.0, 3.0, 0.5], [1.5, 0.0, 0.5]], dtype=F64)
        assert bool((familiarity.score(*encoder.encode(off)) > 2.0).all())
    assert 0.003 < np.mean(shares) < 0.018
    assert 0.003 < np.mean(partial) < 0.018


def test_replicates_do_not_make_a_flow_suspicious():
    """Rows that are all there twice are no nearer to fresh rows than rows that are there once."""
    generator = torch.Generator().manual_seed(0)
    space = Space((Variable("u"), Variable("v"), Variable("w")))
    encoder, familiarity = ConditionEncoder(space), Familiarity(space)
    y = banana(200, generator).repeat_interleave(6, 0)
    encoder.fit(y)
    familiarity.fit(encoder.encode(y), encoder.encode(banana(300, generator)), generator)
    fresh = familiarity.score(*encoder.encode(banana(2000, generator)))
    assert float((fresh > 1.0).double().mean()) < 0.03


# -- discrete designs ------------------------------------------------------------------------------
def test_integers_and_classes_come_with_their_exact_shares():
    """The posterior of an integer and a class given a noisy number, by Bayes' rule."""
    rng = np.random.default_rng(0)
    n = rng.choice(4, 2000, p=[0.45, 0.05, 0.3, 0.2])
    k = (n + rng.choice(3, 2000, p=[0.6, 0.3, 0.1])) % 3
    y = n - 2 * k + rng.normal(size=2000)
    prior = np.zeros((4, 3))
    for i, p in enumerate([0.45, 0.05, 0.3, 0.2]):
        for shift, q in enumerate([0.6, 0.3, 0.1]):
            prior[i, (i + shift) % 3] += p * q
    space = Space(
        (
            Variable("n", 3, 6, kind="integer"),
            Variable("k", kind="categorical", labels=("r", "s", "t")),
        )
    )
    flow = ConditionalFlow(
        space,
        Space((Variable("y"),)),
        **SMALL,
        condition_dropout=0.6,
        learning_rate=4e-3,
        ema=0.98,
    )
    flow.fit(np.column_stack([n + 3, k]), y[:, None], epochs=60, batch_size=128)
    for value in (NAN, 1.0):
        x = flow.sample(torch.tensor([[value]]), 5000)[0].long()
        assert bool(space.contains(x.double()).all())
        found = torch.bincount((x[:, 0] - 3) * 3 + x[:, 1], minlength=12).numpy() / 5000
        i, j = np.indices((4, 3))
        exact = prior if math.isnan(value) else prior * np.exp(-0.5 * (value - i + 2 * j) ** 2)
        assert 0.5 * np.abs(found - (exact / exact.sum()).ravel()).sum() < 0.1


def test_integers_of_many_values_keep_a_density():
    rng = np.random.default_rng(0)
    n = rng.binomial(19, 0.5, 1500)
    space = Space((Variable("n", 0, 19, kind="integer"),))
    flow = ConditionalFlow(space, Space((Variable("y"),)), **SMALL, learning_rate=3e-3, ema=0.98)
    flow.fit(n[:, None].astype(float), np.zeros((1500, 1)), epochs=30, batch_size=128)
    values = torch.arange(20, dtype=F64)[:, None]
    share = flow.log_prob(values, torch.tensor([[0.0]])).exp()
    assert float(share.sum()) == pytest.approx(1.0, abs=0.05)
    exact = np.array([math.comb(19, i) / 2**19 for i in range(20)])
    assert 0.5 * np.abs(share.numpy() - exact).sum() < 0.1
    drawn = flow.sample(torch.tensor([[0.0]]), 4000)[0, :, 0].long()
    found = torch.bincount(drawn, minlength=20).numpy() / 4000
    assert 0.5 * np.abs(found - exact).sum() < 0.1


# -- plans and compiled networks -------------------------------------------------------------------
def steps_of(plan, rows):
    return plan.epochs * math.ceil(rows * plan.repeats / plan.batch_size)


def test_plans_fit_the_table():
    small = TrainingPlan.of(60, None, None, None)
    assert small.batch_size == 60
    assert small.draws == 4
    assert 3000 < small.epochs * small.repeats * math.ceil(60 / small.batch_size) < 4500
    large = TrainingPlan.of(200_000, None, None, None)
    assert large.batch_size == 512
    assert large.draws == 1
    assert large.epochs == 10
    assert TrainingPlan.of(500, 7, 1000, 3) == TrainingPlan(500, 7, 1, 3)
    # few columns are trained longer where there are rows enough, many columns shorter
    assert steps_of(TrainingPlan.of(2000, None, None, None, 4), 2000) == pytest.approx(
        6000, rel=0.1
    )
    assert steps_of(TrainingPlan.of(9000, None, None, None, 20), 9000) == pytest.approx(
        2500, rel=0.1
    )
    for rows, columns in ((2000, 5), (1000, 2), (2000, None), (30_000, 20)):
        plan = TrainingPlan.of(rows, None, None, None, columns)
        assert steps_of(plan, rows) == pytest.approx(4000, rel=0.1)
    assert large.validate_every("cosine") == 1
    assert small.validate_every("cosine") == small.epochs // 60
    assert small.validate_every("plateau") == 1


@pytest.mark.parametrize(
    ("labels", "columns", "steps"), [((), 4, 6000), ((), 5, 4000), (tuple("abcdefgh"), 4, 2500)]
)
def test_the_columns_that_are_learned_decide_how_long(monkeypatch, labels, columns, steps):
    """A class of eight labels is eight columns for the network."""
    rest = Space(tuple(Variable(f"x{i}") for i in range(1, columns))).variables
    first = Variable("x0", kind="categorical", labels=labels) if labels else Variable("x0")
    seen = {}

    def fit(_, rows, *__, **given):
        seen.update(given, rows=len(rows[0]))

    monkeypatch.setattr("genopt.models.flow.matching.fit", fit)
    flow = ConditionalFlow(Space((first, *rest)), Y_SPACE, **SMALL)
    x = torch.arange(2000, dtype=F64)[:, None] % 8 + torch.zeros(columns, dtype=F64)
    flow.fit(x, x[:, :1], validation=0.0, batch_size=200)
    assert seen["epochs"] * seen["rows"] / seen["batch_size"] == pytest.approx(steps, rel=0.1)


def pairs():
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    return x, x.sum(1, keepdim=True)


X_SPACE = Space((Variable("a"), Variable("b")))
Y_SPACE = Space((Variable("y"),))


@pytest.mark.skipif(not _can_compile(False), reason="needs a C++ compiler")
def test_a_compiled_flow_learns_and_draws_the_same(tmp_path, monkeypatch):
    # the graph is traced as always, but not turned into machine code, which takes minutes
    trace = functools.partial(torch.nn.Module.compile, backend="eager")
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, mode: trace(self, mode=mode))
    tiny = {"network": {"kind": "adaln", "width": 8, "depth": 1, "embedding": 8}}
    y = torch.tensor([[0.5], [NAN]])
    flows = [
        ConditionalFlow(X_SPACE, Y_SPACE, **tiny, compile=mode).fit(*pairs(), epochs=2)
        for mode in (False, True)
    ]
    plain, compiled = flows
    torch.testing.assert_close(compiled.history, plain.history, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(compiled.sample(y, 8), plain.sample(y, 8), rtol=1e-2, atol=1e-2)
    x = torch.zeros(2, 2)
    torch.testing.assert_close(compiled.log_prob(x, y), plain.log_prob(x, y), rtol=1e-2, atol=1e-2)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    again = ConditionalFlow.load(compiled.save(tmp_path / "flow.ckpt"))
    torch.testing.assert_close(again.sample(y, 8), compiled.sample(y, 8), rtol=1e-4, atol=1e-4)


def test_modes_that_cannot_be_had_are_refused_before_training():
    with pytest.raises(GenoptError, match="compile='fast' is not known"):
        ConditionalFlow(X_SPACE, Y_SPACE, compile="fast")
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, compile="cuda_graphs")
    x, y = pairs()
    with pytest.raises(GenoptError, match="cuda_graphs needs an NVIDIA GPU"):
        flow._fit_rows((x, y), (x[:0], y[:0]), FitOptions(trainer={"accelerator": "cpu"}))
    assert not bool(flow.fitted)


def test_without_a_compiler_a_compiled_flow_is_refused(monkeypatch):
    monkeypatch.setattr("genopt.models.flow.compiling.shutil.which", lambda _: None)
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, compile=True)
    x, y = pairs()
    with pytest.raises(GenoptError, match=r"needs a C\+\+ compiler"):
        flow._fit_rows((x, y), (x[:0], y[:0]), FitOptions(trainer={"accelerator": "cpu"}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_give_the_same_draws():
    flow = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL, compile="cuda_graphs")
    flow.fit(*pairs(), epochs=3)
    plain = ConditionalFlow(X_SPACE, Y_SPACE, **SMALL)
    plain.load_state_dict(flow.state_dict())
    y, noise = torch.tensor([[0.5]]), torch.randn(1, 64, 2)
    flow.cuda()
    for sampler in ("midpoint", "heun", "rk4"):
        drawn = flow.transport(noise, y, sampler=sampler)
        wanted = plain.transport(noise, y, sampler=sampler)
        torch.testing.assert_close(drawn, wanted, rtol=1e-2, atol=1e-2)
