from pathlib import Path

import pytest

from ascend_adapters.config import EngineSettings, asks_for_lora, engine_environment
from ascend_adapters.errors import SettingError


def arguments(**settings):
    return EngineSettings.from_dict(settings).arguments()


def test_settings_become_vllms_arguments():
    given = arguments(dtype="float32", max_model_len=512, enable_prefix_caching=False, enable_lora=True)
    assert "--dtype=float32" in given
    assert "--max-model-len=512" in given
    assert "--no-enable-prefix-caching" in given
    assert "--enable-lora" in given


def test_dicts_are_given_as_json_and_paths_as_text():
    assert '--hf-overrides={"a": 1}' in arguments(hf_overrides={"a": 1})
    assert "--download-dir=/models" in arguments(download_dir=Path("/models"))


def test_pickled_weights_and_foreign_hosts_are_refused_unless_allowed():
    assert "--load-format=safetensors" in arguments()
    assert arguments()[-2:] == ["--allowed-media-domains", "none.invalid"]
    assert "--load-format=auto" in arguments(load_format="auto")


def test_equal_settings_are_equal_whatever_their_order():
    first = EngineSettings.from_dict({"dtype": "float32", "max_model_len": 512})
    assert first == EngineSettings.from_dict({"max_model_len": 512, "dtype": "float32"})
    assert hash(first) == hash(EngineSettings.from_dict({"max_model_len": 512, "dtype": "float32"}))
    assert first != EngineSettings.from_dict({"dtype": "float32"})


def test_none_means_not_given():
    assert EngineSettings.from_dict({"dtype": None}) == EngineSettings()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_mode_len": 512}, "'max_mode_len': did you mean 'max_model_len'"),
        ({"trust_remote_code": True}, "trust_remote_code is refused: it would run code"),
        ({"dtype": object()}, "dtype=.* is a object: use"),
        ({"enable_lora": "yes"}, "enable_lora='yes' must be True or False"),
    ],
)
def test_a_bad_setting_is_named_with_the_remedy(settings, message):
    with pytest.raises(SettingError, match=message):
        arguments(**settings)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], False),
        (["--dtype", "float32", "--enable-lora"], True),
        (["--enable_lora"], True),
        (["--enable-lora", "--no-enable-lora"], False),
        (["--lora-modules", "a=/path"], False),
    ],
)
def test_adapters_may_be_loaded_where_the_command_line_enables_lora(arguments, expected):
    assert asks_for_lora(arguments) is expected
    environment = engine_environment(False, enable_lora=expected)
    assert environment.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") == ("1" if expected else None)


def test_adapters_for_an_engine_that_takes_none_are_refused():
    with pytest.raises(SettingError, match=r"lora_modules are adapters to load.*set enable_lora=True"):
        EngineSettings.from_dict({"lora_modules": ["a=/path"]})
