# Requirements: git, make, Python 3.11 to 3.13 with venv. The first target installs everything else into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# PyPI's build of torch is the right one on macOS and with an NVIDIA GPU; `make TORCH=cpu` or TORCH=cuda overrides the choice.
TORCH ?= $(shell if [ "$$(uname -s)" = Darwin ] || nvidia-smi -L >/dev/null 2>&1; then echo cuda; else echo cpu; fi)
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes

.PHONY: install demo chat simulate test bench check format words lock clean

# Install everything into .venv; then `. .venv/bin/activate` and `python -m engine --help`
install: $(READY)
	@echo "Installed. Activate the environment: . $(VENV)/bin/activate"

# A scripted chat in the terminal, from photos to pictures; writes them into ./demo
demo: $(READY)
	@$(BIN)/python -m bot demo --album bot/demo_album --out demo

# The local web chat and an engine; Ctrl-C stops both
chat: $(READY)
	@$(BIN)/python -m engine work & engine=$$!; \
	trap 'kill $$engine 2>/dev/null; wait $$engine 2>/dev/null' EXIT; trap 'exit 0' INT TERM; \
	$(BIN)/python -m bot chat $(ARGS)

# The real Discord and Telegram bots with an engine, against simulators: a page to play two people on, no token needed
simulate: $(READY)
	@$(BIN)/python -m tests.platforms.simulate $(ARGS)

# All tests, on at most four cores; one file of tests in this process: make test WORKERS=0 ARGS=tests/bot/test_chat.py
# One process more than there are cores, since many tests wait for other processes.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(min(4, os.cpu_count() + 1))')
test: $(READY)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal $(ARGS)

# Compare with diffusers' training scripts: make bench REFERENCE=diffusers/examples/dreambooth [ONLY=job,warm]
bench: $(READY)
	@$(BIN)/python -m tests.benchmarks $(REFERENCE) $(if $(ONLY),--only $(ONLY)) $(if $(STEPS),--steps $(STEPS))

check: $(READY)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# Update the catalogue in bot/catalog to the sentences in the code
words: $(READY)
	@$(BIN)/python .ci/words.py

# Rewrite the lock files after a change of pyproject.toml; uv is installed into a temporary folder
lock:
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(PYTHON) -m venv "$$folder" && "$$folder/bin/pip" install -qq uv && $(PYTHON) .ci/lock.py "$$folder/bin/uv"

clean:
	rm -rf $(VENV) demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# The CPU build of torch comes from pip's configured index, or else from PyTorch's own. It is locked for Python 3.11 on
# Linux x86_64 only; everywhere else PyPI's larger build is installed instead.
$(READY): requirements.lock requirements-cuda.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
		{ echo "Python 3.11, 3.12 or 3.13 is needed, and $(PYTHON) is not one: make PYTHON=python3.12" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) -m venv failed; on Debian and Ubuntu it is the package python3-venv" >&2; exit 2; }
	@echo "Installing into $(VENV). This takes a few minutes, once." >&2
	@if [ "$(TORCH)" = cpu ]; then \
		$(PIP_INSTALL) -r requirements.lock 2>$(VENV)/install.log || \
		$(PIP_INSTALL) -r requirements.lock --extra-index-url https://download.pytorch.org/whl/cpu 2>>$(VENV)/install.log || \
		$(PIP_INSTALL) -r requirements-cuda.lock 2>>$(VENV)/install.log; \
	else $(PIP_INSTALL) -r requirements-cuda.lock 2>$(VENV)/install.log; fi || { cat $(VENV)/install.log >&2; exit 1; }
	@touch $@
