"""C2ST: how well a classifier tells a model's draws from exact ones; 1/2 is the best that can be.

Settings are those of the benchmark of simulation-based inference (Lueckmann et al. 2021, arXiv
2101.04653), so figures compare with published ones; another classifier gives other numbers. The
accuracy is noisy and saturates: where the exact log density is known, the Kullback-Leibler
divergence of `genopt.analysis.exact_posterior` says more.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError

_FOLDS, _WIDTH, _MOST_PASSES = 5, 10, 1000


@dataclass(frozen=True)
class TwoSample:
    """Accuracy of the classifier.

    Args:
        folds: on each held-out part, 5 numbers.
    """

    folds: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """The mean over the folds."""
        return float(np.mean(self.folds))

    def summary(self) -> dict[str, float]:
        """Plain numbers.

        Returns:
            ``c2st`` and ``c2st_error``, the standard error over the folds.
        """
        error = float(np.std(self.folds, ddof=1)) / len(self.folds) ** 0.5
        return {"c2st": self.accuracy, "c2st_error": error}


def c2st(exact: Tensor, found: Tensor, seed: int = 1) -> TwoSample:
    """The classifier two-sample test: a network of two layers, five folds.

    Args:
        exact: draws of the truth (N, P); both sets are scaled by their mean and spread.
        found: draws of the model (M, P).
        seed: seed of the folds and of the network.

    Returns:
        The accuracies; without any difference 1/2 where N = M.

    Raises:
        GenoptError: if a set is too small, not finite or has other columns.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import KFold, cross_val_score
    from sklearn.neural_network import MLPClassifier

    sets = [torch.as_tensor(part).detach().to("cpu", torch.float64) for part in (exact, found)]
    shapes = [tuple(part.shape) for part in sets]
    if any(len(s) != 2 or s[0] < 2 * _FOLDS for s in shapes) or shapes[0][1] != shapes[1][1]:
        raise GenoptError(
            f"exact has shape {shapes[0]} and found {shapes[1]}; expected (N, P) and (M, P) with "
            f"at least {2 * _FOLDS} rows each"
        )
    if not all(bool(torch.isfinite(part).all()) for part in sets):
        raise GenoptError("exact or found holds entries that are not finite")
    spread = sets[0].std(0)
    rows = torch.cat([(part - sets[0].mean(0)) / spread.where(spread > 0, 1.0) for part in sets])
    labels = np.repeat([0, 1], [len(part) for part in sets])
    width = _WIDTH * rows.shape[1]
    network = MLPClassifier((width, width), max_iter=_MOST_PASSES, random_state=seed)
    folds = KFold(_FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(network, rows.numpy(), labels, cv=folds)
    return TwoSample(tuple(float(score) for score in scores))
