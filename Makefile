# Every target makes what it needs: the first call creates .venv and installs, later ones are quick.
#
#   make demo       train a population of DQN agents on LunarLander   (ARGS="--seed 1" for flags)
#   make test       the fast tests                                    (ARGS="-k replay" for flags)
#   make test-slow  the learning runs
#   make check      format, lint, types, fast tests: run it before a commit
#   make format     apply the formatter and the safe lint fixes
#   make docs       write the documentation to site/
#   make clean      remove what these targets made, .venv included

PYTHON ?= python3
# Processes of the fast tests; 0 runs them in this one. Each loads torch anew (2-3 s), which pays on
# two cores or more.
JOBS ?= 2
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Small networks are slower on many threads than on one.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow check format format-check lint types docs clean
.DEFAULT_GOAL := check

COMPILED := agilerl/_arrays.h agilerl/_learning.c agilerl/_mlp.c

$(INSTALLED): requirements.txt pyproject.toml setup.py $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@echo "installing into $(VENV): torch and what the demo and the tests need, once, 2 to 5 minutes" >&2
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e '.[box2d,report,dev,docs]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python demo_online.py $(ARGS)

test: $(INSTALLED)
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

# One process: a learning run that waits for a core measures nothing.
test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m slow $(ARGS)

check: format-check lint types test

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format-check: $(INSTALLED)
	$(BIN)/ruff format --check .

lint: $(INSTALLED)
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --config-file .mkdocs.yml

clean:
	rm -rf $(VENV) site build dist agilerl.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f agilerl/_learning.*.so agilerl/_mlp.*.so
