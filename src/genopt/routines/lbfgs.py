"""L-BFGS for many rows at once, each with its own curvature, step length and end.

`torch.optim.LBFGS` takes all rows for one problem: one inner product, one step length and one
history for their sum, so that rows change each other's result and a bad one stops all. Here every
number of the method (Nocedal and Wright 2006, ch. 7) is a number for each row, on the free
coordinates of bounds and simplexes (Bertsekas 1982), with backtracking along the projected arc. One
step is one evaluation: a row whose step was refused tries a shorter one in the next.
"""

from __future__ import annotations

from collections import deque

import torch
from torch import Tensor

from genopt.routines.search import Domain, Evaluate, Log, Rest, Rows, SearchOptions

_MEMORY = 12
_SUFFICIENT = 1e-4
_CURVED = 1e-10
_LONGEST = 1.0
_REFUSALS = 4
_STILL = 1e-15
# networks are worked out in float32: smaller changes of a loss are noise
_ROUNDING = 1e-8


def lbfgs(
    start: Tensor, evaluate: Evaluate, domain: Domain, options: SearchOptions, log: Log
) -> Tensor:
    """Minimise every row's loss by projected L-BFGS.

    Args:
        start: where to start (B, R, V), float64, valid.
        evaluate: the worth of variables.
        domain: where they may be.
        options: steps, length of the first step, early stop.
        log: what is recorded goes here.

    Returns:
        The last variable.
    """
    variable = start.clone()
    rows = Rows(evaluate, variable)
    log.keep(0, rows)
    rest = Rest(rows, options, _ROUNDING)
    curvature = Curvature()
    move = _direction(variable, rows.gradient, domain, curvature, options.lr)
    share = torch.ones_like(rows.total)
    refused = torch.zeros_like(rest.quiet)
    for step in range(1, options.steps + 1):
        if not bool(rest.moving.any()):
            break
        trial = domain.project(variable + share.unsqueeze(-1) * move)
        slope = (rows.gradient * (trial - variable)).sum(-1)
        seen = rows.look(trial, rest.moving)
        total = _spread(seen[0].total, seen[2], rows.total)
        gradient = _spread(seen[1], seen[2], rows.gradient)
        gain = rows.total + _SUFFICIENT * slope - total
        taken = rest.moving & (slope < 0) & (gain >= 0) & torch.isfinite(gradient).all(-1)
        # what the parabola through both losses says, kept within a tenth and a half
        bend = -0.5 * slope / (total - rows.total - slope)
        shorter = torch.where(torch.isfinite(bend), bend, 0.1).clamp(0.1, 0.5)
        share = torch.where(taken, 1.0, share * shorter)
        refused = torch.where(taken, 0, refused + rest.moving.long())
        before, old = rows.total, rows.gradient
        rows.take(seen, taken)
        way = trial - variable
        curvature.add(way, rows.gradient - old, taken)
        variable = torch.where(taken.unsqueeze(-1), trial, variable)
        rest.count(before, rows.total, rest.moving)
        given_up = refused == _REFUSALS
        curvature.forget(given_up)
        share = torch.where(given_up, 1.0, share)
        rest.moving &= way.abs().amax(-1) > _STILL
        if step < options.steps:
            log.keep(step, rows)
        log.tick()
        new = _direction(variable, rows.gradient, domain, curvature, options.lr)
        move = torch.where((taken | given_up).unsqueeze(-1), new, move)
    return variable


class Curvature:
    """The last changes of variable and gradient; a row that did not move holds zeros there."""

    def __init__(self) -> None:
        self.pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=_MEMORY)

    def add(self, way: Tensor, change: Tensor, which: Tensor) -> None:
        """Keep a change of some rows.

        Args:
            way: change of the variable (B, R, V).
            change: change of the gradient (B, R, V).
            which: the rows (B, R).
        """
        if bool(which.any()):
            mask = which.unsqueeze(-1)
            self.pairs.append((torch.where(mask, way, 0.0), torch.where(mask, change, 0.0)))

    def forget(self, which: Tensor) -> None:
        """Start anew in some rows.

        Args:
            which: the rows (B, R).
        """
        if bool(which.any()):
            mask = which.unsqueeze(-1)
            for pair in self.pairs:
                for kept in pair:
                    kept.masked_fill_(mask, 0.0)

    def newton(self, gradient: Tensor, free: Tensor, domain: Domain, unit: Tensor) -> Tensor:
        """The two-loop recursion: an inverse Hessian of the free coordinates times a gradient.

        Args:
            gradient: gradients along the free coordinates (B, R, V).
            free: which coordinates are free (B, R, V).
            domain: where the variable may be.
            unit: inverse curvature of a row without a history (B, R).

        Returns:
            Products (B, R, V).
        """
        whole = bool(free.all())
        used: list[tuple[Tensor, Tensor, Tensor]] = []
        q, unit = gradient, unit.unsqueeze(-1)
        weights = []
        for way, change in reversed(self.pairs):
            if not whole:
                way, change = domain.flat(way, free), domain.flat(change, free)
            product = (way * change).sum(-1, keepdim=True)
            bent = product > _CURVED * way.norm(dim=-1, keepdim=True) * change.norm(
                dim=-1, keepdim=True
            )
            used.append((way, change, torch.where(bent, 1.0 / product, 0.0)))
            weights.append(used[-1][2] * (way * q).sum(-1, keepdim=True))
            q = q - weights[-1] * change
        for _, change, inverse in reversed(used):
            scale = 1.0 / (inverse * change.square().sum(-1, keepdim=True))
            unit = torch.where(inverse > 0, scale, unit)
        r = unit * q
        for (way, change, inverse), weight in zip(reversed(used), reversed(weights), strict=True):
            r = r + (weight - inverse * (change * r).sum(-1, keepdim=True)) * way
        return r


def _direction(
    variable: Tensor, gradient: Tensor, domain: Domain, curvature: Curvature, first: float
) -> Tensor:
    """Where each row goes: by Newton along its free coordinates, to the bound along the others."""
    gradient = torch.where(torch.isfinite(gradient), gradient, 0.0)
    free, short = domain.free(variable, gradient)
    flat = domain.flat(gradient, free)
    unit = first / flat.abs().amax(-1).clamp_min(1e-300)
    newton = curvature.newton(flat, free, domain, unit)
    # a direction that does not fall is replaced by the steepest one
    falls = (newton * flat).sum(-1, keepdim=True) > 0
    newton = torch.where(falls & torch.isfinite(newton), newton, unit.unsqueeze(-1) * flat)
    length = newton.abs().amax(-1, keepdim=True)
    newton = newton * (_LONGEST / length.clamp_min(_LONGEST))
    return torch.where(free, -newton, short)


def _spread(value: Tensor, places: Tensor | None, like: Tensor) -> Tensor:
    """Values of the rows that were looked at among those of all rows."""
    if places is None:
        return value
    out = like.clone()
    out[places[:, 0], places[:, 1]] = value[:, 0]
    return out
