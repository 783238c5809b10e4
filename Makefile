# deep_piano: set up, make a piece, test. Needs make and Python 3.11 or 3.12, nothing else.
#
#   make piece      set up, then continue the example seed: out/piece.mp3 .mid .png .json
#   make test       set up, then run the quick tests, which cover every room
#   make test-all   the same and the slow ones: fuzzing, workers and nodes that die, training of sound
#   make chaos      break things under the three stages on a real cluster (Linux; see docs/chaos.md)
#   make lint       set up, then check format, style and types
#   make docs       set up, then build the pages with the Python reference: site/index.html
#   make lock       write constraints.txt again (needs uv)
#   make clean      remove what the other targets made (fetched assets stay in the user's cache)

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin

# The first Python that is of the right age and works: a name on the PATH may be an empty shim.
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for name in python3 python3.12 python3.11 python; do \
	"$$name" -c '$(FITS)' >/dev/null 2>&1 && echo "$$name" && break; done)

# What was tested is what gets installed. pip compiles to bytecode by itself, uv when asked.
define install
@echo "Installing $(1) into $(VENV): about $(2)."
@if uv --version >/dev/null 2>&1; then \
	uv pip install --quiet --compile-bytecode --python $(BIN)/python -c constraints.txt -e '$(1)'; \
else \
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '$(1)'; \
fi
endef

.PHONY: help piece test test-all chaos lint docs lock clean

help:
	@sed -n 's/^#   //p' Makefile

piece: $(VENV)/.ready
	$(BIN)/deep-piano generate examples/seed.mp3 -o out/piece.mp3 --force

# Two files at a time, in the order of `tests/conftest.py`.
test test-all: $(VENV)/.ready-dev
	$(BIN)/python -m pytest -m 'not chaos$(if $(filter test,$@), and not slow)' \
		-n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Networks, processes and mounts of its own, which end with it: nothing else here is touched.
ALONE := unshare $(if $(filter 0,$(shell id -u)),,--map-root-user) --net --mount --pid --fork \
	--mount-proc --kill-child

chaos: $(VENV)/.ready-dev
	-$(BIN)/deep-piano assets fetch transkun
	DEEP_PIANO_CHAOS=1 $(ALONE) sh -c 'ip link set lo up && "$$@"; exit $$?' sh \
		$(BIN)/python -m pytest -m chaos tests/chaos $(PYTEST_ARGS)

lint: $(VENV)/.ready-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The reference is made from the docstrings; no network is needed.
docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lock:
	{ grep '^#' constraints.txt; uv pip compile --quiet --universal --python-version 3.11 \
		--all-extras --no-header --no-annotate pyproject.toml; } > constraints.txt.new
	mv constraints.txt.new constraints.txt

clean:
	rm -rf $(VENV) out site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@test -n '$(PYTHON)' || { echo 'No Python 3.11 or 3.12 with venv and pip was found.' \
		'Install one, or name one: make PYTHON=/path/to/python3.12 piece' >&2; exit 1; }
	'$(PYTHON)' -m venv $(VENV)
	@touch $@

# Stamps: a second call installs nothing, unless what it would install has changed.
$(VENV)/.ready: $(VENV)/.made pyproject.toml constraints.txt
	$(call install,.,0.9 GB)
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.made pyproject.toml constraints.txt
	$(call install,.[dev],4.5 GB with TensorFlow)
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-docs: $(VENV)/.made pyproject.toml constraints.txt
	$(call install,.[docs],1 GB)
	@touch $@
