# Targets: demo, test, test-all, pytest, check, format, picture, train-utilise, wheel, clean.
# make demo PYTHON=python3.12          another interpreter
# make test JOBS=8                   as many test processes (2 by default)
# make demo TORCH_INDEX=URL            an extra pip index with CPU builds of torch

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
TORCH_INDEX ?=
DEMO ?= cubefill-demo
JOBS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input -c constraints.txt
TORCH := $(shell grep '^torch==' constraints.txt)
# A stamp carries a checksum of what is installed, so a changed pin installs again.
KEY := $(shell cat pyproject.toml constraints.txt | cksum | cut -d ' ' -f 1)
DEMO_READY := $(VENV)/.ready-demo-$(KEY)
TEST_READY := $(VENV)/.ready-test-$(KEY)

.PHONY: help demo test test-all pytest check format picture train-utilise wheel clean
.DEFAULT_GOAL := help

help:
	@echo "make demo      install, then run the demo into $(DEMO)/"
	@echo "make test      install, then lint, types, import contract and tests"
	@echo "make test-all  the same with the slow tests"
	@echo "make pytest    the tests alone"
	@echo "make check     lint, types and import contract only"
	@echo "make format    format the code"
	@echo "make picture   make the pictures of README and docs"
	@echo "make train-utilise  train the net that comes with cubefill again, into trained-utilise/"
	@echo "make wheel     build the wheel into dist/"
	@echo "make clean     remove caches and build products"

demo: $(DEMO_READY)
	$(BIN)/cubefill demo $(DEMO)

# The checks run beside the tests: alone, each of them leaves a core idle.
test: $(TEST_READY)
	@$(MAKE) --no-print-directory -j 2 check pytest

test-all: $(TEST_READY)
	@$(MAKE) --no-print-directory -j 2 check pytest SET='-m ""'

pytest: $(TEST_READY)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(SET)

check: $(TEST_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(TEST_READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

picture: $(TEST_READY)
	$(BIN)/python docs/make_pictures.py

# A quarter of an hour of one core; CUBEFILL_DATA is the folder of real data that benchmarks/train_reference.py names.
train-utilise: $(TEST_READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.train_reference trained-utilise
	$(BIN)/python -m benchmarks.train_reference trained-utilise --pack cubefill/methods/learned/weights/utilise

wheel: $(TEST_READY)
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find cubefill tests benchmarks examples docs -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and by its exact version: then no other package pulls another build of it.
$(VENV)/.ready-torch-$(KEY): | $(BIN)/python
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $(TORCH)
	@touch $@

$(DEMO_READY): $(VENV)/.ready-torch-$(KEY)
	$(PIP) -e ".[viz]"
	@touch $@

# stackstac is only tested with: it runs with pandas 3, which its metadata does not allow.
$(TEST_READY): $(VENV)/.ready-torch-$(KEY)
	$(PIP) -e ".[test]"
	$(PIP) --no-deps stackstac
	@touch $@
