# What a developer types. Everything sets itself up first; nothing outside this folder is touched.

PYTHON ?= python3
ARGS ?=
SEEDS ?= 500
FROM ?= 0

# Tests start hundreds of processes: what one has compiled, the next need not compile again.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TEST := $(BIN)/python -m pytest --dist=loadgroup --no-loadscope-reorder
# What it costs to count lines, a tenth of the time, is spent where nobody waits.
COVER := $(if $(CI),--cov --cov-report=)
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate \
	--custom-compile-command "make locks"

.DEFAULT_GOAL := help
.PHONY: help setup run test check fix protos bench nemesis mutations simulate locks clean

help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  ARGS="..." is passed on, for example: make test ARGS="-k history"'

setup: $(READY) ## Creates .venv from the hash-pinned lock; does nothing when the lock has not changed.

run: $(READY) ## Starts the whole system on embedded engines and prints where it is; Ctrl-C stops it.
	@$(BIN)/chappe up $(ARGS)

test: $(READY) ## Runs every test, on real engines and real processes too.
	@$(TEST) --numprocesses=4 $(COVER) -m "not system" $(ARGS) || test $$? -eq 5
	@$(TEST) --numprocesses=3 -m system $(ARGS) || test $$? -eq 5

check: $(READY) ## Runs the fast gates: lint, types, architecture, contracts, freshness, house style.
	@$(BIN)/python tests/check.py $(ARGS)

fix: $(READY) ## Repairs what a tool can repair: lint, Python format, contract format.
	@$(BIN)/ruff check --fix --exit-zero --quiet .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/buf format -w

protos: $(READY) ## Writes chappe/api, docs/api.md and docs/errors.md from the contracts.
	@$(BIN)/python protos/generate.py $(ARGS)

bench: $(READY) ## Starts the real processes, measures them and prints a table.
	@$(BIN)/python -m tests.bench $(ARGS)

nemesis: $(READY) ## Hurts a whole system for ten minutes while people talk; the history checker judges.
	@$(BIN)/python -m tests.nemesis $(ARGS)

mutations: $(READY) ## Takes out one repair after another; the history checker must notice each.
	@$(BIN)/python -m tests.mutations $(ARGS)

simulate: $(READY) ## Runs the mesh on simulated time, SEEDS=1000 runs FROM=0 on; what fails is shrunk and told.
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) --from $(FROM) $(ARGS)

locks: $(READY) ## Resolves the dependencies of pyproject.toml into locks/; ARGS=--upgrade takes newer ones.
	@$(COMPILE) $(ARGS) pyproject.toml --extra dev -o locks/dev.txt
	@$(COMPILE) $(ARGS) pyproject.toml --extra server -c locks/dev.txt -o locks/server.txt
	@echo uv | $(COMPILE) $(ARGS) - -c locks/dev.txt -o locks/uv.txt

clean: ## Removes .venv and every cache.
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*

$(READY): pyproject.toml locks/uv.txt locks/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Chappe needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1)." \
		"Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || { echo 'Creating $(VENV)' >&2; $(PYTHON) -m venv $(VENV); } || { \
		echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu install the package python3-venv." >&2; \
		rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r locks/uv.txt
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes locks/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@
