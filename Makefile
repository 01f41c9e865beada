PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
TESTS := $(VENV)/.tests

.PHONY: run test check accuracy clean

run: $(READY)
	@$(VENV)/bin/chipscale

test: $(TESTS) check
	@$(VENV)/bin/python -m pytest -q -n 2

check: $(TESTS)
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

accuracy: $(READY)
	@$(VENV)/bin/chipscale validate training --write docs/accuracy.md

$(READY): pyproject.toml
	@$(PYTHON) -m venv $(VENV) && $(VENV)/bin/pip install -q --disable-pip-version-check -e '.[report]' && touch $@

$(TESTS): $(READY)
	@$(VENV)/bin/pip install -q --disable-pip-version-check -e '.[dev]' && touch $@

clean:
	rm -rf $(VENV) dist build
