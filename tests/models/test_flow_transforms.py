"""The design transform: exact inverse, exact determinant, always valid designs."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt.data.sampling import sample_space
from genopt.errors import GenoptError
from genopt.models.flow.transforms import DesignTransform, check_designs
from genopt.space import Space, Variable

F64 = torch.float64
MIXED = Space(
    (
        Variable("free"),
        Variable("box", -2.0, 5.0),
        Variable("a", 0.0, 1.0),
        Variable("n", 1.0, 4.0, kind="integer"),
        Variable("b", 0.1, 0.7),
        Variable("kind", kind="categorical", labels=("u", "v", "w")),
        Variable("c", 0.0, 1.0),
        Variable("half", lower=0.0),
    ),
    simplexes=(("a", "b", "c"),),
)
SMOOTH = MIXED.select(["free", "box", "a", "b", "c"])


def designs(space, n, seed=0):
    """Valid designs, with normal numbers in the unbounded columns."""
    closed = Space(
        tuple(v if v.bounded else Variable(v.name, 0.0, 1.0) for v in space), space.simplexes
    )
    x = sample_space(closed, n, "uniform", seed)
    generator = torch.Generator().manual_seed(seed)
    for i, v in enumerate(space):
        if not v.bounded:
            x[:, i] = torch.randn(n, generator=generator, dtype=F64).abs() * 3.0
    return x


def fitted(space, x):
    transform = DesignTransform(space)
    transform.fit(x, torch.Generator().manual_seed(0))
    return transform


@given(
    lower=st.floats(-1e3, 1e3),
    width=st.floats(1e-3, 1e6),
    share=st.lists(st.floats(0.0, 1.0), min_size=5, max_size=20),
)
@settings(max_examples=40, deadline=None)
def test_box_round_trip_keeps_bounds_exact(lower, width, share):
    space = Space.of(x=(lower, lower + width))
    x = (lower + width * torch.tensor(share, dtype=F64)).clamp(lower, lower + width)[:, None]
    x = torch.cat([x, space.lower[None], space.upper[None]])
    transform = fitted(space, x)
    back = transform.decode(transform.encode(x)[0])
    torch.testing.assert_close(back, x, rtol=1e-9, atol=1e-9 * width)
    assert bool(space.contains(back).all())


@pytest.mark.parametrize("seed", range(3))
def test_mixed_round_trip(seed):
    x = designs(MIXED, 200, seed)
    transform = fitted(MIXED, x)
    torch.testing.assert_close(transform.decode(transform.encode(x)[0]), x, rtol=1e-7, atol=1e-7)


def test_training_draws_decode_to_their_rows():
    x = designs(MIXED, 300)
    x[:100, 1] = -2.0  # a pile on a bound
    x[:50, [2, 4, 6]] = torch.tensor([0.3, 0.7, 0.0], dtype=F64)
    transform = fitted(MIXED, x)
    spread = transform.spread(x)
    z = transform.draw(spread.low, spread.high, torch.Generator().manual_seed(1))
    assert float(z[:100].std(0).min()) > 0.01
    torch.testing.assert_close(transform.decode(z), x, rtol=1e-7, atol=1e-7)
    assert bool((transform.decode(z)[:100, 1] == -2.0).all())


def test_any_latent_vector_is_a_valid_design():
    transform = fitted(MIXED, designs(MIXED, 100))
    z = 4.0 * torch.randn(5000, transform.dim, generator=torch.Generator().manual_seed(3))
    x = transform.decode(z)
    assert bool(MIXED.contains(x).all())
    assert x[:, 3].unique().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(4))
def test_log_determinant_is_the_jacobians(seed):
    x = designs(SMOOTH, 60, seed)
    transform = fitted(SMOOTH, x)
    # on a bound the map has no derivative
    inside = ((x > SMOOTH.lower + 1e-6) & (x < SMOOTH.upper - 1e-6)).all(-1)
    z, log_det = transform.encode(x[inside][:5])
    # the last fraction follows from the others and is no coordinate
    for i in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda p: transform.decode(p)[:-1], z[i])
        assert float(log_det[i]) == pytest.approx(-float(jacobian.slogdet().logabsdet), abs=1e-6)


def test_training_rows_are_standardised():
    x = designs(SMOOTH, 500)
    transform = fitted(SMOOTH, x)
    spread = transform.spread(x)
    z = transform.draw(spread.low, spread.high, torch.Generator().manual_seed(7))
    torch.testing.assert_close(z.mean(0), torch.zeros(z.shape[1], dtype=F64), atol=0.05, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(z.shape[1], dtype=F64), atol=0.1, rtol=0)


def test_constant_columns_come_back():
    space = Space((Variable("a"), Variable("b", 0.0, 1.0), Variable("c", 2.0, 2.0)))
    x = torch.tensor([[3.0, 0.25, 2.0]] * 20, dtype=F64)
    transform = fitted(space, x)
    z = torch.randn(10, 3, dtype=F64)
    torch.testing.assert_close(transform.decode(z), x[:10], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("space", "row", "words"),
    [
        (Space.of(x=(0.0, 1.0)), [math.nan], "'x' has no finite value in row 1"),
        (Space.of(x=(0.0, 1.0)), [1.5], r"'x' holds 1.5 in row 1.*\[0, 1\]"),
        (Space((Variable("n", 0, 3, kind="integer"),)), [1.5], "'n' holds 1.5.*integer"),
        (
            Space.of(x=(0.0, 1.0), y=(0.0, 1.0)).__class__(
                Space.of(x=(0.0, 1.0), y=(0.0, 1.0)).variables, (("x", "y"),)
            ),
            [0.5, 0.6],
            "x, y are a simplex, but sum to 1.1 in row 1",
        ),
    ],
)
def test_designs_that_do_not_fit_are_named(space, row, words):
    good = designs(space, 1)
    with pytest.raises(GenoptError, match=words):
        check_designs(space, torch.cat([good, torch.tensor([row], dtype=F64)]))


def test_rounded_fractions_are_accepted():
    space = Space(Space.of(a=(0.0, 1.0), b=(0.0, 1.0), c=(0.0, 1.0)).variables, (("a", "b", "c"),))
    x = check_designs(space, torch.tensor([[0.333, 0.333, 0.333], [0.34, 0.33, 0.33]]))
    torch.testing.assert_close(x.sum(-1), torch.ones(2, dtype=F64))


def test_principal_directions_keep_the_exact_map():
    """Turned latents are uncorrelated, decode to the same designs and have the true determinant."""
    x = designs(SMOOTH, 500)
    x[:, 1] = (x[:, 1] + 3.0 * x[:, 0]).clamp(-2.0, 5.0)
    plain, turned = fitted(SMOOTH, x), DesignTransform(SMOOTH, pca=True)
    turned.fit(x, torch.Generator().manual_seed(0))
    inner = x[((x > SMOOTH.lower) & (x < SMOOTH.upper)).all(1)]
    z, log_det = turned.encode(inner)
    torch.testing.assert_close(turned.decode(z), inner, rtol=1e-6, atol=1e-6)
    drawn = turned.turn(turned.draw(*fitted_ends(turned, x), torch.Generator().manual_seed(0)))
    torch.testing.assert_close(torch.cov(drawn.T), torch.eye(4, dtype=F64), atol=0.1, rtol=0)
    # both maps differ by one linear map, whose determinant is the same for all rows
    differences = log_det - plain.encode(inner)[1]
    linear = torch.linalg.lstsq(plain.encode(inner)[0], z).solution
    expected = torch.linalg.slogdet(linear).logabsdet.expand_as(differences)
    torch.testing.assert_close(differences, expected, rtol=1e-6, atol=1e-6)


def fitted_ends(transform, x):
    spread = transform.spread(x)
    return spread.low, spread.high
