# Every target works in a fresh clone: the first one makes the environment, once, and again when its pins change.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## */  make \1  - /p' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv from constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("make setup: Python 3.11 or later is needed, $(PYTHON) is %d.%d; say make PYTHON=python3.11" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[train,data,datasets,dev]'
	@touch $@

demo: $(READY)  ## generate a video and a contact sheet with the small model that ships with the package
	$(BIN)/nova generate "a red 3 moves right" --output outputs/demo.mp4 --sheet outputs/demo.png --overwrite

test: $(READY)  ## run all tests, in as many processes as there are cores, at most four
	$(BIN)/python -m pytest -n auto --maxprocesses 4

check: $(READY)  ## style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY)  ## measure the small model here, against this machine's limit
	$(BIN)/nova bench

clean:  ## remove the environment and what the tools left
	rm -rf .venv build src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
