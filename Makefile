# `make study` runs the main job and `make test` every check; both set up what they need, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-from-constraints

export OMP_NUM_THREADS ?= 1

.PHONY: study test lint types unit slurm bench clean

study: $(INSTALLED)
	$(BIN)/genopt -m experiment=photostability model=mixture,multitask,flow

test: lint types unit

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "genopt needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

lint: $(INSTALLED)
	$(BIN)/ruff check src tests scripts
	$(BIN)/ruff format --check src tests scripts
	$(BIN)/pydoclint -q src

types: $(INSTALLED)
	$(BIN)/mypy

unit: $(INSTALLED)
	$(BIN)/pytest -n 2

# on a cluster of one node, where this machine lets one start; says so where it does not
slurm: $(INSTALLED)
	scripts/test_slurm.sh $(BIN)/python

bench: $(INSTALLED)
	$(BIN)/python scripts/bench_core.py

clean:
	rm -rf $(VENV) build dist
