# make book   executes the chapters and builds _build/html
# make test   proves it: ruff and mypy (lint), pytest and nbval (unit), the strict build and its pages (rendered)
# make clean  removes what the other two made
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
QUIET  := ./.ci/quiet

SOURCES := _config.yml _toc.yml pyproject.toml $(shell find book notebooks specdec_tutorial -type f -not -path '*/__pycache__/*' -not -path '*/.ipynb_checkpoints/*')
CHAPTERS = $(sort $(wildcard notebooks/*.ipynb))

# The small models gain nothing from more threads, and the figures stay comparable from machine to machine.
export OMP_NUM_THREADS ?= 2
# Everything the book needs ships with it.
export HF_HUB_OFFLINE ?= 1

.PHONY: book test lint unit rendered clean

book: _build/html/.built
	@echo "The book is built: open _build/html/index.html"

_build/html/.built: $(SOURCES) | $(VENV)/.book
	@# --all: Sphinx would not run an unchanged chapter again when the package changed
	@$(QUIET) "building the book" $(BIN)/jupyter-book build --all --quiet -W -n --keep-going .
	@touch $@

test: lint unit rendered
	@echo "All tests passed."

lint: $(VENV)/.test
	@$(QUIET) "ruff" $(BIN)/ruff check .
	@$(QUIET) "mypy" $(BIN)/mypy

unit: $(VENV)/.test
	@$(QUIET) "book and package" $(BIN)/python -m specdec_tutorial.assemble
	@$(BIN)/python -m pytest --quiet -m "not rendered" --nbval-lax --nbval-current-env --nbval-cell-timeout 120 tests $(CHAPTERS)

rendered: $(VENV)/.test _build/html/.built
	@$(BIN)/python -m pytest --quiet -m rendered

$(VENV)/.book $(VENV)/.test: $(VENV)/.%: pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing the tools of 'make $*' into $(VENV) (minutes the first time)"
	@$(PIP) torch
	@$(PIP) --editable '.[$*]'
	@touch $(VENV)/.book $@ # the tools of the tests include those of the book

clean:
	rm -rf _build $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
