"""A fitted mixture as one file of plain tensors, read back without running any code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from genopt.errors import GenoptError
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.selection import MixtureFit

_FORMAT = "genopt.mixture/1"


def write(path: str | Path, fit: MixtureFit, **content: Any) -> Path:
    """Write a fitted mixture.

    Args:
        path: the file.
        fit: the mixture over the joint columns.
        **content: what else is needed: numbers, texts, lists, dictionaries and tensors.

    Returns:
        The file's path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    own = {
        "format": _FORMAT,
        "priors": torch.tensor(fit.gmm.priors),
        "means": torch.tensor(fit.gmm.means),
        "covariances": torch.tensor(fit.gmm.covariances),
        "names": fit.gmm.names and list(fit.gmm.names),
        "n_parameters": fit.gmm.n_parameters,
        "criterion": fit.criterion,
        "scores": dict(fit.scores),
        "converged": dict(fit.converged),
        "covariance": fit.covariance,
        "held_out": None if fit.held_out is None else torch.tensor(fit.held_out),
        "loadings": None if fit.loadings is None else torch.tensor(fit.loadings),
        "reconstruction_error": (
            None if fit.reconstruction_error is None else torch.tensor(fit.reconstruction_error)
        ),
    }
    torch.save(own | content, path)
    return path


def read(path: str | Path) -> tuple[MixtureFit, dict[str, Any]]:
    """The inverse of `write`.

    Args:
        path: the file.

    Returns:
        The mixture, whose own seed is the content's ``seed``, and the content.

    Raises:
        GenoptError: if the file is missing or is not a saved mixture.
    """
    path = Path(path)
    if not path.exists():
        raise GenoptError(f"path: {path} does not exist")
    try:
        content = torch.load(path, weights_only=True)
    except Exception as error:
        raise GenoptError(f"path: {path.name} is not a saved mixture ({error})") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise GenoptError(f"path: {path.name} is not a saved mixture of this version ({_FORMAT})")
    gmm = GaussianMixture(
        len(content["priors"]),
        content["priors"].numpy(),
        content["means"].numpy(),
        content["covariances"].numpy(),
        random_state=content["seed"],
        names=content.get("names"),
        n_parameters=content.get("n_parameters"),
    )
    criterion = content.get("criterion", content["options"]["criterion"])
    factors = {
        key: None if content.get(key) is None else content[key].numpy()
        for key in ("loadings", "reconstruction_error", "held_out")
    }
    fit = MixtureFit(
        gmm,
        gmm.n_components // content["options"].get("members", 1),
        criterion,
        content["scores"],
        content["converged"],
        content.get("covariance", "full"),
        **factors,
    )
    return fit, content
