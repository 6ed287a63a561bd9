"""Test problems of pymoo as Problems: objectives f1.., constraints g1.. (at most 0), h1.. (0).

Nothing is rewritten: pymoo evaluates (Blank and Deb, IEEE Access 8 (2020) 89497). Its fronts are
not used, because it downloads some of them; those that are known in closed form come from
`genopt.problems.fronts`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.problems.base import Answer, Problem
from genopt.problems.documented import checked_answers, checked_front, sample, sampled_space
from genopt.space import Space

_EQUAL = 1e-4


class PymooProblem(Problem):
    """A test problem of pymoo.

    A documented optimum is an answer only if it is feasible, has the documented value and is not
    beaten by a local search; a front only if its points stand the same check. What fails is dropped
    with a warning that says why.

    Args:
        function: pymoo's name, such as ``bnh``, ``osy``, ``zdt2`` or ``g6``.
        options: arguments of the function, such as ``{n_var: 10}``.
        bounds: bounds of columns of y, by name; those not named are read from a Sobol sample.
        default_rows: number of rows of `table` when none is given.

    Raises:
        GenoptError: if pymoo is not installed, it has no such function, or the function's designs
            are not numbers within bounds.
    """

    def __init__(
        self,
        function: str,
        options: Mapping[str, Any] | None = None,
        bounds: Mapping[str, Any] | None = None,
        default_rows: int = 1024,
    ) -> None:
        self.function = function.lower()
        self.of = _build(self.function, dict(options or {}))
        x_space = _x_space(self.function, self.of)
        count = int(self.of.n_obj)
        wished = [f"f{i + 1}" for i in range(count)] if count > 1 else ["f"]
        below = [f"g{i + 1}" for i in range(int(self.of.n_ieq_constr))]
        equal = [f"h{i + 1}" for i in range(int(self.of.n_eq_constr))]
        names = [*wished, *below, *equal]
        given = {str(k): tuple(v) for k, v in (bounds or {}).items()}
        for name in given:
            if name not in names:
                raise UnknownNameError("column of problem.bounds", name, names)
        y_space = sampled_space(names, self._evaluate(sample(x_space)), given, below + equal)
        goal: dict[str, Any] = dict.fromkeys(wished, "min")
        goal |= {name: {"at_most": 0.0} for name in below}
        goal |= {name: {"equals": 0.0, "tolerance": _EQUAL} for name in equal}
        self._trusted: bool | None = None
        super().__init__(
            self.function,
            x_space,
            y_space,
            goal,
            default_rows=default_rows,
            description=f"Test problem {self.function!r} of pymoo.",
            citation="Blank and Deb, pymoo: multi-objective optimization in Python, IEEE Access 8 "
            "(2020) 89497",
        )
        if count == 1:
            self.answers = self._checked_answers()

    def simulate(self, x: Tensor) -> Tensor:
        """Objectives and constraints.

        Args:
            x: designs (..., P).

        Returns:
            Properties (..., K), float64, without gradients.
        """
        return self._evaluate(self.x_space.check(x))

    def front_designs(self, n: int = 100) -> Tensor:
        """Pareto-optimal designs, where they are known in closed form and stand the check.

        Args:
            n: about how many.

        Returns:
            Designs (n', P); none where no front is known or trusted.
        """
        return checked_front(self, self.function, int(self.of.n_obj), n)

    def _evaluate(self, x: Tensor) -> Tensor:
        flat = x.detach().to(torch.float64).reshape(-1, x.shape[-1]).numpy()
        with np.errstate(all="ignore"):
            out = self.of.evaluate(flat, return_as_dictionary=True)
        parts = [np.asarray(out[k], float).reshape(len(flat), -1) for k in "FGH" if k in out]
        y = torch.from_numpy(np.concatenate(parts, 1).copy())
        return y.reshape(*x.shape[:-1], y.shape[-1])

    def _checked_answers(self) -> tuple[Answer, ...]:
        """The documented optima, if they are what they say."""
        x, value = self.of.pareto_set(), self.of.pareto_front()
        if x is None or value is None:
            return ()
        designs = torch.as_tensor(np.asarray(x, float)).reshape(-1, self.x_space.dim)
        return checked_answers(self, designs, torch.as_tensor(np.asarray(value, float)).reshape(-1))


def _build(function: str, options: dict[str, Any]) -> Any:
    try:
        from pymoo.problems import get_problem
    except ImportError as error:
        raise GenoptError(
            "problem=pymoo needs the package pymoo: pip install 'genopt[pareto]'"
        ) from error
    try:
        problem = get_problem(function, **options)
    except TypeError as error:
        raise GenoptError(f"problem.options of pymoo's {function!r}: {error}") from error
    except Exception as error:
        if "not found" in str(error):
            raise UnknownNameError("problem.function", function, _names()) from error
        raise GenoptError(f"pymoo cannot build {function!r}: {error}") from error
    # what pymoo's functions do not know lands in this drawer without a word
    unused = [name for name in options if name in problem.data]
    if unused:
        raise GenoptError(f"problem.options: pymoo's {function!r} takes no {unused[0]!r}")
    return problem


def _names() -> list[str]:
    """The functions of pymoo as `get_problem` calls them."""
    from pymoo.core.problem import Problem as Theirs
    from pymoo.problems import many, multi, single

    found = [(name, kind) for room in (single, multi, many) for name, kind in vars(room).items()]
    return [
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
        for name, kind in found
        if inspect.isclass(kind)
        and issubclass(kind, Theirs)
        and len(name) > 1
        and kind is not Theirs
    ]


def _x_space(function: str, problem: Any) -> Space:
    numbers = problem.vtype in (float, None) and function != "zdt5"
    if not numbers or problem.xl is None or problem.xu is None:
        raise GenoptError(
            f"pymoo's {function!r} has designs that are not real numbers within bounds: only "
            "functions with continuous, bounded columns are offered"
        )
    low, high = np.asarray(problem.xl, float), np.asarray(problem.xu, float)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise GenoptError(f"pymoo's {function!r} has no finite bounds for its designs")
    return Space.from_bounds(list(zip(low.tolist(), high.tolist(), strict=True)))
