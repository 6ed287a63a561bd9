"""A simulator as a solver asks it: values, Jacobians, and what they cost.

Slopes come by torch where gradients pass through the simulator, else by differences.
"""

from __future__ import annotations

import logging
import warnings

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.problems.base import Problem
from genopt.problems.simulator import SimulationWarning, Simulator
from genopt.routines.constraints.rules import Rules

logger = logging.getLogger(__name__)

# rows on which a simulator's gradients are compared with differences, and how close they must be
_PROBES = 8
_AGREE = 1e-3
# steps of differences in widths of a column: for float64 and for float32 answers
_STEPS = {torch.float64: (1e-7, 1e-5), torch.float32: (1e-3, 1e-2)}


class Ask:
    """A simulator, and rules on designs, asked for values and slopes.

    Gradients pass through a simulator that is written with torch; whether they do, and are right,
    is tried on a few designs at first use. A black box is asked for differences instead, all
    columns of all designs as one batch.

    Args:
        problem: whose simulator is asked.
        movable: the columns that slopes are wanted for (P,).
        rules: rules on the designs; their residuals follow the properties.
        difference: step of differences in widths of a column; None for 1e-7, or 1e-3 where the
            simulator answers in float32.

    Attributes:
        gradients: designs whose slopes torch has worked out so far.
        differentiable: whether gradients pass; None before the first use.
    """

    def __init__(
        self,
        problem: Problem,
        movable: Tensor,
        rules: Rules | None = None,
        difference: float | None = None,
    ) -> None:
        self.problem = problem
        self.simulator = Simulator(problem)
        self.rules = rules
        self.movable = movable
        self.difference = difference
        self.gradients = 0
        self.differentiable: bool | None = None
        width = problem.x_space.upper - problem.x_space.lower
        self.width = torch.where(torch.isfinite(width) & (width > 0), width, 1.0)
        self._asked = False

    @property
    def calls(self) -> int:
        """Designs that were simulated so far, those of differences included."""
        return self.simulator.calls

    def values(self, x: Tensor) -> Tensor:
        """Properties and residuals of the rules.

        Args:
            x: designs (N, P).

        Returns:
            (N, K), float64; NaN where the simulator fails.

        Raises:
            GenoptError: if it fails for every design of the first call.
        """
        x = x.detach()
        with warnings.catch_warnings():
            # the routine says at its end how many were lost
            warnings.simplefilter("ignore", SimulationWarning)
            try:
                y = self.simulator(x)
            except GenoptError:
                if not self._asked:
                    raise
                y = x.new_full((len(x), self.problem.y_space.dim), torch.nan)
        self._asked = True
        return y if self.rules is None else torch.cat([y, self.rules.residual(x)], -1)

    def slopes(self, x: Tensor, values: Tensor) -> Tensor:
        """Derivatives of the values by the movable columns.

        Args:
            x: designs (N, P) whose values are known.
            values: those values (N, K).

        Returns:
            (N, K, P); zero by columns that do not move and where they are not finite.
        """
        if self.differentiable is None:
            self._probe(x)
        width = self.problem.y_space.dim
        found = self._by_torch(x) if self.differentiable else self._by_steps(x, values[:, :width])
        if self.rules is not None:
            found = torch.cat([found, self.rules.linearised(x.detach()).slope], 1)
        found = torch.where(torch.isfinite(found), found, 0.0)
        return torch.where(self.movable, found, 0.0)

    def traced(self, x: Tensor) -> Tensor:
        """The values as a function that autograd can differentiate once.

        Args:
            x: designs (N, P) that may need a gradient.

        Returns:
            (N, K).
        """
        if self.differentiable is None:
            self._probe(x.detach())
        if self.differentiable and self.rules is None:
            self.gradients += len(x)
            self.simulator.calls += len(x)
            return self._forward(x)
        values = self.values(x)
        # the tangent has the value and the gradient that are wanted
        tangent = self.slopes(x.detach(), values) @ (x - x.detach())[..., None]
        return values + tangent[..., 0]

    def _forward(self, x: Tensor) -> Tensor:
        """Properties with their graph; rows that fail are NaN."""
        try:
            return self.problem.simulate(x).to(torch.float64)
        except Exception as error:
            logger.debug("the simulator fails for some of %d designs: %r", len(x), error)
        good = torch.isfinite(self.values(x)).all(-1)
        out = x.new_full((len(x), self.problem.y_space.dim), torch.nan)
        if bool(good.any()):
            out = out.index_put((good,), self.problem.simulate(x[good]).to(torch.float64))
        return out

    def _by_torch(self, x: Tensor) -> Tensor:
        """Rows do not see one another, so the slopes of their sum are those of each row."""
        self.gradients += len(x)

        def summed(point: Tensor) -> Tensor:
            return self.problem.simulate(point).to(torch.float64).sum(0)

        return torch.func.jacrev(summed)(x.detach().clone()).transpose(0, 1).detach()

    def _by_steps(self, x: Tensor, y: Tensor) -> Tensor:
        """Forward differences, turned back where they would leave the bounds."""
        columns = self.movable.nonzero()[:, 0]
        step = (self.difference or 1e-7) * self.width[columns]
        here = x[:, columns]
        step = torch.where(here + step > self.problem.x_space.upper[columns], -step, step)
        # what is added is what float64 can hold
        step = (here + step) - here
        ahead = x[:, None].repeat(1, len(columns), 1)
        place = torch.arange(len(columns))
        ahead[:, place, columns] += step
        found = self.values(ahead.reshape(-1, x.shape[1]))[:, : y.shape[1]]
        rise = found.reshape(len(x), len(columns), -1) - y[:, None]
        slopes = x.new_zeros(len(x), y.shape[1], x.shape[1])
        slopes[..., columns] = (rise / step[..., None]).transpose(1, 2)
        return slopes

    def _probe(self, x: Tensor) -> None:
        """Compare the slopes that torch gives with differences, along one direction a design."""
        space = self.problem.x_space
        some = x[torch.isfinite(x).all(-1)][:_PROBES]
        dtype = torch.float64
        try:
            answer = self.problem.simulate(some.clone())
            dtype = answer.dtype if answer.dtype in _STEPS else torch.float64
            self.simulator.calls += len(some)
            slopes = self._by_torch(some)
        except Exception as error:
            logger.info("%s is a black box: %r", self.problem.name, error)
            slopes = None
        step, long_step = _STEPS[dtype]
        self.difference = self.difference or step
        if slopes is None:
            self.differentiable = False
            return
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, some.shape, generator=generator).to(torch.float64) * 2 - 1
        way = long_step * self.width * torch.where(self.movable, signs, 0.0)
        most = torch.minimum(some - space.lower, space.upper - some).clamp_min(0.0)
        # a design at a bound is tried along it
        way = torch.where(most >= way.abs(), way, 0.0)
        both = self.values(torch.cat([some + way, some - way]))[:, : slopes.shape[1]]
        rise = 0.5 * (both[: len(some)] - both[len(some) :])
        claimed = (slopes @ way[..., None])[..., 0]
        noise = 1e-9 * (1.0 + both.abs().nan_to_num().amax(0))
        right = (claimed - rise).abs() <= _AGREE * (claimed.abs() + rise.abs()) + noise
        known = torch.isfinite(rise)
        self.differentiable = bool((2 * (right & known).sum(0) >= known.sum(0)).all())
        if not self.differentiable:
            wrong = (2 * (right & known).sum(0) < known.sum(0)).nonzero()[:, 0].tolist()
            logger.info(
                "the gradients of %s for %s are not its slopes: differences are taken",
                self.problem.name,
                ", ".join(self.problem.y_space.names[i] for i in wrong),
            )
