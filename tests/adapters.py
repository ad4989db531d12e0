"""LoRA adapters with seeded random weights, made and saved by peft."""

import math
from pathlib import Path
from typing import Any

import torch

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LAYERS = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


def save_adapter(
    model_folder: Path, folder: Path, seed: int, *, auto_class: str = "AutoModelForCausalLM", **config: Any
) -> Path:
    """An adapter of the model in `model_folder`, strong enough to change most tokens."""
    # Not at the top: importing both takes seconds.
    import transformers
    from peft import LoraConfig, get_peft_model

    model = getattr(transformers, auto_class).from_pretrained(model_folder, dtype=torch.float32)
    adapted = get_peft_model(model, LoraConfig(**{"r": 8, "lora_alpha": 16, "target_modules": LAYERS, **config}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                std = 0.5 / math.sqrt(parameter.shape[-1])
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    # With the model's own weights of the embeddings next to the adapter's, as peft does by default.
    adapted.save_pretrained(folder, save_embedding_layers="embed_tokens" in config.get("target_modules", ()))
    return folder
