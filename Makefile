# make test, make demo: each makes the environment in .venv first, where it is missing or out of date.
# make pythons: the quick tests under each supported Python that is here. make wheel: the package, in dist/.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# make test COVERAGE= leaves the measuring of coverage out.
COVERAGE ?= --cov --cov-report=term:skip-covered

export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: test lint types demo sample docs wheel pythons fuzz clean

test: lint types
	$(BIN)/pytest -n 2 --nbmake $(COVERAGE) tests notebooks

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(INSTALLED)
	$(BIN)/mypy

demo: $(INSTALLED)
	$(BIN)/recsys demo

sample: $(INSTALLED)
	$(BIN)/python data/make_sample.py

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet
	@echo "The site is in site/: open site/index.html."

wheel: $(INSTALLED)
	$(BIN)/python -m pip wheel -q --disable-pip-version-check --no-deps --no-build-isolation -w dist .

pythons:
	.ci/pythons

# Damaged inputs of every kind, for some minutes; TRIALS of each kind.
TRIALS ?= 3000
fuzz: $(INSTALLED)
	PYTHONPATH=.:tests $(BIN)/python tests/fuzzing.py --trials $(TRIALS)

$(INSTALLED): setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit("Expected Python 3.11 or newer, found %d.%d: make PYTHON=python3.11" % sys.version_info[:2])'
	@echo "Installing into .venv: a few minutes the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

clean:
	rm -rf .venv .venv-3.* build dist site *.egg-info .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
