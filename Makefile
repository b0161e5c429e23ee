# Everything runs in .venv, made on first use by uv where it is installed, else by pip.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help venv demo check docs test test-all claims clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*##/  make \1\t/p' Makefile | expand -t 20

venv: $(READY)  ## make or refresh the environment in .venv

# uv does not read pip's settings, so the folders in which pip looks for wheels are handed on to it.
$(READY): pyproject.toml constraints.txt
	@set -e; if command -v uv >/dev/null; then \
	    links=$${PIP_FIND_LINKS:-$$($(PYTHON) -m pip config get global.find-links 2>/dev/null || true)}; \
	    export UV_FIND_LINKS="$${UV_FIND_LINKS:-$$(echo $$links | tr ' ' ',')}"; \
	    uv venv --quiet --allow-existing --python $(PYTHON) .venv; \
	    uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'; \
	else \
	    $(PYTHON) -m venv .venv; \
	    $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'; \
	fi
	@touch $@

demo: $(READY)  ## diagnose a sick network, cure it, prove it
	$(BIN)/steadygrad demo

check: $(READY)  ## lint, formatting, types, import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY)  ## build the documentation into site/, warnings being errors
	$(BIN)/mkdocs build --strict --quiet

test: check  ## check, then the fast tests
	$(BIN)/pytest -m "not slow and not gpu"

test-all: test  ## test, then the slow tests
	$(BIN)/pytest -m "slow and not gpu" || [ $$? -eq 5 ]  # 5: there are none

claims: $(READY)  ## test the articles' claims, what is missing of them, and write docs/claims.md
	$(BIN)/python -m experiments.claims

clean:  ## remove the environment and all caches
	rm -rf .venv build dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
