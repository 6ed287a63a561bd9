"""Section: proposals improved on the simulator, beside the classical baseline from many starts."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt import Candidates, ConditionalFlow, Goal, Mixture, Problem, Space
from genopt.analysis.resimulation import mmd2
from genopt.models.nothing import Nothing
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.base import Answer
from genopt.problems.cstr_mapping import CstrMapping
from genopt.problems.evaporator import STATE, Evaporator
from genopt.problems.gasoline_blend import GasolineBlend
from genopt.problems.inactive_constraint import InactiveConstraint
from genopt.problems.peng_robinson import PengRobinson
from genopt.problems.plane_projection import PlaneProjection
from genopt.routines.multistart import multistart
from genopt.routines.propose import propose
from genopt.routines.refine import refine_candidates
from mixture.tools import table

PROPOSALS, ROWS = 64, 1000
NEAR = 1e-4
ARM_PAIRS, ARM_TARGETS, ARM_DRAWS, ARM_EPOCHS = 20_000, 20, 500, 60
# converged, error of the best design of each answer that was found, answers found, calls,
# gradients, CPU seconds after the fit
Row = tuple[float, float, float, float, float, float]


class Process(Problem):
    """All sixteen variables of the evaporator as designs, its twelve equations as equalities."""

    def __init__(self) -> None:
        self.whole = Evaporator()
        wide = {"F1": (1, 20), "F2": (0.1, 5), "F3": (0.1, 100), "F4": (0.1, 20), "F5": (0.1, 20)}
        wide |= {"X2": (35.5, 50), "T2": (60, 120), "T3": (60, 100), "P2": (40, 80)}
        wide |= {"F100": (0.1, 30), "T100": (100, 170), "P100": (200, 400), "Q100": (10, 800)}
        wide |= {"F200": (0, 400), "T201": (26, 80), "Q200": (10, 800)}
        equations = [f"h{i}" for i in range(1, 13)]
        best = self.whole.answers[0]
        super().__init__(
            "evaporator, 16 variables",
            Space.of(**{name: wide[name] for name in STATE}),
            Space.of(J=(-600.0, 3300.0), **dict.fromkeys(equations, (-1.0, 1.0))),
            {"J": "min", **dict.fromkeys(equations, 0.0)},
            answers=(Answer(self.whole.state(best.x), torch.cat([best.y[:1], torch.zeros(12)])),),
        )

    def simulate(self, x: Tensor) -> Tensor:
        """Cost and residuals."""
        v = dict(zip(STATE, x.unbind(-1), strict=True))
        cost = 600.0 * v["F100"] + 0.6 * v["F200"] + 1.009 * (v["F2"] + v["F3"])
        cost = cost + 0.2 * v["F1"] - 4800.0 * v["F2"]
        return torch.cat([cost[..., None], self.whole.residuals(x)], -1)

    def design(self, n: int, seed: int = 0) -> Tensor:
        """States that keep all equations."""
        return self.x_space.project(self.whole.state(self.whole.design(n, seed)))


@dataclass(frozen=True)
class Case:
    """A problem and what is asked of the refined designs."""

    problem: Problem
    asked: str
    columns: tuple[str, ...] | None = None


CASES = (
    Case(PengRobinson(), "3 of 3, 1e-8"),
    Case(CstrMapping(), ""),
    Case(GasolineBlend(), "1e-5"),
    Case(InactiveConstraint(), "1e-6"),
    Case(PlaneProjection(), "1e-6"),
    Case(Evaporator(), "1e-8 of J"),
    Case(Process(), "1e-8 of J", ("J",)),
)


def judged(problem: Problem, found: Candidates, spent: float) -> Row:
    """What is read off candidates."""
    truth = torch.stack([answer.x for answer in problem.answers])
    width = problem.x_space.upper - problem.x_space.lower
    done = found.converged if found.converged is not None else torch.ones(found.shape).bool()
    x = found.x[0][done[0]]
    gap = ((x[:, None] - truth) / width).abs().amax(-1)
    nearest = gap.amin(0) if len(x) else torch.full((len(truth),), math.inf)
    numbers = found.header.get("numbers", {})
    return (
        float(done.double().mean()) if found.converged is not None else math.nan,
        float(nearest.max()) if found.converged is not None else float(gap.amin(1).median()),
        float((nearest <= NEAR).double().mean()),
        numbers.get("calls", 0),
        numbers.get("gradients", 0),
        spent,
    )


def one_seed(case: Case, seed: int) -> tuple[dict[str, Row], float]:
    """By method: what is measured with one seed; and the error of the cheapest design's wish."""
    problem = case.problem
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    rows = problem.table(ROWS, seed)
    model = Mixture(problem.x_space, problem.y_space, y_columns=case.columns, seed=seed)
    model.fit(rows.x, rows.y)

    def timed(work: Callable[[], Candidates]) -> tuple[Candidates, float]:
        start = time.process_time()
        return work(), time.process_time() - start

    asked = goal
    if case.columns:
        words = {k: v for k, v in problem.default_goal.items() if k in case.columns}
        asked = Goal(words, problem.x_space, problem.y_space)
    proposed, spent = timed(lambda: propose(model, asked, PROPOSALS, table=rows, seed=seed))
    out = {"mixture alone": judged(problem, proposed, spent)}
    refined, after = timed(lambda: refine_candidates(proposed, problem, goal))
    out["**refine**"] = judged(problem, refined, spent + after)
    slow, after = timed(lambda: refine_candidates(proposed, problem, goal, method="slsqp"))
    out["SLSQP from the same proposals"] = judged(problem, slow, spent + after)
    nothing = Nothing(problem.x_space, problem.y_space)
    for method in ("slsqp", "lbfgsb", "differential_evolution"):
        options: dict[str, Any] = {"problem": problem, "starts": PROPOSALS, "method": method}
        found, after = timed(lambda o=options: multistart(nothing, goal, seed=seed, **o))
        out[f"multistart, {method}"] = judged(problem, found, after)
    return out, _wish(problem, refined)


def _wish(problem: Problem, found: Candidates) -> float:
    """Relative error of the wish at the cheapest converged design; NaN without a wish."""
    wishes = [k for k, v in problem.default_goal.items() if v == "min"]
    if not wishes or found.converged is None or not bool(found.converged.any()):
        return math.nan
    column = problem.y_space.index(wishes[0])
    truth = float(problem.answers[0].y[column])
    values = found.y_predicted[0][found.converged[0], column]
    return float((values - truth).abs().min()) / max(abs(truth), 1.0)


def arm(seed: int) -> tuple[float, ...]:
    """Squared error and MMD^2 of a flow's postures, before and after; share that converged."""
    problem = ArmKinematics()
    rows = problem.table(ARM_PAIRS, seed)
    flow = ConditionalFlow(problem.x_space, problem.y_space, epochs=ARM_EPOCHS, seed=seed)
    flow.fit(rows.x, rows.y)
    y = problem.table(ARM_TARGETS, seed + 7919).y
    exact = problem.posterior(y, ARM_DRAWS, seed)
    goal = Goal({"y1": y[:, 0], "y2": y[:, 1]}, problem.x_space, problem.y_space)
    before = propose(flow, goal, ARM_DRAWS, seed=seed)
    start = time.process_time()
    after = refine_candidates(before, problem, goal)
    spent = time.process_time() - start

    def miss(x: Tensor) -> float:
        return float((problem.simulate(x) - y[:, None]).square().sum(-1).median())

    return (
        miss(before.x),
        miss(after.x),
        float(mmd2(before.x, exact).mean()),
        float(mmd2(after.x, exact).mean()),
        float(after.converged.double().mean()),
        after.header["numbers"]["calls"] / len(after),
        spent,
    )


def _cells(row: Row) -> str:
    converged, error, found, calls, gradients, spent = row
    shown = "" if math.isnan(converged) else f"{100 * converged:.0f} %"
    cost = f"{calls:,.0f} | {gradients:,.0f}" if calls else " | "
    return f"{shown} | {100 * found:.0f} % | {error:.1e} | {cost} | {spent:.2f} |"


def section(seeds: int = 5) -> str:
    """The Markdown of the section."""
    warnings.simplefilter("ignore")
    lines = []
    for case in CASES:
        runs = [one_seed(case, seed) for seed in range(seeds)]
        for method in runs[0][0]:
            row = tuple(np.median([run[0][method] for run in runs], axis=0))
            lines.append(f"| {case.problem.name} | {method} | {_cells(row)}")
        wish = float(np.median([run[1] for run in runs]))
        said = "" if math.isnan(wish) else f", wish {wish:.0e} off"
        lines.append(f"| | *asked: {case.asked or '-'}*{said} | | | | | | |")
    found = np.median([arm(seed) for seed in range(seeds)], axis=0)
    head = "| problem | method | converged | answers found | error | calls | gradients | CPU s |"
    postures = table(
        "| postures of | squared error | MMD² |",
        [
            f"| the flow | {found[0]:.1e} | {found[2]:.4f} |",
            f"| the flow, refined | {found[1]:.1e} | {found[3]:.4f} |",
            "| *asked* | *1e-10* | *not worse* |",
        ],
    )
    return f"""## Proposals, refined

{PROPOSALS} proposals of a mixture that learned {ROWS:,} rows, improved by `routine=refine`; the
same by scipy's SLSQP one by one; and `routine=multistart` from {PROPOSALS} Sobol points, which
learns nothing. Error: largest miss of a column in widths, of the converged design nearest to each
answer (median over all designs for the mixture alone); an answer is found where that is below
{NEAR}. Medians over {seeds} seed(s). `evaporator, 16 variables` has all variables as designs and
twelve equations as equalities.

{table(head, lines)}

Arm kinematics: {ARM_DRAWS} draws for each of {ARM_TARGETS} targets by a small flow ({ARM_PAIRS:,}
pairs); median squared distance of the hand, and MMD² to as many exact draws.
{100 * found[4]:.1f} % converged with {found[5]:.1f} calls each in {found[6]:.1f} CPU s.

{postures}"""
