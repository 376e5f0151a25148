# make demo        audit a small model from start to page, into demo-out/
# make test        every check that a change must pass
# make test-slow   the tests that take minutes
# make bench       the benchmarks
# make browser     Chromium, in which the tests open the report; without one they are skipped (Debian and its kin, as root)
# make docs        the documentation, into docs/_build/html
# make format      put the code into its one form
# make clean       remove what the other targets wrote, except .venv
#
# All that is needed is python3 (3.11 or newer), make and a package index; .venv is made here on first use.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow bench browser docs format clean

demo: .venv/.demo-ready
	$(BIN)/undistill demo --out demo-out

# One thread per process: pytest runs two of them.
test test-slow: export OMP_NUM_THREADS = 1

# The quick checks come first, and pytest last, so that its closing line closes the run.
test: .venv/.dev-ready
	@echo "== format"
	$(BIN)/ruff format --check
	@echo "== lint"
	$(BIN)/ruff check
	@echo "== types"
	$(BIN)/mypy
	@echo "== imports between rooms"
	$(BIN)/lint-imports --no-logo
	@echo "== documentation"
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "== tests and doctests"
	$(BIN)/pytest -n 2 -m "not slow"

test-slow: .venv/.dev-ready
	$(BIN)/pytest -m slow

bench: .venv/.dev-ready
	$(BIN)/python -m benchmarks

browser:
	command -v chromium || { apt-get update -q && apt-get install -y -q --no-install-recommends chromium; }

docs: .venv/.dev-ready
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

format: .venv/.dev-ready
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf demo-out docs/_build build .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks docs -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "undistill needs Python 3.11 or newer, but $(PYTHON) is $$($(PYTHON) --version 2>&1); run: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo-ready: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet -e '.[plot,report]'
	@touch $@

# Everything the demo needs is among the tools of development.
.venv/.dev-ready: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@ .venv/.demo-ready
