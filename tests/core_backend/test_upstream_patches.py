"""Each patch runs twice safely, and fails loudly when its target has moved. In processes of their own."""

import json
import subprocess
import sys

import pytest

TARGETS = {
    "slot_mapping_without_triton": ("vllm.v1.worker.block_table", "_compute_slot_mapping_kernel"),
    "sampling_with_our_operator": ("vllm.v1.sample.ops.topk_topp_sampler", "apply_top_k_top_p"),
    "rejection_without_triton": ("vllm.v1.sample.rejection_sampler", "expand_kernel"),
    "drafting_without_triton": ("vllm.v1.spec_decode.llm_base_proposer", "eagle_prepare_inputs_padded_kernel"),
    "caches_of_a_draft_model": ("vllm.v1.worker.gpu_model_runner", "bind_kv_cache"),
    "cuda_streams_without_device": ("torch.cuda", "current_stream"),
    "inspect_model_in_process": ("vllm.model_executor.models.registry", "_run_in_subprocess"),
    "prefix_cache_by_adapter": ("vllm.v1.core.kv_cache_utils", "_gen_lora_extra_hash_keys"),
    "accelerator_without_device": ("torch.accelerator", "synchronize"),
    "latent_prefill_is_ours": ("vllm.model_executor.layers.attention.mla_attention", "get_mla_prefill_backend"),
    "load_balancing_on_our_devices": ("vllm.config.parallel", "current_platform"),
    "files_of_newer_sentence_transformers": ("vllm.transformers_utils.config", "get_hf_file_to_dict"),
    "layer_norms_of_bert": ("vllm.model_executor.model_loader.default_loader", "safetensors_weights_iterator"),
    "prompts_before_texts": ("vllm.entrypoints.pooling.embed.io_processor.EmbedIOProcessor", "_has_chat_template"),
    "windows_and_angles_of_modern_bert": ("vllm.model_executor.models.modernbert", "EncoderOnlyAttention"),
}
# A process for each, forked from one that has imported vLLM, which takes seconds. Prints what failed in each.
CHECKS = """
import json, os, sys, traceback
from pkgutil import resolve_name

targets = {patch: (resolve_name(module), name) for patch, (module, name) in json.loads(sys.argv[1]).items()}
from core_backend import upstream_patches


def check(patch, module, name):
    untouched = object()
    setattr(module, name, untouched)
    patch(), patch()
    assert getattr(module, name) != untouched, "it replaces its target"
    delattr(module, name)
    try:
        patch()
    except RuntimeError as error:
        assert "has moved: core_backend is written for vLLM 0.23.0" in str(error), error
    else:
        raise AssertionError("a moved target is not noticed")


failures = {}
for patch, target in targets.items():
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            check(getattr(upstream_patches, patch), *target)
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        os._exit(0)
    os.close(writing)
    failures[patch] = os.fdopen(reading).read()
    os.wait()
print(json.dumps(failures))
"""


@pytest.fixture(scope="module")
def failures():
    done = subprocess.run([sys.executable, "-c", CHECKS, json.dumps(TARGETS)], text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("patch", TARGETS)
def test_it_may_be_applied_twice_and_names_a_target_that_moved(failures, patch):
    assert failures[patch] == ""
