# `make train`, `make compare`, `make docs` and `make test` each do everything on a fresh checkout; `make setup` is their
# first part.

PYTHON ?= python3
ARGS ?= attention=linear
COMPARE ?= experiment=paired name=quick layers=[full,window,linear] data.length=256 learning_rates=[0.001,0.004] \
  sweep.seconds=10 budget.seconds=30 extrapolate=[2] trainer.threads=1 hydra/launcher=joblib hydra.launcher.n_jobs=2
TESTS ?=
LOWEST ?= tests/genome tests/config tests/models tests/data tests/training \
  -k "test_fasta or test_vcf or test_compose or test_checkpoint or test_kmer_and_bpe or resumed"
INPUTS ?= 100000
KILLS ?= 100
SEED ?= 0
# Resolving and unpacking the lock takes the pip of Python 3.11 twice as long as this one.
PIP := pip==26.3
# Compiled as it is imported, and kept: compiling everything at its installation takes longer than installing it.
INSTALL := .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
export PYTHONDONTWRITEBYTECODE :=
BIN := .venv/bin
READY := .venv/ready

.PHONY: setup train compare docs lint test test-lowest kernels-3.6 fuzz kill clean

setup: $(READY)

$(READY): requirements-dev.lock requirements-torch.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "genoattn needs Python 3.11 or newer; try make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(INSTALL) '$(PIP)'
	$(INSTALL) --no-deps --require-hashes --requirement requirements-dev.lock
	$(INSTALL) --requirement requirements-torch.lock
	$(INSTALL) --no-build-isolation --no-deps --editable .
	$(BIN)/python -c 'import genoattn.cli.train, genoattn.cli.evaluate'
	touch $@

train: setup
	$(BIN)/python scripts/train.py $(ARGS)

compare: setup
	$(BIN)/python scripts/compare.py $(COMPARE)

docs: setup  # into site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

test: setup  # one thread a worker: two workers already fill two cores, as the documentation and the checks of the code do
	$(MAKE) --no-print-directory --jobs 2 docs lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal $(TESTS)

test-lowest: setup  # readers, configs, saved models and a resumed training under the lowest versions allowed
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check '$(PIP)'
	$(BIN)/python tests/lowest_versions.py | .venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-compile --requirement /dev/stdin
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --editable .
	PYTHONPATH=$(CURDIR) OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest --override-ini filterwarnings=default $(LOWEST)

kernels-3.6: setup  # the kernels under the oldest triton that is kept a baseline of, in a folder of its own
	test -d .triton-3.6 || $(BIN)/python -m pip install --quiet --no-deps --target .triton-3.6 triton==3.6.0
	PYTHONPATH=$(CURDIR)/.triton-3.6 $(BIN)/python -m genoattn kernels

fuzz: setup  # what is neither read right nor refused in a sentence lies in fuzz-faults/ afterwards
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --inputs $(INPUTS) --seed $(SEED)

kill: setup  # of a store build, a save, a training, a comparison, scores and calls: each must end with the same bits as without a kill
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.kill --kills $(KILLS) --seed $(SEED)

clean:
	rm -rf .venv .venv-lowest .triton-3.6 build fuzz-faults dist site runs wandb .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
