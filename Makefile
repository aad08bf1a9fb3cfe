# Two commands set everything up: `make quickstart` runs the main job, `make test` passes the tests.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py tools/install.sh $(shell find csrc -type f)

.PHONY: quickstart test lint clean

quickstart: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m daj_lightning fit --config configs/quickstart.yaml
	@echo "weights over training: runs/quickstart/weights.png; every number: runs/quickstart/report.json"

test: $(VENV)/.installed
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.installed: $(SOURCES)
	PYTHON=$(PYTHON) tools/install.sh $(VENV)
	touch $@

clean:
	rm -rf $(VENV) build runs
