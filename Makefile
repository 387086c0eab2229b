# Every target sets up what it needs by itself: `make demo` and `make test` work in a fresh checkout with Python 3.11 or newer.
#   make demo    run the quickstart notebook and print its tables      make test    run every check
#   make lab     open the notebooks in JupyterLab                      make bench   run the benchmarks
#   make check   lint, types and architecture only                     make format  format the code
#   make clean   remove what these targets made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo -n,)
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)
# What is installed: all of it at once where a goal needs it, because each call of pip looks at every requirement again.
INSTALLED := $(VENV)/$(if $(filter test check format bench,$(MAKECMDGOALS)),.dev,.demo)

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench lab chromium clean

help:
	@sed -n 's/^#   //p' Makefile

demo: $(INSTALLED) $(VENV)/.model
	$(BIN)/agentnb demo

# First what each can do beside the others; their output comes when they are done.
test:
	@$(MAKE) --no-print-directory --jobs=3 $(SYNC) chromium check $(VENV)/.model
	$(BIN)/python -m pytest --hypothesis-profile=steady
	@set -e; store=$$(mktemp -d); trap 'rm -rf "$$store"' EXIT; \
	AGENTNB_HOME="$$store" $(BIN)/python -m pytest --nbval --nbval-current-env \
		--nbval-sanitize-with tests/nbval_sanitize.cfg -p no:cacheprovider --override-ini=timeout=300 notebooks

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev $(VENV)/.model
	@set -e; for bench in tests/benchmarks/bench_*.py; do $(BIN)/python "$$bench"; done

lab: $(INSTALLED) $(VENV)/.model
	$(BIN)/agentnb lab --folder notebooks $(if $(SUDO),,-- --allow-root)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache test-artifacts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up: each step leaves a stamp in .venv and is repeated when pyproject.toml changes ------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "agentnb needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | head -n 1);" \
			"name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		command -v apt-get >/dev/null && $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends python3-venv && \
		$(PYTHON) -c 'import ensurepip, venv'; } || { \
		echo "$(PYTHON) has no venv module; install it first: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[local,plot,lab]"
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) --editable ".[dev]"
	@touch $(VENV)/.demo $@

$(VENV)/.model: | $(INSTALLED)
	$(BIN)/agentnb model install
	@touch $@

# The browser tests drive the system's Chromium. It comes while pip works, but after .venv, which may need apt-get too.
chromium: | $(BIN)/python
	@command -v chromium >/dev/null || { \
		command -v apt-get >/dev/null && { [ -z "$(SUDO)" ] || $(SUDO) true 2>/dev/null; } && \
		$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } || { \
		echo "the browser tests need Chromium on the PATH, as \`chromium\`; install it first: apt-get install chromium fonts-dejavu-core" >&2; \
		exit 1; }
