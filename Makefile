# The verbs that a person and CI both use. `make help` lists them.
# It keeps to what GNU make 3.81 knows, which is what macOS has.

SHELL := /bin/bash

# The first Python of 3.11 or later; set PYTHON to choose another one.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# Where what is built once is kept: the Rust peers of the interop tests. Outside the clone.
BLOBSYNC_CACHE ?= $(HOME)/.cache/blobsync

SENDME_VERSION := 0.37.1
export BLOBSYNC_SENDME ?= $(BLOBSYNC_CACHE)/tools/bin/sendme
B3SUM_VERSION := 1.8.7
B3SUM := $(BLOBSYNC_CACHE)/tools/bin/b3sum
CROC_VERSION := 10.7.0
CROC := $(BLOBSYNC_CACHE)/tools/bin/croc
# What pyproject.toml allows; constraints.txt has the newest.
AIOQUIC_OLDEST := 1.7.0
PEER_TARGET := $(BLOBSYNC_CACHE)/target-peer
export BLOBSYNC_PEER ?= $(PEER_TARGET)/release/blobsync-peer
PEER := tests/interop/peer
PEER_SOURCES := $(PEER)/Cargo.toml $(PEER)/Cargo.lock $(wildcard $(PEER)/src/*.rs)

BIN := .venv/bin
WORKERS ?= 2
# More arguments for pytest, and for the benchmarks.
ARGS ?=

PYBAO_SOURCES := $(shell find store/pybao -name '*.rs' -o -name Cargo.toml -o -name pyproject.toml)
PYIROH_SOURCES := $(shell find pyiroh -name '*.rs' -o -name Cargo.toml -o -name pyproject.toml)
WORKSPACE := Cargo.toml Cargo.lock

.PHONY: help check-machine install build test test-others test-rust peers interop bench rivals demo lint format \
	docs ci pins clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

check-machine:
	@if [ -z "$(PYTHON)" ]; then \
		echo "missing: Python 3.11 or later: install it, then 'make install PYTHON=python3.11'" >&2; \
		exit 1; fi
	@$(PYTHON) tools/check_machine.py

install: check-machine .venv/stamp-app ## make .venv with everything in it, bindings built; quick when nothing changed

build: .venv/stamp-pyiroh ## build the two Rust bindings into .venv

.venv/stamp-venv: | check-machine
	$(PYTHON) -m venv .venv
	touch $@

.venv/stamp-pins: constraints.txt .venv/stamp-venv
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -r constraints.txt
	touch $@

.venv/stamp-pybao: $(PYBAO_SOURCES) $(WORKSPACE) .venv/stamp-pins
	cd store/pybao && VIRTUAL_ENV=$(CURDIR)/.venv $(CURDIR)/$(BIN)/maturin develop --release --locked --quiet
	touch $@

.venv/stamp-pyiroh: $(PYIROH_SOURCES) .venv/stamp-pybao
	cd pyiroh && VIRTUAL_ENV=$(CURDIR)/.venv $(CURDIR)/$(BIN)/maturin develop --release --locked --quiet
	touch $@

.venv/stamp-app: pyproject.toml store/pyproject.toml .venv/stamp-pyiroh
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps \
		--no-build-isolation -e ./store -e .
	touch $@

test: install test-rust ## the whole suite but the real Rust peers and the slow tests
	$(BIN)/pytest -m "not interop and not slow" -n $(WORKERS) --timeout 120 $(ARGS)

test-others: install ## the aioquic transport with the oldest aioquic; everything without pyiroh
	$(BIN)/python tools/sibling_venv.py .venv-oldest aioquic==$(AIOQUIC_OLDEST)
	.venv-oldest/bin/python -m pytest tests/unit/transports tests/contract/test_aioquic_transport.py \
		-n $(WORKERS) --timeout 120 $(ARGS)
	$(BIN)/python tools/sibling_venv.py .venv-without-pyiroh --without pyiroh
	BLOBSYNC_WITHOUT_PYIROH=1 .venv-without-pyiroh/bin/python -m pytest -m "not interop and not slow" \
		--ignore tests/benchmarks -n $(WORKERS) --timeout 120 $(ARGS)

test-rust:
	cargo test --locked --quiet -p pybao

peers: ## install sendme and build the Rust peer of the interop tests
	@if [ "$$($(BLOBSYNC_SENDME) --version 2>/dev/null)" != "sendme $(SENDME_VERSION)" ]; then \
		echo "installing sendme $(SENDME_VERSION)"; \
		CARGO_TARGET_DIR=$(BLOBSYNC_CACHE)/target-sendme cargo install --quiet sendme \
			--version $(SENDME_VERSION) --locked --root $(BLOBSYNC_CACHE)/tools \
		|| echo "sendme $(SENDME_VERSION) could not be installed" >&2; fi
	@CARGO_TARGET_DIR=$(PEER_TARGET) cargo build --quiet --release --locked \
		--manifest-path $(PEER)/Cargo.toml \
		|| echo "blobsync-peer could not be built" >&2

interop: install peers ## blobsync against the real Rust peers, and the slow tests
	$(BIN)/python tools/loopback_only.py \
		$(BIN)/pytest -m "interop or slow" --timeout 900 $(ARGS)

bench: install ## benchmarks; ARGS=--short for the short form
	$(BIN)/python -m benchmarks.run $(ARGS)

rivals: ## install what the full benchmarks also compare with: croc (needs Go) and b3sum
	@if [ "$$($(B3SUM) --version 2>/dev/null)" != "b3sum $(B3SUM_VERSION)" ]; then \
		echo "installing b3sum $(B3SUM_VERSION)"; \
		CARGO_TARGET_DIR=$(BLOBSYNC_CACHE)/target-b3sum cargo install --quiet b3sum \
			--version $(B3SUM_VERSION) --locked --root $(BLOBSYNC_CACHE)/tools; fi
	@if [ "$$($(CROC) --version 2>/dev/null)" != "croc version $(CROC_VERSION)" ]; then \
		echo "installing croc $(CROC_VERSION)"; \
		GOBIN=$(BLOBSYNC_CACHE)/tools/bin go install github.com/schollz/croc/v10@v$(CROC_VERSION); fi
	@for p in rsync ssh sshd rclone syncthing; do PATH="$$PATH:/usr/sbin" command -v $$p >/dev/null \
		|| echo "missing: $$p, from the system's packages"; done

demo: install ## two peers on this machine share a folder and print what happens
	$(BIN)/python docs/demo.py

lint: install ## formats, lints, types, layers and stubs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/python -m mypy.stubtest pybao._pybao pyiroh._pyiroh
	cargo fmt --all --check
	cargo fmt --manifest-path $(PEER)/Cargo.toml --check
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo clippy --quiet --locked --release --workspace \
		--all-targets --all-features -- -D warnings
	CARGO_TARGET_DIR=$(PEER_TARGET) cargo clippy --quiet --locked --release --all-targets \
		--manifest-path $(PEER)/Cargo.toml -- -D warnings

format: install ## format Python and Rust
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cargo fmt --all
	cargo fmt --manifest-path $(PEER)/Cargo.toml

docs: install ## build the documentation into site/
	$(BIN)/mkdocs build --strict --quiet

ci: lint test test-others docs interop ## what CI runs, with the short benchmarks
	$(MAKE) bench ARGS=--short

pins: ## write constraints.txt anew from what is in .venv
	$(BIN)/python -m pip freeze --exclude-editable | grep -vE '^(pybao|pyiroh|blobstore|blobsync)\b' \
		> constraints.txt

clean: ## remove .venv and what was built in the clone
	rm -rf .venv .venv-oldest .venv-without-pyiroh target site dist build
	find store/pybao/python pyiroh/python -name '*.so' -delete
