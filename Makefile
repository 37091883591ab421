# make            lists what can be made
# make book       builds the book          make test    runs every test
#
# The environment lies in .venv. It is brought up to date whenever requirements.txt or pyproject.toml change.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PINS := $(shell cat requirements.txt pyproject.toml | cksum | tr ' ' -)
READY := $(VENV)/ready-$(PINS)

.DEFAULT_GOAL := help
.PHONY: help book pdf test processors lab execute experiments bench mutants lint clean

help: ## list what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1|/' | awk -F'|' '{ printf "make %-12s %s\n", $$1, $$2 }'

book: $(READY) ## build the book into _build/html (nothing is executed); ADDRESS=… adds the buttons that lead there
	@$(BIN)/python -m tools.build_book $(ADDRESS)

pdf: $(READY) ## build the book and print it as one PDF (needs Chromium)
	@$(BIN)/python -m tools.pdf

test: $(READY) ## run every test: the package, the chapters, the built pages
	@$(BIN)/python -m pytest tests book -n 2 --dist loadscope --no-loadscope-reorder $(PYTEST)

processors: $(READY) ## run the chapters as other processors would, or SETTING=plain, CHAPTER=…, TESTS=tests/package
	@$(BIN)/python -m tools.processors $(SETTING) $(if $(CHAPTER),--chapter $(CHAPTER)) $(if $(TESTS),--tests $(TESTS))

lab: $(READY) ## open the chapters in JupyterLab; saving one writes both files of its pair
	@$(BIN)/jupyter-lab $(LAB) book

execute: $(READY) ## execute stale chapters, or CHAPTER=book/part/NN_name.md, or CHAPTER=all
	@$(BIN)/python -m tools.chapters $(CHAPTER)

experiments: $(READY) ## train and measure again what is stale; says how long it will take
	@$(BIN)/python -m experiments

bench: $(READY) ## time flows and layers against other libraries (installs the extra "bench")
	@$(BIN)/python -m pip install --quiet --quiet --constraint requirements.txt --editable '.[bench]' \
	  || { echo 'make bench: the other libraries could not be installed; a network is needed once.' >&2; exit 1; }
	@$(BIN)/python -m benchmarks

mutants: $(READY) ## try slips in flows and layers against their tests (installs the extra "mutation")
	@$(BIN)/python -m pip install --quiet --quiet --constraint requirements.txt --editable '.[mutation]' \
	  || { echo 'make mutants: cosmic-ray could not be installed; a network is needed once.' >&2; exit 1; }
	@$(BIN)/python -m tests.mutants.slips

lint: $(READY) ## check style, formatting and types
	@$(BIN)/ruff check . && $(BIN)/mypy

clean: ## remove the built book, the environment and all caches
	@rm -rf _build $(VENV) book/_static/vendor node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each step says what it does, and where it fails what to do.
$(READY): requirements.txt pyproject.toml
	@test -x $(BIN)/python || { echo 'Creating $(VENV)'; $(PYTHON) -m venv $(VENV); } \
	  || { rm -rf $(VENV); echo 'make: no environment could be created. Install Python 3.11 or later with its venv module' \
	       '(Debian: apt-get install python3 python3-venv).' >&2; exit 1; }
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { rm -rf $(VENV); echo 'make: Python 3.11 or later is needed. Name one: make PYTHON=python3.12 book' >&2; exit 1; }
	@echo 'Installing the versions of requirements.txt into $(VENV)'
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --requirement requirements.txt \
	  || { echo 'make: pip could not install requirements.txt. Check the network, then run make again.' >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . \
	  || { echo 'make: mnf_lite itself could not be installed; pip says why above.' >&2; exit 1; }
	@rm -f $(VENV)/ready-* && touch $@
