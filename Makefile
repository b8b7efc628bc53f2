# Everything a developer runs. It needs make and Python 3.11 or newer; all else goes into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
ALL := --override-ini=addopts="--import-mode=importlib --strict-markers -ra --ignore=tests/bench"
PROJECTS := . plugins/stub_bus plugins/kafka_bus
LOWEST := .venv-lowest
TEST_TOOLS := pytest pytest-timeout pytest-xdist hypothesis cloudevents hatchling editables uv
# These tests are about the tools of the checkout: ruff, mypy and import-linter, which want newer libraries.
NOT_LOWEST := --ignore=tests/house --ignore=tests/drivers/test_typing.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-lowest e2e lint format bench soak docs constraints clean

help: ## this list
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## the virtual environment with everything in it

$(STAMP): pyproject.toml constraints.txt $(wildcard plugins/*/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "bus-core needs Python 3.11 or newer; say which with: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@grep -A40 '^uv==' constraints.txt | awk 'NR==1 || /--hash/ {print} NR>1 && !/--hash/ {exit}' > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r constraints.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(PROJECTS:%=-e %)
	@touch $@

demo: $(STAMP) ## the main job: events reach every subscription of a channel
	@$(BIN)/bus demo

test: $(STAMP) ## the tests, in under three minutes
	@$(BIN)/pytest -m "not soak" --numprocesses=2 --dist=loadscope

test-lowest: $(LOWEST)/.ready ## the tests with the oldest versions that pyproject.toml allows
	@$(LOWEST)/bin/pytest -m "not soak" --numprocesses=2 --dist=loadscope $(NOT_LOWEST) $(BUS_LOWEST)

$(LOWEST)/.ready: $(STAMP) tests/house/lowest.py
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	@$(BIN)/python -m tests.house.lowest pins > $(LOWEST)/pins.txt
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(LOWEST)/bin/python --resolution lowest-direct \
		--constraint $(LOWEST)/pins.txt $(PROJECTS:%=-e %) -e '.[uvloop]'
	@$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python --constraint $(LOWEST)/pins.txt $(TEST_TOOLS)
	@$(LOWEST)/bin/python -m tests.house.lowest check
	@touch $@

e2e: $(STAMP) ## the tests that bring real servers of other kinds
	@$(BIN)/python -m tests.e2e.cluster.server
	@$(BIN)/pytest $(ALL) -m "not soak" --timeout=300 tests/e2e

lint: $(STAMP) ## style, types, import contracts, private names
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m tests.house.private_names

format: $(STAMP) ## put the code into its form
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: $(STAMP) ## measure, side by side in one run; exit 1 on a missed goal
	@$(BIN)/python -m tests.bench $(CASE)

soak: $(STAMP) ## what takes minutes by nature
	@$(BIN)/python -m tests.e2e.cluster.server
	@$(BIN)/pytest $(ALL) -m soak --timeout=1800 tests plugins

docs: $(STAMP) ## run every code block of the documentation
	@$(BIN)/pytest tests/docs

constraints: $(STAMP) ## choose the newest versions of everything, with hashes
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-header --upgrade --group dev pyproject.toml --no-emit-package bus-core -o constraints.txt

clean: ## remove what was made here
	@rm -rf .venv $(LOWEST) .cache build dist site .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
