"""What an `active` run learns before each round: the model, and who says what designs are worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.goal import Goal
from genopt.models.gaussian_process import GaussianProcess
from genopt.routines.acquisition import Spreadless
from genopt.routines.active_local import distinct_rows
from genopt.routines.active_progress import (
    History,
    middle_values,
    scale_of_round,
    telling_rows,
)
from genopt.routines.active_record import Record
from genopt.routines.active_settings import ActiveSettings

_BEST, _OTHERS = 400, 100
_CELL = 0.005


class Learner:
    """The model and who says what designs are worth, refitted as rows come in.

    Args:
        model: the fitted model.
        goal: what is wanted.
        settings: how often to train, and who is believed.
        train: a fresh model, fitted to a table; None to keep ``model``.
        seed: seed of the Gaussian processes.
    """

    def __init__(
        self,
        model: Any,
        goal: Goal,
        settings: ActiveSettings,
        train: Callable[[Table], Any] | None,
        seed: int,
    ) -> None:
        self.model, self.goal, self.settings, self.train = model, goal, settings, train
        self.fresh = True
        self.process: GaussianProcess | None = None
        self.nearby: GaussianProcess | None = None
        if settings.surrogate == "gp":
            named = tuple(term.index for term in goal.terms)
            spaces = goal.x_space, goal.y_space
            self._scales = [
                tuple(
                    GaussianProcess(*spaces, columns=named, seed=seed, zoomed=zoomed, warp=warp)
                    for zoomed in (False, True)
                )
                for warp in (False, True)
            ]
            self.process, self.nearby = self._scales[0]

    @property
    def believer(self) -> Any:
        """Who says what designs are worth."""
        if self.process is not None:
            return self.process
        return self.model if hasattr(self.model, "spread_y") else Spreadless(self.model)

    def learn(self, record: Record, history: History) -> None:
        """Learn from all rows before a round.

        Args:
            record: all rows.
            history: how the run went.
        """
        known = record.known
        every = self.settings.retrain
        rounds = len(history.calls) - 1
        if self.train is not None and record.calls and rounds % every == 0:
            self.model = self.train(known)
            self.fresh = True
        if self.process is not None:
            # a learned scale finds funnels, and is misled by pits in a plain: either may be wrong
            self.process, self.nearby = self._scales[scale_of_round(history.value)]
            kept = torch.arange(len(known))
            if len(known) > _BEST + _OTHERS:
                encoded = self.goal.x_space.encode(known.x)
                kept = distinct_rows(encoded, middle_values(self.goal, known.y).amin(0), _CELL)
            chosen = telling_rows(self.goal, known.y[kept], _BEST, _OTHERS)
            self.teach(self.process, record, kept[chosen])

    def teach(self, process: GaussianProcess, record: Record, chosen: Tensor) -> None:
        """Fit a Gaussian process to some rows, and to all designs that could not be simulated.

        Args:
            process: what is fitted.
            record: all rows.
            chosen: which rows with labels, by number.
        """
        x, y = record.known.x[chosen], record.known.y[chosen]
        if bool(record.lost.any()):
            # where the simulator fails nothing good is to be expected
            value = middle_values(self.goal, y)
            worst = y[torch.where(torch.isinf(value), -torch.inf, value).mean(0).argmax()]
            failed = record.table.x[record.lost]
            x, y = torch.cat([x, failed]), torch.cat([y, worst.expand(len(failed), -1)])
        process.fit(x, y)
