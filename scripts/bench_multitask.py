"""The multi-task engine measured: accuracy, honesty of its optima, speed.

Run `python scripts/bench_multitask.py` to print every section, `--only inverse --seeds 1` for a
quick look at one, `--write` to put what was measured into docs/benchmarks/multitask.md (sections
that are not run stay as they are). About half an hour in all with five seeds on one core. `search`
compares with BoTorch, which `pip install -c constraints.txt -e '.[bench]'` adds.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import re
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks" / "multitask.md"
SECTIONS = ("inverse", "synthetic", "sparse", "thermophysical", "ensembles", "search", "heads")
TITLE = """# The multi-task engine, measured

Written by `python scripts/bench_multitask.py --write`, one section at a time; times are CPU seconds
on one thread, errors are medians over seeds. What was asked stands beside what was measured.
"""


def measured(name: str, seeds: int) -> str:
    """One section with a line that says where and how it was measured."""
    load, start = os.getloadavg()[0], time.process_time()
    text = importlib.import_module(f"multitask.{name}").section(seeds).strip()
    spent = time.process_time() - start
    return (
        f"{text}\n\n<sub>`python scripts/bench_multitask.py --only {name} --seeds {seeds}`: "
        f"{spent:.0f} CPU s; {os.cpu_count()} cores ({platform.machine()}), torch "
        f"{torch.__version__}, load average at the start {load:.1f}.</sub>"
    )


def written(sections: dict[str, str]) -> str:
    """The page with new sections in the place of old ones."""
    old = PAGE.read_text() if PAGE.exists() else ""
    kept = dict(re.findall(r"<!-- (\w+) -->\n(.*?)\n<!-- end -->", old, flags=re.DOTALL))
    kept |= sections
    parts = [f"<!-- {name} -->\n{kept[name]}\n<!-- end -->" for name in SECTIONS if name in kept]
    return "\n".join([TITLE, *parts]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--seeds", type=int, default=5, help="seeds of every accuracy figure")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.only:
        text = measured(name, given.seeds)
        print(f"{text}\n", flush=True)
        if given.write:
            PAGE.write_text(written({name: text}))


if __name__ == "__main__":
    main()
