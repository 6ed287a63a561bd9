"""Gradient search on a multi-task model: which designs have the wanted properties?

All starts and restarts are one tensor under one optimiser. What is returned is predicted again from
the returned designs, so a claim is always what the model says of that very design.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError, UnknownNameError
from genopt.goal import Goal
from genopt.models.multitask.labels import as_tensor
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.nn.encoders import TabularEncoder
from genopt.nn.heads import AutoencoderHead
from genopt.nn.scalers import InputScaler
from genopt.routines.coordinates import Bounds, Coordinates, Fixed, read_fixed
from genopt.routines.objective import Objective, Wanted, reconstruction_heads, wants_of
from genopt.routines.penalties import Penalties
from genopt.routines.search import Descent, Evaluation, SearchOptions, descend

SPACES = ("input", "latent")


def optimize_latent(
    model: FlexibleMultiTaskModel,
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
        steps: steps S of Adam; 0 returns the starts.
        lr: peak step size, in widths of a column.
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
        density: log density of designs, (M, P) -> (M,), or a model with ``log_prob``; None for
            minus the reconstruction error.
        spread_penalty: weight of a penalty on the model's disagreement.
        spread: disagreement on designs, (M, P) -> (M,); None for the variance under dropout.
        tolerance: a change of the loss that counts as none.
        patience: a row stops after so many steps without a change; None for never.
        return_details: whether to return the pair described below.
        return_trajectory: whether to add the designs of every step, ``input_trajectory``
            (B, R, S, P), and in the plain form ``trajectory`` too.
        generator: source of the perturbations; None for a new one with seed 0.
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
    with torch.inference_mode(False), torch.enable_grad(), model.evaluating():
        starts, dtype = _starts(initial_input, model)
        if goal is not None and len(starts) == 1:
            starts = starts.expand(goal.batch_size, -1).clone()
        options = SearchOptions(
            steps, lr, tolerance, patience, return_details or return_trajectory, progress
        )
        generator = _check(space, num_restarts, perturbation_std, generator)
        decoder = _decoder(model, ae_task_name, space)
        held = {} if goal is None else _goal_fixed(goal, len(starts))
        held.update(read_fixed(fixed, starts, model.x_space))
        scaler = _scaler(model)
        coordinates = Coordinates(model.x_space, scaler, bounds, held).to(model.device)
        with torch.no_grad():
            latent = model.encoder(starts[:1].to(model.device))[1]
            widths = {
                name: int(model.head_output(name, latent).shape[-1]) for name in model.task_heads
            }
        wants = wants_of(
            model,
            len(starts),
            widths,
            task_name,
            mode,
            target_value,
            task_targets,
            task_weights,
            goal,
        )
        penalties = Penalties(
            model, ae_task_name, density_penalty, density, spread_penalty, spread, generator
        )
        search = _Search(model, wants, coordinates, penalties, decoder, options)
        return search.run(
            starts, dtype, num_restarts, perturbation_std, generator, widths, return_details,
            return_trajectory, ae_task_name,
        )  # fmt: skip


class _Search:
    """One call of `optimize_latent`, after its arguments were read."""

    def __init__(
        self,
        model: FlexibleMultiTaskModel,
        wants: list[Wanted],
        coordinates: Coordinates,
        penalties: Penalties,
        decoder: str | None,
        options: SearchOptions,
    ) -> None:
        self.model = model
        self.objective = Objective(model, wants)
        self.coordinates = coordinates
        self.penalties = penalties
        self.decoder = decoder
        self.options = options

    def encode(self, u: Tensor) -> Tensor:
        """Latent vectors (..., H) of coordinates (..., E)."""
        wide = self.coordinates.wide(u)
        encoder = self.model.encoder
        return (
            encoder.from_wide(wide)[1] if isinstance(encoder, TabularEncoder) else encoder(wide)[1]
        )

    def decode(self, latent: Tensor, name: str) -> Tensor:
        """Valid coordinates (B, R, E) of latent vectors; gradients pass the projection."""
        head = self.model.task_heads[name]
        if isinstance(head, AutoencoderHead):
            wide = head.wide(latent, torch.float64)
        else:
            wide = self.coordinates.scaler.wide(head(latent).to(torch.float64))
        u = self.coordinates.from_wide(wide)
        return u + (self.coordinates.project(u.detach()) - u.detach())

    def evaluate(self, u: Tensor) -> Evaluation:
        """The worth of coordinates (B, R, E)."""
        latent = self.encode(u)
        outputs = self.objective.outputs(latent)
        total = self.objective.loss(latent, outputs)
        if self.penalties.active:
            total = total + self.penalties(self.coordinates.wide(u), latent, outputs)
        return Evaluation(u, torch.cat(list(outputs.values()), -1), total)

    def claims(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (..., T) in the dtype of x and losses (...) of raw designs (..., P)."""
        with torch.no_grad():
            latent = self.model.encoder(x)[1]
            outputs = self.objective.outputs(latent, x.dtype)
            return torch.cat(list(outputs.values()), -1), self.objective.loss(latent, outputs)

    def descend(self, u: Tensor) -> tuple[Tensor, Tensor | None, Descent]:
        """The end of the search from coordinates: coordinates, latent vectors, the way."""
        if self.decoder is None:
            space = self.coordinates
            found = descend(u, self.evaluate, space.project, space.tangent, self.options)
            return found.variable, None, found
        decoder, unit = self.decoder, self.model.latent_scale.to(torch.float64)
        with torch.no_grad():
            start = self.encode(u)
        dtype = start.dtype
        start = start.to(torch.float64) / unit

        def worth(z: Tensor) -> Evaluation:
            return self.evaluate(self.decode((z * unit).to(dtype), decoder))

        found = descend(start, worth, lambda z: z, lambda _, gradient: gradient, self.options)
        latent = (found.variable * unit).to(dtype)
        with torch.no_grad():
            return self.coordinates.project(self.decode(latent, decoder)), latent, found

    def run(
        self,
        starts: Tensor,
        dtype: torch.dtype,
        restarts: int,
        perturbation_std: float,
        generator: torch.Generator,
        widths: Mapping[str, int],
        details: bool,
        trajectory: bool,
        ae_task_name: str | None,
    ) -> Any:
        """The search and its result; see `optimize_latent`."""
        home, device = starts.device, self.model.device
        given = self.coordinates.from_raw(starts.to(device))[:, None]
        first = self.coordinates.project(given)
        _warn_moved(given, first, self.coordinates)
        noise = torch.randn(
            (restarts, first.shape[-1]), dtype=torch.float64, generator=generator,
            device=generator.device,
        ).to(device)  # fmt: skip
        noise[0] = 0.0
        u = self.coordinates.project(first + perturbation_std * noise)
        u[:, :1] = first
        end, latent, found = self.descend(u)
        x = self.coordinates.raw(end).to(dtype)
        # a start that was valid is returned as it came, without a round trip through coordinates
        start = self.coordinates.raw(first)
        untouched = (first == given).all(-1)
        start = torch.where(
            untouched[..., None], starts.to(device)[:, None].to(torch.float64), start
        )
        if self.options.steps == 0 and latent is None:
            x[:, :1] = start.to(dtype)
        target, loss = self.claims(x)
        best = torch.where(torch.isnan(loss), torch.inf, loss).argmin(1)
        rows = torch.arange(len(x), device=device)
        result: dict[str, Any] = {
            "optimized_input": x,
            "optimized_target": target,
            "best_index": best,
            "best_input": x[rows, best],
            "best_target": target[rows, best],
            "best_loss": loss[rows, best],
            "all_restarts": {"optimized_input": x, "optimized_target": target, "loss": loss},
        }
        if latent is not None:
            with torch.no_grad():
                outputs = self.objective.outputs(latent, dtype)
            result["optimized_latent"] = latent.to(dtype)
            result["latent_target"] = torch.cat(list(outputs.values()), -1)
        if ae_task_name is not None:
            with torch.no_grad():
                decoded = self.model.head_output(ae_task_name, self.model.encoder(x)[1], dtype)
            result["reconstructed_input"] = decoded
            result["reconstructed_target"] = self.claims(decoded)[0]
        if details or trajectory:
            steps = self.options.steps
            result["trajectory"] = _filled(found.targets, target, steps)
        if trajectory:
            walked = [self.coordinates.raw(point).to(dtype) for point in found.coordinates]
            result["input_trajectory"] = _filled(walked, x, steps)
        result = _at(result, home)
        result["target_names"] = [
            name if widths[name] == 1 else f"{name}[{i}]"
            for name in self.objective.heads
            for i in range(widths[name])
        ]
        if not details:
            return result
        initial = _at({"score": self.claims(start[:, 0].to(dtype))[0]}, home)["score"]
        main = {
            "optimized_input": result.pop("optimized_input"),
            "optimized_score": result.pop("optimized_target"),
        }
        return main, {"initial_score": initial, **result}


def _at(result: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The same dictionary with every tensor on a device."""
    return {k: _at(v, device) if isinstance(v, dict) else v.to(device) for k, v in result.items()}


def _filled(walked: Sequence[Tensor], end: Tensor, steps: int) -> Tensor:
    """Recorded steps (B, R, S, ...), the result from where the search stood still onwards."""
    every = [*(point.to(end.dtype) for point in walked[: max(steps - 1, 0)])]
    every += [end] * (steps - len(every))
    return torch.stack(every, 2) if every else end[:, :, None][:, :, :0]


def _starts(initial_input: Any, model: FlexibleMultiTaskModel) -> tuple[Tensor, torch.dtype]:
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


def _check(
    space: str, num_restarts: int, perturbation_std: float, generator: torch.Generator | None
) -> torch.Generator:
    if space not in SPACES:
        raise UnknownNameError("space", str(space), SPACES)
    if num_restarts < 1:
        raise GenoptError(f"num_restarts must be at least 1, got {num_restarts}")
    if not 0.0 <= perturbation_std < float("inf"):
        raise GenoptError(f"perturbation_std must not be negative, got {perturbation_std}")
    if num_restarts > 1 and perturbation_std == 0:
        warnings.warn(
            f"num_restarts={num_restarts} with perturbation_std=0: all restarts are the same",
            stacklevel=3,
        )
    return torch.Generator().manual_seed(0) if generator is None else generator


def _decoder(model: FlexibleMultiTaskModel, ae_task_name: str | None, space: str) -> str | None:
    """The reconstruction head of a latent search; None in input space."""
    heads = reconstruction_heads(model)
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


def _scaler(model: FlexibleMultiTaskModel) -> InputScaler:
    encoder: nn.Module = model.encoder
    if isinstance(encoder, TabularEncoder):
        return encoder.scaler
    return InputScaler([0] * model.x_space.dim)


def _warn_moved(given: Tensor, first: Tensor, coordinates: Coordinates) -> None:
    moved = (given - first).abs() > 1e-6
    for i in coordinates.fixed:
        moved[..., coordinates.scaler.slices[i]] = False
    if bool(moved.any()) and not coordinates.fixed:
        rows = int(moved.any(-1).sum())
        warnings.warn(
            f"initial_input: {rows} of {len(given)} starts lie outside the bounds and were moved "
            "to the nearest valid design",
            stacklevel=5,
        )
