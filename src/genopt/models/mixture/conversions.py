"""Parameters of mixtures that other libraries fitted."""

from __future__ import annotations

from typing import Any

import numpy as np

from genopt.errors import GenoptError
from genopt.models.mixture.conditioning import Array

Parameters = tuple[Array, Array, Array]


def parameters_of_gmr(gmm: Any) -> Parameters:
    """Parameters of a `gmr.GMM`.

    Args:
        gmm: the mixture.

    Returns:
        Priors (k,), summing to one, means (k, p) and covariances (k, p, p), all copies.

    Raises:
        GenoptError: if it has not been fitted.
    """
    values = [getattr(gmm, name, None) for name in ("priors", "means", "covariances")]
    if any(value is None for value in values):
        raise GenoptError(
            f"{type(gmm).__name__} has no priors, means and covariances: fit it first"
        )
    priors, means, covariances = (np.array(value, dtype=np.float64) for value in values)
    return priors / priors.sum(), means, covariances


def parameters_of_sklearn(model: Any) -> Parameters:
    """Parameters of a `sklearn.mixture.GaussianMixture` or `BayesianGaussianMixture`.

    Args:
        model: the fitted model, of any ``covariance_type``.

    Returns:
        Priors (k,), means (k, p) and full covariances (k, p, p), all copies.

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
    if kind == "tied":
        found = np.broadcast_to(found, (k, p, p)).copy()
    elif kind == "diag":
        found = found[:, :, None] * np.eye(p)
    elif kind == "spherical":
        found = found[:, None, None] * np.eye(p)
    return priors / priors.sum(), means, found
