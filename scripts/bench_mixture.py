"""The mixture measured beside scikit-learn, gmr and tgmm: speed, gaps, known failures, posteriors.

Run `python scripts/bench_mixture.py` to print every section, `--only failures` for one, `--write`
to put what was measured into docs/benchmarks/mixture.md (sections that are not run stay as they
are). About ten minutes of one core in all. `pip install tgmm` adds the torch package to the
comparison; without it its cells stay empty.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "mixture.md"
SECTIONS = ("speed", "gaps", "failures", "wide", "posteriors", "problems")
TITLE = """# The mixture engine, measured

Written by `python scripts/bench_mixture.py --write`; times are CPU seconds on one thread. What was
asked stands beside what was measured. How many components are chosen, and how good the designs of
the problem suite are with them, stands in [mixture_selection.md](mixture_selection.md).
"""


def measured(name: str) -> str:
    load, start = os.getloadavg()[0], time.process_time()
    text = importlib.import_module(f"mixture.{name}").section().strip()
    spent = time.process_time() - start
    return (
        f"{text}\n\n<sub>`--only {name}`: {spent:.0f} CPU s; {os.cpu_count()} cores "
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
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in given.only:
        text = measured(name)
        print(f"{text}\n", flush=True)
        if given.write:
            PAGE.write_text(written(name, text))


if __name__ == "__main__":
    main()
