PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
TESTS := $(VENV)/.tests

.PHONY: run test test-bench check accuracy accuracy-operators clean

run: $(READY)
	@$(VENV)/bin/chipscale

test: $(TESTS) check
	@$(VENV)/bin/python -m pytest -q -n 2

test-bench: $(TESTS)
	@$(VENV)/bin/pip install -q --disable-pip-version-check torch==2.13.0 && $(VENV)/bin/pip install -q --disable-pip-version-check -e '.[dev,bench]'
	@$(VENV)/bin/python -m pytest -q tests/test_bench.py tests/test_importers.py

check: $(TESTS)
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports

accuracy: $(READY)
	@$(VENV)/bin/chipscale validate training --write docs/accuracy.md

OPERATORS := gemm attention_prefill attention_decode mla_prefill mla_decode moe collective custom_allreduce expert_alltoall elementwise ascend_910c_die_profiled

accuracy-operators: $(READY)
	@mkdir -p build/operators
	@for f in $(OPERATORS); do file=src/chipscale/data/measurements/operators/$$f.csv; for how in "chip --leave-out chip" "engine --leave-out engine" "points --calibrate-points 12"; do \
	  set -- $$how; $(VENV)/bin/chipscale validate operators $$file $$2 $$3 --json build/operators/$$f.$$1.json >/dev/null || exit 1; done; done
	@$(VENV)/bin/python -m benchmarks.operator_accuracy build/operators

$(READY): pyproject.toml
	@$(PYTHON) -m venv $(VENV) && $(VENV)/bin/pip install -q --disable-pip-version-check -e '.[report]' && touch $@

$(TESTS): $(READY)
	@$(VENV)/bin/pip install -q --disable-pip-version-check -e '.[dev]' && touch $@

clean:
	rm -rf $(VENV) dist build
