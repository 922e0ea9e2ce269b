# bitsafe: make run (the embedded toy), make test, make run-real [DATA_DIR=…]; the rest is in README.md
.DELETE_ON_ERROR:
.PHONY: run test test-slow run-real test-toy test-envs test-judge test-browser test-cluster test-gpu bench bench-extra bench-gpu bench-smollm2 lint lock env

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-from-lock
TORCH := torch==2.13.0
SNAKEMAKE := $(BIN)/snakemake --cores all --quiet rules host
# one thread a job: as many jobs as cores run side by side
export OMP_NUM_THREADS := 1
# aqlm's CPU kernel adds to one output from several threads without a lock
export NUMBA_NUM_THREADS := 1
export TOKENIZERS_PARALLELISM := false
# a GPU is fed by all cores: its jobs run one at a time
GPU := env -u OMP_NUM_THREADS -u NUMBA_NUM_THREADS HF_HUB_OFFLINE=1 $(BIN)/python
export HF_HUB_DISABLE_TELEMETRY := 1

run: $(STAMP)
	$(SNAKEMAKE)

run-real: $(STAMP)
	$(SNAKEMAKE) --configfile experiments/smollm2.yaml $(if $(DATA_DIR),--config data_dir=$(DATA_DIR))

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(if $(CI),,-x) -m "not slow" tests/unit tests/workflow

# whole runs that `make test` has no time for: what Slurm is asked for (by a stand-in), archives
test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow tests/workflow

test-toy: $(STAMP)
	$(BIN)/python -m pytest -rx tests/toy

test-envs: $(STAMP)
	$(BIN)/python -m pytest -rsP tests/envs

# a real model behind a real server, which the tests start and stop: `make env NAME=judge` comes first (it compiles), or
# JUDGE_URL=… MODEL=… names a server that runs
test-judge: $(STAMP)
	$(BIN)/python -m pytest -rsP tests/judge

# a real Slurm on this machine (Debian's packages, two fake GPUs) and every fault; resumable, 50 minutes a call
test-cluster: $(STAMP)
	PYTHONPATH=workflow $(BIN)/python -m tests.cluster

# report.html as a person opens it, in Debian's chromium; skipped with a reason where that is missing
test-browser: $(STAMP) .envs/browser/.installed-from-lock
	$(BIN)/python -m pytest -rsP tests/browser

# the toy on a card against the toy on a CPU; skipped with a reason where there is no card
test-gpu: $(STAMP)
	$(GPU) -m tests.gpu

bench: $(STAMP)
	$(BIN)/python -m tests.bench $(NAME)

# rivals that live in environments of their own: make env NAME=gptqmodel and NAME=bench come first
bench-extra: $(STAMP) .envs/gptqmodel/.installed-from-lock .envs/bench/.installed-from-lock
	$(BIN)/python -m tests.bench extra patch

# every GPU job on a model of 7B's widths, timed and held against what a cluster is asked for; NAME=gptq that one alone
bench-gpu: $(STAMP)
	$(GPU) -m tests.gpu.bench $(NAME)

# SmolLM2-135M through every method and bit-width; about two CPU hours, resumable
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

# llama.cpp's own server, a rival of `make bench-extra`: from the source that envs/judge.lock.txt pins; needs CMake and a
# C++ compiler, and takes some 20 CPU minutes
LLAMA := .envs/llama-server
$(LLAMA)/bin/llama-server: envs/judge.lock.txt $(STAMP)
	mkdir -p $(LLAMA)/source
	sed -n '/^llama-cpp-python==/,/[^\\]$$/p' $< > $(LLAMA)/source.txt
	$(BIN)/python -m pip download --quiet --no-deps --no-binary llama-cpp-python --require-hashes --dest $(LLAMA) -r $(LLAMA)/source.txt
	tar -xzf $(LLAMA)/llama_cpp_python-*.tar.gz --strip-components=1 -C $(LLAMA)/source
	cmake -S $(LLAMA)/source/vendor/llama.cpp -B $(LLAMA)/build -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF \
	    -DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF > $(LLAMA)/build.log
	cmake --build $(LLAMA)/build --target llama-server llama-quantize >> $(LLAMA)/build.log
	mkdir -p $(@D) && cp $(LLAMA)/build/bin/llama-server $(LLAMA)/build/bin/llama-quantize $(@D)/
	touch $@

# The code of AQLM's authors (Apache-2.0), the rival of `make bench NAME=aqlm_reference`
AQLM := .envs/aqlm-reference
AQLM_COMMIT := e79a896ed6656fe4ed06193d42d004e7d0bbdbb2
$(AQLM)/aq_engine.py:
	git clone --quiet --no-checkout https://github.com/Vahe1994/AQLM $(AQLM)
	git -C $(AQLM) checkout --quiet $(AQLM_COMMIT)
	touch $@

# A method's own environment: make env NAME=gptqmodel, from envs/gptqmodel.lock.txt into .envs/gptqmodel.
# What ships as source only is built here, by build tools from the package index.
env:
	@test -f envs/$(NAME).lock.txt || { echo "make env NAME=…: one of $(OTHER_ENVS)"; exit 2; }
	$(MAKE) .envs/$(NAME)/.installed-from-lock

OTHER_ENVS := $(filter-out core,$(patsubst envs/%.lock.txt,%,$(wildcard envs/*.lock.txt)))
.envs/%/.installed-from-lock: envs/%.lock.txt
	test -x .envs/$*/bin/python || $(PYTHON) -m venv .envs/$*
	! grep -q ' torch==' envs/$*.yaml || .envs/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-compile $(TORCH)
	.envs/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r $<
	.envs/$*/bin/python -m pip check
	touch $@

# Resolve the pip section of envs/core.yaml, or of envs/$(NAME).yaml, again (needs the network). What torch brings
# along stays out of the lock, unless the environment names it; all of it is locked where torch is not named.
OF_TORCH := ^(torch|triton|cuda-[a-z]+|nvidia-(cu|nccl|nv)[a-z0-9-]*)==
LOCK := $(or $(NAME),core)
# KEEP=1 holds to the versions of the lock that is there, as far as they still go together; INTO=… writes it elsewhere.
INTO := envs
lock: .envs/uv/bin/uv
	sed -n 's/^ *- \([A-Za-z_-]*==.*\)/\1/p' envs/$(LOCK).yaml > $(INTO)/$(LOCK).in
	$(if $(KEEP),cp envs/$(LOCK).lock.txt $(INTO)/$(LOCK).all)
	.envs/uv/bin/uv pip compile $(INTO)/$(LOCK).in --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --no-header --no-emit-index-url --no-emit-find-links --quiet --output-file $(INTO)/$(LOCK).all
	awk 'NR == FNR {named[$$0]; torch = torch || /^torch==/; next} \
	    /^[a-zA-Z]/ {keep = !torch || !/$(OF_TORCH)/ || ($$1 in named && !/^torch==/)} keep' \
	    $(INTO)/$(LOCK).in $(INTO)/$(LOCK).all > $(INTO)/$(LOCK).lock.txt
	rm $(INTO)/$(LOCK).in $(INTO)/$(LOCK).all

.envs/uv/bin/uv:
	$(PYTHON) -m venv .envs/uv
	.envs/uv/bin/python -m pip install --quiet uv==0.13.9
