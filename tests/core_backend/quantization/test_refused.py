"""What quantized models are refused by name, before anything is loaded: asked through vLLM's own configuration."""

import json

import pytest

from tests.models import FAMILIES
from tests.quantized import AWQ_CONFIG, GPTQ_CONFIG, PER_TOKEN, compressed_tensors, integers

STATIC = integers(8, "tensor")
FLOAT8 = {**integers(8, "channel"), "type": "float"}
W8A8 = compressed_tensors("int-quantized", integers(8, "channel"), PER_TOKEN)
W4A16 = compressed_tensors("pack-quantized", integers(4, "group", group_size=32))


@pytest.fixture
def start(tmp_path):
    """Build the engine's configuration for a model that claims to be quantized so."""
    # Not at the top: importing vLLM takes seconds.
    from vllm.engine.arg_utils import EngineArgs

    FAMILIES["LLaMA"].config().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["LlamaForCausalLM"]}

    def start(checkpoint=None, description=None, **settings):
        quantized = {"quantization_config": checkpoint} if checkpoint else {}
        (tmp_path / "config.json").write_text(json.dumps(config | quantized))
        if description:
            (tmp_path / "quant_model_description.json").write_text(json.dumps(description))
        arguments = EngineArgs(str(tmp_path), skip_tokenizer_init=True, dtype="bfloat16", max_model_len=64, **settings)
        return arguments.create_engine_config()

    return start


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "quantization fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "quantization bitsandbytes"),
        ({"quant_method": "auto-round", "bits": 4}, "quantization inc"),
        ({"quant_method": "mxfp4"}, "quantization mxfp4"),
        (compressed_tensors("float-quantized", FLOAT8, {**PER_TOKEN, "type": "float"}), "8-bit floating point"),
        (compressed_tensors("int-quantized", integers(8, "channel"), STATIC), "static activations"),
        (
            compressed_tensors("int-quantized", integers(8, "channel"), PER_TOKEN | {"symmetric": False}),
            "W8A8 with zero points",
        ),
        (compressed_tensors("int-quantized", integers(4, "channel"), PER_TOKEN), "4-bit weights with 8-bit activ"),
        (compressed_tensors("int-quantized", integers(8, "channel")), "8-bit weights per channel in the packing int-"),
        (compressed_tensors("pack-quantized", integers(2, "channel")), "2-bit weights per channel"),
        (W8A8 | {"kv_cache_scheme": integers(8, "tensor")}, "a quantized KV cache"),
        (W4A16 | {"transform_config": {"config_groups": {"R1": {}}}}, "transformed activations"),
        (AWQ_CONFIG | {"bits": 3}, "awq with 3 bits"),
        (AWQ_CONFIG | {"version": "gemv"}, "awq in the version gemv"),
        (AWQ_CONFIG | {"zero_point": False}, "awq without zero points"),
        (GPTQ_CONFIG | {"bits": 3}, "gptq with 3 bits"),
        (GPTQ_CONFIG | {"checkpoint_format": "marlin"}, "gptq in the format marlin, which only a GPU reads"),
        (GPTQ_CONFIG | {"is_marlin_format": True}, "gptq in the format marlin"),
        (GPTQ_CONFIG | {"dynamic": {"+:.*q_proj": {"bits": 8}}}, "settings of its own for some layers"),
        (GPTQ_CONFIG | {"lm_head": True}, "gptq with a quantized lm_head"),
    ],
)
def test_formats_without_layers_here_are_refused_with_what_is_supported(start, checkpoint, message):
    with pytest.raises(NotImplementedError, match=f"{message}.* is not supported here: .*Supported are compressed-ten"):
        start(checkpoint)


@pytest.mark.parametrize("name", ["fp8", "bitsandbytes", "int8_per_channel_weight_only", "gguf", "awq_marlin"])
def test_what_vllm_could_do_on_other_devices_is_refused(start, name):
    with pytest.raises(NotImplementedError, match=f"quantization {name} is not supported here"):
        start(quantization=name)


def test_a_gguf_files_own_reader_is_told_of_the_conversion(start):
    with pytest.raises(NotImplementedError, match=r"give the \.gguf file to ascend-adapters"):
        start(quantization="gguf")


FLOAT = {"model.embed_tokens.weight": "FLOAT"}
LAYER = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({f"{LAYER}.weight": "W8A8"}, "ModelSlim's W8A8 is not supported here: quantize the model as W8A8_DYNAMIC"),
        ({f"{LAYER}.weight": "W4A4_DYNAMIC", "lm_head.weight": "W8A8_MIX"}, "ModelSlim's W4A4_DYNAMIC, W8A8_MIX"),
        ({"kv_quant_type": "C8"}, "ModelSlim's kv_quant_type C8"),
        ({"fa_quant_type": "FAKQuant"}, "ModelSlim's fa_quant_type FAKQuant"),
        (
            {"model.layers.0.mlp.experts.3.up_proj.weight": "W8A8_DYNAMIC"},
            "a mixture of experts quantized by ModelSlim",
        ),
        (
            {"model.layers.0.input_layernorm.bias": "FLOAT"},
            "a bias that ModelSlim's outlier suppression added",
        ),
    ],
)
def test_modelslims_other_kinds_are_refused(start, description, message):
    with pytest.raises(NotImplementedError, match=message):
        start(description=FLOAT | description)


def test_modelslims_folder_is_recognized_and_may_be_named_as_vllm_ascend_does(start):
    description = FLOAT | {f"{LAYER}.weight": "W8A8_DYNAMIC"}
    for settings in ({}, {"quantization": "ascend"}):
        config = start(description=description, **settings)
        assert config.model_config.quantization == "ascend"
        assert config.quant_config.kinds == description


def test_a_description_inside_config_json_is_read_too(start):
    description = FLOAT | {f"{LAYER}.weight": "W8A8_DYNAMIC"}
    config = start({"model_quant_type": "W8A8_DYNAMIC"} | description)
    assert config.quant_config.kinds == description


def test_a_folder_that_is_not_modelslims_is_not_taken_for_one(start):
    with pytest.raises(ValueError, match=r"quantization=ascend is for folders with ModelSlim's quant_model_desc"):
        start(quantization="ascend")


def test_an_unquantized_model_stays_one(start):
    config = start()
    assert config.model_config.quantization is None
    assert config.quant_config is None
