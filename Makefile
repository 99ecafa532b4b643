PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
OUT ?= runs/demo
SEED ?= 0
RECIPE ?= mae-nano

.PHONY: setup demo test test-shuffled lint format bench

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## videos of the synthetic world, an encoder trained on them, what frozen readouts find in it
	$(RUN) examples/demo.py --out $(OUT) --seed $(SEED) --recipe $(RECIPE)

test: setup  ## on all cores, a worker each
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --dist worksteal

test-shuffled: setup  ## in another order each time
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n logical --dist worksteal -p randomly

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: setup
	$(RUN) benchmarks/step.py
