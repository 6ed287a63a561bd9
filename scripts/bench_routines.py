"""The routines measured: each section of scripts/routines/ by its name.

Run `python scripts/bench_routines.py` to print every section, `--only refine` for one, `--seeds 1`
for a quick look, `--write` to put what was measured into docs/benchmarks/routines.md (sections that
are not run stay as they are).
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sections import run

FOLDER = Path(__file__).resolve().parent / "routines"
SECTIONS = tuple(
    path.stem for path in sorted(FOLDER.glob("*.py")) if "def section(" in path.read_text()
)
TITLE = """# Routines, measured

Written by `python scripts/bench_routines.py --write`; times are CPU seconds on one thread. What was
asked stands beside what was measured.
"""

if __name__ == "__main__":
    run("routines", TITLE, SECTIONS, __doc__, seeds=5)
