"""A simulator that is asked with care: answers counted, designs it fails on lost alone."""

from __future__ import annotations

import logging
import warnings
from collections import Counter

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Problem

logger = logging.getLogger(__name__)


class SimulationWarning(UserWarning):
    """Some designs could not be simulated; the rest is kept."""


class Simulator:
    """The simulator of a problem, for routines that spend calls.

    A design for which it raises or returns no finite number is lost alone: a batch that raises is
    halved until the designs at fault are found.

    Args:
        problem: whose simulator is asked.
        budget: most designs that may be simulated; None for no limit.

    Attributes:
        calls: designs that were simulated so far, failed ones included.
        failures: how often each reason was met.

    Raises:
        GenoptError: if the problem has no simulator or the budget is not positive.

    Example:
        >>> from genopt.problems import Rastrigin
        >>> simulate = Simulator(Rastrigin())
        >>> y = simulate(torch.zeros(5, 2))
        >>> simulate.calls, simulate.failed
        (5, 0)
    """

    def __init__(self, problem: Problem, budget: int | None = None) -> None:
        if not problem.has_simulator:
            raise GenoptError(
                f"problem {problem.name!r} has measured data only: this needs a simulator"
            )
        if budget is not None and budget < 1:
            raise GenoptError(f"a budget of {budget} simulations: it must be at least 1")
        self.problem = problem
        self.budget = budget
        self.calls = 0
        self.failures: Counter[str] = Counter()

    @property
    def failed(self) -> int:
        """How many designs could not be simulated."""
        return sum(self.failures.values())

    @property
    def left(self) -> int | None:
        """How many designs may still be simulated; None without a budget."""
        return None if self.budget is None else self.budget - self.calls

    def __call__(self, x: Tensor) -> Tensor:
        """Properties of designs, without gradients.

        Args:
            x: designs (..., P) in raw units; a row with NaN is not simulated.

        Returns:
            Properties (..., K), float64; a row of NaN where the simulator failed, NaN where a
            single property is not finite.

        Raises:
            GenoptError: if every design fails, the shape returned is wrong, or the budget does not
                suffice.
        """
        flat = x.reshape(-1, x.shape[-1]).detach().to(torch.float64)
        there = torch.isfinite(flat).all(-1).nonzero()[:, 0]
        if self.left is not None and len(there) > self.left:
            raise GenoptError(
                f"{len(there)} designs asked of the simulator of {self.problem.name!r}, but only "
                f"{self.left} of its budget of {self.budget} are left"
            )
        width = self.problem.y_space.dim
        y = torch.full((len(flat), width), torch.nan, dtype=torch.float64)
        before = Counter(self.failures)
        self.calls += len(there)
        with torch.no_grad():
            self._fill(y, flat, there)
        lost = there[torch.isnan(y[there]).all(-1)]
        found = self.failures - before
        silent = len(lost) - sum(found.values())
        if silent > 0:
            self.failures["no finite number"] += silent
        if len(there) and len(lost) == len(there):
            reason = next(iter(self.failures - before))
            raise GenoptError(
                f"the simulator of {self.problem.name!r} fails for all {len(there)} designs, "
                f"given together as {tuple(flat[there].shape)} and one by one: {reason}"
            )
        if len(lost):
            reasons = "; ".join(str(reason) for reason in self.failures - before)
            warnings.warn(
                f"the simulator of {self.problem.name!r} failed for {len(lost)} of {len(there)} "
                f"designs, which are lost ({reasons})",
                SimulationWarning,
                stacklevel=2,
            )
        return y.reshape(*x.shape[:-1], width)

    def _fill(self, y: Tensor, x: Tensor, rows: Tensor) -> None:
        """Write the answers for some rows; halve them where the simulator raises."""
        if not len(rows):
            return
        try:
            answer = self.problem.simulate(x[rows])
        except Exception as error:
            if len(rows) > 1:
                half = len(rows) // 2
                self._fill(y, x, rows[:half])
                self._fill(y, x, rows[half:])
                return
            logger.info("the simulator fails for %s: %r", x[rows[0]].tolist(), error)
            said = str(error).strip().split("\n")[0]
            self.failures[f"{type(error).__name__}: {said}"] += 1
            return
        if not isinstance(answer, Tensor):
            raise GenoptError(
                f"simulate of problem {self.problem.name!r} returned {type(answer).__name__}; "
                "expected a torch tensor: torch.as_tensor(...) makes one"
            )
        if tuple(answer.shape) != (len(rows), y.shape[1]):
            raise GenoptError(
                f"simulate of problem {self.problem.name!r} returned shape {tuple(answer.shape)} "
                f"for {len(rows)} designs; expected {(len(rows), y.shape[1])}: one column each for "
                f"{', '.join(self.problem.y_space.names)}"
            )
        answer = answer.to(torch.float64)
        y[rows] = torch.where(torch.isfinite(answer), answer, torch.nan)
