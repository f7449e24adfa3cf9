# Every target sets up what it needs. `make live-run` and `make test` are the two to know.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LIVE := $(BIN)/live
PYTEST_WORKERS ?= 2
RUN := $(VENV)/.run-installed
DEV := $(VENV)/.dev-installed

.PHONY: help live-run live-gate live-report live-export test check fmt bench demo docs pictures clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

live-run: $(RUN) ## Run once with mock data, publishing nothing.
	$(LIVE) run --dry-run

live-gate: $(RUN) ## Check the latest artifacts against the guide's thresholds.
	$(LIVE) gate

live-report: $(RUN) ## Make the artifacts again from the ledger, and show the report.
	$(LIVE) report

live-export: $(RUN) ## Publish the ledger's state to Redis again (LIVE_REDIS_URL).
	$(LIVE) export

demo: $(VENV)/.demo-installed ## An incident on a real Redis in seconds, and how the keys change.
	$(BIN)/python -m tools.demo

test: $(DEV) ## Run all tests.
	$(BIN)/pytest -n $(PYTEST_WORKERS)

check: $(DEV) ## Lint, types, the import rule, generated docs.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_architecture.py
	$(BIN)/python docs/generate.py --check

fmt: $(DEV) ## Format, and mend what lint can mend.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV) ## Write the generated docs.
	$(BIN)/python docs/generate.py

pictures: $(DEV) ## Draw the dashboard's panels from a real run (Debian's prometheus).
	$(BIN)/python docs/pictures.py

bench: $(DEV) ## Measure speed as ratios to peers in the same run.
	$(BIN)/python -m benchmarks

clean: ## Remove what was installed and made.
	rm -rf $(VENV) artifacts .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(RUN): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(RUN)

$(VENV)/.demo-installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@ $(RUN)
