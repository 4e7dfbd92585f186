# Every target does its own set-up: a Python 3.11 or newer with pip, and make, are all it takes.
# Choose the Python with `make PYTHON=/path/to/python3.12 …`, pass options with ARGS="…".

PYTHON ?=
ARGS ?=
BIN := .venv/bin

.PHONY: help setup demo test check format docs locks bench clean

help:
	@echo "make demo    watch one model travel the whole way: converted, signed, rolled out, taken back"
	@echo "make test    run every test, in four processes (ARGS=\"tests/core -x\" for some, in one)"
	@echo "make check   lint, types, layers, docs and figures"
	@echo "make bench   measure and write benchmarks/results (ARGS=--short for a 30-second look)"
	@echo "make format  put the code in order     make docs   generate docs and figures"
	@echo "make locks   resolve the locks anew    make clean  remove .venv and caches"

setup:
	@python=$$(PYTHON="$(PYTHON)" sh tools/find_python.sh) && "$$python" tools/bootstrap.py

demo: setup
	@$(BIN)/edgekit demo $(ARGS)

test: setup
	@$(BIN)/python -m tools.test $(ARGS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python -m tools.lock --check
	$(BIN)/python -m tools.docs --check

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup
	$(BIN)/python -m tools.docs

locks: setup
	$(BIN)/python -m tools.lock $(ARGS)

bench: setup
	@$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
