# Needs Python 3.11 or newer and make; everything else comes from requirements.lock into .venv.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
LOCK_BIN := build/lock/bin
# Packages that read what a pull writes, for tests only.
CONSUMERS := tests/consumers
CONSUMERS_BIN := .venv-consumers/bin
CONSUMERS_STAMP := .venv-consumers/.installed
# What the benchmarks run against, for benchmarks only.
PEERS_LOCK := tests/benchmarks/requirements.lock
PEERS_BIN := .venv-peers/bin
PEERS_STAMP := .venv-peers/.installed
# Processes that share the tests; much of a test is waiting for servers and other processes.
WORKERS ?= 3

# Prefect keeps to itself: its state stays in this folder, it calls nobody, and it talks to no
# server that the shell happens to point at.
export PREFECT_HOME := $(CURDIR)/.prefect
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS := 120
unexport PREFECT_API_URL PREFECT_API_KEY PREFECT_PROFILE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install consumers peers demo check test test-consumers test-ui soak bench bench-quick bench-cluster bench-scale lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo 'Python 3.11 or newer is needed: make PYTHON=python3.11 …' >&2; exit 1; }
	$(PYTHON) -m venv .venv

# --no-deps: the lock is complete, and pip before 23.3 mistakes `sqlalchemy[asyncio]` in a hashed
# file for a second, unpinned requirement. `pip check` proves that nothing is missing.
$(STAMP): requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	@touch $@

install: $(STAMP) ## make .venv from requirements.lock

# No `pip check` here: torch and accelerate, which TRL asks for, are left out on purpose.
$(CONSUMERS_STAMP): $(CONSUMERS)/requirements.lock | $(BIN)/python
	test -x $(CONSUMERS_BIN)/python || $(PYTHON) -m venv .venv-consumers
	$(CONSUMERS_BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement $<
	@touch $@

consumers: $(CONSUMERS_STAMP) ## make .venv-consumers: packages that the tests give bundles to

$(PEERS_STAMP): $(PEERS_LOCK) | $(BIN)/python
	test -x $(PEERS_BIN)/python || $(PYTHON) -m venv .venv-peers
	$(PEERS_BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement $<
	$(PEERS_BIN)/python -m pip check
	@touch $@

peers: $(PEERS_STAMP) ## make .venv-peers: the tools that the benchmarks run against, 2 GB

demo: $(STAMP) ## export the bundled sample of real calls
	$(BIN)/python -m flows.export configs/demo.yaml

check: $(STAMP) ## lint, format, types, import rules and the Dockerfile
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint configs/Dockerfile

test: check $(CONSUMERS_STAMP) ## check, then all tests with branch coverage
	CONSUMERS_PYTHON=$(CURDIR)/$(CONSUMERS_BIN)/python $(BIN)/python -m pytest -m "not ui" --numprocesses $(WORKERS) --cov --cov-report=term

test-consumers: $(STAMP) $(CONSUMERS_STAMP) ## give bundles to the packages that read them
	CONSUMERS_PYTHON=$(CURDIR)/$(CONSUMERS_BIN)/python $(BIN)/python -m pytest -m consumers

test-ui: $(STAMP) ## look at Prefect's pages in Chromium, which Debian's packages bring; screens in build/screens
	command -v chromium || { apt-get update && apt-get install --yes chromium; } \
		|| { sudo apt-get update && sudo apt-get install --yes chromium; }
	$(BIN)/python -m pytest -m ui

soak: $(STAMP) ## kill 200 exports at random and count what that cost
	$(BIN)/python -m tests.soak --kills 200

# Where a peer cannot be installed, the others run: the benchmark says what it leaves out.
bench: $(STAMP) ## paired runs against other tools on 1 GB
	$(MAKE) peers || echo 'make peers failed: what is not installed is left out' >&2
	$(BIN)/python -m tests.benchmarks.paired --gb 1

bench-quick: $(STAMP) ## the benchmarks on little data, to see that they work
	$(BIN)/python -m tests.benchmarks.paired --quick
	$(BIN)/python -m tests.benchmarks.layout --gb 0.02 --runs 1 --compression gzip
	$(BIN)/python -m tests.benchmarks.cluster overhead --shards 200
	$(BIN)/python -m tests.benchmarks.copies --ids 100000
	$(BIN)/python -m tests.benchmarks.price --gb 0.05 --every 1d

bench-cluster: $(STAMP) ## shards on Dask and in processes: how they scale, what each costs, layouts, many ids
	$(BIN)/python -m tests.benchmarks.cluster scaling --gb 2
	$(BIN)/python -m tests.benchmarks.cluster overhead --shards 10000
	$(BIN)/python -m tests.benchmarks.layout --gb 1
	$(BIN)/python -m tests.benchmarks.copies --ids 100000000
	$(BIN)/python -m tests.benchmarks.price --gb 1 --every 1d

bench-scale: $(STAMP) ## plan over 100,000, 1,000,000 and 10,000,000 batches with nothing to do; 10 minutes, 5 GB of disk
	$(BIN)/python -m tests.benchmarks.scale --batches 100000
	$(BIN)/python -m tests.benchmarks.scale --batches 1000000
	$(BIN)/python -m tests.benchmarks.scale --batches 10000000

LOCK_FORM := --no-config --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-header --no-annotate --no-emit-index-url

# One lock for every platform is what uv writes and pip does not; it gets a venv of its own.
# `make lock UPGRADE=--upgrade` moves every pin; without it only what pyproject.toml asks changes.
lock: ## make the locks again from pyproject.toml and from what the consumers' tests ask for
	test -x $(LOCK_BIN)/uv || { $(PYTHON) -m venv build/lock && $(LOCK_BIN)/pip install --quiet 'uv>=0.13'; }
	$(LOCK_BIN)/uv pip compile pyproject.toml --group dev --output-file requirements.lock --quiet \
		$(LOCK_FORM) $(UPGRADE)
	$(LOCK_BIN)/uv pip compile $(CONSUMERS)/requirements.in --override $(CONSUMERS)/overrides.txt \
		--output-file $(CONSUMERS)/requirements.lock --quiet $(LOCK_FORM) $(UPGRADE)
	$(LOCK_BIN)/uv pip compile --group peers --output-file $(PEERS_LOCK) --quiet $(LOCK_FORM) $(UPGRADE)

clean: ## remove what make made
	rm -rf .venv .venv-consumers .venv-peers .prefect export-demo build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
