# Two commands do everything on a machine with python3: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
DEMO_OUT := out/demo
export HWSIM_NOTEBOOKS ?= $(CURDIR)/out/notebooks

.DEFAULT_GOAL := help
.PHONY: help demo test test-exhaustive lint format bench bench-scale-sim verify docs clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip

$(VENV)/installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(VENV)/installed ## ResNet-50 on TPU v1: the report, layer by layer, with pictures
	$(BIN)/hwsim run resnet50 --device tpu_v1 --batch 8 --out $(DEMO_OUT)
	@echo; echo "Open $(DEMO_OUT)/report.html for the whole picture, $(DEMO_OUT)/timeline.json in ui.perfetto.dev for the timeline."

test: $(VENV)/installed-dev ## every test that CI runs
	$(BIN)/python -m pytest -n 2 --dist loadscope -q

test-exhaustive: $(VENV)/installed-dev ## the longer sweeps as well
	HWSIM_EFFORT=30 $(BIN)/python -m pytest -n 2 --dist loadscope -q -m "exhaustive or not exhaustive"

lint: $(VENV)/installed-dev ## ruff (rules and format) and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=docs/_hooks $(BIN)/mypy docs/_hooks/site_pages.py

format: $(VENV)/installed-dev ## put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-dev ## how fast it is (pytest-benchmark)
	$(BIN)/python -m pytest tests/benchmarks --benchmark-only --benchmark-columns=min,median,rounds -q

verify: $(VENV)/installed-dev ## the RTL beside its models, bit for bit and cycle for cycle
	$(BIN)/hwsim verify

docs: $(VENV)/installed-dev ## build the documentation into site/ and test it; notebooks that make test has run are taken from there
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	HWSIM_SITE=$(CURDIR)/site $(BIN)/python -m pytest tests/docs/test_site.py -q

$(VENV)-scale-sim/installed: tests/benchmarks/scale-sim-requirements.txt
	$(PYTHON) -m venv $(VENV)-scale-sim
	$(VENV)-scale-sim/bin/python -m pip --disable-pip-version-check install --quiet -r tests/benchmarks/scale-sim-requirements.txt
	@touch $@

bench-scale-sim: $(VENV)/installed-dev $(VENV)-scale-sim/installed ## side by side with SCALE-Sim 3.0.0, in an environment of its own
	HWSIM_SCALE_SIM_PYTHON=$(CURDIR)/$(VENV)-scale-sim/bin/python \
	$(BIN)/python -m pytest tests/benchmarks -k scale_sim --benchmark-only --benchmark-columns=min,median,rounds -q -s

clean: ## remove environments and what was written
	rm -rf $(VENV) $(VENV)-scale-sim out site build dist *.egg-info
