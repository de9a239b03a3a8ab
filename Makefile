# One check command: `make test`. One demo: `make demo`. `make setup` alone makes the environment.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# The public CPU builds of torch. GPU=1 takes the CUDA build from PyPI with its NVIDIA packages instead.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
GPU ?=
PYTEST_WORKERS ?= 2
MINUTES ?= 20
STAMP := $(VENV)/.setup
NATIVE := $(wildcard embtables/native/*/*.cpp embtables/native/*/*.h) CMakeLists.txt pyproject.toml
LINTED := embtables models pipelines serving tests benchmarks examples docs

.PHONY: help setup test check lint docs demo online bench mutants soak sanitize crash faults fuzz clean

help:  ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv, install the lock, build the native core

$(VENV)/.lock: requirements/lock.txt requirements/install-torch.sh requirements/fbgemm-gpu-stub/pyproject.toml
	$(PYTHON) -m venv $(VENV)
	TORCH_INDEX='$(TORCH_INDEX)' GPU='$(GPU)' bash requirements/install-torch.sh $(BIN)/python
	$(BIN)/python -m pip install -q --no-deps -r requirements/lock.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation ./requirements/fbgemm-gpu-stub
	touch $@

$(STAMP): $(VENV)/.lock $(NATIVE)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	$(BIN)/python -m pip check
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check $(LINTED)
	$(BIN)/ruff format --check $(LINTED)
	$(BIN)/mypy
	cd docs/site && $(abspath $(BIN))/mypy --config-file ../../pyproject.toml build.py options.py reference.py
	$(BIN)/lint-imports

test: lint  ## every check: ruff, mypy --strict, import-linter, pytest
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS)

check: lint  ## the fast part of `make test`
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m "not slow"

docs: $(STAMP)  ## rewrite the generated pages, build the site in build/docs/site, check its links
	$(BIN)/python docs/site/build.py --write
	$(BIN)/python -m tests.fuzz.table --write
	$(BIN)/python docs/site/build.py build/docs

demo: $(STAMP)  ## train on real data, print what was learned, serve it for a moment
	$(BIN)/embtables train examples/online_retail/dcnv2.yaml
	$(BIN)/python examples/online_retail/serve_for_a_moment.py

online: $(STAMP)  ## two minutes of the online loop: a world that clicks, log, trainer, servers, live figures
	$(BIN)/python examples/simulate/online.py

bench: $(STAMP)  ## run the benchmarks and rewrite benchmarks/RESULTS.md
	$(BIN)/python -m benchmarks

mutants: $(STAMP)  ## break each invariant on purpose; every time a test must notice (about 10 minutes)
	$(BIN)/python -m tests.mutants

soak: $(STAMP)  ## long runs: floods of ids, growth, random histories, a server under load (about an hour)
	$(BIN)/python -m tests.soak

crash: $(STAMP)  ## kill trainers at every system call of their checkpoints (about 15 minutes; needs strace)
	$(BIN)/python -m tests.faults

faults: $(STAMP)  ## let system calls of checkpoints fail, and ranks on Ray (about 20 minutes; needs strace and root)
	$(BIN)/python -m tests.faults.errors
	$(BIN)/python -m tests.faults.ranks

fuzz: $(STAMP)  ## read random logs beside an oracle for MINUTES (20 by default)
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

sanitize:  ## drive the native core under the address, undefined-behaviour and thread sanitizers
	tests/native/sanitize.sh

clean:
	rm -rf $(VENV) build dist embtables/native/*.so
