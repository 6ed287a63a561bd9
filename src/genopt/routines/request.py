"""What a search is asked, read and checked before it starts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.multitask.labels import as_tensor
from genopt.routines.coordinates import Bounds, Coordinates, Fixed, read_fixed
from genopt.routines.objective import Objective
from genopt.routines.penalties import Penalties
from genopt.routines.restarts import Found, Multistart
from genopt.routines.search import SearchOptions
from genopt.routines.surrogate import Surrogate, frozen, heads_of_kind, members
from genopt.routines.wants import wants_of

SPACES = ("input", "latent")


@dataclass(frozen=True)
class Answer:
    """What a search gave.

    Args:
        search: the search, for further questions.
        found: where it ended.
        widths: number of outputs T of each head.
        home: the device of the starts.
        initial: what the model says of the starts (B, T).
    """

    search: Multistart
    found: Found
    widths: dict[str, int]
    home: torch.device
    initial: Tensor


@dataclass(frozen=True)
class Request:
    """The arguments of a search, as in `genopt.routines.optimize_latent.optimize_latent`.

    Args:
        initial_input: starts (B, P) or (P,).
        task_name: the head that ``mode`` or ``target_value`` speaks of.
        mode: ``max`` or ``min``, or one of them by head.
        target_value: wanted value.
        task_targets: wanted values by head.
        task_weights: weights by head.
        goal: a Goal instead of these.
        num_restarts: restarts R of each start.
        perturbation_std: their spread.
        ae_task_name: a reconstruction head.
        space: ``input`` or ``latent``.
        bounds: where to stay.
        fixed: columns to hold.
        density_penalty: weight of a penalty away from the data.
        density: log density of designs.
        spread_penalty: weight of a penalty on the model's disagreement.
        spread: disagreement on designs.
        generator: source of the perturbations.
    """

    initial_input: Any = None
    task_name: str | None = None
    mode: str | Mapping[str, str] = "max"
    target_value: Any = None
    task_targets: Mapping[str, Any] | None = None
    task_weights: Mapping[str, float] | None = None
    goal: Goal | None = None
    num_restarts: int = 10
    perturbation_std: float = 0.1
    ae_task_name: str | None = None
    space: str = "input"
    bounds: Bounds = None
    fixed: Fixed = None
    density_penalty: float = 0.0
    density: Any = None
    spread_penalty: float = 0.0
    spread: Callable[[Tensor], Tensor] | None = None
    generator: torch.Generator | None = None

    def search(self, model: Surrogate, options: SearchOptions) -> Answer:
        """Check the arguments and search.

        Args:
            model: the model; nothing of it is changed.
            options: how to descend.

        Returns:
            What was found.

        Raises:
            GenoptError: if an argument does not fit; the message names it and the expected shape.
        """
        with torch.inference_mode(False), torch.no_grad(), model.evaluating(), frozen(model):
            starts, dtype = _starts(self.initial_input, model)
            goal = self.goal
            if goal is not None and len(starts) == 1:
                starts = starts.expand(goal.batch_size, -1).clone()
            generator = self._checked_generator()
            decoder = _decoder(model, self.ae_task_name, self.space)
            held = {} if goal is None else _goal_fixed(goal, len(starts))
            held.update(read_fixed(self.fixed, starts, model.x_space))
            coordinates = Coordinates(model.x_space, model.scaler, self.bounds, held)
            widths = _widths(model, starts)
            wants = wants_of(
                model, len(starts), widths, self.task_name, self.mode, self.target_value,
                self.task_targets, self.task_weights, goal,
            )  # fmt: skip
            model.require_heads(*(want.head for want in wants))
            objective = Objective(model, wants)
            penalties = Penalties(
                model, objective, self.ae_task_name, self.density_penalty, self.density,
                self.spread_penalty, self.spread, generator,
            )  # fmt: skip
            search = Multistart(
                model, objective, coordinates.to(model.home), penalties, decoder, options
            )
            found, moved = search.run(
                starts.to(model.home), dtype, self.num_restarts, self.perturbation_std, generator
            )
            if moved:
                warnings.warn(
                    f"initial_input: {moved} of {len(starts)} starts lie outside the bounds and "
                    "were moved to the nearest valid design",
                    stacklevel=3,
                )
            initial = search.claims(found.start[:, None].to(dtype))[0][:, 0]
            return Answer(search, found, widths, starts.device, initial)

    def _checked_generator(self) -> torch.Generator:
        if self.space not in SPACES:
            raise UnknownNameError("space", str(self.space), SPACES)
        if self.num_restarts < 1:
            raise GenoptError(f"num_restarts must be at least 1, got {self.num_restarts}")
        if not 0.0 <= self.perturbation_std < float("inf"):
            raise GenoptError(f"perturbation_std must not be negative, got {self.perturbation_std}")
        if self.num_restarts > 1 and self.perturbation_std == 0:
            warnings.warn(
                f"num_restarts={self.num_restarts} with perturbation_std=0: all restarts are the "
                "same",
                stacklevel=4,
            )
        return torch.Generator().manual_seed(0) if self.generator is None else self.generator


def _widths(model: Surrogate, starts: Tensor) -> dict[str, int]:
    """Number of outputs T of each head."""
    latent = model.latent_of_wide(model.scaler.wide(starts[:1].to(model.home)))
    return {name: int(model.head_output(name, latent).shape[-1]) for name in model.task_heads}


def _starts(initial_input: Any, model: Surrogate) -> tuple[Tensor, torch.dtype]:
    """Checked starts (B, P), float64, and the dtype of the result."""
    dim = model.x_space.dim
    if initial_input is None:
        raise GenoptError(f"initial_input is missing: give starts of shape (B, {dim}) or ({dim},)")
    given = as_tensor(initial_input, "initial_input")
    if given.ndim not in (1, 2) or given.shape[-1] != dim or given.numel() == 0:
        raise GenoptError(
            f"initial_input has shape {tuple(given.shape)}; expected (B, {dim}) or ({dim},)"
        )
    if not bool(torch.isfinite(given).all()):
        raise GenoptError(
            f"initial_input holds NaN or infinite entries; expected finite starts (B, {dim})"
        )
    return given.detach().reshape(-1, dim).to(torch.float64, copy=True), given.dtype


def _decoder(model: Surrogate, ae_task_name: str | None, space: str) -> str | None:
    """The reconstruction head of a latent search; None in input space."""
    heads = heads_of_kind(model, "design")
    if space == "latent" and members(model) > 1:
        raise GenoptError(
            "space='latent' searches the latent space of one model, but each member of an ensemble "
            "has its own: use space='input'"
        )
    if ae_task_name is not None and ae_task_name not in heads:
        raise UnknownNameError("reconstruction head in ae_task_name", ae_task_name, heads)
    if space == "input":
        return None
    if ae_task_name is None and len(heads) != 1:
        raise GenoptError(
            "space='latent' needs ae_task_name: the model's reconstruction heads are "
            f"{', '.join(heads) or 'none'}"
        )
    return ae_task_name or heads[0]


def _goal_fixed(goal: Goal, rows: int) -> dict[int, Tensor]:
    return {
        i: v if v.numel() == 1 else v.repeat_interleave(max(1, rows // v.numel()))
        for i, v in goal.fixed.items()
    }
