"""A problem of one's own: two methods, and errors that say what to do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.problems import Problem
from genopt.space import Space


class Parabola(Problem):
    def __init__(self) -> None:
        super().__init__(
            "parabola", Space.of(u=(-2.0, 2.0)), Space.of(height=(0.0, 4.0)), {"height": 1.0}
        )

    def simulate(self, x: Tensor) -> Tensor:
        return x**2


def test_two_methods_are_enough() -> None:
    table = Parabola().table(16)
    assert table.x_space.names == ("u",)
    torch.testing.assert_close(table.y, table.x * table.x)
    assert len(Parabola().table()) == Parabola().default_rows


def test_failed_simulations_are_missing_entries() -> None:
    class Logarithm(Parabola):
        def simulate(self, x: Tensor) -> Tensor:
            return torch.where(x < -1.0, math.inf, torch.log(x))

    table = Logarithm().table(64)
    assert torch.equal(torch.isnan(table.y), table.x < 0.0)


def test_a_wrong_shape_is_named() -> None:
    class Flat(Parabola):
        def simulate(self, x: Tensor) -> Tensor:
            return x.squeeze(-1)

    with pytest.raises(GenoptError, match=r"returned shape \(8,\).*expected \(8, 1\).*height"):
        Flat().table(8)


def test_without_a_simulator() -> None:
    problem = Problem("bare", Space.of(u=(0.0, 1.0)), Space.of(v=(0.0, 1.0)))
    assert not problem.has_simulator
    with pytest.raises(GenoptError, match="'bare' has no simulator"):
        problem.simulate(torch.zeros(1, 1))


def test_bad_definitions_fail_at_construction() -> None:
    u, v = Space.of(u=(0.0, 1.0)), Space.of(v=(0.0, 1.0))
    with pytest.raises(GenoptError, match="'u' is both a design and a property"):
        Problem("twice", u, u)
    with pytest.raises(UnknownNameError, match="goal column 'w'"):
        Problem("astray", u, v, {"w": 1.0})
    with pytest.raises(GenoptError, match="n must be at least 1, got 0"):
        Parabola().table(0)
