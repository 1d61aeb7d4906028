# The four commands a contributor needs, and the two a user needs first: `make demo` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints/cpu-py311.txt
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast rehearse lint format bench clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Make the virtual environment (.venv): this package with LLaMA-Factory, verl and Ray, for the CPU

$(STAMP): pyproject.toml $(CONSTRAINTS)
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or say: make install PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --constraint $(CONSTRAINTS) --editable ".[cpu,annotate,dev]"
	@touch $@

demo: $(STAMP) ## Run the whole chain on the CPU with the embedded tiny model, into demo-out/
	$(BIN)/lad demo --out demo-out

test: $(STAMP) ## Run every test: the fast ones in parallel, then the slow ones
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m slow

test-fast: $(STAMP) ## Run the tests that need no framework: under a minute together
	$(BIN)/python -m pytest -m "not slow and not frameworks" -n 2 --dist loadfile

rehearse: $(STAMP) ## Rehearse every shipped GRPO config, two steps each (10 minutes)
	$(BIN)/python -m pytest -m rehearsal

lint: $(STAMP) ## Check style and types (ruff, mypy strict, import-linter)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## Mend what the style check can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure speed and memory as ratios, side by side in one run
	$(BIN)/python -m tests.bench

clean: ## Remove what runs leave behind, but not the environment
	rm -rf demo-out bench-out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
