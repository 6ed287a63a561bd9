"""Sequential Monte Carlo in a flow's noise: designs that keep rare or black-box constraints.

The noise is standard normal, so no density of designs is needed: a population of noise vectors is
weighted by exp(-distance^2 / (2 width^2)), the width is lowered in steps that keep half of the
effective sample, and after each the vectors are moved by preconditioned Crank-Nicolson steps
(Cotter et al., Statistical Science 2013), which leave the normal law as it is; every other one
around the population's own mean and covariance (Rudolf and Sprungk, Found. Comput. Math. 2018),
which is thin across the constraints and wide along them. All conditions are moved at once, each
with widths and steps of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from genopt.routines.constraints.shell import WIDE, Shell
from genopt.routines.constraints.source import Draws, Source

_KEEP = 0.5
_MANY = 0.1
_MOVES = 4
_LAST_MOVES = 12
_WANTED_ACCEPTANCE = 0.3
_BISECTIONS = 50
# a normal kernel of this width scatters like a uniform shell; narrower ones leave fewer ancestors
# and shorter moves, and what they gain the last linear step onto the rules gives as well
_LAST_WIDTH = 0.5 * WIDE / math.sqrt(3.0)
_RIDGE = 1e-6
# share of the tries that is spent on plain draws, and where enough of these come near already
_POOL_SHARE, _NEAR_SHARE = 0.5, 0.85
_NEAREST = 10
_AT_ONCE = 2**17


@dataclass(frozen=True)
class Population:
    """What the sequence ends with.

    Args:
        draws: n draws of each condition.
        width: the last width of each condition, in units of scatter (C,).
        ess: smallest effective sample of a stage, of n (C,).
        tries: how many draws were made in all.
    """

    draws: Draws
    width: Tensor
    ess: Tensor
    tries: int


@dataclass
class _State:
    """The population: noise (C, n, U), designs, distances (C, n), whether inequalities are kept."""

    noise: Tensor
    x: Tensor
    distance: Tensor
    inside: Tensor

    def take(self, index: Tensor) -> _State:
        rows = torch.arange(len(index))[:, None]
        return _State(*(v[rows, index] for v in vars(self).values()))

    def join(self, other: _State) -> _State:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _State(*(torch.cat(pair, 1) for pair in pairs))

    def replaced(self, other: _State, where: Tensor) -> _State:
        """The other's rows where a mask says so."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _State(
            *(torch.where(where.reshape(*where.shape, *[1] * (a.ndim - 2)), b, a) for a, b in pairs)
        )


def latent_smc(
    source: Source, shell: Shell, rows: Tensor, n: int, most: int, pool: Draws
) -> Population:
    """Draws near the constraints, however few of the model's draws come near them.

    Args:
        source: a source with noise.
        shell: the shells of these conditions.
        rows: their numbers (C',).
        n: draws of each that are wanted.
        most: most draws for each condition.
        pool: draws to start from, (C', N); about half of the tries are spent on more of them.

    Returns:
        The population.
    """
    walk = _Walk(source, shell, rows)
    start, made = walk.started(pool, n, most)
    # where many of the nearest draws keep the inequalities, all have to from the start
    hard = start.inside.double().mean(1) >= _MANY
    start.distance = torch.where(start.inside | ~hard[:, None], start.distance, torch.inf)
    plain = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    width = walk.lowered(start, plain, n / 2)
    weight = _weights(start, width, plain)
    ess = _effective(weight).clamp_max(n)
    state = start.take(_resampled(weight, n, source.generator))
    while made + _MOVES * n <= most:
        state = walk.moved(state, width, _MOVES, hard)
        made += _MOVES * n
        if bool((width <= _LAST_WIDTH).all()):
            break
        lower = walk.lowered(state, width, _KEEP * n)
        weight = _weights(state, lower, width)
        ess = torch.minimum(ess, _effective(weight))
        width = lower
        state = state.take(_resampled(weight, n, source.generator))
    # where many of a population keep them, all of it has to at the end
    weight = state.inside.double()
    hard = state.inside.double().mean(1) >= _MANY
    weight = torch.where(hard[:, None], weight, 1.0)
    ess = torch.where(hard, torch.minimum(ess, _effective(weight)), ess)
    state = state.take(_resampled(weight / weight.sum(1, keepdim=True), n, source.generator))
    moves = min(_LAST_MOVES, max(0, (most - made) // n))
    state = walk.moved(state, width, moves, hard)
    made += moves * n
    return Population(Draws(state.x, state.noise), width, ess, made * len(rows))


class _Walk:
    """Moves of a population that leave the noise's law, weighted by distance, as it is."""

    def __init__(self, source: Source, shell: Shell, rows: Tensor) -> None:
        self.source = source
        self.shell = shell
        self.rows = rows
        # log of the steps of the plain moves and of those around the population
        self.log_step = torch.full((2, len(rows)), math.log(0.5), dtype=torch.float64)

    def state(self, draws: Draws) -> _State:
        found = self.shell.measure(draws.x)
        noise = draws.x.new_empty(0) if draws.noise is None else draws.noise
        return _State(noise, found.foot, found.distance, found.inside)

    def started(self, pool: Draws, n: int, most: int) -> tuple[_State, int]:
        """The nearest of many plain draws, and how many more were made.

        How much of the law lies where is told by the plain draws that come near, so these should be
        many; the moves then spread what they found.
        """
        near, made = self.state(pool), 0
        chunk = max(n, min(_AT_ONCE // len(self.rows), 8 * n))
        while made + chunk <= (_NEAR_SHARE if self._enough(near, n) else _POOL_SHARE) * most:
            more = self.state(self.source.draws(self.rows, chunk))
            made += chunk
            both = near.join(more)
            count = min(_NEAREST * n, both.distance.shape[1])
            near = both.take(both.distance.topk(count, 1, largest=False).indices)
        return near, made

    def _enough(self, near: _State, n: int) -> bool:
        """Whether plain draws alone reach the last width, so that moves have little left to do."""
        return bool(((near.distance <= 2.0 * _LAST_WIDTH).sum(1) >= n / 2).all())

    def lowered(self, state: _State, width: Tensor, wanted: float) -> Tensor:
        """The smallest width (C,) that leaves an effective sample of the wanted size."""
        low = torch.full_like(width, math.log(_LAST_WIDTH))
        high = torch.where(torch.isfinite(width), width, 1e6).log().maximum(low)
        for step in range(_BISECTIONS):
            middle = low if step == 0 else 0.5 * (low + high)
            enough = _effective(_weights(state, middle.exp(), width)) >= wanted
            high = torch.where(enough, middle, high)
            low = torch.where(enough, low, middle)
        return high.exp()

    def moved(self, state: _State, width: Tensor, moves: int, hard: Tensor) -> _State:
        """The population after some moves; the ``hard`` conditions stay inside (C,)."""
        n = state.noise.shape[1]
        mean = state.noise.mean(1, keepdim=True)
        gap = state.noise - mean
        unit = torch.eye(gap.shape[-1], dtype=gap.dtype)
        # too few vectors do not tell a covariance from chance
        trust = n / (n + gap.shape[-1])
        covariance = trust * (gap.mT @ gap) / n + ((1.0 - trust) + _RIDGE) * unit
        root = torch.linalg.cholesky(covariance)
        for move in range(moves):
            kind = move % 2
            step = self.log_step[kind].exp()[:, None, None]
            fresh = self.source.normal(*state.noise.shape[:2])
            keep = (1.0 - step**2).clamp_min(0.0).sqrt()
            if kind:
                proposed = mean + keep * (state.noise - mean) + step * (fresh @ root.mT)
            else:
                proposed = keep * state.noise + step * fresh
            other = self.state(self.source.carried(proposed, self.rows))
            ratio = _log_kernel(other.distance, width) - _log_kernel(state.distance, width)
            if kind:
                ratio = ratio + _excess(proposed, mean, root) - _excess(state.noise, mean, root)
            chance = torch.rand(
                ratio.shape, generator=self.source.generator, dtype=ratio.dtype
            ).clamp_min(1e-300)
            accepted = chance.log() < torch.nan_to_num(ratio, nan=-math.inf)
            accepted &= other.inside | ~hard[:, None]
            state = state.replaced(other, accepted)
            rate = accepted.double().mean(1)
            self.log_step[kind] = (self.log_step[kind] + 1.5 * (rate - _WANTED_ACCEPTANCE)).clamp(
                math.log(1e-3), 0.0
            )
        return state


def _log_kernel(distance: Tensor, width: Tensor) -> Tensor:
    return -0.5 * (distance / width[:, None]).square()


def _weights(state: _State, width: Tensor, before: Tensor) -> Tensor:
    """Weights (C, n) of a narrower kernel over a wider one, each condition's sum one."""
    log = _log_kernel(state.distance, width) - _log_kernel(state.distance, before)
    log = torch.nan_to_num(log, nan=-math.inf)
    # where no draw is defined at all, all are alike
    top = log.amax(1, keepdim=True)
    log = torch.where(torch.isfinite(top), log, 0.0)
    return torch.softmax(log, 1)


def _effective(weight: Tensor) -> Tensor:
    return weight.sum(1).square() / weight.square().sum(1)


def _excess(noise: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    """Log density under the standard normal law less that under the population's (C, n)."""
    gap = torch.linalg.solve_triangular(root, (noise - mean).mT, upper=False)
    return 0.5 * (gap.square().sum(1) - noise.square().sum(-1))


def _resampled(weight: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Row numbers (C, n) by systematic resampling."""
    start = torch.rand((len(weight), 1), generator=generator, dtype=weight.dtype)
    points = (torch.arange(n, dtype=weight.dtype) + start) / n
    return torch.searchsorted(weight.cumsum(1), points).clamp_max(weight.shape[1] - 1)
