"""Section: given, discrete and many columns of x, guidance, conditions far from the data."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from genopt import ConditionalFlow
from genopt.models.flow import columns
from genopt.models.flow.conditions import ConditionEncoder
from genopt.models.flow.familiarity import Familiarity
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.plug_flow import PlugFlow
from genopt.problems.two_moons import TwoMoons
from genopt.space import Space, Variable
from mixture.tools import table, timed

SHARES = (0.0, 0.1, 0.3, 0.6)
EPOCHS = 100
PRIOR = np.array([0.4, 0.1, 0.25, 0.05, 0.2])
SHIFTS = np.array([0.6, 0.3, 0.1])


def lines(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return table(f"| {' | '.join(header)} |", [f"| {' | '.join(row)} |" for row in rows])


# -- given columns of x ----------------------------------------------------------------------------
def divergences(flow: ConditionalFlow, problem: TwoMoons, points: Tensor, y: Tensor) -> list[float]:
    """KL in nats of p(theta | y) and, where it is learned, of p(theta2 | theta1, y)."""
    exact = problem.log_posterior(points, y)
    found = [float((exact - flow.log_prob(points, y)).mean())]
    if flow.given_x:
        grid = torch.linspace(-1.0, 1.0, 4001, dtype=torch.float64)
        marginal = torch.stack(
            [
                problem.log_posterior(torch.stack([t.expand(4001), grid], -1), y).logsumexp(0)
                for t in points[:200, 0]
            ]
        )
        marginal = marginal + torch.log(grid[1] - grid[0])
        density = flow.log_prob(points[:200], y, given=["theta1"])
        found.append(float((exact[:200] - marginal - density).mean()))
    return found


def given_rows(seeds: int) -> str:
    problem = TwoMoons()
    rows = []
    for share in SHARES:
        scores, seconds = [], []
        for seed in range(seeds):
            data = problem.table(10_000, seed)

            flow = ConditionalFlow(problem.x_space, problem.y_space, given_x=share, seed=seed)
            _, spent = timed(lambda f=flow, d=data: f.fit(d.x, d.y, epochs=EPOCHS))
            seconds.append(spent)
            truth = problem.table(3, 1000 + seed)
            parts = [
                divergences(flow, problem, problem.posterior(y, 500, seed), y[None])
                for y in truth.y
            ]
            scores.append(np.mean(parts, 0))
        median = np.median(scores, 0)
        held = f"{median[1]:.3f}" if share else "refused"
        rows.append((f"{share:g}", f"{median[0]:.3f}", held, f"{np.median(seconds):.0f}"))
    header = ("`given_x`", "KL p(theta given y)", "KL p(theta2 given theta1, y)", "training, CPU s")
    return (
        f"**Given columns of x.** Two moons, 10,000 simulations, {EPOCHS} epochs, means over three "
        f"observations, medians over {seeds} seeds; KL in nats.\n\n{lines(header, rows)}"
    )


# -- discrete designs ------------------------------------------------------------------------------
def discrete_rows(seeds: int) -> str:
    space = Space(
        (
            Variable("n", 1, 5, kind="integer"),
            Variable("k", kind="categorical", labels=("r", "s", "t")),
            Variable("c"),
        )
    )
    i, j = np.indices((5, 3))
    prior = PRIOR[i] * SHIFTS[(j - i) % 3]
    rows = []
    for name, limit in (("cells of a line", 0), ("corners (default)", columns.ONE_HOT_UP_TO)):
        scores, seconds = [], []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            n = rng.choice(5, 4000, p=PRIOR)
            k = (n + rng.choice(3, 4000, p=SHIFTS)) % 3
            c = rng.normal(size=4000)
            y = n - 2 * k + 0.5 * c + 0.7 * rng.normal(size=4000)
            x = np.column_stack([n + 1, k, c])
            default, columns.ONE_HOT_UP_TO = columns.ONE_HOT_UP_TO, limit
            flow = ConditionalFlow(space, Space((Variable("y"),)), seed=seed)
            columns.ONE_HOT_UP_TO = default
            _, spent = timed(lambda f=flow, x=x, y=y: f.fit(x, y[:, None], epochs=80))
            seconds.append(spent)
            wanted = (0.0, 1.5, 3.0, -2.0)
            drawn = flow.sample(torch.tensor(wanted)[:, None], 5000).long().numpy()
            distances = []
            for value, part in zip(wanted, drawn, strict=True):
                exact = prior * np.exp(-0.5 * (value - i + 2 * j) ** 2 / 0.74)
                exact /= exact.sum()
                found = np.bincount((part[:, 0] - 1) * 3 + part[:, 1], minlength=15) / len(part)
                found = found.reshape(5, 3)
                distances.append(
                    [0.5 * np.abs(found.sum(a) - exact.sum(a)).sum() for a in (1, 0)]
                    + [0.5 * np.abs(found - exact).sum()]
                )
            scores.append(np.mean(distances, 0))
        tv = [f"{value:.3f}" for value in np.median(scores, 0)]
        rows.append((name, *tv, f"{np.median(seconds):.0f}"))
    header = ("integers of few values as", "integer", "class", "both", "training, CPU s")
    return (
        "**Discrete designs.** An integer of five values and a class of three, posterior by Bayes' "
        "rule; total variation between drawn and exact shares, mean over four observations.\n\n"
        f"{lines(header, rows)}"
    )


# -- many columns that move together ---------------------------------------------------------------
def pca_rows(seeds: int, columns_of_x: int = 40) -> str:
    names = [f"x{i}" for i in range(columns_of_x)]
    space = Space(tuple(Variable(name) for name in names))
    y_space = Space((Variable("u"), Variable("v")))
    rows = []
    for pca in (False, True):
        scores, seconds = [], []
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            first, second = rng.normal(size=(4, 16)), rng.normal(size=(16, columns_of_x)) / 4
            weights = rng.normal(size=(columns_of_x, 2)) / 6
            x = np.tanh(0.6 * rng.normal(size=(6000, 4)) @ first) @ second
            x += 0.05 * rng.normal(size=x.shape)

            def simulate(x: np.ndarray, weights: np.ndarray = weights) -> np.ndarray:
                return np.stack([x @ weights[:, 0], np.sin(x @ weights[:, 1])], -1)

            y = simulate(x) + 0.02 * rng.normal(size=(6000, 2))
            flow = ConditionalFlow(space, y_space, x_pca=pca, seed=seed)
            _, spent = timed(lambda f=flow, x=x, y=y: f.fit(x[:5000], y[:5000], epochs=EPOCHS))
            seconds.append(spent)
            drawn = flow.sample(torch.from_numpy(y[5000:5064]), 100).numpy()
            miss = np.sqrt(((simulate(drawn) - y[5000:5064, None]) ** 2).mean())
            density = flow.log_prob(torch.from_numpy(x[5000:5200]), torch.from_numpy(y[5000:5200]))
            scores.append([miss, -float(density.mean())])
        median = np.median(scores, 0)
        spent = f"{np.median(seconds):.0f}"
        rows.append((str(pca).lower(), f"{median[0]:.3f}", f"{median[1]:.2f}", spent))
    header = ("`x_pca`", "miss of the properties, rms", "-log p of unseen designs, nats", "CPU s")
    return (
        f"**Many columns that move together.** {columns_of_x} columns near a curved sheet of four "
        f"dimensions, 5,000 rows, {EPOCHS} epochs.\n\n{lines(header, rows)}"
    )


# -- guidance --------------------------------------------------------------------------------------
def guidance_rows() -> str:
    problem = PlugFlow()
    data = problem.table(2000, 0)
    flow = ConditionalFlow(problem.x_space, problem.y_space).fit(data.x, data.y, epochs=EPOCHS)
    wanted = problem.table(50, 1).y
    rows = []
    for weight in (0.5, 1.0, 1.5, 2.0, 4.0):
        x = flow.sample(wanted, 200, guidance=weight)
        miss = (problem.simulate(x) - wanted[:, None]).square().mean().sqrt()
        spread = x.std(1).mean()
        rows.append((f"{weight:g}", f"{float(miss):.4f}", f"{float(spread):.3f}"))
    header = ("guidance", "miss of the properties, rms", "spread of the designs, mean std")
    return (
        "**Guidance.** `plug_flow`, 2,000 rows, 50 unseen targets, 200 draws each. Each target has "
        "one design, so a spread is error here.\n\n" + lines(header, rows)
    )


# -- conditions far from the data ------------------------------------------------------------------
def ranked(inside: Tensor, outside: Tensor) -> float:
    """Area under the curve: how often an outside score is the larger one."""
    larger = (outside[:, None] > inside[None]).double()
    return float((larger + 0.5 * (outside[:, None] == inside[None])).mean())


def mahalanobis(points: Tensor, center: Tensor, scale: Tensor) -> Tensor:
    return torch.linalg.solve_triangular(scale, (points - center).T, upper=False).norm(dim=0)


def ood_rows(seeds: int) -> str:
    rows = []
    for problem in (TwoMoons(), PlugFlow(), ArmKinematics()):
        shares, areas = [], []
        for seed in range(seeds):
            data, fresh = problem.table(2000, seed).y, problem.table(1000, 500 + seed).y
            encoder, familiarity = ConditionEncoder(problem.y_space), Familiarity(problem.y_space)
            encoder.fit(data[:1800])
            generator = torch.Generator().manual_seed(seed)
            familiarity.fit(encoder.encode(data[:1800]), encoder.encode(data[1800:]), generator)
            score = familiarity.score(*encoder.encode(fresh))
            shares.append(float((score > 1.0).double().mean()))
            center, scale = data.mean(0), torch.linalg.cholesky(torch.cov(data.T))
            plain = torch.linalg.solve_triangular(scale, (fresh - center).T, upper=False).norm(
                dim=0
            )
            line = []
            for shift in (0.5, 1.0, 2.0):
                angle = torch.rand(1000, 1, generator=generator, dtype=torch.float64) * 2 * torch.pi
                way = torch.cat([angle.cos(), angle.sin()], 1) * shift * data.std(0)
                # moved targets that are still as near to data as data is are not far
                moved = fresh + way
                far = torch.cdist(moved / data.std(0), data / data.std(0)).min(1).values
                moved = moved[far > 0.5 * shift]
                if len(moved) < 20:
                    line += [float("nan")] * 2
                    continue
                away = familiarity.score(*encoder.encode(moved))
                line += [ranked(score, away), ranked(plain, mahalanobis(moved, center, scale))]
            areas.append(line)
        median = [f"{value:.3f}" for value in np.median(areas, 0)]
        pairs = [f"{ours} / {other}" for ours, other in zip(median[::2], median[1::2], strict=True)]
        rows.append((problem.name, f"{100 * np.mean(shares):.1f} %", *pairs))
    header = ("problem", "fresh conditions above 1", "moved by .5 std", "by 1 std", "by 2 std")
    return (
        "**Conditions far from the data.** Two thousand rows; about 1 % of fresh conditions should "
        "score above 1. Area under the curve of far against fresh targets: `ood_score` / the "
        "Mahalanobis distance. Far targets: fresh ones moved at random that end at least half as "
        f"far from every row.\n\n{lines(header, rows)}"
    )


def section(seeds: int = 5) -> str:
    parts = [
        given_rows(seeds),
        discrete_rows(seeds),
        pca_rows(seeds),
        guidance_rows(),
        ood_rows(seeds),
    ]
    return (
        "## Given columns, discrete designs, many columns, guidance, far conditions\n\n"
        + "\n\n".join(parts)
    )
