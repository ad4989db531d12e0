"""What LLaMA-Factory checks for its own vLLM engine, for ours: it looks at the name "vllm" only."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ascend_adapters.errors import ModelError, SettingError

if TYPE_CHECKING:
    from llamafactory.hparams import FinetuningArguments, ModelArguments

WEIGHTS = "adapter_model.safetensors"
EXPORT = "merge it first: llamafactory-ascend export, with the same model_name_or_path and adapter_name_or_path"


def check_arguments(model_args: "ModelArguments", finetuning_args: "FinetuningArguments") -> None:
    """Raises SettingError for what the engine cannot do.

    Source: llamafactory 0.9.5, hparams/parser.py, get_infer_args.
    """
    if finetuning_args.stage not in ("sft", "rm"):
        raise SettingError(
            f"stage={finetuning_args.stage!r}: infer_backend=ascend is for stage 'sft', and 'rm' to score."
        )
    if model_args.quantization_bit is not None:
        raise SettingError(
            f"quantization_bit={model_args.quantization_bit} is bitsandbytes' or another quantization while loading, "
            "which the engine has not: leave it out, or give a model that is quantized already (docs/quantization.md)."
        )
    if model_args.rope_scaling is not None:
        raise SettingError(
            f"rope_scaling={model_args.rope_scaling.value!r}: the engine reads it from the model's config.json only. "
            "Write it there (rope_parameters), or leave it out."
        )
    for folder in model_args.adapter_name_or_path or []:
        check_adapter(folder, str(model_args.model_name_or_path))


def check_adapter(folder: str, model: str) -> None:
    """Raises ModelError if `folder` holds no LoRA adapter of `model` that the engine can load as it is."""
    config_file = Path(folder) / "adapter_config.json"
    if not config_file.is_file():
        raise ModelError(
            f"adapter_name_or_path={folder!r} holds no adapter_config.json: give the output_dir of a training with "
            "finetuning_type lora. A full or freeze-tuned model is model_name_or_path itself."
        )
    config = json.loads(config_file.read_text())
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{folder} is a {config.get('peft_type')} adapter, and the engine loads LoRA only: {EXPORT}.")
    if config.get("use_dora"):
        raise ModelError(f"{folder} is a DoRA adapter, which the engine cannot apply: {EXPORT}.")
    if not (Path(folder) / WEIGHTS).is_file():
        raise ModelError(f"{folder} holds no {WEIGHTS}: pickled weights are not loaded. Save it as safetensors.")
    base = config.get("base_model_name_or_path")
    if base and _is_another_model(base, model):
        raise ModelError(
            f"{folder} is an adapter of {base}, not of model_name_or_path={model}: give the model that it was trained "
            "with."
        )


def _is_another_model(base: str, model: str) -> bool:
    """By their configurations, where both are folders: one may have been moved or copied."""
    files = [Path(folder) / "config.json" for folder in (base, model)]
    if not all(file.is_file() for file in files):
        return False
    sizes = ("model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    first, second = (json.loads(file.read_text()) for file in files)
    return any(first.get(name) != second.get(name) for name in sizes)


def rank_of(folder: str) -> int:
    """The rank of a LoRA adapter, by its own configuration: the largest of its layers' ranks."""
    config = json.loads((Path(folder) / "adapter_config.json").read_text())
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
