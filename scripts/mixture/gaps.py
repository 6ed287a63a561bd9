"""Section: EM over missing entries beside tgmm and mean imputation."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import torch
from scipy.stats import multivariate_normal

from genopt import best_gmm
from mixture.tools import Array, some_mixture, table, timed, version


def tgmm_mixture() -> Any:
    try:
        return importlib.import_module("tgmm").GaussianMixture
    except ImportError:
        return None


def observed_likelihood(rows: Array, weights: Array, means: Array, covariances: Array) -> float:
    """Mean log density of the observed entries, by scipy, pattern by pattern."""
    known = np.isfinite(rows)
    patterns, member = np.unique(known, axis=0, return_inverse=True)
    total = 0.0
    for p, seen in enumerate(patterns):
        if not seen.any():
            continue
        part = rows[member.ravel() == p][:, seen]
        logs = [
            math.log(w) + multivariate_normal(m[seen], c[np.ix_(seen, seen)]).logpdf(part)
            for w, m, c in zip(weights, means, covariances, strict=True)
        ]
        total += float(np.logaddexp.reduce(np.reshape(logs, (len(weights), -1)), axis=0).sum())
    return total / len(rows)


def section() -> str:
    n, d, k, share = 10_000, 10, 5, 0.3
    rng = np.random.default_rng(0)
    rows = some_mixture(k, d, 1).sample(n, random_state=0)
    gappy = np.where(rng.random(rows.shape) < share, np.nan, rows)
    fit, fast = timed(lambda: best_gmm(gappy, k, min_components=k, tolerance=1e-4).gmm, 2)
    own = observed_likelihood(gappy, fit.priors, fit.means, fit.covariances)
    lines = [f"| genopt | {fast:.3g} | {own:.4f} |"]
    make = tgmm_mixture()
    if make is not None:
        model = make(k, missing="em", random_state=0, device="cpu")
        _, slow = timed(lambda: model.fit(torch.from_numpy(gappy)), 2)
        parts = [
            np.asarray(getattr(model, f"{name}_").detach(), dtype=np.float64)
            for name in ("weights", "means", "covariances")
        ]
        theirs = observed_likelihood(gappy, *parts)
        stopped = f"tgmm {version('tgmm')}, {model.n_iter_} iterations"
        lines.append(f"| {stopped} | {slow:.3g} | {theirs:.4f} |")
        lines.append(f"| asked | at most {slow / 5:.3g} (1/5) | at least {theirs:.4f} |")
    else:
        lines.append("| tgmm (not installed) | - | - |")
    true = 0.6 ** np.abs(np.subtract.outer(np.arange(d), np.arange(d)))
    errors = []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        whole = rng.multivariate_normal(np.zeros(d), true, n)
        holes = np.where(rng.random(whole.shape) < share, np.nan, whole)
        filled = np.where(np.isnan(holes), np.nanmean(holes, 0), holes)
        guesses = (best_gmm(holes, 1).gmm.covariances[0], np.cov(whole.T), np.cov(filled.T))
        errors.append([np.linalg.norm(guess - true) / np.linalg.norm(true) for guess in guesses])
    error = np.median(errors, axis=0)
    second = table(
        "| EM over the gaps | asked | all entries known | mean imputation |",
        [f"| {error[0]:.3g} | 0.03 | {error[1]:.3g} | {error[2]:.3g} |"],
    )
    first = table("| EM over the gaps | CPU s | log likelihood of a row |", lines)
    return f"""## Gaps

10,000 rows of 10 columns, 30 % of the entries missing at random, five components, each package with
its default start and tgmm's tolerance of 1e-4, which it takes relative to the likelihood. The
likelihood is that of the observed entries, worked out by scipy for both.

{first}

Relative error of a covariance (0.6^abs(i - j), one component, median over three seeds).

{second}"""
