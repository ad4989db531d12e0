"""Tiny GGUF files: a Hugging Face model's weights in fp32 under llama.cpp's names, and a trained tokenizer's tables."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, pre_tokenizers, trainers
from tokenizers.models import BPE

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedModel

NORMAL, CONTROL, UNUSED = 1, 3, 5
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEXT = ["the weather in 1234 isn't what we'd like", "  two  spaces\n\nand é 日本 🙂", "The WEATHER'S fine, fine!\r\n"]


def vocabulary_and_merges() -> tuple[dict[str, int], list[str]]:
    """Of a byte-level BPE, trained on a few lines."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=317, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [" ".join(pair) for pair in model["merges"]]


def write(model: "PreTrainedModel", path: Path, architecture: str = "qwen2", **others: Any) -> Path:
    """A GGUF of the model. `others` are further fields, or other values, by their names with __ for dots."""
    # Not at the top, as importing it takes a second.
    from gguf import GGUFWriter

    config = model.config
    vocabulary, merges = vocabulary_and_merges()
    tokens = [*sorted(vocabulary, key=vocabulary.__getitem__), *MARKS]
    kinds = [CONTROL if token in MARKS else NORMAL for token in tokens]
    num_unused = config.vocab_size - len(tokens)
    fields: dict[str, Any] = {
        f"{architecture}.block_count": config.num_hidden_layers,
        f"{architecture}.context_length": config.max_position_embeddings,
        f"{architecture}.embedding_length": config.hidden_size,
        f"{architecture}.feed_forward_length": config.intermediate_size,
        f"{architecture}.attention.head_count": config.num_attention_heads,
        f"{architecture}.attention.head_count_kv": config.num_key_value_heads,
        f"{architecture}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{architecture}.rope.freq_base": config.rope_parameters["rope_theta"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens + [f"[PAD{i}]" for i in range(num_unused)],
        "tokenizer.ggml.token_type": kinds + [UNUSED] * num_unused,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
    }
    writer = GGUFWriter(path, architecture)
    for name, value in (fields | {name.replace("__", "."): value for name, value in others.items()}).items():
        _add(writer, name, value)
    _add_weights(writer, model, architecture)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: "GGUFWriter", name: str, value: Any) -> None:
    kinds = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    kinds.get(type(value), writer.add_array)(name, value)


def _add_weights(writer: "GGUFWriter", model: "PreTrainedModel", architecture: str) -> None:
    from gguf import MODEL_ARCH, get_tensor_name_map

    known = next(arch for arch in MODEL_ARCH if arch.name.lower() == architecture)
    names = get_tensor_name_map(known, model.config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), weight.float().numpy())
