"""Section: which score tells targets out of reach, and good draws from bad ones?

Beside the flow's own scores stand those of diagonal flow matching (de Campos, Krebs and Gottschalk,
arXiv 2603.15925), whose flow moves noise to designs and properties to zero at once. It is written
here from the paper's summary, with the network, the rows and the steps of the flow beside it.
"""

from __future__ import annotations

import math
import statistics
from functools import partial

import torch
from torch import Tensor

from genopt import ConditionalFlow, Problem
from genopt.nn.velocity import AdaLNVelocity
from genopt.problems.alloy import Alloy
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.cstr_mapping import CstrMapping
from mixture.tools import timed

ROWS, EPOCHS, BATCH, WIDTH, DEPTH = 5_000, 150, 256, 64, 3
TARGETS, DRAWS, POOL, STEPS = 400, 8, 200_000, 32
# a target is out of reach if no design of the pool comes nearer, in widths of the box of all y
NEAR, FAR = 0.01, 0.03
PROBLEMS = {"arm_kinematics": ArmKinematics, "cstr_mapping": CstrMapping, "alloy": Alloy}


class Diagonal:
    """The flow from (noise, properties) to (designs, zero).

    Args:
        x: designs (N, P).
        y: properties (N, K).
        seed: seed of weights and batches.
    """

    def __init__(self, x: Tensor, y: Tensor, seed: int) -> None:
        self.scales = [(v.mean(0), v.std(0)) for v in (x, y)]
        self.width = x.shape[1]
        rows = torch.cat([self._scaled(x, 0), self._scaled(y, 1)], 1).float()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.network = AdaLNVelocity(rows.shape[1], 1, WIDTH, DEPTH)
            self._train(rows)

    def _scaled(self, v: Tensor, which: int) -> Tensor:
        mean, std = self.scales[which]
        return (v - mean) / std

    def _train(self, rows: Tensor) -> None:
        steps = EPOCHS * (len(rows) // BATCH)
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=3e-3)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps, pct_start=0.05)
        mean = torch.optim.swa_utils.AveragedModel(
            self.network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
        )
        for _ in range(steps):
            picked = rows[torch.randint(len(rows), (BATCH,))]
            x, y = picked[:, : self.width], picked[:, self.width :]
            start = torch.cat([torch.randn_like(x), y], 1)
            end = torch.cat([x, torch.zeros_like(y)], 1)
            t = torch.rand(BATCH, 1)
            moved = self._velocity((1 - t) * start + t * end, t[:, 0])
            loss = (moved - (end - start)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            mean.update_parameters(self.network)
        self.network = mean.module.eval()

    def _velocity(self, state: Tensor, t: Tensor) -> Tensor:
        embedded = self.network.embed(state.new_zeros(len(state), 1))
        return self.network(state, t, embedded)

    @torch.no_grad()
    def _moved(self, state: Tensor, forward: bool) -> Tensor:
        """By midpoint steps from one end to the other."""
        size = 1.0 / STEPS if forward else -1.0 / STEPS
        t = 0.0 if forward else 1.0
        for _ in range(STEPS):
            at = partial(torch.full, (len(state),))
            middle = state + 0.5 * size * self._velocity(state, at(t))
            state = state + size * self._velocity(middle, at(t + 0.5 * size))
            t += size
        return state

    def sample(self, y: Tensor, n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Designs (C, n, P), their zero-deviation and their self-consistency (C, n)."""
        wanted = self._scaled(y, 1).float().repeat_interleave(n, 0)
        noise = torch.randn(len(wanted), self.width, generator=torch.Generator().manual_seed(seed))
        end = self._moved(torch.cat([noise, wanted], 1), True)
        x, rest = end[:, : self.width], end[:, self.width :]
        back = self._moved(torch.cat([x, torch.zeros_like(rest)], 1), False)
        missed = (back[:, self.width :] - wanted).norm(dim=1)
        mean, std = self.scales[0]
        raw = (mean + std * x.double()).reshape(len(y), n, -1)
        return raw, rest.norm(dim=1).reshape(len(y), n), missed.reshape(len(y), n)


def auroc(score: Tensor, positive: Tensor) -> float:
    """How often a positive scores above a negative."""
    rank = torch.cat([score[positive], score[~positive]]).argsort().argsort().double()
    count, others = int(positive.sum()), int((~positive).sum())
    return float((rank[:count].sum() - count * (count - 1) / 2) / (count * others))


def spearman(a: Tensor, b: Tensor) -> float:
    """Rank correlation."""
    ranks = torch.stack([v.argsort().argsort().double() for v in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def targets_of(problem: Problem, seed: int) -> tuple[Tensor, Tensor]:
    """Targets over the box of all properties, and which of them no design reaches."""
    pool = problem.table(POOL, seed + 1).y
    low, width = pool.amin(0), pool.amax(0) - pool.amin(0)
    generator = torch.Generator().manual_seed(seed)
    # a tenth beyond the box on each side
    unit = 1.2 * torch.rand(4 * TARGETS, len(low), generator=generator, dtype=pool.dtype) - 0.1
    nearest = torch.cdist(unit, (pool - low) / width).amin(1)
    reached, lost = (nearest < NEAR).nonzero()[:, 0], (nearest > FAR).nonzero()[:, 0]
    count = min(len(reached), len(lost), TARGETS // 2)
    chosen = torch.cat([reached[:count], lost[:count]])
    return low + unit[chosen] * width, torch.arange(2 * count) >= count


def judged(name: str, seed: int) -> dict[str, list[float]]:
    """By score: AUROC, rank correlation, error of the best of the draws by it; and the errors."""
    problem = PROBLEMS[name]()
    rows = problem.table(ROWS, seed)
    y, lost = targets_of(problem, seed)
    width = problem.y_space.upper - problem.y_space.lower
    flow = ConditionalFlow(
        problem.x_space,
        problem.y_space,
        epochs=EPOCHS,
        network={"kind": "adaln", "width": WIDTH, "depth": DEPTH},
        seed=seed,
    )
    _, flow_cost = timed(partial(flow.fit, rows.x, rows.y))
    diagonal, diagonal_cost = timed(partial(Diagonal, rows.x, rows.y, seed))
    found: dict[str, list[float]] = {}

    def judge(x: Tensor, scores: dict[str, Tensor], cost: float) -> None:
        errors = ((problem.simulate(problem.x_space.project(x)) - y[:, None]) / width).norm(dim=-1)
        errors = errors.nan_to_num(nan=math.sqrt(len(width)))
        good = errors[~lost]
        for label, score in scores.items():
            inside = score[~lost]
            best = good.gather(1, inside.argmin(1, keepdim=True))
            found[label] = [
                auroc(score.mean(1), lost),
                spearman(inside.mean(1), good.mean(1)),
                float(good.median()),
                float(best.median()),
                cost,
            ]

    draws = flow.sample(y, DRAWS, generator=torch.Generator().manual_seed(seed))
    flat = draws.flatten(0, 1), y.repeat_interleave(DRAWS, 0)
    density = flow.log_prob(*flat).reshape(len(y), DRAWS)
    familiar = flow.ood_score(y)[:, None].expand(-1, DRAWS)
    judge(
        draws, {"flow, `ood_score(y)`": familiar, "flow, -log p(x, given y)": -density}, flow_cost
    )
    x, zero, consistent = diagonal.sample(y, DRAWS, seed)
    scores = {"diagonal, zero-deviation": zero, "diagonal, self-consistency": consistent}
    judge(x, scores, diagonal_cost)
    return found


def section(seeds: int = 3) -> str:
    """The Markdown of the section."""
    lines = [
        "## Targets out of reach\n",
        f"{ROWS:,} rows, networks of {WIDTH} x {DEPTH}, {EPOCHS} epochs. Targets lie evenly over "
        "the box of all properties and a tenth beyond it; half of them are reached by none of "
        f"{POOL:,} designs. *AUROC*: how often such a target scores above one in reach (mean score "
        f"of {DRAWS} draws). *Rank correlation* of score and true error over targets in reach. "
        f"*Error*: median over all draws for these, in widths of y, and of the one of {DRAWS} with "
        "the best score. The diagonal scores are read from the paper's summary: properties "
        "that are left when the design is there, and the properties that the way back finds. "
        f"Medians over {seeds} seed(s).\n",
        "| problem | score | AUROC | rank correlation | error | error of the best | fit, CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in PROBLEMS:
        runs = [judged(name, seed) for seed in range(seeds)]
        for label in runs[0]:
            values = [statistics.median(run[label][i] for run in runs) for i in range(5)]
            lines.append(
                f"| {name} | {label} | {values[0]:.3f} | {values[1]:.2f} | {values[2]:.1e} | "
                f"{values[3]:.1e} | {values[4]:.0f} |"
            )
    return "\n".join(lines)
