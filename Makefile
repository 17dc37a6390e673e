# jobsd.  `make` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help setup run test check fmt lint types layers bench bench-short faults requirements docs clean

# The newest Python on this machine that is new enough; PYTHON=… chooses another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV := .venv
BIN := $(VENV)/bin
# Processes that run tests.  Tests wait longer than they compute: two cores have room for five.
JOBS ?= 5
ARGS ?=
# Bytecode is kept, whatever the shell says: else every process that a test starts would compile all of it anew.
unexport PYTHONDONTWRITEBYTECODE

help: ## what you can do here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "jobsd needs Python 3.11 or newer; put it on PATH, or: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "$(PYTHON) cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }

# What the daemon needs: enough for `make run`.
$(VENV)/.run: pyproject.toml | $(BIN)/python
	@echo "installing jobsd into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

# And what its developers need.
$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "installing jobsd and its tools into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.run

setup: $(VENV)/.dev ## install everything into .venv

run: $(VENV)/.run ## the daemon with a database, sinks and sample jobs of its own; Ctrl-C ends it
	@$(BIN)/jobsd demo $(ARGS)

test: $(VENV)/.dev ## all tests; ARGS="-k claim" chooses
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

check: lint types layers test ## the whole law: format, lint, types, layers, tests

fmt: $(VENV)/.dev ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only .

lint: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev
	$(BIN)/mypy

layers: $(VENV)/.dev
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## measure: drain, pick-up, idle, enqueue, rescue, roles; each beside its target
	$(BIN)/python -m benchmarks

bench-short: $(VENV)/.dev ## the same programs on little data: do they run?
	$(BIN)/python -m benchmarks --short

faults: $(VENV)/.dev ## all tests at full size: the long fault runs, every example
	JOBSD_LONG=1 $(BIN)/python -m pytest $(ARGS)

requirements: $(VENV)/.dev ## which tests prove which row of docs/requirements.md, and which rows are open
	$(BIN)/python -m tests.requirement_map

docs: $(VENV)/.dev ## write the pages and the config.toml that are made from the code
	$(BIN)/python -m daemon.reference
	$(BIN)/python -m daemon.config_docs
	$(BIN)/python -m daemon.cli_docs

clean: ## remove what make made here
	rm -rf $(VENV) var build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
