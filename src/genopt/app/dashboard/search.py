"""What a sweeper that searches left behind: its objectives and how much each key mattered to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genopt.app.dashboard.gather import read_json

FILE = "search.json"


@dataclass(frozen=True)
class Search:
    """A search over keys.

    Args:
        objectives: each number with ``minimize`` or ``maximize``.
        importances: by objective, the share of each key; empty where there are none.
    """

    objectives: tuple[tuple[str, str], ...]
    importances: dict[str, Any]


def read_searches(roots: Sequence[Path]) -> list[Search]:
    """The searches of sweeps.

    Args:
        roots: folders of sweeps.

    Returns:
        One for each folder that holds ``search.json``.
    """
    found = []
    for root in roots:
        data = read_json(root / FILE)
        if isinstance(data, dict) and data.get("objectives"):
            directions = data.get("directions") or ["minimize"] * len(data["objectives"])
            pairs = zip(map(str, data["objectives"]), map(str, directions), strict=False)
            found.append(Search(tuple(pairs), data.get("importances") or {}))
    return found
