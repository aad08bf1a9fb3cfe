# Two commands set everything up: `make quickstart` runs the main job, `make test` passes the tests.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
VLLM_VENV ?= .vllm-venv
SOURCES := pyproject.toml setup.py tools/install.sh $(shell find csrc -type f)

.PHONY: quickstart quickstart-grpo test lint vllm-env test-vllm clean

quickstart: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m daj_lightning fit --config configs/quickstart.yaml
	@echo "weights over training: runs/quickstart/weights.png; every number: runs/quickstart/report.json"

quickstart-grpo: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m daj_lightning fit --config configs/quickstart_grpo.yaml
	@echo "weights over training: runs/quickstart_grpo/weights.png; every number: runs/quickstart_grpo/report.json"

# Two processes, each with whole files: fixtures that a file shares are made once. One thread each, as more would wait
# for each other.
test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/mypy

$(VENV)/.installed: $(SOURCES)
	PYTHON=$(PYTHON) tools/install.sh $(VENV)
	touch $@

vllm-env: $(VLLM_VENV)/.installed

# A real server; `make test` skips these tests.
test-vllm: $(VENV)/.installed $(VLLM_VENV)/.installed
	OMP_NUM_THREADS=1 DAJ_VLLM_PYTHON=$(abspath $(VLLM_VENV))/bin/python $(BIN)/python -m pytest -m vllm

$(VLLM_VENV)/.installed: tools/install_vllm.sh
	PYTHON=$(PYTHON) tools/install_vllm.sh $(VLLM_VENV)
	touch $@

clean:
	rm -rf $(VENV) build runs
