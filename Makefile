# bitsafe: make run (the embedded toy), make test, make run-real [DATA_DIR=…]; the rest is in README.md
.DELETE_ON_ERROR:
.PHONY: run test run-real test-toy bench bench-smollm2 lint lock

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-from-lock
TORCH := torch==2.13.0
SNAKEMAKE := $(BIN)/snakemake --cores all --quiet rules host
# one thread a job: as many jobs as cores run side by side
export OMP_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

run: $(STAMP)
	$(SNAKEMAKE)

run-real: $(STAMP)
	$(SNAKEMAKE) --configfile experiments/smollm2.yaml $(if $(DATA_DIR),--config data_dir=$(DATA_DIR))

test: $(STAMP)
	$(BIN)/python -m pytest $(if $(CI),,-x) tests/unit tests/workflow

test-toy: $(STAMP)
	$(BIN)/python -m pytest -rx tests/toy

bench: $(STAMP)
	$(BIN)/python -m tests.bench $(NAME)

# SmolLM2-135M through every method and bit-width; hours, resumable
bench-smollm2: $(STAMP)
	$(BIN)/python -m tests.bench.smollm2

lint: $(STAMP)
	$(BIN)/ruff check workflow tests
	$(BIN)/ruff format --check workflow tests
	$(BIN)/snakefmt --check -l 120 Snakefile workflow/rules
	$(BIN)/snakemake --lint

# The whole pinned environment; torch first, by its exact pin: its wheel and dependencies differ between indexes.
$(STAMP): envs/core.lock.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"bitsafe needs Python 3.11 or newer; $(PYTHON) is {v.major}.{v.minor}. Say: make $(MAKECMDGOALS) PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r envs/core.lock.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Resolve the pip section of envs/core.yaml again (needs the network). What torch brings along stays out of the lock.
OF_TORCH := ^(torch|triton|cuda-[a-z]+|nvidia-(cu|nccl|nv)[a-z0-9-]*)==
lock: $(STAMP)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	sed -n 's/^ *- \([A-Za-z_-]*==.*\)/\1/p' envs/core.yaml > envs/core.in
	$(BIN)/uv pip compile envs/core.in --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	    --no-emit-index-url --no-emit-find-links --quiet --output-file envs/core.all
	awk '/^[a-zA-Z]/ {keep = !/$(OF_TORCH)/} keep' envs/core.all > envs/core.lock.txt
	rm envs/core.in envs/core.all
