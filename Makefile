PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
OUT ?= runs/demo
SEED ?= 0

.PHONY: setup demo test lint format bench

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup  ## videos of the synthetic world, a LayerLock encoder trained on them, probes of what it learned
	$(RUN) examples/demo.py --out $(OUT) --seed $(SEED)

test: setup
	$(RUN) -m pytest

lint: setup
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

format: setup
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

bench: setup
	$(RUN) benchmarks/step.py
