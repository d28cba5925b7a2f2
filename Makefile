# Every command of the project. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'make: needs Python 3.11 or newer as $(PYTHON); name another one with `make PYTHON=python3.12 …`' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo 'make: $(PYTHON) has no venv module; on Debian and Ubuntu install it with `apt-get install python3-venv`' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

# A stamp for each lock file: nothing is installed twice, and `make demo` does not wait for the test tools.
$(VENV)/.run: requirements/run.txt pyproject.toml | $(BIN)/python
	@echo 'installing what the programs need (requirements/run.txt)'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo 'installing the test tools (requirements/dev.txt)'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: install
install: $(VENV)/.dev ## the environment in .venv, with the test tools
