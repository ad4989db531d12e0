"""A model that thinks: random weights, held by a grammar to thoughts and an answer between Qwen3's marks."""

from pathlib import Path
from typing import Any

MARKS = {260: "<think>", 261: "</think>"}  # after the tokenizer's own 260 tokens
SETTINGS: dict[str, Any] = {
    "dtype": "float32",
    "kv_cache_memory_bytes": 64 << 20,
    "reasoning_parser": "qwen3",
    "structured_outputs_config": {"backend": "xgrammar", "enable_in_reasoning": True},
}
# Fields of a request. The bias makes it mark up its thoughts by the tokens that are there for it, not letter by letter.
FIELDS: dict[str, Any] = {
    "structured_outputs": {"regex": "<think>(two|one) steps</think>(Paris|Lyon)"},
    "logit_bias": {str(token): 100 for token in MARKS},
}
MAX_TOKENS = 60
THOUGHTS, ANSWERS = ("two steps", "one steps"), ("Paris", "Lyon")


def build_thinking_model(folder: Path) -> Path:
    """The model's folder."""
    # Not at the top: the features of other makers' classes run where they are not installed.
    from transformers import AutoTokenizer

    from tests.models import FAMILIES

    FAMILIES["Qwen3"].build(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(list(MARKS.values()))
    if tokenizer.convert_ids_to_tokens(list(MARKS)) != list(MARKS.values()):
        raise ValueError(f"the marks have other ids than {sorted(MARKS)}: the tokenizer of tests/models.py has changed")
    tokenizer.save_pretrained(folder)
    return folder
