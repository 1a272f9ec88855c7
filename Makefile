# Two commands do everything on a fresh Debian 12 machine, as root: `make demo` and `make test`.
# Each sets up what is missing first and is quick when nothing is.

PYTHON ?= /usr/bin/python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMPS := $(VENV)/.stamps

.PHONY: demo session test lint bench matrix machines flips kills rootimg e2e lock setup clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: setup ## capture a disk and print it onto another, on this machine
	$(BIN)/python -m demo

session: setup ## run every command once, and write docs/reference/session.md of it
	$(BIN)/python -m demo.session > $(STAMPS)/session.md
	cp $(STAMPS)/session.md docs/reference/session.md

test: setup ## unit tests, then integration tests on real tools
	scripts/test

lint: setup ## ruff, mypy, import contracts
	scripts/lint

bench: setup ## side by side with the bare pipes
	$(BIN)/python -m bench

matrix: setup ## every kind of table, file system and target disk through capture and restore; renews docs/reference/matrix.md
	LITHO_MATRIX=full LITHO_MATRIX_REPORT=docs/reference/matrix.md $(BIN)/pytest -q tests/integration/test_matrix.py

machines: setup ## ten thousand generated machines for the rule that chooses the disk
	LITHO_EXAMPLES=10000 $(BIN)/pytest -q tests/unit/agent/test_disks_machines.py

flips: setup ## a thousand flipped bits in a library, one after the other: each found by verify and by restore
	LITHO_FLIPS=1000 $(BIN)/pytest -q -rP tests/integration/test_chunk_flips.py

kills: setup ## a capture, a restore and a collection killed a hundred times each: nothing lost, nothing left
	LITHO_KILLS=100 $(BIN)/pytest -q -rP tests/integration/test_chunk_kills.py

rootimg: setup ## kernel, initrd and root image of the nodes, in build/rootimg
	$(BIN)/python -m litho_rootimg

e2e: setup ## nodes in QEMU boot over the network, are captured and restored; E2E="-k name" picks some
	scripts/e2e tests/e2e $(E2E)

setup: $(STAMPS)/python ## packages and the virtual environment

$(STAMPS)/apt: apt-packages.txt
	scripts/install-packages apt-packages.txt
	@mkdir -p $(VENV)/.stamps && touch $@

$(STAMPS)/python: $(STAMPS)/apt requirements/dev.lock pyproject.toml
	scripts/install-python $(PYTHON) $(VENV)
	@touch $@

lock: setup ## renew requirements/*.lock from pyproject.toml
	scripts/lock $(BIN)/uv

clean: ## remove what was built here
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
