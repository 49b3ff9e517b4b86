.DEFAULT_GOAL := help
SHELL := /bin/bash

# The first that really runs: a version manager's shim may exist and fail.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
PIP := .venv/bin/python -m pip install -q --disable-pip-version-check

# Threads, servers and clocks suffer when a machine stands still. Where CI=true, a test that fails is tried once more, and
# why it failed is told; but no more than five, for then something else is the matter.
ifeq ($(CI),true)
AGAIN := --reruns=1 --max-suite-reruns=5 --rerun-show-tracebacks
endif

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 14

.PHONY: demo
demo: .venv/runtime.stamp ## See cache hits and misses, explained, against a local provider
	@.venv/bin/otel-promptcache demo

.PHONY: test
test: .venv/dev.stamp ## Run the tests (PYTEST_ARGS="-k name" for some)
	@scripts/debian-packages.sh
	@# Built here where they are required, because each of several pytest workers would begin to.
	@if [ "$$CI" = true ]; then \
		$(PIP) --group clickhouse; \
		scripts/build-all.sh >/dev/null; \
	fi
	.venv/bin/pytest $(or $(PYTEST_ARGS),-n auto --maxprocesses 4 --dist loadgroup) $(AGAIN)

.PHONY: matrix
matrix: ## Run the tests of the hooks on all versions (ROWS="oldest newest" for some)
	@$(PYTHON) scripts/matrix.py $(PYTEST_ARGS) $(AGAIN) $(ROWS)

PEERS ?= all

.PHONY: neighbours
neighbours: .venv/dev.stamp ## Run the tests beside other instrumentations (PEERS="openllmetry" for some)
	PROMPTCACHE_NEIGHBOURS="$(PEERS)" .venv/bin/pytest -m neighbours $(PYTEST_ARGS) $(AGAIN)

.PHONY: coexistence
coexistence: .venv/dev.stamp ## Print how we stand beside each of them (docs/coexistence.md)
	@.venv/bin/python scripts/coexistence.py $(filter-out all,$(PEERS))

.PHONY: backends
backends: .venv/dev.stamp ## Post our spans to a real Phoenix (650 MB the first time)
	@scripts/build-phoenix.sh >/dev/null
	PROMPTCACHE_BACKENDS=true .venv/bin/pytest tests/deploy/test_phoenix.py $(PYTEST_ARGS) $(AGAIN)

.PHONY: lint
lint: .venv/dev.stamp ## Check style, types and the direction of imports
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy --strict src
	cd deploy/grafana && ../../.venv/bin/mypy --strict -p boards
	.venv/bin/lint-imports

.PHONY: dashboards
dashboards: .venv/dev.stamp ## Write Grafana's dashboards and the rules of budgets anew
	cd deploy/grafana && ../../.venv/bin/python -m boards
	.venv/bin/python deploy/prometheus/budgets.py

.PHONY: bench
bench: .venv/dev.stamp ## Measure our own time a call
	@benchmarks/run.sh

.PHONY: clean
clean: ## Remove everything that make has built
	rm -rf .venv .environments build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/created.stamp:
	@scripts/create-venv.sh "$(PYTHON)" .venv
	@touch $@

# Stamps: a second call is quick, and a change of the dependencies installs again.
.venv/runtime.stamp: pyproject.toml | .venv/created.stamp
	@echo "Installing otel-promptcache into .venv ..."
	@$(PIP) -e '.[all]'
	@touch $@

.venv/dev.stamp: pyproject.toml .venv/runtime.stamp
	@echo "Installing the development tools into .venv ..."
	@$(PIP) --group dev
	@touch $@
