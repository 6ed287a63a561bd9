"""A comparison in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from genopt.app.compare import Change, Comparison, SweepComparison

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ROWS = 30
_DIGITS = 4
_WHERE = {"a": "only in A", "b": "only in B", "both": "differs"}


def show_comparison(found: Comparison | SweepComparison, console: Console) -> None:
    """Print what differs.

    Args:
        found: as from `genopt.app.compare.compare`.
        console: where to.
    """
    console.print(f"A  {found.a}\nB  {found.b}", highlight=False, soft_wrap=True)
    if found.same:
        console.print("nothing differs but times and places")
    if isinstance(found, SweepComparison):
        _show_sweeps(found, console)
    else:
        _show_studies(found, console)


def _show_studies(found: Comparison, console: Console) -> None:
    settings = sorted(found.settings, key=lambda change: not change.matters)
    if found.states[0] != found.states[1]:
        console.print(f"A is {found.states[0]}, B is {found.states[1]}", highlight=False)
    _show("settings", settings, console)
    _show("numbers", found.metrics, console, ratio=True)
    _show("environment", found.environment, console)
    for name, where in found.figures.items():
        console.print(f"figure {name}: {_WHERE[where]}", highlight=False)
    if found.verdicts[0] != found.verdicts[1]:
        for letter, verdict in zip("AB", found.verdicts, strict=True):
            console.print(f"[bold]{letter}[/bold]: {verdict or '-'}", highlight=False)


def _show_sweeps(found: SweepComparison, console: Console) -> None:
    from rich.table import Table

    _show("settings that differ in every job", found.shared, console)
    table = Table(title="jobs, with their best loss", title_justify="left")
    for name in ("job", "settings", "A", "B", "B / A", "figures"):
        table.add_column(name, justify="left" if name in ("job", "settings") else "right")
    shared = {change.name for change in found.shared}
    for label, pair in found.pairs.items():
        loss = pair.loss
        a, b = (loss.a, loss.b) if loss else pair.states
        own = [c.name for c in pair.settings if c.name not in shared and c.matters]
        pictures = str(len(pair.figures)) if pair.figures else "-"
        ratio = _said(loss.ratio) if loss else "-"
        table.add_row(label, ", ".join(own) or "-", _said(a), _said(b), ratio, pictures)
    if found.pairs:
        console.print(table)
    for letter, jobs in (("A", found.only_a), ("B", found.only_b)):
        for job in jobs:
            console.print(f"only in {letter}: {job}", highlight=False, soft_wrap=True)


def _show(title: str, changes: Sequence[Change], console: Console, ratio: bool = False) -> None:
    if not changes:
        return
    table = _table(title, ratio)
    for change in changes[:_ROWS]:
        more = [_said(change.ratio)] if ratio else []
        table.add_row(change.name, _said(change.a), _said(change.b), *more)
    console.print(table)
    if len(changes) > _ROWS:
        console.print(f"[dim]and {len(changes) - _ROWS} more[/dim]", highlight=False)


def _table(title: str, ratio: bool) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    for name in ("A", "B", "B / A") if ratio else ("A", "B"):
        table.add_column(name, justify="right" if ratio else "left", overflow="fold")
    return table


def _said(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)
