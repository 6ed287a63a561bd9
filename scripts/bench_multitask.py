"""The multi-task engine measured: accuracy, honesty of its optima, speed.

Run `python scripts/bench_multitask.py` to print every section, `--only inverse --seeds 1` for a
quick look at one, `--write` to put what was measured into docs/benchmarks/multitask.md (sections
that are not run stay as they are). About half an hour in all with five seeds on one core. `search`
compares with BoTorch, which `pip install -c constraints.txt -e '.[bench]'` adds.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sections import run

SECTIONS = (
    "inverse",
    "synthetic",
    "sparse",
    "thermophysical",
    "encoders",
    "ensembles",
    "search",
    "heads",
)
TITLE = """# The multi-task engine, measured

Written by `python scripts/bench_multitask.py --write`, one section at a time; times are CPU seconds
on one thread, errors are medians over seeds. What was asked stands beside what was measured.
"""

if __name__ == "__main__":
    run("multitask", TITLE, SECTIONS, __doc__, seeds=5)
