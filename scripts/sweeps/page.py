"""Hundreds of studies on one page: how long writing it takes, and how long a browser to open it."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

_BROWSER = Path("/usr/bin/chromium")
_REAL = {
    "mixture": ["model=mixture", "model.max_components=4"],
    "multitask": ["model=multitask", "model.epochs=60", "routine.starts=8"],
}
_COMMON = ["problem=plug_flow", "data.rows=120", "progress=false"]
_LINKED = ("candidates.parquet", "candidates.json", "data.parquet", "history.json", "top.csv")
_COPIED = ("diagnosis.json", "environment.json", "study.log")
_OPENINGS = 5


def section() -> str:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        real = {model: _run(root / "real" / model, words) for model, words in _REAL.items()}
        for count in (200, 1000):
            _replicate(real, root / f"{count}", count)
        spent, taken = _report(root / "200")
        more = _report(root / "1000")
        page = root / "1000" / "report.html"
        rows = [
            (
                "`genopt-report` of 200 studies, all of it",
                f"{spent:.1f} CPU s, {taken:.1f} s",
                "10 s",
            ),
            (
                "`genopt-report` of 1,000 studies, all of it",
                f"{more[0]:.1f} CPU s, {more[1]:.1f} s",
                "",
            ),
            ("`report.html` of 1,000 studies", f"{page.stat().st_size / 1e6:.1f} MB", ""),
            *_opened(page),
        ]
    table = "\n".join(f"| {what} | {measured} | {asked} |" for what, measured, asked in rows)
    return f"""## One page for many studies

A mixture and a multi-task study of `plug_flow` are run, then their folders are repeated with other
seeds, keys and numbers; one of 25 failed. The time of a report is that of the whole command, its
imports included. A page is *open* when its tables and filters are there and answer; figures, curves
and the plotting library come after.

| what | measured | asked, at most |
|---|---|---|
{table}
"""


def _run(folder: Path, words: list[str]) -> Path:
    """A real study."""
    code = (
        "import sys; from genopt import compose, run_study; "
        "run_study(compose(sys.argv[2:]), sys.argv[1], show=False)"
    )
    command = [sys.executable, "-c", code, str(folder), *_COMMON, *words]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _replicate(real: dict[str, Path], root: Path, count: int) -> None:
    """Folders with the shape of real ones; large files are linked, numbers are other ones."""
    generator = random.Random(0)
    for number in range(count):
        model = list(real)[number % len(real)]
        source, folder = real[model], root / f"{model}-{number:04d}"
        failed = number % 25 == 24
        rows, seed = (60, 120, 240)[number // 2 % 3], number // 6
        words = [_COMMON[0], _REAL[model][0], f"data.rows={rows}", f"seed={seed}"]
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(words))
        config = yaml.safe_load((source / "config.yaml").read_text())
        config["seed"] = seed
        config["data"]["rows"] = rows
        config["paths"]["study"] = str(folder)
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        status = json.loads((source / "status.json").read_text())
        if failed:
            status |= {"state": "failed", "error": "training diverged in epoch 3: the loss is nan"}
        else:
            metrics = json.loads((source / "metrics.json").read_text())
            metrics = {k: v * generator.lognormvariate(0, 0.5) for k, v in metrics.items()}
            (folder / "metrics.json").write_text(json.dumps(metrics, indent=2))
        (folder / "status.json").write_text(json.dumps(status, indent=2))
        for name in _COPIED:
            if (source / name).exists():
                (folder / name).write_bytes((source / name).read_bytes())
        for path in [source / name for name in _LINKED] + list((source / "figures").glob("*")):
            target = folder / path.relative_to(source)
            if path.exists() and not failed:
                target.parent.mkdir(exist_ok=True)
                os.link(path, target)


def _report(root: Path) -> tuple[float, float]:
    """CPU seconds and seconds of the command."""
    code = "from genopt.app.report import main; main()"
    before, start = os.times(), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, str(root)], check=True, capture_output=True)
    after = os.times()
    spent = after.children_user + after.children_system
    return spent - before.children_user - before.children_system, time.perf_counter() - start


def _opened(page: Path) -> list[tuple[str, str, str]]:
    """How long a headless browser takes, from the start of the navigation."""
    what = "opening it in headless Chromium"
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return [(what, "not measured: playwright is missing", "2 s")]
    if not _BROWSER.exists():
        return [(what, f"not measured: there is no browser at {_BROWSER}", "2 s")]
    ready, drawn = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(_BROWSER))
        for _ in range(_OPENINGS):
            view = browser.new_page()
            view.goto(page.resolve().as_uri(), wait_until="commit")
            view.wait_for_selector("html[data-ready]")
            ready.append(view.evaluate("performance.getEntriesByName('ready')[0].startTime") / 1000)
            start = time.perf_counter()
            view.click("[role=tab][data-tab=tradeoff]")
            view.wait_for_selector(".plot[data-drawn]")
            drawn.append(time.perf_counter() - start)
            view.close()
        browser.close()
    return [
        (
            what,
            f"{statistics.median(ready):.2f} s (slowest of {_OPENINGS}: {max(ready):.2f})",
            "2 s",
        ),
        ("the first drawing after that", f"{statistics.median(drawn):.1f} s", ""),
    ]
