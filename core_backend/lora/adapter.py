"""What an adapter's folder must hold to be served; whatever vLLM would leave out without a word is refused."""

import json
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError, safe_open
from vllm.config.lora import LoRAConfig, MaxLoRARanks

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MERGE = "merge it into the model's weights (peft: merge_and_unload), and serve those"

# Of peft's LoraConfig (0.18): what changes the result in a way that two small matrices per layer cannot express.
REFUSED = {
    "use_dora": "DoRA",
    "rank_pattern": "different ranks per layer (rank_pattern)",
    "alpha_pattern": "different scales per layer (alpha_pattern)",
    "modules_to_save": "whole layers of its own (modules_to_save)",
    "trainable_token_indices": "embeddings of single tokens (trainable_token_indices)",
    "lora_bias": "biases of its own (lora_bias)",
    "layer_replication": "replicated layers (layer_replication)",
    "alora_invocation_tokens": "activated LoRA (alora_invocation_tokens)",
    "use_qalora": "QA-LoRA",
    "target_parameters": "single parameters as targets (target_parameters)",
}
# Initializations that take something away from the model's own weights, until peft converts the adapter.
CHANGES_THE_MODEL = ("pissa", "olora", "corda", "loftq")


def check_folder(folder: Path) -> dict[str, Any]:
    """The adapter's configuration.

    Raises ValueError if the folder is missing, or holds no adapter in safetensors.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r} on the engine's machine: correct the path.")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{str(folder)!r} is no adapter's folder, it holds no {CONFIG}: correct the path.")
    if not (folder / WEIGHTS).is_file():
        raise ValueError(
            f"{str(folder)!r} holds no {WEIGHTS}, and nothing else is read: save the adapter in safetensors "
            "(peft: save_pretrained)."
        )
    try:
        with safe_open(folder / WEIGHTS, framework="pt"):
            pass
    except SafetensorError as error:
        raise ValueError(f"{str(folder / WEIGHTS)!r} cannot be read ({error}): copy it again.") from error
    try:
        config = json.loads((folder / CONFIG).read_text())
    except ValueError as error:
        raise ValueError(f"{str(folder / CONFIG)!r} is no JSON ({error}): save the adapter again.") from error
    if not isinstance(config, dict):
        raise ValueError(f"{str(folder / CONFIG)!r} is not an adapter's configuration: save the adapter again.")
    return config


def check_config(config: dict[str, Any], lora_config: LoRAConfig) -> None:
    """Raises ValueError for a kind of adapter that is not served, or a rank above the engine's limit."""
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise ValueError(f"it is of the kind {kind}, and only LORA is served: {MERGE}.")
    for name, what in REFUSED.items():
        if config.get(name):
            raise ValueError(f"it uses {what}, which is not served: {MERGE}.")
    if (bias := config.get("bias", "none")) != "none":
        raise ValueError(f"it has biases (bias={bias!r}), which are not served: {MERGE}.")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.startswith(CHANGES_THE_MODEL):
        raise ValueError(
            f"it was trained from init_lora_weights={start!r}, which changes the model's own weights: save it with "
            "peft's path_initial_model_for_weight_conversion."
        )
    rank = config.get("r")
    if not isinstance(rank, int) or rank < 1 or not isinstance(config.get("lora_alpha"), int | float):
        raise ValueError(
            f"its {CONFIG} gives r={rank!r} and lora_alpha={config.get('lora_alpha')!r}: save the adapter again."
        )
    check_rank(rank, lora_config)


def check_rank(rank: int, lora_config: LoRAConfig) -> None:
    """Raises ValueError for a rank above the engine's limit."""
    if rank <= lora_config.max_lora_rank:
        return
    large_enough = [allowed for allowed in get_args(MaxLoRARanks) if allowed >= rank]
    remedy = f"start the engine with max_lora_rank={min(large_enough)}" if large_enough else MERGE
    raise ValueError(
        f"its rank is {rank}, and this engine's limit is max_lora_rank={lora_config.max_lora_rank}: {remedy}."
    )
