"""That vLLM builds our layers, and that their weights are kept as they should be."""

import pytest
import torch


@pytest.fixture
def build(tmp_path):
    """Build a layer as a model would, in a world of one rank."""
    # Not at the top: importing vLLM takes seconds.
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import (
        cleanup_dist_env_and_memory,
        ensure_model_parallel_initialized,
        init_distributed_environment,
    )

    from core_backend.layers import register_layers

    register_layers()
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{tmp_path}/store", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)
        yield lambda layer_cls, *args, **kwargs: layer_cls(*args, **kwargs)
        cleanup_dist_env_and_memory()


def linear_of(build, dtype):
    from vllm.model_executor.layers.linear import ReplicatedLinear

    layer = build(ReplicatedLinear, 32, 48, bias=False, params_dtype=dtype, return_bias=False, disable_tp=True)
    layer.weight.data.normal_()
    weight = layer.weight.data.clone()
    layer.quant_method.process_weights_after_loading(layer)
    return layer, weight


def test_vllm_builds_our_layers(build):
    from vllm.model_executor.layers.activation import SiluAndMul
    from vllm.model_executor.layers.layernorm import RMSNorm
    from vllm.model_executor.layers.linear import ReplicatedLinear

    assert type(build(RMSNorm, 8)).__name__ == "AscendRMSNorm"
    assert type(build(SiluAndMul)).__name__ == "AscendSiluAndMul"
    assert type(build(ReplicatedLinear, 8, 8, disable_tp=True)).__name__ == "AscendReplicatedLinear"


def test_a_weight_that_is_not_packed_stays_where_it_was(build):
    layer, weight = linear_of(build, torch.float32)
    assert torch.equal(layer.weight, weight)
    assert not hasattr(layer, "packed_weight")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_linear_layer_computes_with_its_weight_which_is_held_once(build, dtype):
    layer, weight = linear_of(build, dtype)
    x = torch.randn(5, 32).to(dtype)
    with torch.inference_mode():
        torch.testing.assert_close(layer(x).float(), x.float() @ weight.float().T, rtol=0.02, atol=0.05)
    held = layer.weight.numel() + (weight.numel() if hasattr(layer, "packed_weight") else 0)
    assert held == weight.numel()
