"""Sweeps measured: each section of scripts/sweeps/ by its name.

Run `python scripts/bench_sweeps.py` to print every section, `--only parallel` for one, `--write` to
put what was measured into docs/benchmarks/sweeps.md (sections that are not run stay as they are).
Sections that compare times want a machine that does nothing else.
"""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sections import run

FOLDER = Path(__file__).resolve().parent / "sweeps"
SECTIONS = tuple(
    path.stem for path in sorted(FOLDER.glob("*.py")) if "def section(" in path.read_text()
)
TITLE = """# Sweeps, measured

Written by `python scripts/bench_sweeps.py --write`; times are CPU seconds unless a line says
otherwise. What was asked stands beside what was measured.
"""

if __name__ == "__main__":
    run("sweeps", TITLE, SECTIONS, __doc__, seeds=1)
