"""The three engines on problems with known answers: the table of docs/engines.md.

Run `genopt -m problem=plug_flow,inactive_constraint,peng_robinson,absolute_value,arm_kinematics
model=mixture,multitask,flow logger=none`, then `python scripts/bench_engines.py multirun/<folder>`,
with `--write` to put the table into docs/benchmarks/engines.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from genopt.app.dashboard.gather import Study, gather_studies

TABLE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "engines.md"
HEADER = ("problem", "engine", "reached", "precision", "best claim", "in truth", "best verified",
          "median verified", "best row", "fit, s", "search, s")  # fmt: skip


def cells(entry: Study) -> tuple[str, ...]:
    m = entry.metrics
    precision = f"{m['mode_precision']:.2f}" if "mode_precision" in m else "-"
    losses = ("claimed/best_loss", "verified/loss_of_best_claim", "verified/best_loss",
              "verified/median_loss", "baseline/best_row_loss")  # fmt: skip
    return (
        f"`{entry.problem}`",
        entry.model,
        f"{m['verified/satisfied']:.0%}",
        precision,
        *(f"{m[name]:.1e}" for name in losses),
        f"{m['fit_seconds']:.0f}",
        f"{m['routine_seconds']:.1f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the sweep")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks/engines.md")
    given = parser.parse_args()
    finished = [s for s in gather_studies([given.folder]) if s.state == "finished"]
    entries = sorted(finished, key=lambda study: study.problem)
    rows = [HEADER, ("---",) * len(HEADER), *map(cells, entries)]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    print(table)
    if given.write:
        TABLE.write_text(
            "# Three engines, side by side\n\n"
            "Default settings, one seed, one thread, problems with a simulator. *Reached* is the "
            "share of designs whose verified values satisfy the goal, *precision* the share within "
            ".05 of an exact answer, *best row* the best training row. Losses are those of the "
            "goal. A flow claims what was asked, so its claims tie at 0 or at its targets.\n\n"
            "Written by `python scripts/bench_engines.py multirun/<folder> --write` after\n"
            "`genopt -m problem=plug_flow,inactive_constraint,peng_robinson,absolute_value,"
            "arm_kinematics model=mixture,multitask,flow logger=none`; 2 cores, other work beside "
            f"it.\n\n{table}\n"
        )


if __name__ == "__main__":
    main()
