"""The mixture measured beside scikit-learn, gmr and tgmm: speed, gaps, known failures, posteriors.

Run `python scripts/bench_mixture.py` to print every section, `--only failures` for one, `--write`
to put what was measured into docs/benchmarks/mixture.md (sections that are not run stay as they
are). About fifteen minutes of one core in all. `pip install tgmm` adds the torch package to the
comparison; without it its cells stay empty.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sections import run

SECTIONS = ("speed", "parallel", "gaps", "failures", "wide", "posteriors", "problems")
TITLE = """# The mixture engine, measured

Written by `python scripts/bench_mixture.py --write`; times are CPU seconds on one thread. What was
asked stands beside what was measured. How many components are chosen, and how good the designs of
the problem suite are with them, stands in [mixture_selection.md](mixture_selection.md).
"""

if __name__ == "__main__":
    run("mixture", TITLE, SECTIONS, __doc__, seeds=5)
