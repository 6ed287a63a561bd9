"""Section: the problem suite by the mixture alone, beside three plain baselines."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from genopt import GaussianMixture, Mixture, compose
from genopt.app.compose import conf_folder
from genopt.app.parts import make
from genopt.data.table import Table
from genopt.goal import Goal
from genopt.problems.evaporator import Evaporator
from mixture.suite import (
    FOLLOW,
    OUTLIER,
    Case,
    Figures,
    StationaryEvaporator,
    cases,
    error_of_designs,
    reached,
)
from mixture.tools import table, timed

# the settings were chosen on the seeds before
_FIRST_SEED = 100
BASELINES = ("nearest row", "one Gaussian", "BIC mixture")
SIZES = (1, 2, 3, 4, 6, 8, 10, 12, 15, 20)
# (C, K) targets, number of designs, seed -> (C, n, P)
Sampler = Callable[[Tensor, int, int], Tensor]
# figures by method, components and CPU seconds of genopt's fit
Run = tuple[dict[str, Figures], float, float]


def config(case: Case, seed: int) -> Any:
    """The study of a case, as the command line composes it."""
    return compose([*choices(case), *case.settings, f"seed={seed}"])


def choices(case: Case) -> list[str]:
    """The experiment for a mixture where there is one."""
    special = f"{case.problem.name}_mixture"
    if (conf_folder() / "experiment" / f"{special}.yaml").exists():
        return [f"experiment={special}"]
    return [f"experiment={case.problem.name}", "model=mixture"]


def genopt_sampler(case: Case, rows: Table, seed: int) -> tuple[Sampler, Mixture, float]:
    """Fitted and asked as a study does it."""
    study = config(case, seed)
    problem = case.problem
    model = make(study.model, "model")(problem.x_space, problem.y_space, seed=seed)
    routine = make(study.routine, "routine")
    _, spent = timed(lambda: model.fit(rows.x, rows.y))

    def draw(targets: Tensor, n: int, seed: int) -> Tensor:
        wanted = dict(zip(problem.y_space.names, targets.T.tolist(), strict=True))
        goal = Goal(wanted, problem.x_space, problem.y_space)
        x: Tensor = routine(model, goal, table=rows, samples=n, seed=seed).x
        return x

    return draw, model, spent


def nearest_rows(rows: Table) -> Sampler:
    """The measured row whose outputs, each in units of its deviation, are nearest to a target."""
    unit = rows.y.std(0)

    def draw(targets: Tensor, *_: int) -> Tensor:
        distance = torch.cdist(targets / unit, rows.y / unit)
        return rows.x[distance.argmin(1)][:, None]

    return draw


def plain_mixture(rows: Table, sizes: tuple[int, ...], seed: int) -> Sampler:
    """Scikit-learn's mixture of raw columns, the number of components by BIC."""
    from sklearn.mixture import GaussianMixture as Plain

    joint = torch.cat([rows.x, rows.y], 1).numpy()
    fits = [Plain(k, random_state=seed).fit(joint) for k in sizes]
    best = min(fits, key=lambda fit: fit.bic(joint))
    gmm = GaussianMixture.from_sklearn(best)
    p = rows.x.shape[1]

    def draw(targets: Tensor, n: int, seed: int) -> Tensor:
        known = list(range(p, joint.shape[1]))
        draws = gmm.condition_batch(known, targets.numpy()).sample(n, np.random.default_rng(seed))
        return rows.x_space.project(torch.as_tensor(draws))

    return draw


def figures(case: Case, seed: int) -> Run:
    """Figures by method, components and CPU seconds of genopt's fit."""
    problem = case.problem
    rows = problem.table(seed=seed)
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    targets = goal.condition()[None] if goal.condition().ndim == 1 else goal.condition()
    if case.targets is not None:
        targets = case.targets(seed)
    own, model, spent = genopt_sampler(case, rows, seed)
    samplers = {
        "genopt": own,
        "nearest row": nearest_rows(rows),
        "one Gaussian": plain_mixture(rows, (1,), seed),
        "BIC mixture": plain_mixture(rows, SIZES, seed),
    }
    found = {
        name: case.judge(problem, draw(targets, case.samples, seed), targets)
        for name, draw in samplers.items()
    }
    return found, float(model.selection.n_components), spent


def cheapest(seed: int) -> Run:
    """The evaporator's own goal: the values of its best rows asked for, limits kept."""
    case = Case(Evaporator(), lambda *_: {}, {}, ("model.max_components=60", "routine.targets=1"))
    problem = case.problem
    assert isinstance(problem, Evaporator)
    rows = problem.table(seed=seed)
    study = config(case, seed)
    model = make(study.model, "model")(problem.x_space, problem.y_space, seed=seed)
    _, spent = timed(lambda: model.fit(rows.x, rows.y))
    goal = Goal(problem.default_goal, problem.x_space, problem.y_space)
    x = make(study.routine, "routine")(model, goal, table=rows, seed=seed).x[0]
    best = rows.x[rows.y[:, 0].argmin()][None]
    found = {
        "genopt": error_of_designs(x, problem),
        "nearest row": error_of_designs(best, problem),
    }
    return found, float(model.selection.n_components), spent


def lines_of(
    name: str, asked: Mapping[str, float], run: Callable[[int], Run], seeds: int
) -> list[str]:
    """Rows of the table: medians over the seeds."""
    runs = [run(_FIRST_SEED + i) for i in range(seeds)]
    components = np.median([size for _, size, _ in runs])
    seconds = np.median([spent for _, _, spent in runs])
    lines = []
    for i, (figure, most) in enumerate(asked.items()):
        cells = []
        for method in ("genopt", *BASELINES):
            values = [found[method][figure] for found, _, _ in runs if method in found]
            cells.append(f"{np.median(values):.2g}" if values else "")
            if method == "genopt":
                good = reached(figure, float(np.median(values)), most)
                spread = f"{min(values):.2g} to {max(values):.2g}"
                cells[0] = f"**{cells[0]}**" if good else cells[0]
                cells.append(spread)
        start = name if i == 0 else ""
        fit = f"{components:.0f} | {seconds:.2g}" if i == 0 else " | "
        lines.append(f"| {start} | {figure} | {most:g} | {' | '.join(cells)} | {fit} |")
    return lines


def section(seeds: int) -> str:
    """The Markdown of the section."""
    every = cases()
    lines: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in every:
            lines += lines_of(
                case.name or case.problem.name, case.asked, partial(figures, case), seeds
            )
        lines += lines_of("evaporator, cheapest", every[-1].asked, cheapest, seeds)
    evaporator = next(c.problem for c in every if isinstance(c.problem, StationaryEvaporator))
    signs = ", ".join(
        f"{column} {share:.0%}"
        for column, share in zip(
            evaporator.whole.x_space.names, evaporator.signs().tolist(), strict=True
        )
    )
    head = (
        "| problem | figure | asked | genopt | of the seeds | nearest row | one Gaussian | "
        "BIC mixture | components | fit, CPU s |"
    )
    settings = "; ".join(
        f"`genopt {' '.join((*choices(case), *case.settings))}`"
        for case in every
        if case.settings and not isinstance(case.problem, StationaryEvaporator)
    )
    return f"""## The problem suite

Designs drawn by `routine=condition`, nothing refined; medians over {seeds} seeds of the rows, the
fit and the draws; bold: as good as asked. Settings are those of the experiment files
(`<problem>_mixture` where there is one), and:
{settings}; all rows of the
problem are learnt from, as with `data.validation=0 data.test=0`.
The settings of these files were chosen on other seeds, but absolute_value's criterion on
seeds 0 to 4, 100 to 104 and 200 to 204, which agree. Where they have `interpolated_rows`, the new
rows come from the problem's own ones, not from its simulator.
Baselines see the same rows: the row with the nearest outputs, one Gaussian and scikit-learn's
mixture on raw columns, its size ({SIZES[0]} to {SIZES[-1]}) chosen by BIC. Figures are over all
designs: *bias* and *std* are those of the worst column; *outliers* miss by more than {OUTLIER};
*TV* is the distance between the shares of designs at each answer and the exact ones; *output
error* the norm of simulated minus wanted outputs; targets of cstr_mapping are uniform in its disk.

For the evaporator 2,000 designs show that the cost rises with a column in so many of them:
{signs}. So the bounds of X2 and P100 hold any cheapest design; *derivatives
zero* holds both and asks the mixture of (P2, F1) and the derivatives of the cost by them for zero,
learnt from up to 2,000 feasible Sobol points ({" ".join(FOLLOW)} model.max_components=100).
*Cheapest* asks for the cost of the best row, its four columns free (model.max_components=60
routine.targets=1); its nearest row is that row. Errors there are medians over designs
of the worst of all sixteen variables.

{table(head, lines)}"""
