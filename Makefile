# Everything runs in .venv, made on the first call and again when pyproject.toml or constraints.txt change.
PYTHON ?= python3

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt
INPUTS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo quick test clients lint format docs audit clean
.DELETE_ON_ERROR:

help:  ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile

demo: $(VENV)/.installed  ## plans and baselines on Fashion-MNIST: runs/demo/report.html and results.json
	$(BIN)/headstart demo --out runs/demo

quick: $(VENV)/.installed  ## the same with few samples, to see that it works: runs/quick
	$(BIN)/headstart demo --quick --out runs/quick

test: lint  ## lint, then all tests, in two processes
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

clients: $(VENV)/.clients  ## models in and plans out, with the packages of others that make test does without
	$(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder tests/integrations tests/experiments/test_clients.py

lint: $(VENV)/.tested  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.tested  ## put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.documented  ## the site of the documentation, without a warning: build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

audit: $(VENV)/.tested  ## the installed packages: their versions, and known faults where a database can be reached
	@test -x $(VENV)/audit/bin/pip-audit || { $(BIN)/python -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/python -m pip -q --retries 0 --timeout 5 install pip-audit >/dev/null 2>&1; } || true
	PATH="$(abspath $(VENV))/audit/bin:$$PATH" $(BIN)/python .ci/audit.py

clean:  ## remove the environment and all caches, but no results
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The stamps: what was installed, and since when.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"headstart needs Python 3.11 or newer; name one: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made $(INPUTS)
	$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.tested: $(VENV)/.installed $(INPUTS)
	$(PIP) -e '.[all,test,peers]'
	@touch $@

$(VENV)/.clients: $(VENV)/.tested $(INPUTS)
	$(PIP) -e '.[all,test,peers,clients]' galaxygrad
	# After the others: treeffuser declares an older jaxtyping, and works with the newer one that this brings.
	$(PIP) -e '.[physicsnemo]'
	@touch $@

$(VENV)/.documented: $(VENV)/.tested $(INPUTS)
	$(PIP) -e '.[all,test,peers,docs]'
	@touch $@
