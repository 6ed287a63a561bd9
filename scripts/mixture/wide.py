"""Section: kinds of covariances on tables wider than ten columns, judged by unseen rows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np

from genopt import best_gmm
from genopt.errors import GenoptError
from genopt.models.mixture import GaussianMixture, MixtureFit
from genopt.models.mixture.columns import JointColumns
from genopt.models.mixture.em import Components
from genopt.models.mixture.observed import observed_log_prob
from genopt.models.mixture.rows import usable_rows
from genopt.problems import Photostability, SuzukiCoupling, Thermophysical
from genopt.problems.base import Problem
from mixture.tools import Array, table, timed

SEEDS = (0, 1, 2)
KINDS = ("full", "tied", "diag", "factors", "auto")
_MOST_COMPONENTS = 4
_UNSEEN = 500


def joint(problem: Problem) -> tuple[Array, list[int]]:
    """The columns that the mixture of a problem sees, and which of them are of y."""
    measured = problem.table()
    rows = usable_rows(measured.x, measured.y, problem.x_space, problem.y_space, None)
    columns = JointColumns(problem.x_space, problem.y_space, rows.y_columns)
    return columns.fit_rows(rows.x, rows.y), columns.fitted_y


def low_rank(d: int, rank: int, clusters: int, bend: float) -> tuple[Array, list[int]]:
    """Rows of exactly low rank beside each column's own noise; bent ones are no mixture of few."""
    rng = np.random.default_rng(d)
    loadings, bends = rng.normal(size=(2, d, rank)) / np.sqrt(rank)
    centers = 3.0 * rng.normal(size=(clusters, rank))
    latent = centers[rng.integers(0, clusters, 3000)] + rng.normal(size=(3000, rank))
    noise = 0.3 * rng.normal(size=(3000, d)) * np.sqrt(rng.uniform(0.3, 2.0, d))
    return latent @ loadings.T + bend * latent**2 @ bends.T + noise, [d - 3, d - 2, d - 1]


def tables() -> Iterator[tuple[str, Array, list[int], int]]:
    """Name, rows, columns of y, and how many rows are learned from."""
    yield "3 factors, d 15", *low_rank(15, 3, 1, 0.0), 60
    yield "3 factors in 3 clusters, bent, d 20", *low_rank(20, 3, 3, 0.5), 300
    yield "4 factors in 3 clusters, bent, d 60", *low_rank(60, 4, 3, 0.3), 300
    yield "suzuki_coupling", *joint(SuzukiCoupling()), 290
    try:
        formula = joint(Thermophysical())
    except GenoptError:
        return
    yield "thermophysical, few rows", *formula, 300


def predicted(gmm: GaussianMixture, rows: Array, outputs: list[int]) -> Array:
    inputs = [i for i in range(gmm.dim) if i not in outputs]
    complete = np.isfinite(rows[:, inputs]).all(1)
    found = np.full((len(rows), len(outputs)), np.nan)
    found[complete] = gmm.marginal([*inputs, *outputs]).predict(
        range(len(inputs)), rows[complete][:, inputs]
    )
    return found


def judged(fit: MixtureFit, rows: Array, outputs: list[int]) -> tuple[float, float, float]:
    """Median log densities of a row, joint and of y given x, and the mean R2 of y."""
    parts = Components(fit.gmm.priors, fit.gmm.means, fit.gmm.covariances)
    joint_density = observed_log_prob(rows, parts)
    known = rows.copy()
    known[:, outputs] = np.nan
    conditional = joint_density - observed_log_prob(known, parts)
    found, scores = predicted(fit.gmm, rows, outputs), []
    for j, column in enumerate(outputs):
        seen = np.isfinite(rows[:, column]) & np.isfinite(found[:, j])
        if seen.sum() > 10 and rows[seen, column].std() > 0.0:
            lost = ((rows[seen, column] - found[seen, j]) ** 2).mean() / rows[seen, column].var()
            scores.append(max(1.0 - lost, -1.0))
    answered = np.isfinite(rows[:, outputs]).any(1)
    return (
        float(np.median(joint_density)),
        float(np.median(conditional[answered])),
        float(np.mean(scores)),
    )


def section() -> str:
    lines = []
    for name, rows, outputs, n in tables():
        for kind in KINDS:
            marks, seconds, sizes = [], [], []
            for seed in SEEDS:
                order = np.random.default_rng(seed).permutation(len(rows))
                train, unseen = rows[order[:n]], rows[order[n : n + _UNSEEN]]
                center, scale = np.nanmean(train, 0), np.nanstd(train, 0)
                # a column that hardly varies among few rows has no scale to be judged in
                kept = np.flatnonzero(scale > 0.02 * np.nanstd(rows, 0))
                train, unseen = (
                    ((part - center) / np.where(scale > 0.0, scale, 1.0))[:, kept]
                    for part in (train, unseen)
                )
                mine = [int(np.flatnonzero(kept == c)[0]) for c in outputs if c in kept]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    fit, spent = timed(
                        lambda data=train, kind=kind, seed=seed: best_gmm(
                            data,
                            _MOST_COMPONENTS,
                            criterion="heldout",
                            folds=3,
                            patience=2,
                            covariance=kind,
                            seed=seed,
                        )
                    )
                marks.append(judged(fit, unseen, mine))
                seconds.append(spent)
                rank = "" if fit.n_factors is None else f" x {fit.n_factors}"
                sizes.append(f"{fit.n_components}{rank}")
            density, conditional, r2 = np.median(marks, 0)
            lines.append(
                f"| {name} | {n} x {len(kept)} | {kind} | {', '.join(sizes)} | {density:.2f} | "
                f"{conditional:.2f} | {r2:.3f} | {np.median(seconds):.1f} |"
            )
    head = (
        "| table | learned from | covariance | components (x factors) | log p(x, y) | "
        "log p(y given x) | R2 of y | CPU s |"
    )
    return f"""## Wide tables

Kinds of covariances where columns are many. Components, factors and, with `auto`, the kind are
chosen by held-out likelihood ({_MOST_COMPONENTS} components at most, three folds). Median row of
{_UNSEEN} unseen ones (fewer where the table ends), median of {len(SEEDS)} splits; densities of
standardised columns. The {joint(Photostability())[0].shape[1]} columns of
photostability are left full by `auto`.

{table(head, lines)}
"""
