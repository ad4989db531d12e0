"""A GGUF file of a llama model with SmolLM's tokenizer, as a Hugging Face folder in bf16.

Run as `python -m ascend_adapters.gguf_folder GGUF FOLDER`; imports torch and transformers, so nothing imports it.

The tokenizer is built here from the GGUF's own tables: the one transformers 5.5 makes of them takes the model
for CodeLlama, with digits joined, a start token before every text, and five tokens the model does not have.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

CONTROL_TOKEN = 3  # gguf's TokenType.CONTROL
PRE_TOKENIZER = "smollm"


def main() -> None:
    """Convert sys.argv[1] into the folder sys.argv[2]."""
    convert(Path(sys.argv[1]), Path(sys.argv[2]))


def convert(gguf: Path, folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer. Raises ValueError for another tokenizer's GGUF."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    tokenizer = build_tokenizer(_tokenizer_fields(gguf), model.config.max_position_embeddings)
    if tokenizer.eos_token_id != model.config.eos_token_id:
        raise ValueError(
            f"the tokenizer ends answers with {tokenizer.eos_token_id}, the model with {model.config.eos_token_id}."
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def build_tokenizer(fields: dict[str, Any], max_length: int) -> "PreTrainedTokenizerFast":
    """SmolLM's tokenizer: byte-level BPE, every digit by itself, nothing added around a text."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    if fields["pre"] != PRE_TOKENIZER:
        raise ValueError(f"the GGUF's pre-tokenizer is {fields['pre']!r}; only {PRE_TOKENIZER!r} is known here.")
    tokens: list[str] = fields["tokens"]
    tokenizer = Tokenizer(
        BPE({token: i for i, token in enumerate(tokens)}, [tuple(merge.split(" ")) for merge in fields["merges"]])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, fields["token_type"], strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[fields["bos_token_id"]],
        eos_token=tokens[fields["eos_token_id"]],
        pad_token=tokens[fields["padding_token_id"]],
        unk_token=tokens[fields["unknown_token_id"]],
        model_max_length=max_length,
        chat_template=fields["chat_template"],
    )


def _tokenizer_fields(gguf: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    start = ("tokenizer.ggml.", "tokenizer.")
    fields = {name: field.contents() for name, field in GGUFReader(gguf).fields.items() if name.startswith(start[1])}
    return {name.removeprefix(start[0]).removeprefix(start[1]): value for name, value in fields.items()}


if __name__ == "__main__":
    main()
