"""The dictionaries that `optimize_latent` returns."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from genopt.routines.request import Answer


def plain_form(
    answer: Answer, ae_task_name: str | None, ways: bool, designs: bool
) -> dict[str, Any]:
    """What was found, by name.

    Args:
        answer: the search and where it ended.
        ae_task_name: the head that reconstructs the designs, or None.
        ways: whether to add the outputs after every step.
        designs: whether to add the designs after every step.

    Returns:
        The dictionary described at `genopt.routines.optimize_latent.optimize_latent`.
    """
    search, found = answer.search, answer.found
    x, target, loss, best = found.x, found.target, found.loss, found.best
    rows = torch.arange(len(x), device=x.device)
    result: dict[str, Any] = {
        "optimized_input": x,
        "optimized_target": target,
        "best_index": best,
        "best_input": x[rows, best],
        "best_target": target[rows, best],
        "best_loss": loss[rows, best],
        "all_restarts": {"optimized_input": x, "optimized_target": target, "loss": loss},
    }
    if found.latent is not None:
        result["optimized_latent"] = found.latent
        result["latent_target"] = found.latent_target
    if ae_task_name is not None:
        model = search.model
        with torch.no_grad(), model.evaluating():
            latent = model.latent_of_wide(model.scaler.wide(x))
            decoded = model.head_output(ae_task_name, latent, x.dtype)
            result["reconstructed_input"] = decoded
            result["reconstructed_target"] = search.claims(decoded)[0]
    if ways:
        result["trajectory"] = found.way(found.way_targets, target)
    if designs:
        result["input_trajectory"] = found.way(found.ways, x)
    result["target_names"] = [
        name if answer.widths[name] == 1 else f"{name}[{i}]"
        for name in found.heads
        for i in range(answer.widths[name])
    ]
    return _at(result, answer.home)


def detailed_form(
    result: dict[str, Any], initial_score: Tensor
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain form as a pair: the designs with their scores, and everything else.

    Args:
        result: the plain form.
        initial_score: what the model says of the starts (B, T).

    Returns:
        The two dictionaries.
    """
    main = {
        "optimized_input": result.pop("optimized_input"),
        "optimized_score": result.pop("optimized_target"),
    }
    return main, {"initial_score": initial_score, **result}


def _at(value: Any, device: torch.device) -> Any:
    """The same form with every tensor on a device."""
    if isinstance(value, dict):
        return {k: _at(v, device) for k, v in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value
