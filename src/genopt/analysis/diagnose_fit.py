"""Faults of a fit: a model too small for its rows, a loss that stands still, a slow training."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from genopt.analysis.facts import errors_of
from genopt.analysis.findings import Finding
from genopt.analysis.heldout import HeldOut
from genopt.data.table import Table
from genopt.goal import Goal

_LEAST_FALL = 0.02
_NOISY = 0.5
_TOO_HIGH = 3.0
_WITHIN = 0.02
_SLOW = 8.0
_SLOW_SECONDS = 20.0
_WAITING = 2.5
_BATCH = 256


@dataclass(frozen=True)
class FitTimes:
    """What a fit took.

    Args:
        seconds: on the clock.
        cpu_seconds: of the processor, all threads together.
        steps: steps of the optimiser; 0 where there is none.
    """

    seconds: float
    cpu_seconds: float
    steps: int = 0


def too_few_components(model: Any) -> Finding | None:
    """A mixture whose largest number of components was still the best one.

    Args:
        model: a fitted model; only mixtures are looked at.

    Returns:
        The finding, if there is one.
    """
    selection = getattr(model, "selection", None)
    scores: Mapping[int, float] = getattr(selection, "scores", None) or {}
    if selection is None or len(scores) < 2:
        return None
    count = selection.n_components
    fewer = [k for k in scores if k < count]
    if count < max(scores) or not fewer:
        return None
    before = max(fewer)
    gain = scores[before] - scores[count]
    return Finding(
        "too few components",
        f"the most components that were tried, {count}, were the best: {selection.criterion} still "
        f"fell by {gain:.3g} from {before} to {count}",
        f"model.max_components={2 * count}",
        {"components": float(count), "gain": float(gain)},
        "parity.png",
    )


def loss_not_falling(history: Sequence[Mapping[str, float]] | None) -> Finding | None:
    """A validation loss (the training loss where nothing is held out) that hardly fell.

    Args:
        history: numbers of each epoch.

    Returns:
        The finding, if there is one.
    """
    for name in ("validation/loss", "train/loss"):
        losses = [float(e[name]) for e in history or () if name in e]
        if len(losses) >= 2:
            break
    else:
        return None
    first, best, last = losses[0], min(losses), losses[-1]
    scale = max(abs(first), 1e-12)
    if math.isfinite(last) and (first - best) / scale >= _LEAST_FALL:
        return None
    where = "validation" if name.startswith("validation") else "training"
    return Finding(
        "loss not falling",
        f"the {where} loss was {first:.4g} in its first look and {best:.4g} at its best, in "
        f"{len(losses)} looks",
        "if the training loss fell, x tells nothing of y that new rows confirm: look at the "
        "columns; else try another model.learning_rate (a third, or three times), or more "
        "model.epochs",
        {"first": first, "best": best, "last": last},
        "learning_curves.png",
    )


def variance_too_high(
    held_out: HeldOut | None, table: Table, goal: Goal, model: Any = None
) -> Finding | None:
    """Predictions that scatter far more than the rows themselves allow.

    Args:
        held_out: what the model says of unseen rows.
        table: the rows; straight fits to their neighbours show what they allow.
        goal: what is wanted; its columns are looked at.
        model: the model, for the keys that would help.

    Returns:
        The finding for the worst column, if there is one.
    """
    if held_out is None:
        return None
    space = table.y_space
    columns = [t.index for t in goal.terms if not space.variables[t.index].labels]
    train = table.part("train")
    if not columns or len(train) < 10:
        return None
    errors = errors_of(train, columns, mixture=False)
    worst, ratio, found = "", 0.0, (0.0, 0.0)
    for i, k in enumerate(columns):
        miss = held_out.predicted[:, k] - held_out.rows.y[:, k]
        seen = miss[torch.isfinite(miss)].square().sort().values
        if len(seen) < 5:
            continue
        # the same share of the rows as for the straight fits
        error = float(seen[: max(1, round(0.9 * len(seen)))].mean().sqrt())
        local, spread = float(errors.local[i]), float(errors.spread[i])
        if not local < _NOISY * spread or error <= _WITHIN * spread:
            continue
        if error / max(local, 1e-12 * spread) > max(ratio, _TOO_HIGH):
            worst, ratio, found = space.names[k], error / max(local, 1e-12 * spread), (error, local)
    if not worst:
        return None
    advice = "model.epochs three times as many, a wider network, or callbacks=polish"
    if hasattr(model, "selection"):
        advice = (
            "model.max_components three times as many with model.criterion=aic, "
            "model.members=3, or model=flow"
        )
    return Finding(
        "conditional variance too high",
        f"{worst} of unseen rows is missed by {found[0]:.3g}, straight fits to neighbouring rows "
        f"miss it by {found[1]:.3g}: the rows know more than the model",
        advice,
        {"error": found[0], "local_error": found[1], "ratio": ratio},
        "parity.png",
    )


def slow_training(model: Any, times: FitTimes | None) -> Finding | None:
    """A training that took much longer than its steps should need on this machine.

    The reference is measured here and now: steps of plain layers of the same sizes.

    Args:
        model: the fitted model.
        times: what its fit took.

    Returns:
        The finding, if there is one.
    """
    if times is None or times.seconds < _SLOW_SECONDS or not isinstance(model, torch.nn.Module):
        return None
    waiting = times.seconds / max(times.cpu_seconds, 1e-9)
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    if on_cpu and waiting > _WAITING:
        return Finding(
            "slow training",
            f"the fit took {times.seconds:.0f} s, of which the processor worked "
            f"{times.cpu_seconds:.0f} s: it waited for other work on this machine",
            "run fewer studies at once, or repeat it when the machine is idle",
            {"seconds": times.seconds, "cpu_seconds": times.cpu_seconds},
            "",
        )
    if not times.steps:
        return None
    reference = reference_step(model)
    needed = reference * times.steps
    if times.cpu_seconds < _SLOW * needed:
        return None
    return Finding(
        "slow training",
        f"{times.steps} steps took {times.cpu_seconds:.0f} s of the processor, "
        f"{1e3 * times.cpu_seconds / times.steps:.2g} ms each; plain layers of the same sizes take "
        f"{1e3 * reference:.2g} ms on this machine",
        "threads=1 for small networks, fewer callbacks, model.draws=1, trainer=gpu for wide ones",
        {"seconds": times.cpu_seconds, "needed": needed},
        "",
    )


def reference_step(model: torch.nn.Module, steps: int = 5) -> float:
    """Seconds of an optimiser step through plain layers as large as those of a model.

    Args:
        model: any network.
        steps: how many steps are measured; the quickest counts.

    Returns:
        Seconds of one step with 256 rows.
    """
    shapes = [p.shape for p in model.parameters() if p.requires_grad and p.ndim == 2]
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(s, generator=generator).mul_(0.01).requires_grad_() for s in shapes]
    inputs = [torch.randn(_BATCH, s[1], generator=generator) for s in shapes]
    if not weights:
        return 1e-3
    optimizer = torch.optim.AdamW(weights, lr=1e-6, fused=True)
    best = math.inf
    for _ in range(steps):
        started = time.process_time()
        optimizer.zero_grad()
        loss = torch.zeros(())
        for rows, weight in zip(inputs, weights, strict=True):
            loss = loss + torch.nn.functional.silu(rows @ weight.T).mean()
        loss.backward()
        optimizer.step()
        best = min(best, time.process_time() - started)
    return best
