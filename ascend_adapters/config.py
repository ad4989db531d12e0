"""Engine settings: vLLM's own names, checked before anything is started."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascend_adapters.errors import SettingError
from ascend_adapters.vllm_names import closest, engine_settings

REFUSED = {"trust_remote_code": "it would run code that comes with the model; use a model that vLLM supports by itself"}

# What an engine of ours has unless its owner says otherwise.
DEFAULTS: dict[str, Any] = {
    "load_format": "safetensors",  # never a pickle
    "enable_prompt_tokens_details": True,  # usage tells cached tokens
    "disable_uvicorn_access_log": True,
    "middleware": "ascend_adapters.mistakes.AnswerMistakes",
    # An empty list would allow every host; no host can have this name (RFC 2606).
    "allowed_media_domains": ["none.invalid"],
}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of an embedded engine or server. Equal settings share one engine."""

    given: tuple[tuple[str, str], ...] = ()  # name, JSON of the value; sorted

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> "EngineSettings":
        """Raises SettingError for a name that vLLM does not know, a refused one, or a value that does not fit."""
        for name in given:
            if name in REFUSED:
                raise SettingError(f"{name} is refused: {REFUSED[name]}.")
            if name not in engine_settings():
                raise SettingError(f"unknown engine setting {name!r}{closest(name, engine_settings())}")
        if given.get("lora_modules") and not given.get("enable_lora"):
            raise SettingError("lora_modules are adapters to load, and the engine takes none: set enable_lora=True.")
        return cls(tuple(sorted((name, _as_json(name, value)) for name, value in given.items() if value is not None)))

    def as_dict(self) -> dict[str, Any]:
        """The given settings, without the defaults."""
        return {name: json.loads(value) for name, value in self.given}

    def differences(self, other: "EngineSettings") -> str:
        """What `other` has otherwise: "max_model_len=4096, here 2048"."""
        here, there = dict(self.given), dict(other.given)
        differing = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
        return "; ".join(f"{name}={there.get(name, 'default')}, here {here.get(name, 'default')}" for name in differing)

    def arguments(self, model_defaults: Mapping[str, Any] | None = None) -> list[str]:
        """The settings, defaults and those of the model included, as arguments of `vllm serve`."""
        settings = {**DEFAULTS, **(model_defaults or {}), **self.as_dict()}
        return [argument for name, value in settings.items() for argument in _arguments(name, value)]


def _as_json(name: str, value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, default=_path_as_text)
    except TypeError:
        raise SettingError(
            f"{name}={value!r} is a {type(value).__name__}: use numbers, text, lists or dicts, "
            "as on vLLM's command line (dtype='bfloat16', not torch.bfloat16)."
        ) from None


def _path_as_text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError


def _arguments(name: str, value: Any) -> list[str]:
    kind, option = engine_settings()[name], "--" + name.replace("_", "-")
    if kind in ("switch", "flag"):
        if not isinstance(value, bool):
            raise SettingError(f"{name}={value!r} must be True or False.")
        if value:
            return [option]
        return ["--no-" + option[2:]] if kind == "switch" else []
    if kind == "list":
        items = value if isinstance(value, list) else [value]
        return [option, *(_text(item) for item in items)]
    return [f"{option}={_text(value)}"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def engine_environment(is_local: bool, *, enable_lora: bool = False) -> dict[str, str]:
    """The environment of an engine process: this process's, with defaults for what is not set.

    is_local     the model is on this machine already: no hub need be asked
    enable_lora  adapters may be loaded and unloaded while it serves, by whoever may ask it for anything
    """
    environment = dict(os.environ)
    environment.setdefault("VLLM_NO_USAGE_STATS", "1")
    # Media come from allowed hosts, and not from wherever those redirect to.
    environment.setdefault("VLLM_MEDIA_URL_ALLOW_REDIRECTS", "0")
    # The engine's processes talk to each other on this machine only.
    environment.setdefault("VLLM_HOST_IP", "127.0.0.1")
    if is_local:
        environment.setdefault("HF_HUB_OFFLINE", "1")
    if enable_lora:
        environment.setdefault("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    return environment


def asks_for_lora(arguments: Sequence[str]) -> bool:
    """Whether arguments of `vllm serve` enable LoRA; the last one counts."""
    switches = {"--enable-lora": True, "--no-enable-lora": False}
    given = [switches[name] for argument in arguments if (name := argument.replace("_", "-")) in switches]
    return given[-1] if given else False
