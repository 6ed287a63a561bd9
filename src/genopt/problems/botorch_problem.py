"""Test problems of botorch as Problems: objectives f1.., slacks of constraints c1.. (at least 0).

Nothing is rewritten: botorch evaluates (Balandat et al., NeurIPS 33 (2020)), in float64 and with
gradients. Functions whose equations are known to be wrong are refused, others come without answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.problems.base import Answer, Problem
from genopt.problems.documented import checked_answers, checked_front, sample, sampled_space
from genopt.space import Space

_ROUNDING = 1e-9
_WRONG = {
    "WeldedBeam": "its constraints have the wrong sign (positive where they are violated): use "
    "problem=pymoo problem.function=welded_beam",
    "SRN": "its equations are not those of Srinivas and Deb (x^4 for x^2 in the circle, "
    "(x2 - 2)^2 for (x2 - 1)^2): use problem=pymoo problem.function=srn",
}
_UNSAFE = {
    "CONSTR": "x1 may reach 10 here, 1 in the published problem, so the published front is not "
    "the best one",
    "PressureVessel": "the objective rounds the thicknesses, the constraints do not, so designs "
    "beat the published optimum",
    "WeldedBeamSO": "a constant of the shear stress is twice the published one, so the published "
    "optimum is another problem's",
}


class BotorchProblem(Problem):
    """A test problem of botorch, without its noise.

    A documented optimum is an answer only if it is feasible, has the documented value and is not
    beaten by a local search; a front only if its points stand the same check. What fails is dropped
    with a warning that says why.

    Args:
        function: the class of botorch.test_functions, such as ``BraninCurrin`` or ``Hartmann``.
        options: its arguments, such as ``{dim: 6}``.
        bounds: bounds of columns of y, by name; those not named are read from a Sobol sample.
        default_rows: number of rows of `table` when none is given.

    Raises:
        GenoptError: if botorch is not installed, it has no such function, its equations are known
            to be wrong, or its designs are not real numbers.
    """

    def __init__(
        self,
        function: str,
        options: Mapping[str, Any] | None = None,
        bounds: Mapping[str, Any] | None = None,
        default_rows: int = 1024,
    ) -> None:
        self.of = _build(function, dict(options or {}))
        self.function = type(self.of).__name__
        # every forward pass of a module would be recorded for its buffers otherwise
        self.of.requires_grad_(False)
        low, high = self.of.bounds.to(torch.float64)
        x_space = Space.from_bounds(list(zip(low.tolist(), high.tolist(), strict=True)))
        count = int(getattr(self.of, "num_objectives", 1))
        wished = [f"f{i + 1}" for i in range(count)] if count > 1 else ["f"]
        self._constraints = int(getattr(self.of, "num_constraints", 0))
        slacks = [f"c{i + 1}" for i in range(self._constraints)]
        given = {str(k): tuple(v) for k, v in (bounds or {}).items()}
        for name in given:
            if name not in (*wished, *slacks):
                raise UnknownNameError("column of problem.bounds", name, (*wished, *slacks))
        with torch.no_grad():
            y = self._evaluate(sample(x_space), x_space)
        least = count > 1 or self.of.is_minimization_problem
        goal: dict[str, Any] = dict.fromkeys(wished, "min" if least else "max")
        goal |= {name: {"at_least": 0.0} for name in slacks}
        self._trusted: bool | None = None
        remark = _UNSAFE.get(self.function)
        super().__init__(
            self.function,
            x_space,
            sampled_space([*wished, *slacks], y, given, slacks),
            goal,
            default_rows=default_rows,
            description=f"Test problem {self.function} of botorch"
            + (f", without answers: {remark}." if remark else "."),
            citation="Balandat et al., BoTorch: a framework for efficient Monte-Carlo Bayesian "
            "optimization, NeurIPS 33 (2020)",
        )
        if count == 1 and remark is None:
            self.answers = self._checked_answers()

    def simulate(self, x: Tensor) -> Tensor:
        """Objectives and slacks of the constraints.

        Args:
            x: designs (..., P).

        Returns:
            Properties (..., K), float64, differentiable in x.
        """
        return self._evaluate(self.x_space.check(x).to(torch.float64), self.x_space)

    def front_designs(self, n: int = 100) -> Tensor:
        """Pareto-optimal designs, where they are known in closed form and stand the check.

        Args:
            n: about how many.

        Returns:
            Designs (n', P); none where no front is known or trusted.
        """
        objectives = int(getattr(self.of, "num_objectives", 1))
        return checked_front(self, self.function.lower(), objectives, n)

    def _evaluate(self, x: Tensor, space: Space) -> Tensor:
        # botorch refuses what rounding has moved over a bound
        inside = torch.minimum(torch.maximum(x.detach(), space.lower), space.upper)
        near = (x.detach() - inside).abs() <= _ROUNDING * (space.upper - space.lower)
        flat = torch.where(near, x + (inside - x.detach()), x).reshape(-1, x.shape[-1])
        parts = [self.of.evaluate_true(flat).reshape(len(flat), -1)]
        if self._constraints:
            parts.append(self.of.evaluate_slack_true(flat))
        y = torch.cat(parts, -1)
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def _checked_answers(self) -> tuple[Answer, ...]:
        """The documented optima, if they are what they say."""
        x, value = getattr(self.of, "optimizers", None), getattr(self.of, "_optimal_value", None)
        if x is None or value is None:
            return ()
        designs = x.to(torch.float64).reshape(-1, self.x_space.dim)
        return checked_answers(self, designs, torch.tensor([float(value)], dtype=torch.float64))


def _build(function: str, options: dict[str, Any]) -> Any:
    try:
        from botorch import test_functions
        from botorch.test_functions.base import BaseTestProblem
    except ImportError as error:
        raise GenoptError(
            "problem=botorch needs the package botorch: pip install 'genopt[bench]'"
        ) from error
    # botorch loads its classes when they are asked for
    found = {name: getattr(test_functions, name) for name in dir(test_functions)}
    known = {
        name: made
        for name, made in found.items()
        if inspect.isclass(made)
        and issubclass(made, BaseTestProblem)
        and not inspect.isabstract(made)
    }
    names = {name.lower(): name for name in known}
    name = names.get(function.lower())
    if name is None:
        raise UnknownNameError("problem.function", function, sorted(known))
    if name in _WRONG:
        raise GenoptError(f"botorch's {name} is refused: {_WRONG[name]}")
    kind: Any = known[name]
    try:
        problem = kind(**options)
    except Exception as error:
        raise GenoptError(f"problem.options of botorch's {name}: {error}") from error
    if problem.discrete_inds or problem.categorical_inds:
        raise GenoptError(
            f"botorch's {name} has designs that are not real numbers: only functions with "
            "continuous columns are offered"
        )
    return problem
