"""What `genopt-report` prints: the best designs of each problem, and what did not finish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genopt.app.dashboard.gather import Study
from genopt.app.dashboard.payload import best_first
from genopt.app.dashboard.table import matters
from genopt.app.folder import FAILED, FINISHED, INTERRUPTED, MISSING, STATES

if TYPE_CHECKING:
    import pandas as pd

# with more studies than these only the best are printed and drawn; the files have them all
_SHOWN = 12
_FAILURES = 5
_DESIGNS = ("candidates.parquet", "data.parquet", "top.csv")
# columns of all tables that tell studies apart, too
_NAMED = ("problem", "routine", "seed")


def has_designs(study: Study) -> bool:
    """Whether the files are there that a table of designs is made from, not only the numbers.

    Args:
        study: a finished study.

    Returns:
        False for a folder of which only a part was copied.
    """
    return all((study.folder / name).exists() for name in _DESIGNS)


def show_states(studies: Sequence[Study], roots: Sequence[Path]) -> None:
    """Say how many studies are how far and why some failed, where any has not finished.

    Args:
        studies: all of them.
        roots: the folders that were asked for.
    """
    counts = Counter(study.state for study in studies)
    if set(counts) == {FINISHED}:
        return
    console = _console()
    # a search adds a state of its own: trials that it stopped early
    states = [*STATES, *sorted(set(counts) - set(STATES))]
    words = ", ".join(f"{counts[state]} {state}" for state in states if counts[state])
    console.print(f"[bold]{len(studies)} studies[/bold]: {words}", highlight=False)
    why = Counter(study.error.partition("\n")[0] for study in studies if study.state == FAILED)
    for error, count in why.most_common(_FAILURES):
        times = f" ({count} times)" if count > 1 else ""
        console.print(f"failed{times}: {error or 'no message'}", highlight=False, markup=False)
    if any(counts[state] for state in (FAILED, INTERRUPTED, MISSING)):
        folders = " ".join(map(str, roots))
        console.print(f"[dim]run those again: genopt-report {folders} --failed[/dim]")


def show_problem(studies: Sequence[Study], out: Path) -> pd.DataFrame:
    """Print the finished studies of one problem, beside its best known rows, and draw their figure.

    Args:
        studies: the studies, in the order in which they began.
        out: where the figure is written.

    Returns:
        The best designs of all of them.
    """
    import pandas as pd

    from genopt.analysis.plots.properties import plot_properties
    from genopt.analysis.summary import best_rows_frame
    from genopt.app.show import designs_table
    from genopt.candidates import Candidates
    from genopt.data.table import Table
    from genopt.files import whole
    from genopt.goal import Goal

    best = {study.id for study in best_first(studies)[:_SHOWN]}
    shown = [study for study in studies if study.id in best]
    found = [Candidates.load(study.folder / "candidates.parquet") for study in shown]
    x_space, y_space = found[0].x_space, found[0].y_space
    goal = Goal(found[0].goal, x_space, y_space)
    rows = pd.read_parquet(shown[0].folder / "data.parquet")
    table = Table.from_frame(rows, x_space, y_space)
    verified = any(candidates.verified for candidates in found)
    source = "simulated" if verified else "measured"

    labels = labels_of(studies)
    frames = {
        study.id: pd.read_csv(study.folder / "top.csv").assign(model=labels[study.id])
        for study in studies
    }
    series = {}
    for study, candidates in zip(shown, found, strict=True):
        top = candidates.top(10)
        series[labels[study.id]] = (top.y_verified if verified else top.y_predicted)[0]
    count = max(len(frame) for frame in frames.values()) // goal.batch_size
    known = best_rows_frame(goal, table, max(count, 1)).assign(model=f"best {source}")

    console = _console()
    problem = shown[0].problem
    title = f"{problem}: best distinct designs for {goal}"
    console.print(f"[bold]{title}[/bold]", highlight=False)
    printed = pd.concat([*(frames[study.id] for study in shown), known], ignore_index=True)
    columns = [term.column for term in goal.terms]
    console.print(designs_table(printed, x_space, columns, verified, lead=("model",)))
    for study in shown:
        console.print(f"[bold]{labels[study.id]}[/bold]: {study.verdict}", highlight=False)
    if len(shown) < len(studies):
        console.print(f"[dim]the best {len(shown)} of {len(studies)} studies are shown[/dim]")
    values = "verified by the simulator" if verified else "predicted"
    figure = plot_properties(goal, table.y, series, source, f"{problem}: best designs, {values}")
    with whole(out / f"{problem}.png") as part:
        figure.savefig(part)
    return pd.concat([*frames.values(), known], ignore_index=True)


def labels_of(studies: Sequence[Study]) -> dict[str, str]:
    """The model's name of each study, with what tells studies apart that share it.

    Args:
        studies: all that are shown together.

    Returns:
        Such as ``mixture`` or ``mixture seed=1``, by study.
    """
    alike: dict[str, list[Study]] = {}
    for study in studies:
        alike.setdefault(study.model, []).append(study)
    out = {}
    for model, group in alike.items():
        told = {study.id: _told(study) for study in group}
        lines = Counter(told.values())
        words = Counter(word for own in told.values() for word in set(own))
        for study in group:
            own = told[study.id]
            if len(group) == 1:
                out[study.id] = model
            elif lines[own] > 1 or not own:
                out[study.id] = f"{model} {study.folder.name.rpartition('-')[2]}"
            else:
                # a key without its groups says enough
                odd = [word.rpartition("=") for word in own if words[word] < len(group)]
                short = (f"{key.rpartition('.')[2]}={value}" for key, _, value in odd)
                out[study.id] = " ".join([model, *short])
    return out


def _told(study: Study) -> tuple[str, ...]:
    """What a command line said about the study itself."""
    keys = {word: word.partition("=")[0].lstrip("+~") for word in study.overrides}
    return tuple(sorted(word for word, key in keys.items() if key in _NAMED or matters(key)))


def _console() -> Any:
    from genopt.app.show import Screen

    return Screen().console
