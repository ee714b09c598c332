# make quickstart   everything on simulated shoppers, offline after the install
# make test         the test suite
# make venv         only the environment
# make models       the real language model of the tests
# make recommenders the libraries of docs/any_recommender.md and docs/recommender_libraries.md
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
EXTRAS := llm,train,eval,space,spark,dev

.DEFAULT_GOAL := help
.PHONY: help venv models recommenders quickstart test lint format lock

help:
	@echo "make quickstart | test | venv | models | lint | format | lock   (see README.md and CONTRIBUTING.md)"

venv: .venv/installed

# Reinstalled when the dependencies change; an interrupted install leaves no mark and is repeated.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check --progress-bar off -q -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

quickstart: venv
	$(BIN)/regen quickstart

models: .models/smollm2-135m/config.json

.models/smollm2-135m/config.json: | .venv/installed
	scripts/models.sh smollm2-135m

recommenders: .recommenders/light/installed .recommenders/rectools/installed

.recommenders/light/installed: LIBRARIES = cornac==3.0.1 lightfm-next==1.19.0 scikit-surprise==1.1.5 pandas
.recommenders/rectools/installed: LIBRARIES = rectools[torch]==0.19.0 "pyarrow<22"
.recommenders/%/installed: Makefile
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check --progress-bar off -q $(LIBRARIES)
	touch $@

test: venv models
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Resolves all dependencies again. The pin selects the CPU build of torch; other versions may bring several GB of CUDA packages.
lock: venv
	$(BIN)/python -m pip install --disable-pip-version-check -q pip-tools
	echo "torch==2.13.0" > .venv/pins.txt
	$(BIN)/pip-compile -q --upgrade --strip-extras --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
		--extra $(EXTRAS) --constraint .venv/pins.txt --output-file .venv/constraints.txt pyproject.toml
	# Only pins: the extra `space` names this package itself, by its path.
	(echo "# Written by make lock: the versions that the tests ran with."; \
		grep -E '^[A-Za-z0-9_.-]+==' .venv/constraints.txt | sed 's/+cpu$$//') > constraints.txt
