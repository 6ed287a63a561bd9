"""What is shown of the study that is clicked: verdict, findings, designs, figures, last words."""

from __future__ import annotations

import base64
import csv
import os
import shlex
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from genopt.app.dashboard.gather import Study, read_json, said_of
from genopt.app.folder import FINISHED

# rows of the table of candidates, lines of the log, bytes that are read of its end
_ROWS, _LINES, _TAIL = 20, 40, 24_000
_MOST_CONFIG = 6_000
# bytes of a page that figures may take, before they are linked
BUDGET = 24_000_000


def details(study: Study) -> dict[str, Any]:
    """What there is to say about one study, without its figures.

    Args:
        study: the study.

    Returns:
        Plain data.
    """
    failed = study.state != FINISHED
    return {
        "folder": str(study.folder),
        "verdict": study.verdict,
        "error": study.error,
        "findings": read_json(study.folder / "diagnosis.json") or [],
        "overrides": list(study.overrides),
        "command": command(study),
        "top": candidates(study.folder / "top.csv"),
        "log": last_lines(study.folder / "study.log") if failed else [],
        "config": _text(study.folder / "config.yaml")[:_MOST_CONFIG],
    }


def command(study: Study) -> str:
    """What repeats a study, as a user would type it.

    Args:
        study: the study.

    Returns:
        A line for the shell; empty for a study that was not run from the command line.
    """
    if not said_of(study.overrides):
        return ""
    words = []
    for override in study.overrides:
        if override.startswith("~goal") or override.startswith("hydra."):
            continue
        # the app itself adds the sign to what a user may leave without it
        plain = override.lstrip("+") if override.lstrip("+").startswith("goal") else override
        words.append(shlex.quote(plain))
    return " ".join(["genopt", *words])


def candidates(path: Path) -> dict[str, Any]:
    """The best designs.

    Args:
        path: ``top.csv`` of a study.

    Returns:
        ``columns`` and ``rows`` of texts and numbers; empty where there are none.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    except OSError:
        return {}
    if len(rows) < 2:
        return {}
    body = [[_number(cell) for cell in row] for row in rows[1 : _ROWS + 1]]
    return {"columns": rows[0], "rows": body, "more": max(0, len(rows) - 1 - _ROWS)}


def last_lines(path: Path) -> list[str]:
    """The end of a log.

    Args:
        path: the log.

    Returns:
        Its last lines; none where there is no log.
    """
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line[:400] for line in text.splitlines()[-_LINES:]]


def figures(study: Study) -> list[Path]:
    """The figures of a study, by name.

    Args:
        study: the study.

    Returns:
        Paths of PNG files.
    """
    return sorted((study.folder / "figures").glob("*.png"))


def picture(path: Path, src: str) -> dict[str, Any]:
    """A figure as the page shows it.

    Args:
        path: a PNG file.
        src: its address.

    Returns:
        ``name``, ``src``, ``width`` and ``height``, so that nothing moves when it is loaded.
    """
    with path.open("rb") as file:
        head = file.read(24)
    width, height = struct.unpack(">II", head[16:24]) if len(head) == 24 else (4, 3)
    return {"name": path.stem, "src": src, "width": width, "height": height}


def placed_figures(
    studies: Sequence[Study], beside: Path, budget: int = BUDGET
) -> dict[str, list[dict[str, Any]]]:
    """Where the page finds the figures of each study: in itself, or beside it.

    Args:
        studies: the studies, those whose figures matter most first.
        beside: the page's folder.
        budget: bytes of the page that figures may take.

    Returns:
        By study, its figures as from `picture`; ``src`` is the picture itself as long as the budget
        lasts, then a path as seen from the page.
    """
    out: dict[str, list[dict[str, Any]]] = {}
    for study in studies:
        paths = figures(study)
        # base64 writes three bytes as four letters
        size = sum(path.stat().st_size for path in paths) * 4 // 3
        inside = size <= budget
        if inside:
            budget -= size
        out[study.id] = [
            picture(path, _inlined(path) if inside else _beside(path, beside)) for path in paths
        ]
    return out


def _inlined(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _beside(path: Path, page: Path) -> str:
    way = Path(os.path.relpath(path.resolve(), page.resolve())).as_posix()
    # a name may hold signs that mean something in an address
    return quote(way)


def _number(cell: str) -> Any:
    try:
        return float(cell)
    except ValueError:
        return cell


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
