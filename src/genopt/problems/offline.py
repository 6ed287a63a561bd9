"""Optimisation from data alone, as the literature tests it: rows of a simulator without the best.

N designs are drawn, the best share of them is thrown away, and a method proposes designs without
asking the simulator; only then these are simulated. So it shows whether a method goes beyond its
data (Trabucco et al. 2022, Design-Bench, arXiv 2202.08450; Krishnamoorthy et al. 2023, DDOM, arXiv
2306.07180).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genopt.build import build
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.goal import Goal
from genopt.problems.base import Problem
from genopt.terms import DIRECTIONS


@dataclass(frozen=True)
class OfflineScores:
    """What proposals are worth in truth, beside the best of the data.

    Args:
        best: the best true value of the proposals.
        median: their median.
        data: the best value of the data.
        regret: how far the best proposal is from the known optimum; NaN where none is known.
        ratio: the same of the data, divided by it: above 1 the best proposal beats the data.
    """

    best: float
    median: float
    data: float
    regret: float
    ratio: float

    def numbers(self) -> dict[str, float]:
        """Name to number, without those that are not known."""
        return {k: v for k, v in vars(self).items() if v == v}


class Offline(Problem):
    """Another problem's rows without its best ones.

    Args:
        of: a problem with a simulator whose goal is one wish (``min`` or ``max``), or its node.
        draw: designs that are drawn, uniformly.
        drop_best: share of them that is thrown away, the best ones.
        proposals: how many designs a method may propose.

    Raises:
        GenoptError: if the problem has no simulator or another goal, or a number is out of range.
    """

    def __init__(
        self,
        of: Problem | Mapping[str, Any],
        draw: int = 5000,
        drop_best: float = 0.4,
        proposals: int = 128,
    ) -> None:
        inner = build(of, "problem.of") if isinstance(of, Mapping) else of
        if not isinstance(inner, Problem) or not inner.has_simulator:
            raise GenoptError("problem.of must be a problem with a simulator, such as ackley")
        if not 0.0 <= drop_best < 1.0:
            raise GenoptError(
                f"problem.drop_best must be a share of the rows in [0, 1), got {drop_best}"
            )
        if draw < 2 or proposals < 1:
            raise GenoptError(
                f"problem.draw={draw} must be at least 2 and problem.proposals={proposals} at "
                "least 1"
            )
        goal = Goal(inner.default_goal, inner.x_space, inner.y_space)
        if len(goal.terms) != 1 or goal.terms[0].kind not in DIRECTIONS:
            raise GenoptError(
                f"problem.of={inner.name} asks for {goal}: an offline problem needs one wish, min "
                "or max"
            )
        self.inner, self.drop_best, self.proposals = inner, drop_best, proposals
        self.term = goal.terms[0]
        super().__init__(
            f"offline_{inner.name}",
            inner.x_space,
            inner.y_space,
            inner.default_goal,
            default_rows=draw,
            answers=inner.answers,
            description=f"{inner.description} Learned from the worse rows only.",
            citation=inner.citation,
        )

    def simulate(self, x: Tensor) -> Tensor:
        """The other problem's simulator.

        Args:
            x: designs (..., P).

        Returns:
            Properties (..., K).
        """
        return self.inner.simulate(x)

    def table(self, n: int | None = None, seed: int = 0) -> Table:
        """The rows that are left when the best ones are thrown away.

        Args:
            n: designs that are drawn; None for ``draw``.
            seed: seed of the draw.

        Returns:
            The Table, with ``1 - drop_best`` of the rows.
        """
        rows = self.inner.table(self._row_count(n), seed)
        miss = self.term.miss(rows.y[:, self.term.index])
        order = torch.where(torch.isnan(miss), torch.inf, miss).argsort(stable=True)
        kept = order[int(self.drop_best * len(rows)) :]
        return rows.rows(kept.sort().values)

    def scores(self, proposed: Tensor, data: Tensor) -> OfflineScores:
        """What proposals are worth.

        Args:
            proposed: the true properties of the proposals (..., K).
            data: the properties of the rows that were learned from (N, K).

        Returns:
            The scores.
        """
        sign = -1.0 if self.term.kind == "max" else 1.0
        found = self.term.miss(proposed[..., self.term.index]).flatten()
        found = found[torch.isfinite(found)]
        known = self.term.miss(data[:, self.term.index])
        best, there = float(found.min()), float(known[torch.isfinite(known)].min())
        regret = ratio = float("nan")
        if self.answers:
            least = min(float(self.term.miss(a.y[self.term.index])) for a in self.answers)
            regret = best - least
            ratio = (there - least) / max(regret, 1e-12)
        return OfflineScores(sign * best, sign * float(found.median()), sign * there, regret, ratio)
