"""The flow measured: posteriors with known answers, coverage, its parts, constraints, training.

Run `python scripts/bench_flow.py` to print every section, `--only posteriors` for one, `--seeds 1`
for a quick look, `--write` to put what was measured into docs/benchmarks/flow.md (sections that are
not run stay as they are). With five seeds it takes an hour of one core. `pip install sbi` adds that
package to the posteriors; without it its published figures stand alone.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from sections import run

SECTIONS = (
    "posteriors",
    "coverage",
    "parts",
    "given",
    "gaps",
    "kept",
    "constraints",
    "training",
    "arm",
    "few_calls",
    "batching",
    "abstain",
)
TITLE = """# The flow engine, measured

Written by `python scripts/bench_flow.py --write`; times are CPU seconds on one thread. What was
asked stands beside what was measured. Problems with exact answers: [problems.md](problems.md).
"""

if __name__ == "__main__":
    run("flow", TITLE, SECTIONS, __doc__, seeds=5)
