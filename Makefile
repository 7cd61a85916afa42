# The whole project from a fresh clone: Python 3.11, git and make are all it takes.
#   make demo       set up, then the main job at starter size on the CPU (about 20 minutes on 4 cores)
#   make longer     a quarter of an hour more of training, most of it for speech
#   make all-tasks  after the demo: every task in one model (an hour and a half on 2 cores)
#   make test       set up, then the tests (a few minutes)
#   make chat       talk to what the demo trained
#   make docs       the documentation as a site, in site/
PYTHON ?= python3.11
# PyPI's torch carries CUDA on Linux. For the smaller CPU build: make TORCH="torch --index-url <the CPU wheel index>"
TORCH ?= torch==2.13.0
RUN ?= runs/demo
BIN := .venv/bin

.PHONY: setup demo longer all-tasks chat test test-all test-gpu lint docs

setup: .venv/ready

.venv/ready: pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "Python 3.11 is needed: install it, or name it with 'make PYTHON=/path/to/python3.11'"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/uniaudio doctor --fix
	@touch $@

demo: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/starter/demo.sh $(RUN)

longer: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/starter/longer.sh $(RUN)

all-tasks: setup
	PATH="$(CURDIR)/$(BIN):$$PATH" recipes/starter/all_tasks.sh $(RUN)

chat: setup
	$(BIN)/uniaudio chat --model $(RUN)/model

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

docs: setup
	$(BIN)/mkdocs build --strict

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto -m "not slow"

# Where there is a GPU: tests that ask for a device are run on it.
test-gpu: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --device cuda

test-all: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n auto
