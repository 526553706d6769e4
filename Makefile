# Everything that is built is kept in the user's cache, outside the tree: a second run is fast.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/devbox-secrets
# One environment for each checkout and lock file: two checkouts don't install over one another.
VENV := $(CACHE)/venv/$(shell { pwd; python3 --version; cat requirements/dev.txt; } | sha256sum | cut -c1-16)
BIN := $(VENV)/bin
SOURCES := $(shell find operator -name '*.py' -o -name py.typed) pyproject.toml README.md LICENSE
CRD := accountsecrets.devbox-secrets.dev.yaml
PYTEST := $(BIN)/pytest -p no:cacheprovider
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: help
help: ## Show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/wheel ## Bring up a kind cluster, install the chart, seal, apply, run a devbox, update, delete
	@PYTHONPATH=tests $(BIN)/python -m cluster demo

.PHONY: test
test: $(VENV)/wheel ## Run every test
	@$(PYTEST) tests

.PHONY: test-unit test-apiserver test-e2e
test-unit: $(VENV)/wheel ## Run the tests that need nothing but Python
	@$(PYTEST) tests/unit
test-apiserver: $(VENV)/wheel ## Run the tests on a bare control plane
	@$(PYTEST) tests/apiserver
test-e2e: $(VENV)/wheel ## Run the tests on a kind cluster
	@$(PYTEST) tests/e2e

.PHONY: lint
lint: $(VENV)/wheel ## Check style, types and layers
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy --no-incremental operator tests
	@cd operator && $(BIN)/lint-imports --no-cache --config ../pyproject.toml | tail -n 4

.PHONY: generate
generate: $(VENV)/wheel ## Write the generated files: the CRD, deploy/install.yaml
	@$(BIN)/python -m devbox_secrets.crd | tee crds/$(CRD) > charts/devbox-secrets/files/crd.yaml
	@PYTHONPATH=tests $(BIN)/python -m cluster manifest > $(VENV)/install.yaml
	@mv $(VENV)/install.yaml deploy/install.yaml

.PHONY: lock
lock: $(VENV)/ready ## Choose the newest dependencies and write the lock files
	@cd requirements && for out in dev:'--all-extras --group dev' operator:'--extra operator -c dev.txt'; do \
	  $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	    --no-header --no-annotate $${out#*:} ../pyproject.toml --output-file $${out%%:*}.txt; done

.PHONY: verify
verify: generate ## Check that the generated files are current
	@git diff --exit-code --stat -- crds charts deploy \
	  || { echo 'The generated files above were not current: commit what `make generate` wrote.' >&2; exit 1; }

.PHONY: image
image: $(VENV)/wheel ## Build the operator's image and print its name
	@PYTHONPATH=tests $(BIN)/python -m cluster image

.PHONY: clean
clean: ## Take down what is left of a demo or a test; keep what was built
	@if [ -e $(VENV)/ready ]; then PYTHONPATH=tests $(BIN)/python -m cluster down; fi
	@rm -rf $(VENV)

$(VENV)/ready:
	@echo "devbox-secrets: making the Python environment (about a minute, once) …" >&2
	@python3 -c 'import ensurepip, venv' 2>/dev/null \
	  || { apt-get update -qq && apt-get install -qq -y --no-install-recommends python3-venv; } >&2
	@python3 -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	@touch $@

# The tests see the product as its users do: installed from its wheel, the source tree out of reach.
$(VENV)/wheel: $(VENV)/ready $(SOURCES)
	@rm -rf $@ && $(BIN)/python -m hatchling build --target wheel --directory $@.part >/dev/null 2>&1
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --force-reinstall $@.part/*.whl
	@mv $@.part $@ && touch $@
