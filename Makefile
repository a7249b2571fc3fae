# What every target needs is built by the target itself: a fresh clone needs no other step.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SEEDS ?= 2000

.PHONY: help venv proto lint format test sim e2e demo bench clean

help:  ## list the targets
	@grep -hE '^[a-z0-9]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

venv: $(STAMP)  ## a virtual environment with everything in it

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "walplane needs Python 3.11 or newer: apt-get install python3 python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { echo "python3 has no venv module: apt-get install python3-venv"; exit 1; }
	@echo "installing walplane and its tools into $(VENV)"
	@$(BIN)/pip install -q --upgrade pip
	@$(BIN)/pip install -q -e '.[all,dev,bench]'
	@touch $@

proto: $(STAMP)  ## regenerate the gRPC code
	@$(BIN)/python -m devservices.protos

lint: $(STAMP)  ## ruff, mypy strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(STAMP)  ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

test: $(STAMP)  ## unit, property, conformance, integration; a real Pulsar where Java and Maven are there
	@$(BIN)/python -m devservices.test

sim: $(STAMP)  ## the real code in virtual time under faults: SEEDS=2000 runs of it
	@$(BIN)/python -m devservices.sim --seeds $(SEEDS)

e2e: $(STAMP)  ## on a real kind cluster with a real Pulsar in it
	@$(BIN)/python -m devservices.e2e $(E2E)

demo: $(STAMP)  ## a standalone cluster, a killed server, every row exactly once
	@$(BIN)/python -m devservices.demo

bench: $(STAMP)  ## the benchmark rows, with table and chart
	@$(BIN)/python -m benchmarks --out bench-out

clean:  ## remove what the targets made
	@rm -rf $(VENV) .demo bench-out .devservices wheels
