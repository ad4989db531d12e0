"""A GGUF file as a Hugging Face folder in bf16.

Run as `python -m ascend_adapters.gguf_folder GGUF FOLDER`; imports torch and transformers, so nothing imports it.

transformers reads the weights. What it would read wrongly is refused: scaled rotary embeddings and heads of their own
size, which it drops, and tokenizers that are not built here. The one transformers 5.5 makes of SmolLM's tables takes
the model for CodeLlama, with digits joined, a start token before every text, and five tokens the model does not have.
"""

import sys
from pathlib import Path
from typing import Any

from ascend_adapters.gguf_tokenizer import build_tokenizer, check_tokenizer

ARCHITECTURES = ("llama", "qwen2", "qwen3")
QWEN3_HEAD_SIZE = 128
REMEDY = "use the model's Hugging Face folder instead"


def main() -> None:
    """Convert sys.argv[1] into the folder sys.argv[2]."""
    convert(Path(sys.argv[1]), Path(sys.argv[2]))


def convert(gguf: Path, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer. Raises ValueError for what cannot be read rightly."""
    fields = _checked_fields(gguf)
    check_tokenizer(fields)
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    tokenizer = build_tokenizer(fields, model.config.max_position_embeddings)
    if tokenizer.eos_token_id != model.config.eos_token_id:
        raise ValueError(
            f"the tokenizer ends answers with {tokenizer.eos_token_id}, the model with {model.config.eos_token_id}: "
            f"{REMEDY}."
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _checked_fields(gguf: Path) -> dict[str, Any]:
    """What the file says of its model. Raises ValueError if it is of a kind that is not converted."""
    from gguf import GGUFReader

    reader = GGUFReader(gguf)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    architecture = fields["general.architecture"]
    if architecture not in ARCHITECTURES:
        raise ValueError(f"its architecture is {architecture!r}, and {', '.join(ARCHITECTURES)} are known: {REMEDY}.")
    if fields.get("split.count", 1) > 1:
        raise ValueError(f"it is one of {fields['split.count']} parts: join them (gguf-split --merge), or {REMEDY}.")
    scaling = fields.get(f"{architecture}.rope.scaling.type", "none")
    if scaling != "none" or any(tensor.name == "rope_freqs.weight" for tensor in reader.tensors):
        raise ValueError(f"its rotary embedding is scaled, which would be lost: {REMEDY}.")
    size = fields.get(f"{architecture}.attention.key_length", _head_size(fields, architecture))
    if size != _head_size(fields, architecture):
        raise ValueError(f"its heads have {size} elements, which would be lost: {REMEDY}.")
    return fields


def _head_size(fields: dict[str, Any], architecture: str) -> int:
    """What transformers takes for the size of a head, whatever the file says (5.5, integrations/ggml.py)."""
    if architecture == "qwen3":
        return QWEN3_HEAD_SIZE
    return int(fields[f"{architecture}.embedding_length"]) // int(fields[f"{architecture}.attention.head_count"])


if __name__ == "__main__":
    main()
