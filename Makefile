# `make help` explains. What a target needs it sets up first: .venv, the compiled module, the plugins.
# Set PYTHON, CC or CXX to choose others.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PLUGINS := build/plugins
# Stamps lie in the environment that they speak of, so they go when it goes.
BASE := $(VENV)/ferrule-base.stamp
DEV := $(VENV)/ferrule-dev.stamp
MODULE := $(VENV)/ferrule-module.stamp
PEERS := build/bench-venv/ferrule-peers.stamp

C_SOURCES := $(wildcard src/ferrule/native/*.c src/ferrule/native/*.h native_sdk/include/*.h)
PUBLIC_HEADERS := $(wildcard native_sdk/include/*.h native_sdk/c/*.h)
C_PLUGINS := $(wildcard example_plugins/c/*/*.c)
CARGO_WORKSPACES := $(patsubst %/Cargo.toml,%,$(wildcard native_sdk/rust/Cargo.toml example_plugins/Cargo.toml))
BINDING := src/ferrule/native/binding/prepared.c
C_INCLUDES := -Inative_sdk/include -Inative_sdk/c -Isrc/ferrule/native
CXX ?= c++

export FERRULE_PLUGIN_PATH ?= $(CURDIR)/$(PLUGINS)

.PHONY: help demo test prove bench plugins lint lint-python lint-c lint-rust wheel clean

help:  ## Say what there is
	@echo "ferrule: native plugins for Python. The command is $(BIN)/ferrule once a target below has run."
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(MODULE) plugins  ## Run 336,776 flights through the example plugins (January's, when offline)
	@$(BIN)/python examples/flights/demo.py

test: $(DEV) $(MODULE) plugins-all lint  ## Everything that must hold: lint, then the tests of C, Rust and Python
	@set -e; $(require_cargo); for workspace in $(CARGO_WORKSPACES); do \
	    echo "cargo test ($$workspace)"; (cd $$workspace && cargo test --quiet --workspace); done
	$(BIN)/python -m pytest

prove: $(DEV) $(MODULE)  ## The long rounds: 1,000 kills, the model of delivery, sanitizers, loom, ten minutes of fuzzing
	@command -v clang >/dev/null || echo "clang is not on PATH: a plain mutator with gcc stands in for libFuzzer"
	@$(require_cargo); cd native_sdk/rust && RUSTFLAGS="--cfg loom" cargo test --quiet --target-dir target/loom --release \
	    --package ferrule-plugin --test loom
	FERRULE_PROVE=1 $(BIN)/python -m pytest -s --timeout 3600 tests/test_kill.py tests/test_delivery_model.py \
	    tests/test_sanitizers.py

plugins: $(MODULE)  ## Build the example plugins into build/plugins
	@$(BIN)/python build.py plugins

.PHONY: plugins-all
plugins-all: $(MODULE)
	@$(BIN)/python build.py plugins --faulty

# What it is measured against lies in an environment of its own; Go, cargo and zig build the rest, where they are.
bench: $(DEV) $(MODULE) plugins $(PEERS)  ## Measure ferrule and its peers against a C loop: benchmarks/RESULTS.md
	$(BIN)/python benchmarks/run.py $(BENCH)

lint: lint-python lint-c lint-rust  ## Format, types, warnings, import directions

lint-python: $(DEV) $(MODULE)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict src tests tools build.py
	$(BIN)/python tools/check_imports.py

# The public headers as every author may compile them; the host's own C with all warnings, and what binds it to Python.
lint-c: $(BASE)
	@set -e; for header in $(PUBLIC_HEADERS); do echo "$(CC) -std=c99 $$header"; \
	    $(CC) -std=c99 -pedantic -Wall -Wextra -Werror $(C_INCLUDES) -fsyntax-only -x c $$header; done
	@set -e; for source in $(C_PLUGINS); do echo "$(CC) -std=c99 $$source"; \
	    $(CC) -std=c99 -pedantic -Wall -Wextra -Werror $(C_INCLUDES) -fsyntax-only $$source; done
	@set -e; for source in $(filter %.c,$(C_SOURCES)); do echo "$(CC) -std=gnu11 $$source"; \
	    $(CC) -std=gnu11 -Wall -Wextra -Werror $(C_INCLUDES) -fsyntax-only $$source; done
	@echo "$(CC) -std=gnu11 $(BINDING)"; python=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))'); \
	    $(CC) -std=gnu11 -Wall -Wextra -Werror $(C_INCLUDES) -I"$$python" -fsyntax-only $(BINDING)
	@set -e; if command -v $(CXX) >/dev/null; then for file in $(PUBLIC_HEADERS) $(C_PLUGINS); do \
	    echo "$(CXX) -std=c++17 $$file"; \
	    $(CXX) -std=c++17 -pedantic -Wall -Wextra -Werror $(C_INCLUDES) -fsyntax-only -x c++ $$file; done; \
	else echo "$(CXX) is not on PATH: the headers are not checked as C++"; fi

lint-rust:
	@set -e; $(require_cargo); for workspace in $(CARGO_WORKSPACES); do \
	    echo "rustfmt, clippy, rustdoc ($$workspace)"; \
	    (cd $$workspace && cargo fmt --all --check && \
	        cargo clippy --quiet --workspace --all-targets -- -D warnings -D clippy::undocumented_unsafe_blocks && \
	        RUSTDOCFLAGS="-D warnings" cargo doc --quiet --workspace --no-deps); done

wheel: $(DEV)  ## Build the wheel and the sdist into dist/, and check the wheel's promises
	rm -rf dist
	$(BIN)/uv build --quiet --python $(BIN)/python --out-dir dist
	@if [ "$$(uname)" = Linux ]; then set -e; PATH="$(CURDIR)/$(BIN):$$PATH"; \
	    auditwheel repair --wheel-dir dist dist/*-linux_*.whl; rm dist/*-linux_*.whl; \
	    abi3audit --strict dist/*.whl; fi
	@ls -l dist

clean:  ## Remove what was built (the environment too: make clean VENV_TOO=1)
	rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f src/ferrule/native/_native.*.so src/ferrule/native/_native.*.pyd $(MODULE)
	rm -rf $(addsuffix /target,$(CARGO_WORKSPACES)) $(if $(VENV_TOO),$(VENV))

# ---- the environment ------------------------------------------------------------------------------

define require_cargo
command -v cargo >/dev/null || { echo "cargo is not on PATH: the Rust checks need it (rustup brings it)." >&2; exit 1; }
endef

# The first interpreter that is new enough, unless PYTHON names one.
define find_python
found=; for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; done; \
if [ -z "$$found" ]; then \
    echo "ferrule needs Python 3.11 or newer; $(or $(PYTHON),python3) is $$($(or $(PYTHON),python3) --version 2>&1)." >&2; \
    echo "Install a newer one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; fi
endef

$(BIN)/python:
	@set -e; $(find_python); echo "making $(VENV) with $$($$found --version)"; \
	$$found -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "python3 -m venv failed; on Debian and Ubuntu the package python3-venv brings it." >&2; exit 1; }

# --group needs pip 25.1.
$(BASE): pyproject.toml build.py | $(BIN)/python
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	    "$(VENV) has Python " + sys.version.split()[0] + "; ferrule needs 3.11 or newer. Remove $(VENV) and try again.")'
	@echo "installing ferrule and what it needs into $(VENV)"
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install --quiet --editable . --group native
	@touch $(MODULE) $@

$(DEV): $(BASE)
	@echo "installing the tools for tests and checks into $(VENV)"
	@$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(PEERS): pyproject.toml | $(BIN)/python
	@echo "installing what ferrule is measured against into $(@D)"
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(@D)/bin/python -m pip install --quiet --group bench
	@touch $@

# An editable install compiles the module; after that only a changed source does.
$(MODULE): $(C_SOURCES) $(BINDING) | $(BASE)
	@if [ ! -e $@ ] || [ -n "$$(find $(C_SOURCES) $(BINDING) -newer $@)" ]; then $(BIN)/python build.py native; touch $@; fi
