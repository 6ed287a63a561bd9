"""The flow measured: posteriors with known answers, coverage, its parts, constraints, training.

Run `python scripts/bench_flow.py` to print every section, `--only posteriors` for one, `--seeds 1`
for a quick look, `--write` to put what was measured into docs/benchmarks/flow.md (sections that are
not run stay as they are). With five seeds it takes an hour of one core. `pip install sbi` adds that
package to the posteriors; without it its published figures stand alone.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import platform
import re
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "flow.md"
SECTIONS = (
    "posteriors",
    "coverage",
    "problems",
    "parts",
    "given",
    "constraints",
    "training",
    "arm",
)
TITLE = """# The flow engine, measured

Written by `python scripts/bench_flow.py --write`; times are CPU seconds on one thread. What was
asked stands beside what was measured.
"""


def measured(name: str, seeds: int) -> str:
    section = importlib.import_module(f"flow.{name}").section
    # a section without seeds measures one model, or an exact velocity
    options = {"seeds": seeds} if "seeds" in inspect.signature(section).parameters else {}
    load, start = os.getloadavg()[0], time.process_time()
    text = section(**options).strip()
    spent = time.process_time() - start
    command = f"--only {name}" + (f" --seeds {seeds}" if options else "")
    return (
        f"{text}\n\n<sub>`{command}`: {spent:.0f} CPU s; {os.cpu_count()} cores "
        f"({platform.machine()}), load average at the start {load:.1f}.</sub>"
    )


def written(name: str, text: str) -> str:
    """The page with one section in the place of its old one."""
    old = PAGE.read_text() if PAGE.exists() else ""
    kept = dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end -->", old, flags=re.DOTALL))
    kept[name] = text
    parts = [f"<!-- {key} -->\n{kept[key]}\n<!-- end -->" for key in SECTIONS if key in kept]
    return "\n".join([TITLE, *parts]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--seeds", type=int, default=5, help="medians are over so many seeds")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.only:
        text = measured(name, given.seeds)
        print(f"{text}\n", flush=True)
        if given.write:
            PAGE.write_text(written(name, text))


if __name__ == "__main__":
    main()
