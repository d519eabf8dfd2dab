# make demo    the whole flow on a synthetic catalogue, no network beyond the package index
# make test    all checks and tests
# make check   format, lint and types only

PYTHON ?= python3
BIN := .venv/bin
SOURCES := src tests $(wildcard benchmarks examples)

.PHONY: demo test check

demo: .venv/installed
	$(BIN)/tesserec demo

test: check
	$(BIN)/python -m pytest

check: .venv/installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Tesserec needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	touch $@
