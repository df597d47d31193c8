# `make demo` and `make test` do everything on a fresh machine: environment, installation, run.
PYTHON ?= python3
VENV := $(CURDIR)/.venv
BIN := $(VENV)/bin
# What `source .venv/bin/activate` sets, so that the scripts use this environment whichever one is active.
ACTIVE := VIRTUAL_ENV="$(VENV)" PATH="$(BIN):$$PATH"
# pip's download bars on a terminal, silence in a log file.
QUIET := $(shell test -t 2 || echo --quiet)
PIP := "$(BIN)/python" -m pip --disable-pip-version-check $(QUIET)

.PHONY: help demo test fuzz

help: ## what can be made
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/'

demo: .venv/installed ## train RPO on handwritten digits with the built-in tiny CLIP, and print the base/new table
	$(ACTIVE) bash scripts/rpo/base2new.sh

test: .venv/installed-test ## lint and test everything
	"$(BIN)/python" -m ruff check .
	$(ACTIVE) "$(BIN)/python" -m pytest

fuzz: .venv/installed-test ## thousands of damaged files and odd command lines (FUZZ_CASES=2000 of each kind; an hour)
	$(ACTIVE) FUZZ_CASES=$${FUZZ_CASES:-2000} "$(BIN)/python" -m pytest tests/fuzz

# The stamps are newer than setup.py as long as nothing has to be installed again.
.venv/installed: setup.py | .venv/bin/pip
	@echo "Installing PyTorch and the rest into .venv (the first time takes minutes) ..."
	$(PIP) install -e .
	@touch $@

.venv/installed-test: setup.py | .venv/bin/pip
	@echo "Installing PyTorch, the rest and the test tools into .venv (the first time takes minutes) ..."
	$(PIP) install -e '.[test]'
	@touch .venv/installed $@

.venv/bin/pip:
	$(PYTHON) -m venv .venv
