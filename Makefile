# make demo    the whole story on this machine, in minutes; make demo-full with every problem, budget and seed
# make test    every check, and every test but the long ones of make chaos
# Both build .venv first.  VARIANT=cpu | cuda; without it, cuda where an NVIDIA GPU answers.
SHELL   := /bin/bash
ifndef VARIANT
VARIANT := $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU ' && echo cuda || echo cpu)
endif
VENV    ?= .venv
BIN     := $(VENV)/bin
LOCK    := requirements/$(VARIANT).lock
# The first interpreter that the lock supports; another one: make PYTHON=/path/to/python3.12
PYTHON  ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
             "$$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && { echo $$p; break; }; done)
# Named after content: touching a file or switching branches installs nothing, a changed lock does.
STAMP   := $(VENV)/.ready-$(VARIANT)-$(shell cat $(LOCK) tools/bootstrap.sh tools/venv_diff.py pyproject.toml 2>/dev/null | sha256sum | cut -c1-16)

# A process that imports vLLM compiles for seconds where it may not keep bytecode, and the tests start many.
unexport PYTHONDONTWRITEBYTECODE

# Marks of tests that start a cluster, an engine or a browser
PROCESSES := ray or engine or browser

COMPILE := uv pip compile pyproject.toml --group dev --python-version 3.11 --python-platform x86_64-manylinux_2_31 \
             --only-binary :all: --no-header --no-annotate -q

.PHONY: demo demo-full test test-functions test-processes lint format chaos gpu-check tiny-world venv lock clean-venv

demo: $(STAMP)
	$(BIN)/isoflop demo

demo-full: $(STAMP)
	$(BIN)/isoflop demo --full --directory runs/demo-full

# Two at a time: the tests of processes wait for them most of the time.
test: $(STAMP) lint
	@$(MAKE) --no-print-directory -j2 test-functions test-processes

test-functions: $(STAMP)
	$(BIN)/python -m pytest tests -m "not chaos and not ($(PROCESSES))"

test-processes: $(STAMP)
	$(BIN)/python -m pytest tests -m "not chaos and ($(PROCESSES))"

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chaos: $(STAMP)
	$(BIN)/python -m pytest tests -m chaos

# Measures an NVIDIA GPU with models of 1B and 7B parameters: docs/performance.md.  Always with the CUDA lock, which takes 14 GiB.
gpu-check:
	@nvidia-smi -L 2>/dev/null | grep -q '^GPU ' || { echo "gpu-check needs an NVIDIA GPU, got none that nvidia-smi -L lists; allowed: a machine with an NVIDIA GPU and its driver" >&2; exit 2; }
	@$(MAKE) --no-print-directory venv VARIANT=cuda
	$(BIN)/isoflop bench gpu --directory runs/gpu-check-$(shell date -u +%Y%m%dT%H%M%SZ)

# Trains the demo's models from scratch; the result is in the repository's examples already.
tiny-world: $(STAMP)
	$(BIN)/python examples/tiny-world/train.py

venv: $(STAMP)

$(STAMP):
	@PYTHON='$(PYTHON)' VENV='$(VENV)' LOCK='$(LOCK)' STAMP='$@' VARIANT='$(VARIANT)' bash tools/bootstrap.sh

# For maintainers.  The uv is the locked one.
lock: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" $(COMPILE) --extra cpu --override requirements/overrides-cpu.txt -o requirements/cpu.lock >/dev/null
	PATH="$(abspath $(BIN)):$$PATH" UV_FIND_LINKS= $(COMPILE) --extra cuda -o requirements/cuda.lock >/dev/null
	@! grep -n '://' requirements/*.lock
	@! grep -n '+cpu' requirements/cuda.lock

clean-venv:
	rm -rf $(VENV)
