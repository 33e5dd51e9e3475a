# `make train` trains a CNN on embedded digits; `make test` runs the tests. Both make their own environment first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: train test lint bench clean

train: $(VENV)/installed
	$(BIN)/tinytorch train digits

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed-bench
	$(BIN)/python -m benchmarks conv --json benchmarks/results/conv.json --roofline benchmarks/results/roofline.png
	$(BIN)/python -m benchmarks train --json benchmarks/results/train.json
	$(BIN)/python -m benchmarks train --malloc-tuned --json benchmarks/results/train-malloc.json
	$(BIN)/python -m benchmarks infer --json benchmarks/results/infer.json

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --editable '.[test,dev]'
	@touch $@

$(VENV)/installed-bench: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
