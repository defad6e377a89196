# make test, make demo: each makes the environment in .venv first, where it is missing or out of date.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: test lint types demo sample clean

test: lint types
	$(BIN)/pytest -n 2 --nbmake tests notebooks

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

demo: $(INSTALLED)
	$(BIN)/recsys demo

sample: $(INSTALLED)
	$(BIN)/python data/make_sample.py

# constraints.txt holds versions that need Python 3.11; the package itself runs on 3.10.
$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Expected Python 3.11 or newer, found %d.%d: make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "Installing into .venv: a few minutes the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
