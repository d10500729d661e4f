# Every target makes what it needs: `make demo` and `make test` work on a machine with nothing but Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow check format proto lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

env: $(STAMP) ## Create .venv with everything, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a minute or two the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable '.[server,postgres,dataframe,plot,demo]'
	@touch $@

demo: env ## Tune a small network on handwritten digits with two worker processes
	$(BIN)/python -m examples.digits.demo

test: env ## Run all tests
	$(BIN)/python -m pytest -m "not slow"

test-slow: env ## Run the long matrices
	$(BIN)/python -m pytest -m slow

check: env ## Format, lint, types, import contracts, protos, stale bindings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/buf format proto --diff --exit-code
	$(BIN)/python proto/generate.py --check

format: env ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format proto --write

proto: env ## Generate the Python bindings from proto/
	$(BIN)/python proto/generate.py

lock: ## Pin the newest versions that pyproject.toml allows in constraints.txt
	./deploy/lock.sh

clean: ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
