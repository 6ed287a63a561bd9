"""One round of `active`: the designs that are simulated next."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genopt.candidates import Candidates
from genopt.data.table import Table
from genopt.protocols import ForwardModel
from genopt.routines.acquisition import PROPOSED, Acquisition, Aims, choose_batch
from genopt.routines.active_doubt import doubtful
from genopt.routines.active_learner import Learner
from genopt.routines.active_local import Stance, nearest_rows, region
from genopt.routines.active_pool import Region, Room, evolve
from genopt.routines.active_progress import History, trust_width
from genopt.routines.active_record import Record
from genopt.routines.active_settings import ActiveSettings

_PARENTS = 64
_ANYWHERE = 64
_NEAR = 256
_CHILDREN = 384
_CHILDREN_OF_MANY = 64
_NEAREST = 300
# least sides of the box near the best row, tried until one promises this share more
_SIDES, _LEAST_GAIN, _HOPE = (0.0, 0.01, 0.04, 0.16, 0.64), 1e-3, 1.5
_SAME = 1e-9


def next_designs(
    learner: Learner,
    record: Record,
    history: History,
    routine: Callable[..., Candidates] | None,
    settings: ActiveSettings,
    generator: torch.Generator,
) -> Tensor:
    """The designs of the next round.

    Args:
        learner: who says what designs are worth.
        record: all rows so far.
        history: how the run went.
        routine: who proposes beside the recombination of the best rows; None for nobody.
        settings: the options.
        generator: source of randomness.

    Returns:
        Designs (M, P), none of them simulated before; empty if there are none.
    """
    goal, known = learner.goal, record.known
    share = max(1, settings.batch // goal.batch_size)
    if settings.acquisition == PROPOSED and routine is not None:
        return _as_proposed(learner, routine, record, share, settings.explore, generator)
    nearby = _nearby(learner, record, history, settings, generator)
    if nearby is not None:
        share -= len(nearby)
        if share < 1:
            return nearby
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    aims = Aims.of(goal, known.y, share, generator)
    value = aims.values(known.y[None])
    value = torch.where(torch.isnan(value), torch.inf, value)
    room = Room(goal, aims.each)
    best = known.x[value.argmin(1)]
    around = None
    if settings.trust_region:
        wide = trust_width(history.value[0], goal.x_space.dim, settings.batch)
        around = (best, torch.full((goal.x_space.dim,), wide, dtype=torch.float64))
    order = value.argsort(1)[:, :_PARENTS]
    parts = [known.x[order], room.anywhere(_ANYWHERE, seed), _near(best, room, around, generator)]
    if routine is not None and learner.fresh:
        found = _proposed(learner, routine, known, seed)
        parts.append(found.repeat_interleave(aims.each, 0))
        # the same model would propose the same again
        learner.fresh = learner.train is None
    acquisition = Acquisition(
        aims, learner.believer, value.amin(1), settings.acquisition, settings.optimism, seed
    )
    size = _CHILDREN if aims.each == 1 else _CHILDREN_OF_MANY
    pool = evolve(acquisition, room, torch.cat(parts, 1), size, generator, around)
    seen = _seen(pool, record, room)
    picks = choose_batch(acquisition, pool, max(1, share // aims.each), generator, barred=seen)
    x = pool.gather(1, picks[..., None].expand(*picks.shape, pool.shape[-1]))
    x = x[~seen.gather(1, picks)]
    if nearby is not None:
        x = torch.cat([nearby, x])
    # aims that agree on a design share it
    _, first = _unique(room.space.encode(x))
    return x[first]


def _nearby(
    learner: Learner,
    record: Record,
    history: History,
    settings: ActiveSettings,
    generator: torch.Generator,
) -> Tensor | None:
    """The designs (M, P) of the next round that lie near the best row, if it is time for any."""
    nearby = learner.nearby
    if nearby is None or settings.trust_region or history.front or learner.goal.batch_size > 1:
        return None
    stance = Stance.of(history.value[0])
    count = round(stance.share * settings.batch)
    if not count:
        return None
    goal, known = learner.goal, record.known
    room, aims = Room(goal), Aims.of(goal, known.y, 1, generator)
    value = aims.values(known.y[None])
    value = torch.where(torch.isnan(value), torch.inf, value)
    best, width = value.amin(1), room.width[0, 0].clamp_min(1e-300)
    parents = known.x[value.argsort(1)[:, :_PARENTS]]
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    acquisition = Acquisition(aims, nearby, best, settings.acquisition, settings.optimism, seed)
    for least in _SIDES[min(stance.opened, len(_SIDES) - 1) :]:
        around = region(known.x, value[0], width, stance.factor, least)
        learner.teach(nearby, record, nearest_rows(known.x, value[0], around, width, _NEAREST))
        near = _near(around[0], room, around, generator)
        pool = evolve(
            acquisition, room, torch.cat([parents, near], 1), _CHILDREN, generator, around
        )
        seen = _seen(pool, record, room)
        hoped = aims.values(*nearby.belief_y(pool), _HOPE)
        gain = best - torch.where(seen, torch.inf, hoped).amin(1)
        # a place where the best rows came to rest has nothing more to give
        if float(gain) > _LEAST_GAIN * abs(float(best)):
            break
    picks = choose_batch(acquisition, pool, min(count, pool.shape[1]), generator, barred=seen)
    return pool[0, picks[0]][~seen[0, picks[0]]]


def _as_proposed(
    learner: Learner,
    routine: Callable[..., Candidates],
    record: Record,
    share: int,
    explore: float,
    generator: torch.Generator,
) -> Tensor:
    """What the routine proposes for each goal, its first designs that are new, and a few doubts."""
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    room, believer = Room(learner.goal), learner.believer
    # who says what designs are worth is searched, where that is not the engine
    asked = learner.model if learner.process is None else learner.process
    found = _proposed(learner, routine, record.known, seed, asked)
    tried = round(explore * share)
    if tried:
        doubts = doubtful(believer, learner.goal, record.known, room, tried, generator)
        found = torch.cat([doubts, found], 1)
    x = torch.cat([x[~_seen(x[None], record, room)[0]][:share] for x in found])
    _, first = _unique(room.space.encode(x))
    return x[first]


def _near(best: Tensor, room: Room, around: Region | None, generator: torch.Generator) -> Tensor:
    """Designs that differ from the best one in a few columns."""
    share = torch.full((best.shape[-1],), 0.4, dtype=torch.float64)
    share = share if around is None else around[1]
    shape = (len(best), _NEAR, best.shape[-1])
    moved = torch.rand(shape, generator=generator) < min(1.0, 20.0 / shape[-1]) / 2
    step = torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5
    return room.inside(best[:, None] + moved * share * step * room.width, around)


def _proposed(
    learner: Learner,
    routine: Callable[..., Candidates],
    known: Table,
    seed: int,
    model: Any = None,
) -> Tensor:
    """What the engine, or another model, proposes for each goal (B, n, P)."""
    model = learner.model if model is None else model
    offered: dict[str, Any] = {"table": known, "seed": seed, "progress": False}
    if not isinstance(model, ForwardModel):
        offered["judge"] = learner.believer
    names = inspect.signature(routine).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in names.values()):
        offered = {k: v for k, v in offered.items() if k in names}
    found = routine(model, learner.goal, **offered).x
    # a goal that the routine gives nothing for begins from the middle
    middle = 0.5 * (learner.goal.x_space.lower + learner.goal.x_space.upper)
    return torch.where(torch.isfinite(found), found, middle)


def _seen(pool: Tensor, record: Record, room: Room) -> Tensor:
    """Which designs were simulated before: bool (A, M)."""
    encode = room.space.encode
    apart = torch.cdist(
        encode(pool).flatten(0, 1),
        encode(record.table.x),
        compute_mode="donot_use_mm_for_euclid_dist",
    ).amin(1)
    return (apart <= _SAME).reshape(pool.shape[:2])


def _unique(rows: Tensor) -> tuple[Tensor, list[int]]:
    """Different rows, and where each comes first."""
    found: dict[tuple[float, ...], int] = {}
    for i, row in enumerate(rows.tolist()):
        found.setdefault(tuple(row), i)
    first = list(found.values())
    return rows[first], first
