"""Section: what gmr gets wrong beside genopt's answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gmr
import numpy as np
from scipy.stats import chi2, norm

from genopt import GaussianMixture
from genopt.models.mixture.gaussian import Gaussian
from mixture.tools import table, version


def section() -> str:
    """Each line runs both packages on the same numbers."""
    lines: list[str] = []

    def show(case: str, truth: str, ask: Callable[[Any], Any], *args: Any) -> None:
        answers = []
        for kind in (gmr.GMM, GaussianMixture):
            parts = [np.array(part, dtype=np.float64) for part in args]
            try:
                answers.append(str(ask(kind(len(parts[0]), *parts, random_state=0))))
            except Exception as error:
                answers.append(f"{type(error).__name__}: {str(error)[:60]}")
        lines.append(f"| {case} | {truth} | {answers[0]} | {answers[1]} |")

    def number(value: Any) -> str:
        return f"{float(np.ravel(value)[0]):.4g}"

    eye = np.eye(2)
    show(
        "density 60 deviations away, its log",
        number(norm.logpdf([60.0, 0.0]).sum()),
        lambda g: number(
            g.log_prob([[60.0, 0.0]])
            if isinstance(g, GaussianMixture)
            else np.log(g.to_probability_density(np.array([[60.0, 0.0]])))
        ),
        [1.0], [[0.0, 0.0]], [eye],
    )  # fmt: skip
    eye4 = np.eye(4)
    show(
        "units of 1e-5, determinant clamped: share of the narrower of two components at their mean",
        number(16 / 17),
        lambda g: number(g.to_responsibilities(np.zeros((1, 4)))),
        [0.5, 0.5], np.zeros((2, 4)), [1e-10 * eye4, 4e-10 * eye4],
    )  # fmt: skip
    big = np.stack([np.eye(200) * 1e4, np.eye(200) * 1.1e4])
    ratio = 1.1**100
    show(
        "200 columns, determinant overflows: the same share",
        number(ratio / (1 + ratio)),
        lambda g: number(g.to_responsibilities(np.zeros((1, 200)))),
        [0.5, 0.5], np.zeros((2, 200)), big,
    )  # fmt: skip
    small = np.zeros((3, 3))
    small[:2, :2] = 1e-6
    small[2, 2] = 1e-4
    show(
        "two equal columns given (exactly singular), deviation 1e-3: mean of the third, at the "
        "first of two components 10 deviations apart",
        "0",
        lambda g: number(g.predict([0, 1], np.zeros((1, 2)))),
        [0.5, 0.5], [[0.0, 0.0, 0.0], [0.01, 0.01, 1.0]], [small, small],
    )  # fmt: skip
    # three causes of five columns, with a deviation of 1e-8 of their own
    loadings = np.random.default_rng(3).normal(size=(5, 3))
    show(
        "near singular (rank 3 but for 1e-16): smallest eigenvalue of the conditional "
        "covariance of two of five columns",
        "positive",
        lambda g: number(
            np.linalg.eigvalsh(g.condition([0, 1, 2], [[0.0, 0.0, 0.0]]).covariances[0])
        ),
        [1.0], [np.zeros(5)], [loadings @ loadings.T + 1e-16 * np.eye(5)],
    )  # fmt: skip
    show(
        "weights of a dead component (prior 0) and a live one, at the dead one",
        "0, 1",
        lambda g: ", ".join(map(number, g.condition([0], [[1000.0]]).priors)),
        [0.0, 1.0], [[1000.0, 0.0], [0.0, 0.0]], [eye, eye],
    )  # fmt: skip
    show(
        "query at 1e155: weights of components of variance 1 and 4",
        "0, 1",
        lambda g: ", ".join(map(number, g.condition([0], [[1e155]]).priors)),
        [0.5, 0.5], [[0.0, 0.0], [0.0, 0.0]], [eye, 4 * eye],
    )  # fmt: skip
    whole = [
        ("the mixture", lambda g: g),
        ("its Gaussian, to_mvn", lambda g: g.to_mvn()),
        ("a component of a conditional", lambda g: g.condition([0], [[0.0]]).extract_mvn(0)),
    ]

    def share_inside(law: Any, points: Any) -> str:
        # gmr takes one point at a time
        if isinstance(law, GaussianMixture | Gaussian):
            return number(law.is_in_confidence_region(points, 0.6827).mean())
        return number(np.mean([law.is_in_confidence_region(x, 0.6827) for x in points]))

    for d, variance in ((1, 4.0), (2, 1.0), (3, 1.0), (5, 1.0)):
        draws = np.random.default_rng(0).normal(size=(2000, d)) * math.sqrt(variance)
        exact = (np.square(draws).sum(1) / variance <= chi2(d).ppf(0.6827)).mean()
        for whose, of in whole:
            # the conditional of the first column, which is independent, has one column less
            p = d + ("conditional" in whose)
            show(
                f"{whose}: share of draws in the 68.27 % region, d {d}, variance {variance:g}",
                number(exact),
                lambda g, draws=draws, of=of: share_inside(of(g), draws),
                [1.0], [np.zeros(p)], [variance * np.eye(p)],
            )  # fmt: skip
    for d in (1, 2):
        # squared distances of draws, whose mean is known in closed form
        limit = chi2(d).ppf(0.5)
        exact = d * chi2(d + 2).cdf(limit) / 0.5
        show(
            f"draws in the 50 % region of to_mvn, d {d}: their mean squared distance in deviations",
            number(exact),
            lambda g: number(
                np.square(g.to_mvn().sample_confidence_region(400, 0.5)).sum(1).mean() / 4.0
            ),
            [1.0], [np.zeros(d)], [4.0 * np.eye(d)],
        )  # fmt: skip

    def leaks(kind: Any) -> str:
        means = np.zeros((1, 1))
        gmm = kind(1, np.ones(1), means, np.ones((1, 1, 1)))
        gmm.means[0, 0] = 7.0
        return "changed" if means[0, 0] else "untouched"

    def generator(kind: Any) -> str:
        own = kind(1, [1.0], [[0.0]], [[[1.0]]]).random_state
        return "numpy's global one" if own is np.random.mtrand._rand else "its own"

    for case, truth, ask in (
        ("the caller's array after the mixture's means are set", "untouched", leaks),
        ("generator without a seed", "its own", generator),
    ):
        lines.append(f"| {case} | {truth} | {ask(gmr.GMM)} | {ask(GaussianMixture)} |")
    return (
        f"## Known failures of gmr {version('gmr')}\n\nBoth packages run on the same numbers; "
        "what is right stands first.\n\n" + table("| case | right | gmr | genopt |", lines)
    )
