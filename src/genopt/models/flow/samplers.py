"""Samplers: solvers of dx/dt = v(x, t), which carry noise to data and, backwards, data to noise.

The fixed-step solvers lay their steps on t = 1 - (1 - r)^grading. A narrow posterior of width w
bends its paths within w of t = 1, so equal steps miss it: for w = .03 and 32 calls of the network
the midpoint rule returns a width that is 24 % off on equal steps and .8 % off with a grading of 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Self

import torch
from torch import Tensor

from genopt.errors import GenoptError

Field = Callable[[float, Tensor], Tensor]


@dataclass(frozen=True)
class Solution:
    """What a solver returns.

    Args:
        end: the state at the end of the interval, of the start's shape.
        trajectory: the states on the grid, start and end among them, (S, *shape); None if they
            were not asked for.
    """

    end: Tensor
    trajectory: Tensor | None = None


@dataclass(frozen=True)
class FixedStep:
    """Solvers with a fixed number of steps: a row's result never depends on the other rows.

    Args:
        steps: number of steps S.
        grading: exponent of the grid; 1 for equal steps, larger for finer steps at the data.

    Raises:
        GenoptError: if steps or grading is not positive.
    """

    steps: int = 16
    grading: float = 2.0
    calls_a_step: ClassVar[int] = 1
    calls_to_start: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.grading <= 0:
            raise GenoptError(
                f"sampler: steps={self.steps} and grading={self.grading} must be positive"
            )

    def calls(self, steps: int | None = None) -> int:
        """How often a solve calls the network.

        Args:
            steps: number of steps; None for the sampler's own.

        Returns:
            Number of calls.
        """
        count = self.steps if steps is None else steps
        return count * self.calls_a_step + self.calls_to_start

    def with_calls(self, calls: int) -> Self:
        """This sampler with as many steps as a number of network calls pays for.

        Args:
            calls: largest number of calls.

        Returns:
            The sampler.

        Raises:
            GenoptError: if the calls do not pay for one step.
        """
        steps = (calls - self.calls_to_start) // self.calls_a_step
        if steps < 1:
            raise GenoptError(
                f"sampler: {calls} network calls are too few; {type(self).__name__} needs at least "
                f"{self.calls(1)}"
            )
        return replace(self, steps=steps)

    def step(self, field: Field, t: float, h: float, x: Tensor) -> Tensor:
        """One step.

        Args:
            field: the velocity, called as ``field(t, x)``.
            t: time.
            h: step; negative towards the noise.
            x: state.

        Returns:
            The state at t + h.
        """
        return x + h * field(t, x)

    def grid(self, steps: int | None = None) -> list[float]:
        """The times of the steps.

        Args:
            steps: number of steps; None for the sampler's own.

        Returns:
            Ascending times from 0 to 1, one more than steps.

        Raises:
            GenoptError: if steps is not positive.
        """
        count = self.steps if steps is None else steps
        if count < 1:
            raise GenoptError(f"n_steps must be positive, got {count}")
        return [1.0 - (1.0 - i / count) ** self.grading for i in range(count + 1)]

    def solve(
        self,
        field: Field,
        x: Tensor,
        steps: int | None = None,
        backward: bool = False,
        keep: bool = False,
    ) -> Solution:
        """Carry a state from t = 0 to t = 1.

        Args:
            field: the velocity, called as ``field(t, x)``.
            x: state at the start.
            steps: number of steps; None for the sampler's own.
            backward: from t = 1 to t = 0 instead.
            keep: whether to keep all states.

        Returns:
            The solution.
        """
        times = self.grid(steps)
        if backward:
            times.reverse()
        step = self.stepper()
        states = [x]
        for t, following in pairwise(times):
            x = step(field, t, following - t, x)
            if keep:
                states.append(x)
        return Solution(x, torch.stack(states) if keep else None)

    def stepper(self) -> Callable[[Field, float, float, Tensor], Tensor]:
        """The rule of one solve, with whatever it remembers from step to step.

        Returns:
            A function like `step`.
        """
        return self.step


@dataclass(frozen=True)
class Euler(FixedStep):
    """Euler's rule: order 1, one call a step."""

    steps: int = 32


@dataclass(frozen=True)
class Few(Euler):
    """Euler's rule in a few equal steps, for a flow whose ways reflow made straight."""

    steps: int = 2
    grading: float = 1.0


@dataclass(frozen=True)
class Midpoint(FixedStep):
    """The midpoint rule: order 2, two calls a step."""

    calls_a_step: ClassVar[int] = 2

    def step(self, field: Field, t: float, h: float, x: Tensor) -> Tensor:
        """One step.

        Args:
            field: the velocity, called as ``field(t, x)``.
            t: time.
            h: step.
            x: state.

        Returns:
            The state at t + h.
        """
        half = torch.add(x, field(t, x), alpha=0.5 * h)
        return torch.add(x, field(t + 0.5 * h, half), alpha=h)


@dataclass(frozen=True)
class Heun(FixedStep):
    """Heun's rule, the explicit trapezoid: order 2, two calls a step."""

    calls_a_step: ClassVar[int] = 2

    def step(self, field: Field, t: float, h: float, x: Tensor) -> Tensor:
        """One step.

        Args:
            field: the velocity, called as ``field(t, x)``.
            t: time.
            h: step.
            x: state.

        Returns:
            The state at t + h.
        """
        first = field(t, x)
        second = field(t + h, torch.add(x, first, alpha=h))
        return torch.add(x, first + second, alpha=0.5 * h)


@dataclass(frozen=True)
class RK4(FixedStep):
    """The classical Runge-Kutta rule: order 4, four calls a step."""

    steps: int = 8
    calls_a_step: ClassVar[int] = 4

    def step(self, field: Field, t: float, h: float, x: Tensor) -> Tensor:
        """One step.

        Args:
            field: the velocity, called as ``field(t, x)``.
            t: time.
            h: step.
            x: state.

        Returns:
            The state at t + h.
        """
        k1 = field(t, x)
        k2 = field(t + 0.5 * h, torch.add(x, k1, alpha=0.5 * h))
        k3 = field(t + 0.5 * h, torch.add(x, k2, alpha=0.5 * h))
        k4 = field(t + h, torch.add(x, k3, alpha=h))
        return torch.add(x, k1 + 2.0 * (k2 + k3) + k4, alpha=h / 6.0)


@dataclass(frozen=True)
class Dopri5:
    """Dormand and Prince's adaptive rule of order 5, by torchdiffeq: the reference.

    Its error norm spans all rows of a call, so a row's result depends, within the tolerance, on the
    others.

    Args:
        tolerance: relative and absolute tolerance.
        steps: points of a kept trajectory; the solver chooses its own steps.

    Raises:
        GenoptError: if a number is not positive.
    """

    tolerance: float = 1e-5
    steps: int = 32

    def __post_init__(self) -> None:
        if self.tolerance <= 0 or self.steps < 1:
            raise GenoptError(
                f"sampler: tolerance={self.tolerance} and steps={self.steps} must be positive"
            )

    def calls(self, steps: int | None = None) -> None:
        """Unknown beforehand: the solver chooses its steps.

        Args:
            steps: not looked at.

        Returns:
            None.
        """
        return

    def with_calls(self, calls: int) -> Self:
        """Refused: the tolerance decides.

        Args:
            calls: largest number of calls.

        Returns:
            Nothing.

        Raises:
            GenoptError: always.
        """
        raise GenoptError(
            f"sampler: dopri5 cannot keep to {calls} network calls, its tolerance decides: use a "
            "sampler with fixed steps, such as midpoint"
        )

    def grid(self, steps: int | None = None) -> list[float]:
        """The times of a kept trajectory.

        Args:
            steps: number of intervals; None for the sampler's own.

        Returns:
            Ascending, equally spaced times from 0 to 1, one more than steps.
        """
        count = self.steps if steps is None else steps
        return [i / count for i in range(count + 1)]

    def solve(
        self,
        field: Field,
        x: Tensor,
        steps: int | None = None,
        backward: bool = False,
        keep: bool = False,
    ) -> Solution:
        """Carry a state from t = 0 to t = 1.

        Args:
            field: the velocity, called as ``field(t, x)``.
            x: state at the start.
            steps: points of a kept trajectory; None for the sampler's own.
            backward: from t = 1 to t = 0 instead.
            keep: whether to keep all states.

        Returns:
            The solution.
        """
        from torchdiffeq import odeint

        times = x.new_tensor(self.grid(steps) if keep else [0.0, 1.0])
        states: Tensor = odeint(
            lambda t, state: field(float(t), state),
            x,
            times.flip(0) if backward else times,
            rtol=self.tolerance,
            atol=self.tolerance,
            method="dopri5",
        )
        return Solution(states[-1], states if keep else None)


Sampler = FixedStep | Dopri5
