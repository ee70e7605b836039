# Everything sets itself up: a virtual environment in .venv with what the job needs.
#   make test PYTHON=python3.13    uses another interpreter, in an environment of its own

PYTHON ?= python3
VENV := .venv$(if $(filter python3,$(PYTHON)),,-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test lint format bench bench-short compare clean

help:
	@echo "make demo         a crash and a recovery, in about 20 seconds"
	@echo "make test         lint, types and all tests"
	@echo "make lint         ruff and mypy only"
	@echo "make format       let ruff lay out the code"
	@echo "make bench        all benchmarks (several minutes)"
	@echo "make bench-short  the same, smaller (about two minutes)"
	@echo "make compare      the same workloads on DBOS, procrastinate, workerd and others"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --group test --group examples --editable '.[cli]'
	@touch $(READY)

demo: $(READY)
	@$(BIN)/trio-durable demo

test: lint
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m benchmarks

bench-short: $(READY)
	$(BIN)/python -m benchmarks --short

# What is compared with has an environment of its own, so that its versions bind nobody else's.
COMPARED := .venv-compare/.ready
WORKERD := benchmarks/compare/workerd

$(COMPARED): pyproject.toml benchmarks/compare/constraints.txt $(WORKERD)/package.json
	$(PYTHON) -m venv .venv-compare
	.venv-compare/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	.venv-compare/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint benchmarks/compare/constraints.txt --group compare --editable .
	@if command -v npm >/dev/null; \
		then npm install --prefix $(WORKERD) --no-package-lock --no-audit --no-fund; \
		else echo "There is no npm, so workerd will be left out."; fi
	@touch $@

compare: $(COMPARED)
	.venv-compare/bin/python -m benchmarks.compare

clean:
	rm -rf .venv .venv-* $(WORKERD)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
