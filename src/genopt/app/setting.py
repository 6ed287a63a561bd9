"""Everything a study needs to know before any work: the problem, the goal, the rows, the checks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from genopt.app.early import check_early
from genopt.app.parts import make
from genopt.app.wish import read_goal
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.data.table import Table
    from genopt.goal import Goal
    from genopt.problems.base import Problem


@dataclass(frozen=True)
class Setting:
    """What the stages of a study share.

    Args:
        config: the composed configuration.
        problem: what is asked.
        goal: what is wanted.
        table: the rows, with split labels.
    """

    config: DictConfig
    problem: Problem
    goal: Goal
    table: Table

    @classmethod
    def of(cls, config: DictConfig) -> Setting:
        """Build the problem, its goal and its table, and check all that needs no training.

        Args:
            config: the composed configuration.

        Returns:
            The setting.

        Raises:
            GenoptError: if a key, a column, a goal or the table cannot be used.
        """
        check_early(config)
        problem = make(config.problem, "problem")
        table = _rows(config, problem)
        if set(table.split) == {"train"}:
            table = table.with_split(config.data.validation, config.data.test, config.seed)
        return cls(config, problem, read_goal(config, problem, table), table)

    @property
    def answers(self) -> tuple[Any, ...]:
        """The problem's exact answers, where its own goal is asked."""
        same = dict(self.goal.spec) == dict(self.problem.default_goal)
        return self.problem.answers if same else ()

    def file_bytes(self) -> bytes:
        """Hashes of the user's own table and checkpoint: a changed file means another study."""
        paths = [
            self.config.problem.get("path"),
            self.config.checkpoint,
            self.config.model.get("pretrained"),
        ]
        marks = []
        for path in filter(None, paths):
            # by pieces: a table may be larger than memory
            with Path(path).expanduser().open("rb") as file:
                marks.append(hashlib.file_digest(file, "sha256").digest())
        return b"".join(marks)


def _rows(config: DictConfig, problem: Problem) -> Table:
    """The problem's rows; with ``data=adaptive`` rows of its simulator close to a goal."""
    data = config.data
    if "near" not in data:
        return problem.table(data.rows, seed=config.seed)
    from genopt.goal import Goal
    from genopt.problems.adaptive import adaptive_table

    near: Any = config.goal if data.near == "goal" else data.near
    near = OmegaConf.to_container(near, resolve=True) if OmegaConf.is_config(near) else near
    if data.near == "goal" and config.held_out_goals is not None:
        raise GenoptError(
            "data.near=goal and held_out_goals exclude each other: say what the rows are to be "
            f"near, for example data.near='{{{problem.y_space.names[0]}: max}}'"
        )
    if not isinstance(near, Mapping):
        raise GenoptError(f"data.near must be goal or a mapping in the goal's words, got {near!r}")
    return adaptive_table(
        problem,
        Goal(near or problem.default_goal, problem.x_space, problem.y_space),
        data.rows,
        rounds=data.rounds,
        share=data.share,
        plain=data.plain,
        unbiased=data.unbiased,
        seed=config.seed,
    )


def check_spaces(model: Any, problem: Problem, key: str) -> None:
    """Refuse a model that was made for other columns.

    Args:
        model: a loaded model.
        problem: what is asked.
        key: where the model comes from, for the message.

    Raises:
        GenoptError: if its columns, classes or simplexes differ; the message names them.
    """
    for role in ("x", "y"):
        theirs, ours = getattr(model, f"{role}_space"), getattr(problem, f"{role}_space")
        if theirs.names != ours.names:
            raise GenoptError(
                f"{key} belongs to another problem: its {role} columns are "
                f"{', '.join(theirs.names)}, this problem has {', '.join(ours.names)}"
            )
        for a, b in zip(theirs, ours, strict=True):
            if a.labels != b.labels or a.kind != b.kind:
                raise GenoptError(
                    f"{key} belongs to another problem: {role} column {a.name!r} is {a.kind} "
                    f"{list(a.labels)} there and {b.kind} {list(b.labels)} here"
                )
