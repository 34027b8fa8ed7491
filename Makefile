# Everything happens in .venv and build/: no root, nothing installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
JOBS ?= $(shell nproc)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# ccache where the machine has one.
ifneq ($(shell command -v ccache),)
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif

SOURCES := CMakeLists.txt pyproject.toml $(shell find cmake cpp python configs -type f -not -name '*.pyc' -not -name '*.so' 2>/dev/null)
CPP_FILES = $(shell find cpp python tests benchmarks -name '*.cpp' -o -name '*.h')
CMAKE_PYTHON := -DPython_EXECUTABLE=$(BIN)/python

.PHONY: quickstart install test test-fast bench bench-kernels bench-peers bench-self format lint asan fuzz stubs clean

# Installs, builds, trains a small model on real text and writes text with it.
quickstart: $(VENV)/installed
	$(BIN)/meshwright quickstart

install: $(VENV)/installed

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(SOURCES) | $(BIN)/python
	$(BIN)/pip install --quiet .
	touch $@

$(VENV)/test_requirements: tests/requirements.txt | $(BIN)/python
	$(BIN)/pip install --quiet -r tests/requirements.txt
	touch $@

# Every check and suite; the last line sums them. tests/run_all.py says what runs.
test: $(VENV)/test_requirements
	$(BIN)/python tests/run_all.py --jobs $(JOBS)

# The same without the sanitizer build and without slow tests.
test-fast: $(VENV)/test_requirements
	$(BIN)/python tests/run_all.py --jobs $(JOBS) --fast

asan: $(VENV)/test_requirements
	$(BIN)/python tests/run_all.py --jobs $(JOBS) --only asan

# A million damaged files of every format that we read from others, under the sanitizers. FUZZ_CASES=... FUZZ_SEED=... change it.
FUZZ_CASES ?= 1000000
FUZZ_SEED ?= 1
fuzz: $(VENV)/test_requirements
	PATH=$(BIN):$$PATH cmake --preset asan $(CMAKE_PYTHON)
	PATH=$(BIN):$$PATH cmake --build --preset asan --parallel $(JOBS) --target meshwright_fuzz
	set -e; for format in safetensors gguf config; do ./build/asan/meshwright_fuzz $$format $(FUZZ_CASES) $(FUZZ_SEED); done

# Everything below, then the other programs of benchmarks/.
bench: bench-kernels bench-self bench-peers
	set -e; for script in $(filter-out %/compare.py %/self.py,$(wildcard benchmarks/*.py)); do echo "--- $$script"; $(BIN)/python $$script; done

# A training step beside PyTorch and JAX, which are installed below build/. BENCH="model=base dtype=bfloat16" and the like choose the cases.
bench-peers: $(VENV)/installed
	$(BIN)/python benchmarks/compare.py $(BENCH)

# Our shares of the machine's peak against those recorded in benchmarks/results; fails where one got worse.
bench-self: $(VENV)/installed
	$(BIN)/python benchmarks/self.py $(BENCH)

bench-kernels: $(VENV)/test_requirements
	PATH=$(BIN):$$PATH cmake --preset release $(CMAKE_PYTHON)
	PATH=$(BIN):$$PATH cmake --build --preset release --parallel $(JOBS)
	set -e; for program in $$(find build/release -maxdepth 1 -type f -name 'bench_*' -perm -u+x); do echo "--- $$program"; $$program; done

format: $(VENV)/test_requirements
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CPP_FILES)

lint: $(VENV)/test_requirements
	$(BIN)/python tests/run_all.py --only lint

# The typed face of the extension, python/meshwright/_core.pyi, made from its signatures.
stubs: $(VENV)/test_requirements $(VENV)/installed
	$(BIN)/python python/make_stubs.py

clean:
	rm -rf build $(VENV)
