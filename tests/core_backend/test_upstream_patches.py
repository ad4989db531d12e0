"""Each patch runs twice safely, and fails loudly when its target has moved. In processes of their own."""

import subprocess
import sys

import pytest

TARGETS = {
    "slot_mapping_without_triton": ("vllm.v1.worker.block_table", "_compute_slot_mapping_kernel"),
    "sampling_without_triton": ("vllm.v1.sample.ops.topk_topp_sampler", "HAS_TRITON"),
    "inspect_model_in_process": ("vllm.model_executor.models.registry", "_run_in_subprocess"),
    "accelerator_without_device": ("torch.accelerator", "synchronize"),
}


def run(patch, code):
    module, name = TARGETS[patch]
    setup = f"import {module} as module; from core_backend.upstream_patches import {patch} as patch; name = {name!r}"
    return subprocess.run([sys.executable, "-c", f"{setup}\n{code}"], text=True, capture_output=True)


@pytest.mark.parametrize("patch", TARGETS)
def test_it_may_be_applied_twice(patch):
    done = run(patch, "untouched = object(); setattr(module, name, untouched); patch(); patch()")
    assert done.returncode == 0, done.stderr
    done = run(
        patch, "setattr(module, name, untouched := object()); patch(); assert getattr(module, name) != untouched"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("patch", TARGETS)
def test_a_moved_target_is_named(patch):
    done = run(patch, "delattr(module, name); patch()")
    assert "has moved: core_backend is written for vLLM 0.23.0" in done.stderr
