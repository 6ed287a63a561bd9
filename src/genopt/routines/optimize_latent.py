"""Gradient search on a multi-task model: which designs have the wanted properties?

All starts and restarts are one tensor under one optimiser. What is returned is predicted again from
the returned designs, so a claim is always what the model says of that very design.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from genopt.goal import Goal
from genopt.routines.coordinates import Bounds, Fixed
from genopt.routines.request import Request
from genopt.routines.result import detailed_form, plain_form
from genopt.routines.search import SearchOptions
from genopt.routines.surrogate import Surrogate


def optimize_latent(
    model: Surrogate,
    task_name: str | None = None,
    initial_input: Any = None,
    mode: str | Mapping[str, str] = "max",
    target_value: Any = None,
    task_targets: Mapping[str, Any] | None = None,
    steps: int = 200,
    lr: float = 0.05,
    num_restarts: int = 10,
    perturbation_std: float = 0.1,
    ae_task_name: str | None = None,
    *,
    goal: Goal | None = None,
    task_weights: Mapping[str, float] | None = None,
    space: Literal["input", "latent"] = "input",
    bounds: Bounds = None,
    fixed: Fixed = None,
    density_penalty: float = 0.0,
    density: Callable[[Tensor], Tensor] | None = None,
    spread_penalty: float = 0.0,
    spread: Callable[[Tensor], Tensor] | None = None,
    tolerance: float = 1e-12,
    patience: int | None = 10,
    return_details: bool = False,
    return_trajectory: bool = False,
    generator: torch.Generator | None = None,
    optimizer: str = "adam",
    progress: bool = False,
) -> Any:
    """Designs whose predicted properties are as wanted.

    The search minimises, for each start and restart by itself, the weighted mean over tasks of the
    mean squared miss (in units of each head's training spread), of minus the property for ``max``,
    and of minus the log-probability of a wanted class.

    Args:
        model: the model; nothing of it is changed.
        task_name: the head that ``mode`` or ``target_value`` speaks of; may be left out where the
            model has one.
        initial_input: starts (B, P) or (P,) in raw units. A goal of several values takes one start,
            or a multiple of their number (the first rows then belong to the first value).
        mode: ``max`` or ``min``, or one of them by head.
        target_value: wanted value: a number, (B,) numbers, (T,) or (B, T) for a vector head, a
            class code or label for a classification head. It goes before ``mode``.
        task_targets: wanted values by head. It goes before ``mode``.
        steps: steps S, one evaluation of the model each; 0 returns the starts.
        lr: peak step size of Adam and first step of L-BFGS, in widths of a column.
        num_restarts: restarts R of each start; the first is the start itself.
        perturbation_std: standard deviation of the others, in widths of a column; all starts get
            the same draws, so that a start's result does not depend on the batch.
        ae_task_name: a reconstruction head; it adds ``reconstructed_input`` and
            ``reconstructed_target``, and decodes the latent search.
        goal: a Goal over the model's columns, instead of the arguments above; its fixed columns are
            held.
        task_weights: weights by head.
        space: ``input`` searches x; ``latent`` searches the latent vector of the reconstruction
            head, the decoded point being what is predicted.
        bounds: a Space or a pair for each column to stay in; None for the bounds that the model
            knows, False for none.
        fixed: columns to hold: a list (at their start values) or a mapping to values.
        density_penalty: weight of a penalty that grows away from the data.
        density: log density of designs, (M, P) -> (M,), or a fitted `genopt.Mixture`; None for
            minus the reconstruction error.
        spread_penalty: weight of a penalty on the model's disagreement.
        spread: disagreement on designs, (M, P) -> (M,); None for the variance over the members of
            an ensemble, or under dropout, in units of the training spread.
        tolerance: a change of the loss that counts as none.
        patience: a row stops after so many steps without a change; None for never.
        return_details: whether to return the pair described below.
        return_trajectory: whether to add the designs of every step, ``input_trajectory``
            (B, R, S, P), and in the plain form ``trajectory`` too.
        generator: source of the perturbations; None for a new one with seed 0.
        optimizer: ``adam``; ``lbfgs``, which ends exactly where the objective is smooth (each row
            has its own curvature and step length, see `genopt.routines.lbfgs`); ``adam_lbfgs``,
            half of the steps each.
        progress: whether to show a progress bar.

    Returns:
        A dictionary with ``optimized_input`` (B, R, P), ``optimized_target`` (B, R, T) (the wanted
        heads' outputs side by side, named in ``target_names``), ``best_index`` (B,), ``best_input``
        (B, P), ``best_target`` (B, T), ``best_loss`` (B,) and ``all_restarts``, a dictionary of
        the (B, R, ...) tensors with their ``loss``; selection is by the loss without penalties and
        NaN loses. In latent space also ``optimized_latent`` (B, R, H) and ``latent_target``
        (B, R, T). With ``return_details`` a pair of dictionaries: ``optimized_input`` and
        ``optimized_score``; then ``initial_score`` (B, T) at the start and ``trajectory``
        (B, R, S, T) after each step, with the rest of the plain form.

    Raises:
        GenoptError: if an argument does not fit; the message names it and the expected shape.
    """
    options = SearchOptions(
        steps, lr, tolerance, patience, int(return_details or return_trajectory), progress,
        optimizer,
    )  # fmt: skip
    request = Request(
        initial_input=initial_input,
        task_name=task_name,
        mode=mode,
        target_value=target_value,
        task_targets=task_targets,
        task_weights=task_weights,
        goal=goal,
        num_restarts=num_restarts,
        perturbation_std=perturbation_std,
        ae_task_name=ae_task_name,
        space=space,
        bounds=bounds,
        fixed=fixed,
        density_penalty=density_penalty,
        density=density,
        spread_penalty=spread_penalty,
        spread=spread,
        generator=generator,
    )
    answer = request.search(model, options)
    result = plain_form(answer, ae_task_name, bool(options.record), return_trajectory)
    return detailed_form(result, answer.initial.to(answer.home)) if return_details else result
