"""LLaMA-Factory's arguments: what they become for the engine, and which are refused with the remedy."""

import json
from pathlib import Path

import pytest

from ascend_adapters.errors import ModelError, RequestError, SettingError
from llamafactory_ascend.checks import check_arguments
from llamafactory_ascend.generating import request_fields
from llamafactory_ascend.settings import engine_settings

OWN = {"do_sample": True, "temperature": 0.95, "top_p": 0.7, "top_k": 50, "num_beams": 1, "max_new_tokens": 1024}
DEFAULT = {
    "temperature": 0.95,
    "top_p": 0.7,
    "top_k": 50,
    "repetition_penalty": 1.0,
    "max_tokens": 1024,
    "skip_special_tokens": True,
}


@pytest.fixture
def model(tmp_path):
    config = {"model_type": "llama", "hidden_size": 64, "max_position_embeddings": 2048}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    return str(tmp_path / "model")


@pytest.fixture
def adapter(tmp_path, model):
    def make(name="adapter", **config):
        folder = tmp_path / name
        folder.mkdir()
        whole = {"peft_type": "LORA", "r": 8, "base_model_name_or_path": model, **config}
        (folder / "adapter_config.json").write_text(json.dumps(whole))
        (folder / "adapter_model.safetensors").touch()
        return str(folder)

    return make


def arguments(model, **given):
    from llamafactory.hparams import get_infer_args

    return get_infer_args({"model_name_or_path": model, "template": "llama3", "infer_backend": "ascend", **given})


@pytest.mark.parametrize(
    ("call", "changed"),
    [
        ({}, {}),
        ({"temperature": 0.1, "top_k": 3.0}, {"temperature": 0.1, "top_k": 3}),
        ({"temperature": None}, {}),
        ({"do_sample": False}, {"temperature": 0.0}),
        ({"top_p": 0.0, "top_k": 0}, {"top_p": 1.0, "top_k": -1}),
        ({"max_new_tokens": 7}, {"max_tokens": 7}),
        ({"max_length": 30}, {"max_tokens": 20}),
        ({"max_length": 5}, {"max_tokens": 1}),
        ({"num_return_sequences": 2, "do_sample": False}, {"n": 2}),
        ({"num_return_sequences": 2, "temperature": 0.0}, {"n": 2, "temperature": 1.0}),
        ({"stop": "x"}, {"stop": ["x"]}),
        ({"stop": ["x", "y"], "seed": 3}, {"stop": ["x", "y"], "seed": 3}),
        ({"num_beams": 1, "length_penalty": 1.0}, {}),
    ],
)
def test_generating_arguments_become_fields(call, changed):
    assert request_fields(OWN, call, num_prompt_tokens=10) == {**DEFAULT, **changed}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"temprature": 1}, "unknown generating argument 'temprature': these are do_sample, temperature"),
        ({"num_beams": 4}, "num_beams=4: the engine has no beam search"),
        ({"length_penalty": 0.5}, "length_penalty=0.5: the engine has no beam search"),
    ],
)
def test_generating_arguments_that_the_engine_does_not_have_are_refused_by_name(call, message):
    with pytest.raises(RequestError, match=message):
        request_fields(OWN, call, num_prompt_tokens=10)


def test_model_arguments_become_settings_of_the_engine(model, adapter):
    model_args, *_ = arguments(model, infer_dtype="float32")
    assert engine_settings(model_args, takes_media=False) == {"model": model, "dtype": "float32", "max_model_len": 2048}
    given = {"vllm_maxlen": 512, "vllm_gpu_util": 0.5, "vllm_enforce_eager": True}
    model_args, *_ = arguments(model, **given, vllm_config='{"max_num_seqs": 8, "dtype": "bfloat16"}')
    assert engine_settings(model_args, takes_media=False) == {
        "model": model,
        "dtype": "bfloat16",
        "max_model_len": 512,
        "gpu_memory_utilization": 0.5,
        "enforce_eager": True,
        "max_num_seqs": 8,
    }


def test_adapters_get_the_room_that_their_own_configurations_say(model, adapter):
    folders = f"{adapter('a')},{adapter('b', r=4, rank_pattern={'q_proj': 20})}"
    settings = engine_settings(
        arguments(model, adapter_name_or_path=folders, finetuning_type="lora")[0], takes_media=True
    )
    assert (settings["enable_lora"], settings["max_loras"], settings["max_lora_rank"]) == (True, 2, 32)
    assert settings["trust_request_chat_template"] is True
    assert settings["trust_request_chat_template"] is True


def test_a_server_is_asked_where_vllm_config_names_one(model):
    model_args, *_ = arguments(model, vllm_config='{"base_url": "http://127.0.0.1:8000"}')
    assert engine_settings(model_args, takes_media=False) == {"model": None, "base_url": "http://127.0.0.1:8000"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "is a IA3 adapter, and the engine loads LoRA only: merge it first: llamafactory-ascend"),
        ({"use_dora": True}, "is a DoRA adapter, which the engine cannot apply: merge it first"),
    ],
)
def test_adapters_of_another_kind_are_refused_with_the_remedy(model, adapter, config, message):
    model_args, _, finetuning_args, _ = arguments(model, adapter_name_or_path=adapter(**config))
    with pytest.raises(ModelError, match=message):
        check_arguments(model_args, finetuning_args)


def test_a_folder_without_an_adapter_is_refused(model, tmp_path):
    model_args, _, finetuning_args, _ = arguments(model, adapter_name_or_path=str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"nowhere' holds no adapter_config.json: give the output_dir of a training"):
        check_arguments(model_args, finetuning_args)


def test_pickled_weights_are_refused(model, adapter):
    folder = adapter()
    (Path(folder) / "adapter_model.safetensors").rename(Path(folder) / "adapter_model.bin")
    model_args, _, finetuning_args, _ = arguments(model, adapter_name_or_path=folder)
    with pytest.raises(ModelError, match=r"holds no adapter_model.safetensors: pickled weights are not loaded"):
        check_arguments(model_args, finetuning_args)


def test_an_adapter_of_another_model_is_refused(model, adapter, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "llama", "hidden_size": 128}')
    folder = adapter(base_model_name_or_path=str(tmp_path / "other"))
    model_args, _, finetuning_args, _ = arguments(model, adapter_name_or_path=folder)
    with pytest.raises(ModelError, match=r"is an adapter of .*other, not of model_name_or_path="):
        check_arguments(model_args, finetuning_args)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stage": "ppo"}, "stage='ppo': infer_backend=ascend is for stage 'sft'"),
        ({"quantization_bit": 4}, "quantization_bit=4 is bitsandbytes'"),
        (
            {"rope_scaling": "linear"},
            "rope_scaling='linear': the engine reads it from",
        ),
    ],
)
def test_what_the_engine_cannot_do_is_refused_with_the_remedy(model, given, message):
    from llamafactory.extras.constants import RopeScaling

    model_args, _, finetuning_args, _ = arguments(model)
    for name, value in given.items():
        known = RopeScaling(value) if name == "rope_scaling" else value
        setattr(finetuning_args if name == "stage" else model_args, name, known)
    with pytest.raises(SettingError, match=message):
        check_arguments(model_args, finetuning_args)
