"""Section: fits, conditionals and a choice beside scikit-learn and gmr."""

from __future__ import annotations

import gmr
import numpy as np
from sklearn.mixture import GaussianMixture as ScikitMixture

from genopt import best_gmm
from mixture.tools import some_mixture, table, timed


def section() -> str:
    lines = []

    def row(task: str, other: str, theirs: float, ours: float, asked: str, agreement: str) -> None:
        lines.append(
            f"| {task} | {other} | {theirs:.3g} | {ours:.3g} | {theirs / ours:.3g} | {asked} | "
            f"{agreement} |"
        )

    k, d = 20, 10
    data = some_mixture(k, d, 0).sample(100_000, random_state=0)
    scaled = (data - data.mean(0)) / data.std(0)
    theirs, slow = timed(lambda: ScikitMixture(k, random_state=0).fit(scaled), 2)
    ours, fast = timed(lambda: best_gmm(data, k, min_components=k, tolerance=1e-3).gmm, 2)
    gap = ours.log_prob(data[:20_000]).mean() - (
        theirs.score(scaled[:20_000]) - np.log(data.std(0)).sum()
    )
    likelihood = f"log likelihood a row {gap:+.2g}"
    row("fit, n 100,000, d 10, k 20", "scikit-learn", slow, fast, ">= 1 / 1.1", likelihood)
    iterations = theirs.n_iter_

    plain = gmr.GMM(k, ours.priors, ours.means, ours.covariances, random_state=0)
    given, queries = list(range(5)), data[:10_000, :5]
    theirs, slow = timed(lambda: plain.predict(given, queries), 3)
    found, fast = timed(lambda: ours.predict(given, queries), 3)
    gap = np.abs(theirs - found).max()
    row("10,000 conditional means", "gmr", slow, fast, ">= 3", f"within {gap:.1g}")

    few = 100
    theirs, slow = timed(lambda: [plain.condition(given, x[None]) for x in queries[:few]])
    batch, fast = timed(lambda: ours.condition_batch(given, queries), 3)
    gap = max(
        max(np.abs(one.covariances - batch.covariances).max(), np.abs(one.means - means).max())
        for one, means in zip(theirs, batch.means, strict=False)
    )
    part = slow * len(queries) / few
    row("10,000 full conditionals *", "gmr", part, fast, ">= 1,000", f"within {gap:.1g}")
    _, slow = timed(lambda: [plain.condition(given, x[None]).sample(1) for x in queries[:few]])
    _, fast = timed(lambda: ours.condition_batch(given, queries).sample(1, seed=0), 3)
    row("10,000 x 1 draws *", "gmr", slow * len(queries) / few, fast, ">= 1,000", "")

    data = some_mixture(8, 4, 3).sample(10_000, random_state=0)
    scaled = (data - data.mean(0)) / data.std(0)

    def sweep() -> tuple[int, float]:
        fits = {n: ScikitMixture(n, random_state=0).fit(scaled) for n in range(1, 21)}
        scores = {n: fit.bic(scaled) for n, fit in fits.items()}
        best = min(scores, key=lambda n: scores[n])
        return best, scores[best] + 2.0 * len(data) * np.log(data.std(0)).sum()

    theirs, slow = timed(sweep)
    fit, fast = timed(lambda: best_gmm(data, 20))
    choice = (
        f"BIC {min(fit.scores.values()):.0f} with k = {fit.n_components} (the truth is 8), "
        f"{theirs[1]:.0f} with k = {theirs[0]}"
    )
    row("BIC sweep k 1 to 20, n 10,000, d 4", "scikit-learn", slow, fast, ">= 1", choice)
    head = "| task | beside | its CPU s | genopt, CPU s | times faster | asked | agreement |"
    return f"""## Speed

The same mixture, or the same table (standardised for scikit-learn), for both; of ten columns five
are given.

{table(head, lines)}

\\* {few} of gmr's loop, times {len(queries) // few}. Both fits start from the same k-means and
stop at a tolerance of 1e-3, scikit-learn's after {iterations} iterations. The sweep is genopt's
default: it stops where larger numbers do not help, here after {max(fit.scores)}, and refines the
best to 1e-5.
"""
