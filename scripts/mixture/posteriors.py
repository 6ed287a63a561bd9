"""Section: two tasks of the SBI benchmark whose posterior is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import numpy as np
from scipy.stats import norm

from genopt import GaussianMixture, best_gmm
from mixture.tools import Array, table, timed

OBSERVATIONS, CLASSIFIED, DRAWS = 10, 3, 2000
SEEDS, LARGEST, MEMBERS = 3, 60, 3


class Task(Protocol):
    """A task of the benchmark: its simulator, and its exact posterior."""

    name: str
    bound: float

    def simulate(self, theta: Array, rng: np.random.Generator) -> Array:
        """Observations (N, 2) of parameters (N, 2)."""

    def propose(self, x: Array, n: int, rng: np.random.Generator) -> Array:
        """Draws (n, 2) of the posterior before the prior's box cuts it."""

    def log_posterior(self, theta: Array, x: Array, share: float) -> Array:
        """Its log density (n,), given the share of `propose` that lies in the box."""


class TwoMoons:
    """A crescent, shifted by the folded parameters."""

    name, bound = "two moons", 1.0

    def simulate(self, theta: Array, rng: np.random.Generator) -> Array:
        """Observations of parameters."""
        angle = rng.uniform(-np.pi / 2, np.pi / 2, len(theta))
        radius = rng.normal(0.1, 0.01, len(theta))
        first = radius * np.cos(angle) + 0.25 - np.abs(theta.sum(1)) / math.sqrt(2)
        return np.stack([first, radius * np.sin(angle) - (theta @ [1, -1]) / math.sqrt(2)], 1)

    def propose(self, x: Array, n: int, rng: np.random.Generator) -> Array:
        """The crescent turned round, and its mirror image."""
        crescent = self.simulate(np.zeros((n, 2)), rng)
        total = crescent[:, 0] - x[0]
        # the size of a sum cannot be negative: such draws are no posterior draws
        total = np.where(total > 0.0, rng.choice([-1.0, 1.0], n) * total, np.nan)
        difference = crescent[:, 1] - x[1]
        return np.stack([total + difference, total - difference], 1) / math.sqrt(2)

    def log_posterior(self, theta: Array, x: Array, share: float) -> Array:
        """The crescent's density in polar coordinates, on two sides."""
        first = x[0] + np.abs(theta.sum(1)) / math.sqrt(2) - 0.25
        second = x[1] + (theta @ [1, -1]) / math.sqrt(2)
        radius = np.hypot(first, second)
        return norm.logpdf(radius, 0.1, 0.01) - np.log(np.pi * radius) - math.log(2.0 * share)


class TwoWidths:
    """The parameters plus noise that is wide or narrow."""

    name, bound = "Gaussian mixture", 10.0

    def simulate(self, theta: Array, rng: np.random.Generator) -> Array:
        """Observations of parameters."""
        return self.propose(theta, len(theta), rng)

    def propose(self, x: Array, n: int, rng: np.random.Generator) -> Array:
        """The noise is symmetric."""
        width = np.where(rng.random((n, 1)) < 0.5, 1.0, 0.1)
        return x + width * rng.normal(size=(n, 2))

    def log_posterior(self, theta: Array, x: Array, share: float) -> Array:
        """Two Gaussians, cut by the box."""
        wide, narrow = (norm.logpdf(theta, x, width).sum(1) for width in (1.0, 0.1))
        return np.logaddexp(wide, narrow) - math.log(2.0 * share)


def inside(propose: Callable[[int], Array], n: int, bound: float) -> tuple[Array, float]:
    """Draws in the box and the share of proposals that lie in it."""
    kept, tried = np.empty((0, 2)), 0
    while len(kept) < n:
        draws = propose(4 * n)
        tried += len(draws)
        kept = np.concatenate([kept, draws[(np.abs(draws) <= bound).all(1)]])
    return kept[:n], len(kept) / tried


def c2st(exact: Array, found: Array) -> float:
    """Accuracy of the benchmark's classifier, 5 folds."""
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    rows = (np.concatenate([exact, found]) - exact.mean(0)) / exact.std(0)
    labels = np.repeat([0, 1], [len(exact), len(found)])
    width = 10 * rows.shape[1]
    network = MLPClassifier((width, width), max_iter=1000, random_state=1)
    folds = KFold(5, shuffle=True, random_state=1)
    return float(cross_val_score(network, rows, labels, cv=folds).mean())


def judged(
    task: Task, gmm: GaussianMixture, x: Array, rng: np.random.Generator, classify: bool
) -> tuple[float, float]:
    """KL from the exact posterior given x in nats, and C2ST (NaN unless asked for)."""
    exact, share = inside(lambda n: task.propose(x, n, rng), DRAWS, task.bound)
    mixture = gmm.condition([2, 3], x)
    found, own = inside(lambda n: mixture.sample(n, rng), DRAWS, task.bound)
    # draws outside the box are drawn again, which raises the density inside
    log_found = mixture.log_prob(exact) - math.log(own)
    divergence = (task.log_posterior(exact, x, share) - log_found).mean()
    return float(divergence), c2st(exact, found) if classify else math.nan


def measured(task: Task, seed: int, members: int) -> list[float]:
    """Components of each member, C2ST, KL and CPU seconds for one set of simulations."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-task.bound, task.bound, (10_000, 2))
    data = np.concatenate([theta, task.simulate(theta, rng)], 1)
    fit, spent = timed(partial(best_gmm, data, LARGEST, members=members))
    fresh = np.random.default_rng(1)
    truth = fresh.uniform(-task.bound, task.bound, (OBSERVATIONS, 2))
    scores = [
        judged(task, fit.gmm, x, fresh, i < CLASSIFIED)
        for i, x in enumerate(task.simulate(truth, fresh))
    ]
    divergence, accuracy = np.nanmean(scores, axis=0)
    return [fit.n_components, accuracy, divergence, spent]


def section() -> str:
    """The Markdown of the section."""
    lines = []
    tasks: tuple[tuple[Task, str], ...] = (
        (TwoMoons(), "0.53, 0.12"),
        (TwoWidths(), "0.555, 0.10"),
    )
    for task, asked in tasks:
        for members in (1, MEMBERS):
            runs = [measured(task, seed, members) for seed in range(SEEDS)]
            size, accuracy, divergence, spent = np.median(runs, axis=0)
            lines.append(
                f"| {task.name} | {members} x {size:.0f} | {accuracy:.3f} | {divergence:.3f} | "
                f"{asked} | {spent:.3g} |"
            )
    head = (
        "| task | members x components chosen | C2ST | KL, nats | asked: C2ST, KL | "
        "fit, CPU s (asked: 10) |"
    )
    return f"""## Posteriors of the SBI benchmark

Two tasks of Lueckmann et al. 2021 (arXiv 2101.04653) from 10,000 simulations, median over {SEEDS}
sets of them; the number of components, at most {LARGEST}, is chosen by BIC. `members={MEMBERS}`
averages {MEMBERS} mixtures of that number. KL from the exact posterior: mean over {OBSERVATIONS}
observations. C2ST: accuracy of the benchmark's network, {DRAWS:,} draws of each, mean over
{CLASSIFIED} of them.

{table(head, lines)}"""
