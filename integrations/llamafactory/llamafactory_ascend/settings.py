"""LLaMA-Factory's model arguments to settings of an engine by vLLM's names."""

import json
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ascend_adapters.errors import SettingError
from llamafactory_ascend.checks import rank_of

if TYPE_CHECKING:
    from llamafactory.hparams import ModelArguments

# The ranks that vLLM 0.23 has room for (vllm.config.lora, MaxLoRARanks).
MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)


def engine_settings(model_args: "ModelArguments", takes_media: bool) -> dict[str, Any]:
    """What ascend_adapters.open_backend takes, model included.

    takes_media  whether prompts go with pictures, videos or sounds, in requests that have a chat template of their own

    vllm_maxlen, vllm_gpu_util and vllm_enforce_eager count where they differ from LLaMA-Factory's defaults, which are
    made for one large GPU; vllm_config counts last. With base_url in vllm_config, a server is asked.

    Raises SettingError for adapters that the engine has no room for.
    """
    given = model_args.vllm_config or {}
    if not isinstance(given, dict):
        raise SettingError(f"vllm_config={given!r} is no JSON object: write it as '{{\"max_num_seqs\": 8}}'.")
    if "base_url" in given:
        return {"model": None, **given}
    settings: dict[str, Any] = {"model": str(model_args.model_name_or_path), "dtype": model_args.infer_dtype}
    for name, argument in (
        ("max_model_len", "vllm_maxlen"),
        ("gpu_memory_utilization", "vllm_gpu_util"),
        ("enforce_eager", "vllm_enforce_eager"),
    ):
        if (value := getattr(model_args, argument)) != _default(model_args, argument):
            settings[name] = value
    settings.setdefault("max_model_len", _default_length(model_args))
    if takes_media:
        settings["trust_request_chat_template"] = True
    if folders := model_args.adapter_name_or_path:
        settings |= {"enable_lora": True, "max_loras": len(folders), "max_lora_rank": _max_lora_rank(folders)}
    return {name: value for name, value in {**settings, **given}.items() if value is not None}


def _default(model_args: "ModelArguments", name: str) -> Any:
    return next(field.default for field in fields(model_args) if field.name == name)


def _default_length(model_args: "ModelArguments") -> int:
    """vllm_maxlen, or what the model can do if that is less."""
    config_file = Path(str(model_args.model_name_or_path)) / "config.json"
    config = json.loads(config_file.read_text()) if config_file.is_file() else {}
    longest = (config.get("text_config") or config).get("max_position_embeddings")
    return min(int(model_args.vllm_maxlen), int(longest)) if longest else int(model_args.vllm_maxlen)


def _max_lora_rank(folders: list[str]) -> int:
    rank = max(map(rank_of, folders))
    if rank > MAX_LORA_RANKS[-1]:
        raise SettingError(
            f"an adapter has rank {rank}, and the engine has room for {MAX_LORA_RANKS[-1]}: merge it "
            "(llamafactory-ascend export)."
        )
    return next(room for room in MAX_LORA_RANKS if room >= rank)
