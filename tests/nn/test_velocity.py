"""Velocity networks: what all share, what each promises, and the divergence of any of them."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import nn

from genopt.build import build, normalise
from genopt.errors import GenoptError
from genopt.models.flow.parts import PARTS
from genopt.models.flow.paths import LinearPath
from genopt.models.flow.velocity import LatentVelocity, velocity_and_divergence
from genopt.nn.velocity import AdaLNVelocity
from genopt.nn.velocity_concat import ConcatVelocity
from genopt.nn.velocity_sizes import auto, large, medium, small
from genopt.nn.velocity_transformer import TransformerVelocity

torch.set_num_threads(1)
F64 = torch.float64
SMALL = {
    "adaln": {"width": 16, "depth": 2, "embedding": 8},
    "concat": {"width": 16, "depth": 3},
    "transformer": {"width": 8, "depth": 2, "n_heads": 2, "embedding": 8},
}


def network(kind, x_dim=3, condition_dim=4, shaken=True, seed=0):
    torch.manual_seed(seed)
    spec = normalise({"kind": kind, **SMALL.get(kind, {})}, PARTS["network"], "network")
    built = build(spec, "network", x_dim=x_dim, condition_dim=condition_dim).double().eval()
    if shaken:
        for parameter in built.parameters():
            nn.init.normal_(parameter, std=0.3)
    return built


@pytest.mark.parametrize("kind", PARTS["network"])
def test_training_starts_at_the_gaussian_guess(kind):
    built = network(kind, shaken=False)
    x, t = torch.randn(5, 3, dtype=F64), torch.rand(5, dtype=F64)
    velocity = LatentVelocity(built, LinearPath())
    out = velocity(x, t, velocity.embed(torch.randn(5, 4, dtype=F64)))
    # two standard normals: E[x_1 - x_0 | x_t] = (2 t - 1) / (t^2 + (1 - t)^2) x_t
    gain = (2 * t - 1) / (t**2 + (1 - t) ** 2)
    torch.testing.assert_close(out, gain[:, None] * x)


@pytest.mark.parametrize("kind", SMALL)
def test_rows_may_share_an_embedding_and_do_not_see_one_another(kind):
    built = network(kind)
    condition, x = torch.randn(4, 4, dtype=F64), torch.randn(4, 7, 3, dtype=F64)
    t = torch.tensor(0.6, dtype=F64)
    shared = built(x, t, built.embed(condition).unsqueeze(1))
    single = torch.stack(
        [
            torch.stack([built(x[i, j], t, built.embed(condition[i])) for j in range(7)])
            for i in range(4)
        ]
    )
    torch.testing.assert_close(shared, single)
    assert float((shared[0] - shared[1]).detach().abs().min()) > 0


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.parametrize("dim", [2, 6])
def test_divergence_is_the_trace_of_the_jacobian(kind, dim):
    velocity = LatentVelocity(network(kind, x_dim=dim), LinearPath())
    x, t = torch.randn(4, dim, dtype=F64), torch.tensor(0.3, dtype=F64)
    embedded = velocity.embed(torch.randn(4, 4, dtype=F64))
    _, divergence = velocity_and_divergence(velocity, x, t, embedded)
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(
            lambda point, i=i: velocity(point, t, embedded[i]), x[i]
        )
        assert float(divergence[i]) == pytest.approx(float(jacobian.trace()), abs=1e-10)


def test_hutchinson_is_exact_over_all_signs_and_without_bias():
    """The mean over all 2^U sign vectors is the trace itself, not only in expectation."""
    velocity = LatentVelocity(network("adaln", x_dim=5), LinearPath())
    x, t = torch.randn(6, 5, dtype=F64), torch.tensor(0.4, dtype=F64)
    embedded = velocity.embed(torch.randn(6, 4, dtype=F64))
    v, exact = velocity_and_divergence(velocity, x, t, embedded)
    signs = torch.tensor(list(product([-1.0, 1.0], repeat=5)), dtype=F64)
    probes = signs[:, None].expand(32, 6, 5)
    same, estimate = velocity_and_divergence(velocity, x, t, embedded, probes)
    torch.testing.assert_close(estimate, exact)
    torch.testing.assert_close(same, v)
    # one probe is off, and the same probe is off by the same amount
    one = [velocity_and_divergence(velocity, x, t, embedded, probes[3:4])[1] for _ in range(2)]
    assert torch.equal(*one)
    assert float((one[0] - exact).abs().max()) > 1e-3


# -- adaLN -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(200,), (3, 100), (2, 2, 90)])
def test_many_rows_of_one_condition_take_a_shorter_way_to_the_same_velocity(shape):
    built = network("adaln")
    x = torch.randn(*shape, 3, dtype=F64)
    embedded = built.embed(torch.randn(*shape[:-1], 1, 4, dtype=F64))
    for t in (0.0, 0.37, 1.0):
        time = torch.tensor(t, dtype=F64)
        long = built(x, time, embedded)
        with torch.no_grad():
            assert built._folds(x, embedded)
            torch.testing.assert_close(built(x, time, embedded), long, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        assert not built._folds(x[..., :10, :], embedded)
        with torch.autocast("cpu", torch.bfloat16):
            assert not built._folds(x, embedded)
        assert not built.train()._folds(x, embedded)


# -- concatenation ---------------------------------------------------------------------------------
def test_concat_is_an_mlp_on_everything_side_by_side():
    built = network("concat")
    x, condition = torch.randn(5, 3, dtype=F64), torch.randn(5, 4, dtype=F64)
    t = torch.rand(5, dtype=F64)
    plain = nn.Sequential(built.first, built.hidden, built.write)
    together = torch.cat([x, built.time_features(t), condition], -1)
    torch.testing.assert_close(built(x, t, built.embed(condition)), plain(together))


# -- transformer -----------------------------------------------------------------------------------
def test_columns_of_a_transformer_are_a_set():
    """Columns in another order, each with its own parameters, give the same velocities."""
    built, other = network("transformer"), network("transformer", seed=1)
    other.load_state_dict(built.state_dict())
    x_order, c_order = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    with torch.no_grad():
        for tokens, order in ((other.x_tokens, x_order), (other.condition_tokens, c_order)):
            tokens.directions.copy_(tokens.directions[order].clone())
            tokens.offsets.copy_(tokens.offsets[order].clone())
        other.write.copy_(other.write[x_order].clone())
        other.offset.copy_(other.offset[x_order].clone())
        first = other.embed_condition[0]
        first.weight.copy_(first.weight[:, c_order].clone())
    x, condition = torch.randn(5, 3, dtype=F64), torch.randn(5, 4, dtype=F64)
    t = torch.rand(5, dtype=F64)
    plain = built(x, t, built.embed(condition))
    moved = other(x[:, x_order], t, other.embed(condition[:, c_order]))
    torch.testing.assert_close(moved, plain[:, x_order])


def test_every_column_of_a_transformer_reaches_every_other():
    built = network("transformer")
    x, condition = torch.randn(3, dtype=F64), torch.randn(4, dtype=F64)
    t = torch.tensor(0.5, dtype=F64)
    both = torch.autograd.functional.jacobian(
        lambda point, given: built(point, t, built.embed(given)), (x, condition)
    )
    assert all(float(part.abs().min()) > 1e-8 for part in both)


@pytest.mark.parametrize("kind", SMALL)
@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_networks_work_without_a_condition(kind):
    built = network(kind, condition_dim=0)
    x = torch.randn(5, 3, dtype=F64)
    out = built(x, torch.tensor(0.5, dtype=F64), built.embed(x[:, :0]))
    assert out.shape == x.shape
    assert bool(torch.isfinite(out).all())


# -- sizes -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("columns_of_x", "columns_of_y", "size"),
    [(2, 2, small), (2, 3, medium), (10, 10, medium), (11, 10, large), (1, 1, small)],
)
def test_auto_counts_columns(columns_of_x, columns_of_y, size):
    # a condition vector has a value and a mask entry for each column of y
    chosen, wanted = (f(columns_of_x, 2 * columns_of_y) for f in (auto, size))
    assert str(chosen) == str(wanted)
    assert sum(p.numel() for p in chosen.parameters()) == sum(
        p.numel() for p in wanted.parameters()
    )


def test_sizes_grow_and_take_options():
    counts = [sum(p.numel() for p in f(4, 4).parameters()) for f in (small, medium, large)]
    assert counts == sorted(counts)
    assert medium(4, 4, width=32).width == 32
    assert auto(4, 4, dropout=0.1).blocks[0][2].p == 0.1


def test_bad_sizes_are_refused():
    with pytest.raises(GenoptError, match="width=0"):
        ConcatVelocity(2, 2, width=0)
    with pytest.raises(GenoptError, match="dropout=1"):
        AdaLNVelocity(2, 2, dropout=1.0)
    with pytest.raises(GenoptError, match="n_heads=3 must divide width=32"):
        TransformerVelocity(2, 2, n_heads=3)
    with pytest.raises(GenoptError, match="depth=0"):
        TransformerVelocity(2, 2, depth=0)
