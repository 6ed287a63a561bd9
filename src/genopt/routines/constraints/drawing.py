"""Constrained draws: the way is chosen by how many plain draws come near, projection comes last."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.routines.constraints.best_design import gradient_search
from genopt.routines.constraints.latent_smc import latent_smc
from genopt.routines.constraints.projection import project
from genopt.routines.constraints.rules import Rules
from genopt.routines.constraints.select import select
from genopt.routines.constraints.shell import SHELL, WIDE, Shell
from genopt.routines.constraints.source import Draws, Source

METHODS = ("auto", "select", "smc", "gradient")
_SURPLUS = 1.1
_ROUNDS = 4
_LEAST_DRY, _MOST_DRY = 256, 2_000

Objective = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Constrained:
    """Designs that keep every constraint.

    Args:
        x: designs (C, n, P), float64.
        valid: which of them there are (C, n); the others are NaN and come last.
        noise: the noise they were carried from, before projection (C, n, U), where there is any.
        report: how they were found: plain numbers and words.
    """

    x: Tensor
    valid: Tensor
    noise: Tensor | None = None
    report: dict[str, Any] = field(default_factory=dict)


def constrained_draws(
    source: Source,
    rules: Rules,
    n: int,
    *,
    method: str = "auto",
    tries: int = 500,
    objective: Objective | None = None,
) -> Constrained:
    """Draws of a model that keep constraints within 1e-8, or are not returned.

    The law is that of p(x | y) where the inequalities hold and in the limit of thin shells around
    the equalities, see `genopt.routines.constraints.shell`; ``gradient`` follows no law.

    Args:
        source: the model's draws for C conditions.
        rules: the constraints.
        n: designs for each condition.
        method: ``select`` keeps the draws that come near; ``smc`` moves a population of noise
            towards the constraints; ``auto`` takes the first where the tries are enough for
            it, else the second where the model has noise; ``gradient`` descends through the
            sampler from each draw to the best design.
        tries: most draws for each wanted design; ``gradient`` takes 164 each whatever it says.
        objective: for ``gradient``: what is to be small, from designs (C', n, P) and the numbers of
            their conditions (C',) to losses (C', n); None for the most usual design.

    Returns:
        The designs; a condition may have fewer than n, or none.

    Raises:
        GenoptError: if the method does not fit the source or no condition has any design.
    """
    check_method(method, tries, noise=source.transport is not None)
    everything = torch.arange(source.count)
    dry = min(max(4 * n, _LEAST_DRY), _MOST_DRY, max(tries * n, 1))
    pool = source.draws(everything, dry)
    shell = Shell.of(rules, pool.x)
    measured = shell.measure(pool.x)
    acceptance = measured.within(SHELL)
    # the tries have to bring the wanted number near, at worst within the widest shells
    enough = measured.within(WIDE) * tries >= _SURPLUS
    run = _Run(source, shell, n, max(tries * n - dry, 0), objective)
    run.tries = dry * source.count
    selects = torch.ones(source.count, dtype=torch.bool)
    if method in ("smc", "gradient") or (method == "auto" and source.transport is not None):
        selects = enough & (method == "auto")
    words = []
    for chosen, rows in (("select", selects), ("smc", ~selects)):
        index = rows.nonzero()[:, 0]
        if len(index) == 0:
            continue
        word = "gradient" if method == "gradient" else chosen
        words.append(word)
        getattr(run, word)(index, pool.of(index))
    if not bool(run.valid.any()):
        raise GenoptError(
            f"no design keeps the constraints after {run.tries} draws: {rules.least_met(pool.x)}; "
            "check the constraints against the goal, or raise the tries (constraint_tries)"
        )
    if bool(run.rough.any()):
        warnings.warn(
            f"few of the model's draws come near the constraints ({int(run.rough.sum())} of "
            f"{source.count} targets): these designs keep them, but were moved far and follow no "
            f"law; {rules.least_met(pool.x)}",
            stacklevel=2,
        )
    worst = rules.excess(run.x[run.valid])
    return Constrained(
        run.x,
        run.valid,
        run.noise,
        {
            "rules": [c.name for c in rules.constraints],
            "method": "+".join(["exact"] * source.exact + words),
            "acceptance": float(acceptance.mean()),
            "least_acceptance": float(acceptance.min()),
            "tries": run.tries,
            "ess": float(run.ess.min()),
            "dropped": run.dropped,
            "missing": int((~run.valid).sum()),
            "largest_violation": float(worst.max()),
            "targets_without_law": int(run.rough.sum()),
        },
    )


def check_method(method: str, tries: int, noise: bool) -> None:
    """Refuse a way that does not exist or that a model cannot go.

    Args:
        method: the way.
        tries: most draws for each wanted design.
        noise: whether the model carries noise to designs.

    Raises:
        GenoptError: if it cannot be used.
    """
    if method not in METHODS:
        raise UnknownNameError("constraint_method", method, METHODS)
    if tries < 1:
        raise GenoptError(f"constraint_tries must be at least 1, got {tries}")
    if method in ("smc", "gradient") and not noise:
        raise GenoptError(
            f"constraint_method={method} works in a flow's noise: use model=flow, or "
            "constraint_method=select"
        )


class _Run:
    """Fills the designs of one call, condition by condition and way by way."""

    def __init__(
        self, source: Source, shell: Shell, n: int, most: int, objective: Objective | None
    ) -> None:
        self.source, self.shell, self.n, self.most = source, shell, n, most
        self.objective = objective
        count, space = source.count, source.space
        self.x = torch.full((count, n, space.dim), torch.nan, dtype=torch.float64)
        self.valid = torch.zeros(count, n, dtype=torch.bool)
        self.noise = None
        if source.transport is not None:
            self.noise = torch.zeros(count, n, source.width, dtype=torch.float64)
        self.ess = torch.zeros(count, dtype=torch.float64)
        # conditions whose draws did not come as near as the law asks for
        self.rough = torch.zeros(count, dtype=torch.bool)
        self.dropped = 0
        self.tries = 0

    def select(self, rows: Tensor, pool: Draws) -> None:
        """Selection, again for what projection loses while tries last."""
        first: Draws | None = pool
        left = self.most
        place = torch.arange(len(rows))
        for turn in range(_ROUNDS):
            short = self.n - self.valid[rows[place]].sum(1)
            place = place[short > 0]
            if len(place) == 0 or (left <= 0 and turn):
                break
            n = int(short.max())
            at = rows[place]
            done = select(
                self.source, self.shell.at(at), at, n, left, None if first is None else first
            )
            first = None
            self.tries += done.tries
            left -= done.tries // max(len(place), 1)
            self.ess[at] = (self.ess[at] + done.inside).clamp_max(self.n)
            self.rough[at] |= done.width > WIDE
            self._finish(at, done.draws)

    def smc(self, rows: Tensor, pool: Draws) -> None:
        """The sequence in the noise, with a few vectors to spare."""
        n = int(_SURPLUS * self.n) + 1
        done = latent_smc(self.source, self.shell.at(rows), rows, n, self.most, pool)
        self.tries += done.tries
        self.ess[rows] = done.ess.clamp_max(self.n)
        self.rough[rows] = done.width > WIDE
        self._finish(rows, done.draws)

    def gradient(self, rows: Tensor, pool: Draws) -> None:
        """A descent from each of n draws."""
        distance = self.shell.at(rows).measure(pool.x).distance
        start = pool.take(distance.argsort(1)[:, : self.n])
        if start.x.shape[1] < self.n:
            start = start.join(self.source.draws(rows, self.n - start.x.shape[1]))
        done = gradient_search(self.source, self.shell.at(rows), rows, start, self.objective)
        self.tries += done.tries
        self.ess[rows] = float(self.n)
        self._finish(rows, done.draws)

    def _finish(self, rows: Tensor, draws: Draws) -> None:
        """Project draws and keep those that arrive, behind those that are there."""
        n = draws.x.shape[1]
        known = torch.isfinite(draws.x).all(-1)
        flat = torch.nan_to_num(draws.x).flatten(0, 1)
        done = project(self.shell.rules, flat, self.shell.metric[rows].repeat_interleave(n, 0))
        kept = done.kept.reshape(len(rows), n) & known
        self.dropped += int((~kept & known).sum())
        have = self.valid[rows].sum(1, keepdim=True)
        place = have + kept.long().cumsum(1) - 1
        row, column = (kept & (place < self.n)).nonzero(as_tuple=True)
        at = rows[row], place[row, column]
        self.x[at] = done.x.reshape(len(rows), n, -1)[row, column]
        self.valid[at] = True
        if self.noise is not None and draws.noise is not None:
            self.noise[at] = draws.noise[row, column]
