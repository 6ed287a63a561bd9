import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from genopt import GenoptError, Space, Variable
from genopt.data.sampling import generate_samples, sample_space
from genopt.simplex import project_simplex


def mixed_space() -> Space:
    return Space(
        (
            Variable("a", 0.0, 1.0),
            Variable("b", 0.0, 1.0),
            Variable("c", 0.0, 0.4),
            Variable("n", -2.5, 7.5, kind="integer"),
            Variable("k", labels=("red", "green", "blue"), kind="categorical"),
            Variable("T", 250.0, 400.0, unit="K"),
        ),
        simplexes=(("a", "b", "c"),),
    )


points = st.lists(st.floats(-50, 500), min_size=6, max_size=6)


@settings(max_examples=60, deadline=None)
@given(points)
def test_projection_is_valid_and_does_nothing_twice(values):
    space = mixed_space()
    once = space.project(torch.tensor(values, dtype=torch.float64))
    assert bool(space.contains(once, tolerance=1e-9))
    torch.testing.assert_close(space.project(once), once, atol=1e-12, rtol=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_valid_points_survive_encoding_and_decoding(seed):
    space = mixed_space()
    x = sample_space(space, 5, "uniform", seed=seed)
    assert bool(space.contains(x).all())
    encoded = space.encode(x)
    assert encoded.shape == (5, space.encoded_dim)
    assert float(encoded.min()) >= 0
    assert float(encoded.max()) <= 1
    torch.testing.assert_close(space.decode(encoded), x, atol=1e-9, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_simplex_projection_is_the_nearest_point(values):
    x = torch.tensor(values, dtype=torch.float64)
    upper = torch.tensor([1.0, 0.3, 1.0, 0.6], dtype=torch.float64)
    ours = project_simplex(x, 0.0, upper)
    best = minimize(
        lambda z: ((z - x.numpy()) ** 2).sum(),
        [0.25] * 4,
        bounds=[(0, float(u)) for u in upper],
        constraints={"type": "eq", "fun": lambda z: z.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert float(ours.sum()) == pytest.approx(1.0, abs=1e-12)
    assert float(((ours - x) ** 2).sum()) <= best.fun + 1e-8


def test_a_space_survives_its_plain_form():
    space = Space((*mixed_space().variables, Variable("free")), mixed_space().simplexes)
    assert Space.from_dict(space.to_dict()) == space


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Variable("a", 2.0, 1.0), "'a': lower bound 2.0"),
        (lambda: Variable("a", kind="categorical"), "'a' needs labels"),
        (lambda: Variable("a", kind="contin"), "did you mean 'continuous'"),
        (lambda: Space((Variable("a"), Variable("a"))), "unique"),
        (lambda: Space.of(a=(0, 1)).index("b"), "unknown column 'b'"),
        (lambda: Space((Variable("a", 0.6, 1), Variable("b", 0.6, 1)), (("a", "b"),)), "no point"),
        (lambda: Space.of(a=(0, 1)).check(torch.zeros(3, 2)), r"expected \(\.\.\., 1\)"),
    ],
)
def test_bad_spaces_say_what_is_wrong(build, message):
    with pytest.raises(GenoptError, match=message):
        build()


@pytest.mark.parametrize("method", ["sobol", "latin", "uniform"])
@pytest.mark.parametrize("n", [1, 7, 100])
def test_samples_are_as_many_as_asked_repeat_and_fill_the_box(method, n):
    bounds = [(-1.0, 1.0), (10.0, 20.0)]
    x = generate_samples(bounds, n, method, seed=3)
    assert x.shape == (n, 2)
    assert (x >= [-1, 10]).all()
    assert (x <= [1, 20]).all()
    assert (x == generate_samples(bounds, n, method, seed=3)).all()
    if n == 100:
        assert abs(x.mean(0) - [0, 15]).max() < 1.5
        assert not (x == generate_samples(bounds, n, method, seed=4)).all()


def test_latin_hypercube_has_one_point_in_each_stratum():
    x = generate_samples([(0.0, 1.0)] * 3, 50, "latin", seed=1)
    for column in x.T:
        assert sorted((column * 50).astype(int)) == list(range(50))


def test_simplex_samples_are_uniform():
    space = Space(tuple(Variable(n, 0, 1) for n in "abc"), (("a", "b", "c"),))
    x = sample_space(space, 4096)
    # moments of Dirichlet(1, 1, 1): mean 1/3, variance 2/36
    torch.testing.assert_close(x.mean(0), torch.full((3,), 1 / 3).double(), atol=0.01, rtol=0)
    torch.testing.assert_close(x.var(0), torch.full((3,), 1 / 18).double(), atol=0.004, rtol=0)


def test_unbounded_columns_cannot_be_sampled():
    with pytest.raises(GenoptError, match="'a' has no finite bounds"):
        sample_space(Space((Variable("a", 0.0, math.inf),)), 3)


def test_unknown_sampling_method_names_the_nearest():
    with pytest.raises(GenoptError, match="did you mean 'sobol'"):
        generate_samples([(0, 1)], 4, "sobo")
