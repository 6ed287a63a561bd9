"""The page: one HTML file with its data, its figures and its plotting library inside."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from genopt.app.dashboard.curves import curves_of
from genopt.app.dashboard.details import BUDGET, details, placed_figures
from genopt.app.dashboard.gather import Study
from genopt.app.dashboard.payload import best_first, payload
from genopt.app.dashboard.search import read_searches
from genopt.app.dashboard.table import varied_keys, write_table
from genopt.app.jobs import MANIFEST, read_jobs
from genopt.errors import GenoptError
from genopt.files import write_whole

PAGE, TABLE = "report.html", "studies.parquet"
_SCRIPTS = ("base", "filters", "table", "settings", "drawing", "plots", "study", "main")
_PLOTLY = "plotly_source"


def write_dashboard(
    studies: Sequence[Study], roots: Sequence[Path], out: Path, budget: int = BUDGET
) -> Path:
    """Write the table and the page of studies.

    Args:
        studies: the studies.
        roots: the folders that were asked for.
        out: where to write.
        budget: bytes of the page that figures may take; others are linked.

    Returns:
        The page.

    Raises:
        GenoptError: if Plotly is missing; the table is written then.
    """
    out.mkdir(parents=True, exist_ok=True)
    keys = varied_keys(studies)
    write_table(studies, keys, out / TABLE)
    searches = read_searches(roots)
    data = payload(studies, title_of(roots), searches, keys=keys)
    data |= words_of(roots)
    pictures = placed_figures(best_first(studies, searches), out, budget)
    blocks = [
        script_of(f"study-{study.id}", {**details(study), "figures": pictures[study.id]})
        for study in studies
    ]
    blocks.append(script_of("curves", short(curves_of(studies))))
    blocks.append(f'<script type="text/plain" id="{_PLOTLY}">{plotly_source()}</script>')
    page = out / PAGE
    write_whole(page, html(data, blocks))
    return page


def html(data: dict[str, Any], blocks: Sequence[str] = ()) -> str:
    """The page around its data.

    Args:
        data: as from `genopt.app.dashboard.payload.payload`.
        blocks: further elements that the page's scripts read.

    Returns:
        HTML.
    """
    parts = {
        "<!--style-->": f"<style>{_static('page.css')}</style>",
        # the tables are shown before the rest of the page is read
        "<!--data-->": script_of("data", data),
        "<!--script-->": f"<script>{scripts()}</script>",
        "<!--blocks-->": "\n".join(blocks),
    }
    text = _static("page.html")
    for place, part in parts.items():
        before, _, after = text.partition(place)
        text = before + part + after
    return text


def scripts() -> str:
    """The page's own code, one function around all files, so that nothing of it is global."""
    parts = "\n".join(_static(f"{name}.js") for name in _SCRIPTS)
    return f"(() => {{\n'use strict';\n{parts}\n}})();"


def script_of(name: str, data: Any) -> str:
    """An element that holds data and is not run.

    Args:
        name: its id.
        data: plain data.

    Returns:
        HTML.
    """
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, default=str)
    # no text of a study can end the element or begin a comment
    text = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return f'<script type="application/json" id="{name}">{text}</script>'


def short(data: Any) -> Any:
    """The same data with numbers of a few digits; what is not finite becomes null.

    Args:
        data: plain data.

    Returns:
        Plain data.
    """
    if isinstance(data, dict):
        return {key: short(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [short(value) for value in data]
    if isinstance(data, float):
        if data != data or data in (float("inf"), float("-inf")):
            return None
        return int(data) if data.is_integer() and abs(data) < 1e15 else float(f"{data:.5g}")
    return data


def plotly_source() -> str:
    """Plotly's script, from the installed package.

    Returns:
        JavaScript that can stand inside an element of the page.

    Raises:
        GenoptError: if Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise GenoptError(
            "the page of a report needs Plotly, which is not installed: pip install plotly"
        ) from error
    return str(get_plotlyjs()).replace("</script", "<\\/script").replace("<!--", "<\\!--")


def title_of(roots: Sequence[Path]) -> str:
    """The name of a report: the folders that it is about."""
    return ", ".join(root.resolve().name for root in roots)


def words_of(roots: Sequence[Path]) -> dict[str, str]:
    """What a user would type.

    Args:
        roots: the folders that a report is about.

    Returns:
        ``again``, the command that repeats what failed, and ``command``, what began the sweep;
        empty where that is not known.
    """
    again = shlex.join(["genopt-report", *map(str, roots), "--failed"])
    began = read_jobs(roots[0]).command if len(roots) == 1 and _planned(roots[0]) else ()
    said = [word for word in began[1:] if not word.startswith("hydra.sweep.dir=")]
    return {"again": again, "command": shlex.join(["genopt", *said]) if said else ""}


def _planned(root: Path) -> bool:
    return (root / MANIFEST).exists()


def _static(name: str) -> str:
    return (files("genopt.app.dashboard") / "static" / name).read_text(encoding="utf-8")
