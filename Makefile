# `make demo` and `make test` do everything on a fresh machine: environment, installation, run.
PYTHON ?= python3
WORKERS ?= 3
VENV = .venv
BIN = $(CURDIR)/$(VENV)/bin
# What `source .venv/bin/activate` sets, so that the scripts use this environment whichever one is active.
ACTIVE = VIRTUAL_ENV="$(CURDIR)/$(VENV)" PATH="$(BIN):$$PATH"
# pip's download bars on a terminal, silence in a log file.
QUIET := $(shell test -t 2 || echo --quiet)
PIP = "$(BIN)/python" -m pip --disable-pip-version-check $(QUIET)
# The tests of a file run in one process, one after the other. One thread each: the processes share the cores. Tests often
# wait for processes that they start, so three keep two cores busy.
PYTEST = $(ACTIVE) OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n $(WORKERS) --dist loadfile

.PHONY: help demo test test-slow test-latest docs fuzz

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/'

demo: .venv/installed ## train RPO on handwritten digits with the built-in tiny CLIP, and print the base/new table
	$(ACTIVE) bash scripts/rpo/base2new.sh

test: .venv/installed-test ## lint, check spelling and types, run all tests but the slow ones
	"$(BIN)/python" -m ruff check .
	"$(BIN)/codespell"
	"$(BIN)/python" -m mypy
	$(PYTEST)

test-slow: WORKERS = 2
test-slow: .venv/installed-test .venv/installed-clusters ## run the slow tests: kills, clusters, the README's commands, more fuzzing
	$(PYTEST) --slow -m slow
	FUZZ_CASES=500 $(PYTEST) tests/fuzz

test-latest: VENV = .venv-latest
test-latest: ## run the tests with the newest versions that setup.py allows, in .venv-latest
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade --upgrade-strategy eager -e '.[test]'
	$(PYTEST)

docs: .venv/installed-test ## build the documentation site into site/, with warnings as errors
	"$(BIN)/python" -m zensical build --strict --clean

fuzz: .venv/installed-test ## thousands of damaged files and odd command lines (FUZZ_CASES=2000 of each kind; an hour)
	FUZZ_RANDOM=1 FUZZ_CASES=$${FUZZ_CASES:-2000} $(PYTEST) tests/fuzz

# The stamps are newer than setup.py and constraints.txt as long as nothing has to be installed again.
.venv/installed: setup.py constraints.txt | .venv/bin/pip
	@echo "Installing PyTorch and the rest into .venv (the first time takes minutes) ..."
	$(PIP) install -c constraints.txt -e .
	@touch $@

.venv/installed-test: setup.py constraints.txt | .venv/bin/pip
	@echo "Installing PyTorch, the rest and the test tools into .venv (the first time takes minutes) ..."
	$(PIP) install -c constraints.txt -e '.[test]'
	@touch .venv/installed $@

# Ray is large, and only slow tests use it.
.venv/installed-clusters: .venv/installed-test
	$(PIP) install -c constraints.txt -e '.[ray]'
	@touch $@

.venv/bin/pip:
	$(PYTHON) -m venv .venv
