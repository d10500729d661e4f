# Every target makes what it needs: `make demo` and `make test` work on a machine with nothing but Python 3.11+, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# On all cores, which pip does not; and also where Python is told not to write what it compiles, so that each process would compile it anew.
COMPILE := $(BIN)/python -m compileall -q -j 0
# A variable's option: --seeds '0-4' for SEEDS=0-4, nothing for nothing.
flag = $(if $($(1)),--$(shell echo $(1) | tr A-Z a-z) '$($(1))')

.DEFAULT_GOAL := help
.PHONY: help env demo test test-slow fuzz test-slurm test-gpu chaos bench bench-peers bench-latency bench-service bench-ablation bench-failures bench-fidelity bench-methods bench-pbt bench-sklearn bench-speculation bench-stopping bench-transfer bench-worker demo-gpu check format proto lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

env: $(STAMP) ## Create .venv with everything, pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a minute or two the first time)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --group dev --editable '.[server,postgres,dataframe,plot,demo,optuna,pytorch,lightning,keras,transformers,ray]'
	-$(COMPILE) -q -x '/tests/|/transformers/models/|/py312_' $(VENV)/lib
	@touch $@

demo: env ## Tune a small network on handwritten digits with two worker processes
	$(BIN)/python -m examples.digits.demo

demo-gpu: env ## Train small networks on one GPU in two slots at once; says what it found where there is none
	$(BIN)/python -m examples.gpu.demo

# One file's tests stay together: they share servers. Files come in their own order: those that take long first, short ones at the end. On
# two cores three processes are the quickest: tests often wait, for a lease to end or a process to start.
TEST_JOBS ?= 3
test: env ## Run all tests, in three processes (TEST_JOBS=4: in four)
	$(COMPILE) client worker server examples
	$(BIN)/python -m pytest -m "not slow and not chaos and not slurm and not gpu" -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

test-slow: env ## Run the long matrices
	$(BIN)/python -m pytest -m "slow and not gpu"

fuzz: env ## Give the tests of properties other examples than the usual ones (FUZZ: options for pytest)
	$(BIN)/python -m pytest -m "hypothesis and not chaos and not gpu" --hypothesis-profile=fuzz $(FUZZ)

# As root on Debian or Ubuntu: the packages bring munged, slurmctld and slurmd, which the test starts itself, on loopback.
test-slurm: env ## Run workers on a real Slurm of one machine (installs Debian's packages, as root)
	command -v slurmctld slurmd sbatch munged >/dev/null || { apt-get update && apt-get install --yes --no-install-recommends slurmctld slurmd slurm-client munge; }
	$(BIN)/python -m pytest -m slurm -v

test-gpu: env ## Run the policy gp-botorch and trainings on a GPU
	$(BIN)/python -c "import torch; torch.zeros(1, device='cuda')"
	$(BIN)/python -m pytest -m "gpu and not slow" -v

# For example: make chaos CHAOS="-k siege" ASKTELL_CHAOS_SEED=7
chaos: env ## Break replicas, databases and connections on purpose, in full (CHAOS: options for pytest)
	$(BIN)/python -m pytest -m chaos -s -v $(CHAOS)

check: env ## Format, lint, types, import contracts, protos, stale bindings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	$(BIN)/buf format proto --diff --exit-code
	$(BIN)/python proto/generate.py --check

format: env ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/buf format proto --write

# For example: make bench SUITES=sequential PROBLEMS=branin,levy8 SEEDS=0-1 TRIALS=25 PEERS=asktell RECORD=1
bench: env ## Compare with peers (SUITES, PROBLEMS, PEERS, SEEDS, TRIALS, FULL=1, RECORD=1)
	$(BIN)/python -m benchmarks.bench $(foreach name,SUITES PROBLEMS PEERS SEEDS TRIALS,$(call flag,$(name))) $(if $(FULL),--full) $(if $(RECORD),--record)

bench-latency: env ## Measure what an ask takes (ONLY=race,two-objectives,sizes,devices,cold-start,overhead,memory-growth)
	$(BIN)/python -m benchmarks.latency $(foreach name,ONLY SEEDS,$(call flag,$(name)))

bench-service: env ## Measure what the service takes and bears (ONLY=tells,histories,neighbours,prepared,renewals,crowd, RECORD=1)
	$(BIN)/python -m benchmarks.service $(call flag,ONLY) $(if $(RECORD),--record)

bench-worker: env ## Measure what a worker adds to its trainings, and how busy it keeps 16 slots (TRIALS, RECORD=1)
	$(BIN)/python -m benchmarks.worker $(call flag,TRIALS) $(if $(RECORD),--record)

bench-methods: env ## Compare the policies at large budgets (POLICIES, PROBLEMS, SEEDS, BUDGETS)
	$(BIN)/python -m benchmarks.methods $(foreach name,POLICIES PROBLEMS SEEDS BUDGETS,$(call flag,$(name)))

bench-pbt: env ## Compare population based training with constant parameters, at as many steps (SCHEDULES, POLICIES, SEEDS, SIZE, INTERVALS, STEPS)
	$(BIN)/python -m benchmarks.populations $(foreach name,SCHEDULES POLICIES SEEDS SIZE INTERVALS STEPS,$(call flag,$(name)))

bench-ablation: env ## Show what each ingredient of the engine brings (FAMILIES, INGREDIENTS, SEEDS, TRIALS, WORKERS, JOBS)
	$(BIN)/python -m benchmarks.ablation $(foreach name,FAMILIES INGREDIENTS SEEDS TRIALS WORKERS JOBS,$(call flag,$(name)))

bench-failures: env ## Show how the engine copes with trials that fail, by chance or in regions (PROBLEMS, RULES, SEEDS, TRIALS)
	$(BIN)/python -m benchmarks.failures $(foreach name,PROBLEMS RULES SEEDS TRIALS,$(call flag,$(name)))

bench-transfer: env ## Show what a warm start from an earlier study brings (PROBLEMS, SEEDS, TRIALS, RECORD=1)
	$(BIN)/python -m benchmarks.transfer $(foreach name,PROBLEMS SEEDS TRIALS,$(call flag,$(name))) $(if $(RECORD),--record)

bench-speculation: env ## Compare candidates prepared ahead with candidates chosen when asked (PROBLEMS, SEEDS, WORKERS, TRIALS)
	$(BIN)/python -m benchmarks.speculation $(foreach name,PROBLEMS SEEDS WORKERS TRIALS,$(call flag,$(name)))

bench-sklearn: env ## Compare searches over scikit-learn's estimators: random, Optuna's, asktell's (SEEDS, TRIALS, RECORD=1)
	$(BIN)/python -m benchmarks.searches $(foreach name,SEEDS TRIALS,$(call flag,$(name))) $(if $(RECORD),--record)

bench-stopping: env ## Compare stopping rules on simulated trainings, and with Optuna's Hyperband + TPE (FAMILIES, SEEDS, TRIALS, RULES, JOBS, RECORD=1)
	$(BIN)/python -m benchmarks.stopping $(foreach name,FAMILIES SEEDS TRIALS RULES JOBS,$(call flag,$(name))) $(if $(RECORD),--record)

bench-fidelity: env ## Compare a fidelity raised by rungs with whole trainings and with Optuna (FAMILIES, SEEDS, EPOCHS, JOBS; RECORD=1)
	$(BIN)/python -m benchmarks.fidelities $(foreach name,FAMILIES SEEDS EPOCHS JOBS,$(call flag,$(name))) $(if $(RECORD),--record)

bench-peers: .peers/optuna-ax/.installed .peers/hebo/.installed ## Install the peers, in environments of their own

.peers/%/.installed: benchmarks/requirements/%.txt
	@echo "Installing into $(@D) (some minutes)"
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --constraint $< torch
	$(@D)/bin/python -m pip install --quiet --no-deps --requirement $<
	@touch $@

proto: env ## Generate the Python bindings from proto/
	$(BIN)/python proto/generate.py

lock: ## Pin the newest versions that pyproject.toml allows in constraints.txt
	./deploy/lock.sh

clean: ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .peers
