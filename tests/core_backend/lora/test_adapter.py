"""Adapters that are not served are refused by name, with what to do."""

import json

import pytest
import torch
from safetensors.torch import save_file

PLAIN = {"peft_type": "LORA", "r": 16, "lora_alpha": 32, "bias": "none", "use_dora": False, "rank_pattern": {}}


@pytest.fixture(scope="module")
def check_config():
    """Checks a configuration for an engine that takes ranks up to 16."""
    # Not at the top: importing vLLM takes seconds.
    from vllm.config.lora import LoRAConfig

    from core_backend.lora.adapter import check_config

    limits = LoRAConfig(max_lora_rank=16)
    return lambda config: check_config(config, limits)


@pytest.fixture(scope="module")
def check_folder():
    from core_backend.lora.adapter import check_folder

    return check_folder


def test_a_plain_adapter_is_served(check_config):
    check_config(PLAIN)
    check_config({**PLAIN, "init_lora_weights": "gaussian", "use_rslora": True})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"r": 64}, r"its rank is 64, and this engine's limit is max_lora_rank=16: .*with max_lora_rank=64"),
        ({"r": 17}, "rank is 17.*start the engine with max_lora_rank=32"),
        ({"r": 1000}, "rank is 1000.*merge it into the model's weights"),
        ({"use_dora": True}, "it uses DoRA, which is not served: merge it into the model's weights"),
        ({"rank_pattern": {"q_proj": 4}}, "different ranks per layer .rank_pattern.*merge"),
        ({"alpha_pattern": {"q_proj": 4}}, "different scales per layer .alpha_pattern.*merge"),
        ({"modules_to_save": ["lm_head"]}, "whole layers of its own .modules_to_save.*merge"),
        ({"bias": "all"}, "it has biases .bias='all'.*merge"),
        ({"peft_type": "IA3"}, "it is of the kind IA3, and only LORA is served: merge"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4', which changes the model's own weights: save it"),
        ({"r": "8"}, "gives r='8' and lora_alpha=32: save the adapter again"),
        ({"lora_alpha": None}, "gives r=16 and lora_alpha=None: save the adapter again"),
    ],
)
def test_what_an_adapter_may_not_have(check_config, given, message):
    with pytest.raises(ValueError, match=message):
        check_config({**PLAIN, **given})


def folder_with(tmp_path, **files):
    for name, content in files.items():
        (tmp_path / name.replace("__", ".")).write_text(content)
    return tmp_path


def test_a_folder_gives_its_configuration(check_folder, tmp_path):
    folder = folder_with(tmp_path, adapter_config__json=json.dumps(PLAIN))
    save_file({"lora_A": torch.ones(1)}, folder / "adapter_model.safetensors")
    assert check_folder(folder) == PLAIN


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "is no adapter's folder, it holds no adapter_config.json: correct the path"),
        ({"adapter_config__json": "{}"}, "holds no adapter_model.safetensors, and nothing else is read: save"),
        ({"adapter_config__json": "{}", "adapter_model__bin": ""}, "holds no adapter_model.safetensors"),
        ({"adapter_config__json": "{}", "adapter_model__safetensors": "{}"}, "cannot be read .*: copy it again"),
    ],
)
def test_what_is_no_adapters_folder(check_folder, tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        check_folder(folder_with(tmp_path, **files))


@pytest.mark.parametrize(
    ("config", "message"),
    [("{", "is no JSON .*: save the adapter again"), ("[]", "is not an adapter's configuration: save")],
)
def test_what_is_no_configuration(check_folder, tmp_path, config, message):
    folder = folder_with(tmp_path, adapter_config__json=config)
    save_file({"lora_A": torch.ones(1)}, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=message):
        check_folder(folder)


def test_a_missing_folder(check_folder, tmp_path):
    with pytest.raises(ValueError, match=r"there is no folder '.*nowhere' on the engine's machine: correct the path"):
        check_folder(tmp_path / "nowhere")
