# Every command of the project. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SERVER_IMAGE ?= sentryagent-idp:local
DISTRIBUTIONS := server mock_idp sentryagent_actions
EXAMPLES := $(wildcard examples/workflows/*.yml)

.PHONY: help
help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo 'make: $(PYTHON) must be Python 3.11 or later; choose another one with `make PYTHON=python3.12 …`' >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo 'make: $(PYTHON) has no venv module; on Debian and Ubuntu install it with `apt-get install python3-venv`' >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV)

# A stamp for each lock file: nothing is installed twice, and `make demo` does not wait for the test tools.
$(VENV)/.run: requirements/run.txt pyproject.toml $(DISTRIBUTIONS:%=%/pyproject.toml) | $(BIN)/python
	@echo 'installing the runtime dependencies (requirements/run.txt)'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/run.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation $(DISTRIBUTIONS:%=-e ./%)
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.run
	@echo 'installing the test tools (requirements/dev.txt)'
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: install
install: $(VENV)/.dev ## create .venv with all dependencies, including the test tools

.PHONY: demo
demo: $(VENV)/.run ## run the whole flow on this machine: register an agent, issue its token, call an endpoint
	@PYTHONDONTWRITEBYTECODE=1 $(BIN)/python examples/demo.py

.PHONY: test
test: $(VENV)/.dev ## run every test that this machine can run; SENTRYAGENT_TEST_REQUIRE=docker,postgres,… turns skips into failures
	@$(BIN)/pytest -n auto --dist loadgroup $(or $(PYTEST),--cov --cov-report=)

.PHONY: property
property: $(VENV)/.dev ## run the property tests of the trust decision with ten times as many examples as `make test`
	@SENTRYAGENT_PROPERTY_EXAMPLES=1000 $(BIN)/pytest -q -n auto tests/unit/server/domain tests/unit/server/github tests/unit/server/jose tests/unit/server/tokens

.PHONY: faults
faults: $(VENV)/.dev ## kill processes, fill a disk and stop PostgreSQL under load; print what happened
	@SENTRYAGENT_FAULT_LOAD=$(or $(LOAD),20) $(BIN)/pytest -q -s tests/faults --ignore=tests/faults/test_soak.py

.PHONY: soak
soak: $(VENV)/.dev ## load each database for ten minutes, or SECONDS=…; fail on an error or growing memory
	@SENTRYAGENT_SOAK_SECONDS=$(or $(SECONDS),600) $(BIN)/pytest -q -s tests/faults/test_soak.py

.PHONY: bench
bench: $(VENV)/.dev ## benchmark the provider against its peers in under ten minutes; DURATION=seconds per turn, ROUNDS=turns
	@$(BIN)/python -m bench $(if $(DURATION),--duration $(DURATION)) $(if $(ROUNDS),--rounds $(ROUNDS))

.PHONY: actions-dist
actions-dist: $(VENV)/.run ## write the actions' repositories to dist/actions/; IMAGE=docker://…@sha256:… uses a published image
	@$(BIN)/python release/actions_dist.py $(if $(IMAGE),--image '$(IMAGE)')

.PHONY: wheels
wheels: $(VENV)/.run ## build the distributions that a release publishes in dist/wheels/
	@rm -rf dist/wheels
	@$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation --no-index --wheel-dir dist/wheels $(DISTRIBUTIONS:%=./%)

.PHONY: server-image
server-image: ## build the provider's image from the last commit as sentryagent-idp:local, or SERVER_IMAGE=…
	@git archive HEAD | docker build -q -t $(SERVER_IMAGE) -f deploy/server/Dockerfile -

.PHONY: openapi
openapi: $(VENV)/.run ## regenerate docs/openapi.json after a change to the HTTP interface
	@$(BIN)/python release/openapi.py

.PHONY: one-step
one-step: $(VENV)/.run ## regenerate action.yml, the tables in docs/one-step-action.md and the actions without Docker from the other two actions
	@$(BIN)/python release/one_step.py
	@$(BIN)/python release/host_actions.py

.PHONY: alert-recordings
alert-recordings: $(VENV)/.dev ## record what a provider shows under each fault that has an alert, in half an hour; ONLY="name …"
	@$(BIN)/python tests/vectors/alerts/record.py $(ONLY)

.PHONY: attack-table
attack-table: $(VENV)/.dev ## regenerate the table in mock_idp/README.md: the attack pack against well-known verifiers
	@$(BIN)/python examples/attack/compare.py --write

.PHONY: lint
lint: $(VENV)/.dev ## check style, types, import rules and workflows
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo | tail -n 3
	@$(BIN)/zizmor --offline --no-progress -q --persona pedantic . $(EXAMPLES)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/actionlint .github/workflows/*.yml $(EXAMPLES)
	@$(BIN)/shellcheck .ci/run .github/start-partners

.PHONY: lock
lock: $(VENV)/.dev ## update the lock files to the newest versions that pyproject.toml allows
	@$(BIN)/python requirements/lock.py
