"""Mixtures that other libraries fitted, as arguments of `GaussianMixture`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from genopt.errors import GenoptError


def parameters_of_gmr(gmm: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Arguments that make the same mixture as a `gmr.GMM`.

    Args:
        gmm: the mixture.
        names: names of its columns; None for its own, if it has any.

    Returns:
        Priors (k,), summing to one, means (k, p) and covariances (k, p, p), all copies, with names
        and number of parameters, if it has them.

    Raises:
        GenoptError: if it has not been fitted.
    """
    values = [getattr(gmm, name, None) for name in ("priors", "means", "covariances")]
    if any(value is None for value in values):
        raise GenoptError(
            f"{type(gmm).__name__} has no priors, means and covariances: fit it first"
        )
    priors, means, covariances = (np.array(value, dtype=np.float64) for value in values)
    return {
        "n_components": len(priors),
        "priors": priors / priors.sum(),
        "means": means,
        "covariances": covariances,
        "names": getattr(gmm, "names", None) if names is None else names,
        "n_parameters": getattr(gmm, "n_parameters", None),
    }


def parameters_of_sklearn(model: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
    """Arguments that make the same mixture as one of scikit-learn.

    Args:
        model: a fitted ``GaussianMixture`` or ``BayesianGaussianMixture`` of any
            ``covariance_type``.
        names: names of its columns; None for those of the data frame it was fitted to, if any.

    Returns:
        Priors (k,), means (k, p) and full covariances (k, p, p), all copies, with the names and the
        number of free parameters of that type of covariance.

    Raises:
        GenoptError: if it is not a fitted mixture of scikit-learn.
    """
    if not hasattr(model, "covariances_") or not hasattr(model, "covariance_type"):
        raise GenoptError(
            f"{type(model).__name__} is not a fitted mixture of scikit-learn: call its fit first"
        )
    priors = np.array(model.weights_, dtype=np.float64)
    means = np.array(model.means_, dtype=np.float64)
    found = np.array(model.covariances_, dtype=np.float64)
    (k, p), kind = means.shape, model.covariance_type
    shape = p * (p + 1) // 2
    free = {"full": k * shape, "tied": shape, "diag": k * p, "spherical": k}[kind]
    if kind == "tied":
        found = np.broadcast_to(found, (k, p, p)).copy()
    elif kind == "diag":
        found = found[:, :, None] * np.eye(p)
    elif kind == "spherical":
        found = found[:, None, None] * np.eye(p)
    return {
        "n_components": k,
        "priors": priors / priors.sum(),
        "means": means,
        "covariances": found,
        "names": getattr(model, "feature_names_in_", None) if names is None else names,
        "n_parameters": k * p + k - 1 + free,
    }
