# Everything sets itself up: a virtual environment in .venv with what the job needs.
#   make test PYTHON=python3.13    uses another interpreter, in an environment of its own

PYTHON ?= python3
VENV := .venv$(if $(filter python3,$(PYTHON)),,-$(notdir $(PYTHON)))
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Hundreds of tests start processes that import the library, so its bytecode is kept in any case.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test suite oban deep soak storms chaos inject away lint format api api-check browser changelog docs package bench bench-short load compare clean

help:
	@echo "make demo         a crash and a recovery, in about 15 seconds; KEEP=bank.db keeps the file"
	@echo "make test         lint, types and the tests, of long families a part; all with SAMPLE=1"
	@echo "make oban         all tests of Oban as the scheduler, of which make test runs a part;"
	@echo "                  they need Python 3.12, which is looked for"
	@echo "make soak         random crashes and faults until Control-C, or for MINUTES=10"
	@echo "                  BACKEND=asyncio, STORAGE=sqlite or STORAGE=postgres: other loops and storages"
	@echo "make storms       signals at random moments until Control-C, or for MINUTES=10"
	@echo "make chaos        processes on one file, killed at random, for MINUTES=10"
	@echo "                  STORAGE=postgres: on one server, which is killed and cut off as well"
	@echo "                  STORAGE=standby or STORAGE=lossy: whose standby is promoted"
	@echo "make deep         the tests that draw or take samples, with many more examples (an hour)"
	@echo "make inject       a fault on each line that runs in the loop (an hour), or on every EVERY=20th"
	@echo "make away         all guarantees with the objects in another member of a cluster (minutes)"
	@echo "make browser      the tests in a real browser; they need Chromium, which is looked for"
	@echo "make lint         ruff and mypy only"
	@echo "make format       let ruff lay out the code"
	@echo "make api          record the public surface in tests/api.txt"
	@echo "make api-check    changes since the last tag, or AGAINST=REF, that break callers"
	@echo "make changelog    show what changes/ will add to the changelog"
	@echo "make docs         the documentation as a site, in docs/_build"
	@echo "make package      wheel and sdist in dist/, and all tests over the installed wheel"
	@echo "make bench        all benchmarks (several minutes)"
	@echo "make bench-short  the same, smaller (about two minutes)"
	@echo "make load         a million objects, ten minutes, a slow disk, overload (20 minutes)"
	@echo "make compare      the same workloads on DBOS, procrastinate, workerd and others"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --group test --group examples --editable '.[cli]'
	@touch $(READY)

# The demo needs the library and its command alone, and so an environment of its own. Half of the time
# of a first `make demo` was that of a pip for it and of bytecode that is never imported: the pip of
# $(PYTHON) fills it, if there is one, and Python compiles on import.
DEMO := .venv-demo

$(DEMO)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; try: make PYTHON=python3.11 demo"; exit 1; }
	@echo "Setting up $(DEMO), once."
	@$(PYTHON) -m venv --without-pip $(DEMO)
	@if $(PYTHON) -m pip --version > /dev/null 2>&1; \
	then pip="$(PYTHON) -m pip --python $(DEMO)/bin/python"; \
	else $(PYTHON) -m venv $(DEMO) && pip="$(DEMO)/bin/python -m pip"; fi; \
	$$pip install --quiet --disable-pip-version-check --no-compile \
		--constraint constraints.txt --editable '.[cli]'
	@touch $@

demo: $(DEMO)/.ready
	@$(DEMO)/bin/trio-durable demo $(if $(KEEP),--keep $(KEEP))

# mypy needs one core only, and an environment for the tests of Oban is mostly downloaded, so all of
# it happens at the same time.
test: $(READY)
	@$(MAKE) --no-print-directory --jobs 3 lint suite oban-environment
	@$(MAKE) --no-print-directory oban OBAN=part

# One worker more than there are cores, since many tests wait for processes that they have started.
PYTEST = $(BIN)/python -m pytest --dist worksteal --numprocesses \
	$(or $(JOBS),$$($(BIN)/python -c 'import os; print((os.cpu_count() or 1) + 1)'))

suite: $(READY)
	$(if $(SAMPLE),TRIO_DURABLE_SAMPLE=$(SAMPLE) )$(PYTEST)

# The first Python found that Oban runs on, in an environment of its own.
OBAN_PYTHONS := $(PYTHON) python3.14 python3.13 python3.12 \
	$(wildcard $(HOME)/.pyenv/versions/3.1[2-9].*/bin/python3.1[2-9])
OBAN := all
OBAN_PYTHON = $(shell for python in $(OBAN_PYTHONS); do \
	"$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && echo "$$python" && break; \
	done)

oban:
	@python="$(OBAN_PYTHON)"; if [ -n "$$python" ]; then \
		echo "Tests of Oban: with $$("$$python" --version), $$python"; \
		$(MAKE) --no-print-directory oban-with PYTHON="$$python"; \
	else echo "Tests of Oban: left out, since no Python 3.12 or newer is found"; fi

.PHONY: oban-environment oban-ready oban-with
oban-environment:
	@python="$(OBAN_PYTHON)"; [ -z "$$python" ] || $(MAKE) --no-print-directory oban-ready PYTHON="$$python"

oban-ready: $(READY)

oban-with: $(READY)
	TRIO_DURABLE_OBAN=$(OBAN) $(PYTEST) tests/scheduler/oban

soak: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m tests.simulation.soak --kills $(if $(MINUTES),--minutes $(MINUTES)) \
		$(if $(SEED),--seed $(SEED)) $(if $(BACKEND),--backend $(BACKEND)) $(if $(STORAGE),--storage $(STORAGE))

storms: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m hold.storms $(if $(MINUTES),--minutes $(MINUTES))

chaos: $(READY)
	@PYTHONPATH=tests $(BIN)/python -m tests.cluster.chaos --minutes $(or $(MINUTES),10) \
		$(if $(SEED),--seed $(SEED)) $(if $(STORAGE),--storage $(STORAGE))

# What the variables mean is said where the tests read them.
deep: $(READY)
	TRIO_DURABLE_EXAMPLES=400 TRIO_DURABLE_EXACTNESS_SCALE=30 TRIO_DURABLE_BRUTE_FORCE_EVERY=10 \
	TRIO_DURABLE_KILLS=20 TRIO_DURABLE_POWER_SEEDS=10 TRIO_DURABLE_FAULT_EVERY=1 TRIO_DURABLE_DAMAGES=300 \
	TRIO_DURABLE_SAMPLE=1 TRIO_DURABLE_CLUSTER_SEEDS=100 \
	TRIO_DURABLE_INTERLEAVINGS=all TRIO_DURABLE_ORDERS=100 TRIO_DURABLE_WEB_SERVERS=all \
		$(BIN)/python -m pytest --numprocesses auto --dist worksteal --timeout 7200 \
		tests/guarantees/alarms/test_model.py tests/exactness tests/crash tests/simulation/test_cluster.py \
		tests/outbox/test_crash_points.py tests/storage/test_conformance.py tests/storage/postgres/test_interleavings.py tests/cluster/test_across.py \
		tests/cluster/test_web_servers.py tests/cluster/test_chaos.py tests/testing/simulate/test_planted.py tests/watching/test_model.py

inject: $(READY)
	@$(BIN)/python -m tests.injection $(if $(EVERY),--every $(EVERY))

away: $(READY)
	TRIO_DURABLE_AWAY_EVERY=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal \
		tests/guarantees tests/outbox -k away

browser: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --group browser
	$(BIN)/python -m pytest -m browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

api: $(READY)
	PYTHONPATH=tests $(BIN)/python -m support.api

# Not a part of `lint`: it needs the history, which clones for CI may not have.
api-check: $(READY)
	$(BIN)/griffe check trio_durable --extensions tests/support/declared.py $(if $(AGAINST),--against $(AGAINST))

changelog: $(READY)
	@$(BIN)/towncrier build --draft

docs: $(READY)
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build
	@echo "Open docs/_build/index.html."

# The wheel is built from the sdist, and tested where no source of the library is near: with what
# the sdist has besides it, in an environment that is made anew.
package: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	mkdir "$$place/sdist"; tar -xzf dist/*.tar.gz -C "$$place/sdist" --strip-components=1; \
	rm -r "$$place/sdist/trio_durable"; \
	$(PYTHON) -m venv "$$place/venv"; \
	"$$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check 'pip>=25.1'; \
	"$$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --group test --group examples "$$(echo dist/*.whl)[cli]"; \
	cd "$$place/sdist"; TRIO_DURABLE_DIST="$(CURDIR)/dist" "$$place/venv/bin/python" -m pytest \
		--numprocesses auto --dist worksteal

bench: $(READY)
	$(BIN)/python -m benchmarks

bench-short: $(READY)
	$(BIN)/python -m benchmarks --short

load: $(READY)
	$(BIN)/python -m benchmarks.load

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
	rm -rf .venv .venv-* $(WORKERD)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build docs/_build
