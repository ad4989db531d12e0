"""vLLM's layers with our kernels: one layer at a time, so that int8 activations can be compared to the last bit."""

import pytest
import torch

from tests.quantized import AWQ_CONFIG, FORMATS, GPTQ_CONFIG, PER_TOKEN, W8A8_CONFIG, Int8Linear, compressed_tensors
from tests.quantized import integers as arguments

INT8 = [name for name, format in FORMATS.items() if format.int8_activations]


@pytest.fixture
def build(tmp_path):
    """Build a quantized layer as a model would, by the name of vLLM's class, in a world of one rank."""
    # Not at the top: importing vLLM takes seconds.
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import (
        cleanup_dist_env_and_memory,
        ensure_model_parallel_initialized,
        init_distributed_environment,
    )
    from vllm.model_executor.layers import linear

    from core_backend.layers import register_layers
    from core_backend.quantization.register import register_quantization

    def build(name, *sizes, prefix="x", **kwargs):
        settings = {"bias": False, "params_dtype": torch.float32, "return_bias": False, "disable_tp": True}
        return getattr(linear, name)(*sizes, prefix=prefix, **settings, **kwargs)

    register_layers()
    register_quantization()
    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{tmp_path}/store", 0, "gloo")
        ensure_model_parallel_initialized(1, 1)
        yield build
        cleanup_dist_env_and_memory()


def read(config):
    """The configuration that vLLM makes of a checkpoint's."""
    return read_as(config["quant_method"], config)


def read_as(method, config):
    from vllm.model_executor.layers.quantization import get_quantization_config

    return get_quantization_config(method).from_config(config)


def config_of(name):
    if FORMATS[name].description:
        return read_as("ascend", {"x.weight": "W8A8_DYNAMIC"})
    return read(FORMATS[name].config)


def load(layer, stored, *shard):
    for name, values in stored.items():
        parameter = getattr(layer, name)
        parameter.weight_loader(parameter, values, *shard)
    layer.quant_method.process_weights_after_loading(layer)


@pytest.mark.parametrize("name", INT8)
def test_a_layer_with_int8_activations_is_the_naive_formula_to_the_last_bit(build, name):
    torch.manual_seed(0)
    weight, x = torch.randn(48, 64), torch.randn(9, 64)
    stored, meant = FORMATS[name].store(weight)
    layer = build("ReplicatedLinear", 64, 48, quant_config=config_of(name))
    load(layer, stored)
    naive = Int8Linear(torch.nn.Linear(64, 48, bias=False), meant)
    torch.testing.assert_close(layer(x), naive(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", INT8)
def test_an_int8_weight_stays_in_8_bits(build, name):
    layer = build("ReplicatedLinear", 64, 48, quant_config=config_of(name))
    load(layer, FORMATS[name].store(torch.randn(48, 64))[0])
    assert layer.quantized_weight.dtype == torch.int8
    assert layer.weight.numel() == 0


@pytest.mark.parametrize("name", [name for name, format in FORMATS.items() if not format.int8_activations])
def test_weights_alone_become_a_plain_layer(build, name):
    torch.manual_seed(0)
    stored, meant = FORMATS[name].store(torch.randn(64, 128))
    config = config_of(name)
    config.modules_in_block_to_quantize = ["x"]  # which GPTQ's reads off the files
    layer = build("ReplicatedLinear", 128, 64, quant_config=config)
    load(layer, stored)
    assert torch.equal(layer.weight, meant)
    assert [parameter for parameter, _ in layer.named_parameters()] == ["weight"]


def test_matrices_with_one_scale_each_keep_it_in_a_merged_layer(build):
    torch.manual_seed(0)
    x = torch.randn(5, 32)
    gate, up = (torch.randint(-127, 128, (16, 32)).to(torch.int8) for _ in range(2))
    layer = build(
        "MergedColumnParallelLinear",
        32,
        [16, 16],
        quant_config=read(compressed_tensors("int-quantized", arguments(8, "tensor"), PER_TOKEN)),
    )
    for shard, (weight, scale) in enumerate(((gate, 0.01), (up, 0.03))):
        for name, values in {"weight": weight, "weight_scale": torch.tensor([scale])}.items():
            parameter = getattr(layer, name)
            parameter.weight_loader(parameter, values, shard)
    layer.quant_method.process_weights_after_loading(layer)
    scale = x.abs().amax(1, keepdim=True) / 127
    rounded = (x / scale).round() * scale
    expected = torch.cat([rounded @ gate.float().t() * 0.01, rounded @ up.float().t() * 0.03], 1)
    torch.testing.assert_close(layer(x), expected)


def test_modelslims_weight_with_zero_points_is_refused(build):
    stored = FORMATS["ModelSlim W8A8_DYNAMIC"].store(torch.randn(48, 64))[0]
    layer = build("ReplicatedLinear", 64, 48, quant_config=config_of("ModelSlim W8A8_DYNAMIC"))
    with pytest.raises(NotImplementedError, match=r"zero points \(weight_offset\)"):
        load(layer, stored | {"weight_offset": torch.ones(48, 1)})


def test_modelslims_description_must_name_every_layer(build):
    config = read_as("ascend", {"x.weight": "W8A8_DYNAMIC"})
    config.packed_modules_mapping = {"x": ["q", "k"]}
    with pytest.raises(ValueError, match=r"x is one layer of q, k, of which the description says \['nothing'\]"):
        build("ReplicatedLinear", 64, 48, quant_config=config)


@pytest.mark.parametrize("config", [W8A8_CONFIG, AWQ_CONFIG, GPTQ_CONFIG], ids=["compressed-tensors", "awq", "gptq"])
def test_quantized_experts_are_refused_and_unquantized_ones_are_not(config):
    from vllm.model_executor.layers.fused_moe import RoutedExperts

    from core_backend.quantization.register import register_quantization

    register_quantization()
    experts, name = RoutedExperts.__new__(RoutedExperts), "model.layers.0.mlp.experts"
    quantization = read(config | {"ignore": []})
    quantization.modules_in_block_to_quantize = [f"{name}.0.up_proj"]
    with pytest.raises(NotImplementedError, match="a mixture of experts quantized by"):
        quantization.get_quant_method(experts, name)
    quantization = read(config | {"ignore": ["re:.*experts.*"], "modules_to_not_convert": ["experts"]})
    quantization.modules_in_block_to_quantize = ["model.layers.0.self_attn.q_proj"]
    assert quantization.get_quant_method(experts, name) is None


@pytest.mark.parametrize(
    "quantization",
    [
        lambda: read(W8A8_CONFIG | {"ignore": []}),
        lambda: read_as("ascend", {"lm_head.weight": "W8A8_DYNAMIC"}),
    ],
    ids=["compressed-tensors", "ModelSlim"],
)
def test_a_quantized_lm_head_is_refused(quantization):
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

    from core_backend.quantization.register import register_quantization

    register_quantization()
    head = ParallelLMHead.__new__(ParallelLMHead)
    with pytest.raises(NotImplementedError, match="a quantized lm_head"):
        quantization().get_quant_method(head, "lm_head")


def test_layers_of_one_model_may_be_quantized_differently(build):
    torch.manual_seed(0)
    int8, int4 = FORMATS["compressed-tensors W8A8"], FORMATS["compressed-tensors W4A16"]
    groups = {
        "int8": int8.config["config_groups"]["group_0"] | {"targets": ["re:.*q"], "format": "int-quantized"},
        "int4": int4.config["config_groups"]["group_0"] | {"targets": ["re:.*x"], "format": "pack-quantized"},
    }
    quantization = read(W8A8_CONFIG | {"format": "mixed-precision", "config_groups": groups})
    assert quantization.chip_features == ("W8A8 dynamic",)
    layer = build("ReplicatedLinear", 128, 64, quant_config=quantization)
    stored, meant = int4.store(torch.randn(64, 128))
    load(layer, stored)
    assert torch.equal(layer.weight, meant)
    other = build("ReplicatedLinear", 128, 64, quant_config=quantization, prefix="q")
    load(other, int8.store(torch.randn(64, 128))[0])
    assert other.quantized_weight.dtype == torch.int8
