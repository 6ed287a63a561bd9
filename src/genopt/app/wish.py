"""What a study asks for: the configured goal, the problem's own, or unseen designs' properties."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.data.table import Table
    from genopt.goal import Goal
    from genopt.problems.base import Problem

_FRESH = 7_919


def read_goal(config: DictConfig, problem: Problem, table: Table) -> Goal:
    """The goal of a study.

    Args:
        config: the composed configuration.
        problem: what is asked.
        table: the rows, with split labels.

    Returns:
        The goal; with ``held_out_goals`` one for each unseen design.

    Raises:
        GenoptError: if nothing is wanted, or the columns do not fit.
    """
    from genopt.goal import Goal

    wanted: Any = config.goal
    if OmegaConf.is_config(wanted):
        wanted = OmegaConf.to_container(wanted, resolve=True)
    own = wanted is None or wanted == {}
    wanted = problem.default_goal if own else wanted
    if not isinstance(wanted, Mapping):
        raise GenoptError(
            f"goal must name columns, for example goal='{{{problem.y_space.names[0]}: max}}', "
            f"got {wanted!r}"
        )
    if config.held_out_goals is not None:
        if not own:
            raise GenoptError(
                "goal and held_out_goals exclude each other: drop one, held_out_goals asks for "
                "what unseen designs measured"
            )
        wanted = _held_out(int(config.held_out_goals), config.seed, problem, table)
    if not wanted:
        raise GenoptError(
            "goal is empty and the problem has none of its own: say what is wanted, for "
            f"example goal='{{{problem.y_space.names[0]}: max}}'"
        )
    return Goal(wanted, problem.x_space, problem.y_space)


def _held_out(count: int, seed: int, problem: Problem, table: Table) -> dict[str, Any]:
    """The properties of fresh designs of a simulator, or of a measured table's test rows."""
    if count < 1:
        raise GenoptError(f"held_out_goals must be at least 1, or null, got {count}")
    numbers = [v.name for v in problem.y_space if v.kind != "categorical"]
    own = [
        name
        for name, want in problem.default_goal.items()
        if name in numbers and (not isinstance(want, Mapping | str) or "equals" in want)
    ]
    names = own or numbers
    index = [problem.y_space.index(name) for name in names]
    rows = problem.table(count, seed + _FRESH) if problem.has_simulator else table.part("test")
    y = rows.y[:, index]
    y = y[y.isfinite().all(1)][:count]
    if len(y) < count:
        raise GenoptError(
            f"held_out_goals={count}: only {len(y)} unseen rows have labels for "
            f"{', '.join(names)}; lower it or raise data.test"
        )
    goal: dict[str, Any] = {}
    for name, values in zip(names, y.T.tolist(), strict=True):
        want = problem.default_goal.get(name)
        options = (
            {k: v for k, v in want.items() if k != "equals"}
            if name in own and isinstance(want, Mapping)
            else {}
        )
        goal[name] = {"equals": values, **options}
    return goal
