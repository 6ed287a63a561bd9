#!/usr/bin/env bash
# The tests on a real Slurm: starts a cluster of one node where this machine lets it, and says so
# where it does not. A cluster that runs already is used, and left as it is.
#
#   scripts/test_slurm.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:-.venv/bin/python}

if ! timeout 5 sinfo >/dev/null 2>&1; then
  if ! scripts/slurm_one_node.sh up; then
    echo "test_slurm: no cluster could be started here: the tests on Slurm were NOT run" >&2
    exit 0
  fi
  trap 'scripts/slurm_one_node.sh down' EXIT
fi
"$python" -m pytest -m slurm tests/app/test_slurm.py
