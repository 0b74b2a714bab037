# Two commands for newcomers: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# On a machine without a GPU this pin keeps pip from fetching CUDA; override with TORCH=torch for another build.
TORCH ?= torch==2.13.0
STAMP = $(VENV)/.installed
# Test files side by side on up to four cores, each on one thread.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo test test-slow lint docs bench clean

demo: $(STAMP)
	$(BIN)/moreie demo --html demo-report.html

test: $(STAMP) lint
	$(PYTEST) -m "not slow"

test-slow: $(STAMP)
	$(PYTEST) -m slow

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Arguments by ARGS, such as ARGS="ner_speed --peer-python peers/bin/python".
bench: $(STAMP)
	$(BIN)/python -m benchmarks $(ARGS)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("moreie needs Python 3.10 or later") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet -e ".[dev,docs,serve,cluster,ray]"
	@touch $(STAMP)

clean:
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache demo-report.html
