"""Section: what `advise` says of each problem, and what the engines then did there."""

from __future__ import annotations

import contextlib
import io
import statistics
import tempfile
import time
import warnings
from pathlib import Path

from genopt import compose, run_study
from genopt.analysis.advise import Advice, advise
from genopt.app.setting import Setting

# problems on which all three engines are run; the others are only advised on
RUN = (
    "peng_robinson",
    "absolute_value",
    "plug_flow",
    "alloy",
    "two_moons",
    "arm_kinematics",
    "inactive_constraint",
)
ADVISED = (
    "batch_reactor",
    "gasoline_blend",
    "reaction_equilibrium",
    "cstr_mapping",
    "sine_wave",
    "rastrigin",
    "zdt1",
    "evaporator",
    "synthetic_pair",
    "photostability",
    "suzuki_coupling",
    "hplc",
    "thermophysical",
)
ENGINES = ("mixture", "flow", "multitask")
_MOST_SEEDS = 2


def section(seeds: int = 1) -> str:
    """The table of advice beside results; `seeds` of them for each engine."""
    # a flow on every problem takes minutes
    seeds = min(seeds, _MOST_SEEDS)
    lines = [
        "## Which engine? The advice beside the results",
        "",
        "`genopt.advise(table, goal)` with the problems' own goals and rows. *Within*: the share",
        "of a quick mixture's designs that should come within the tolerances; *groups*: of the",
        "designs of the rows nearest to the target. The engines ran with default settings: share",
        "of designs that reach the goal in truth and, where a property is to be as low as",
        f"possible, the median true loss; medians over {seeds} seed(s).",
        "",
        "| problem | advice | within | groups | advice, CPU s | mixture | flow | multitask |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in (*RUN, *ADVISED):
        advice, seconds = _advice(name)
        within = advice.figures.get("mixture_within_tolerance")
        cells = [
            f"`{name}`",
            advice.engine,
            "" if within is None else f"{within:.0%}",
            f"{advice.figures['groups_near_target']:.0f}",
            f"{seconds:.2f}",
        ]
        cells += [_result(name, e, seeds) if name in RUN else "" for e in ENGINES]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _advice(name: str) -> tuple[Advice, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setting = Setting.of(compose([f"problem={name}", "model=mixture"]))
        started = time.process_time()
        advice = advise(setting.table, setting.goal)
    return advice, time.process_time() - started


def _result(name: str, engine: str, seeds: int) -> str:
    """What an engine did on a problem: the share that reaches the goal, or the median loss."""
    shares, losses = [], []
    for seed in range(seeds):
        overrides = [f"problem={name}", f"model={engine}", f"seed={seed}", "logger=none"]
        config = compose([*overrides, "figures=false", "progress=false", "reach=0"])
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(io.StringIO()):
                result = run_study(config, Path(folder) / "study", show=False)
        shares.append(result.metrics["verified/satisfied"])
        losses.append(result.metrics["verified/median_loss"])
        wishes = {"min", "max"} & {str(value) for value in result.candidates.goal.values()}
    if wishes:
        return f"loss {statistics.median(losses):.1e}"
    return f"{statistics.median(shares):.0%}"
