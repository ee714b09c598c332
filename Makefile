# make quickstart   everything on simulated shoppers, offline after the install
# make test         the whole test suite
# make venv         the environment alone
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
EXTRAS := llm,train,eval,space,spark,dev

.DEFAULT_GOAL := help
.PHONY: help venv quickstart test lint format lock

help:
	@echo "make quickstart | test | venv | lint | format | lock   (see README.md and CONTRIBUTING.md)"

venv: .venv/installed

# Rebuilt when what is installed changes; a broken install leaves no mark and is done again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

quickstart: venv
	$(BIN)/regen quickstart

test: venv
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Resolves anew within pyproject.toml and the one pin that keeps CUDA packages out, and writes constraints.txt.
lock:
	$(PYTHON) scripts/lock.py "$(EXTRAS)" constraints.txt
