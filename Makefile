# `make demo` and `make test` do all set-up by themselves, on a fresh machine too.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help setup demo test check format clean
help:
	@echo "make demo    train, evaluate and explain a small vision transformer on real data, in about a minute"
	@echo "make test    run the tests"
	@echo "make check   style, types, and who may import whom"
	@echo "make format  put the code into its style"

setup: .venv/ready
.venv/ready: pyproject.toml requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --editable ".[dev]"
	@touch $@

demo: setup
	$(BIN)/vitrail demo --out runs/demo

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv runs .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
