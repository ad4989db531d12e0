"""The tokenizer in a GGUF file, built from the file's own tables: byte-level BPE with a known way to cut text first."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerFast

# gguf's TokenType
CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
BYTE_LEVEL_BPE = "gpt2"  # GGUF's name for it


def build_tokenizer(fields: dict[str, Any], max_length: int) -> "PreTrainedTokenizerFast":
    """Byte-level BPE that adds nothing around a text, of fields that check_tokenizer has let pass."""
    from tokenizers import AddedToken, Tokenizer, decoders, normalizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    about = _about(fields)
    tokens, kinds = about["tokens"], about["token_type"]
    vocabulary = {token: i for i, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != UNUSED}
    tokenizer = Tokenizer(BPE(vocabulary, [tuple(merge.split(" ")) for merge in about["merges"]]))
    if about["pre"] == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer(about["pre"])
    tokenizer.decoder = decoders.ByteLevel()
    for kind, add in ((CONTROL, tokenizer.add_special_tokens), (USER_DEFINED, tokenizer.add_tokens)):
        marks = [token for token, its_kind in zip(tokens, kinds, strict=True) if its_kind == kind]
        add([AddedToken(mark, special=kind == CONTROL, normalized=False) for mark in marks])
    names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    ids = {role: about.get(f"{name}_token_id") for role, name in names.items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{role: tokens[token_id] for role, token_id in ids.items() if token_id is not None},
        model_max_length=max_length,
        chat_template=fields.get("tokenizer.chat_template"),
    )


def check_tokenizer(fields: dict[str, Any]) -> None:
    """Raises ValueError for a tokenizer that is not built here."""
    about = _about(fields)
    remedy = "use the model's Hugging Face folder instead"
    if about["model"] != BYTE_LEVEL_BPE:
        raise ValueError(f"its tokenizer is {about['model']!r}, and only byte-level BPE is built here: {remedy}.")
    if about.get("pre") not in PRE_TOKENIZERS:
        known = " and ".join(PRE_TOKENIZERS)
        raise ValueError(f"its pre-tokenizer is {about.get('pre')!r}, and {known} are known here: {remedy}.")
    if about.get("add_bos_token"):
        raise ValueError(f"its tokenizer begins every text with a token, which is not built here: {remedy}.")


def _about(fields: dict[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("tokenizer.ggml."): value for name, value in fields.items()}


def _pre_tokenizer(name: str) -> "PreTokenizer":
    from tokenizers import Regex, pre_tokenizers

    pattern = PRE_TOKENIZERS[name]
    if pattern is None:
        parts = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    else:
        parts = [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    return pre_tokenizers.Sequence(parts)


# GGUF's name -> the pattern that cuts text; None: every digit by itself, and GPT-2's pattern.
PRE_TOKENIZERS: dict[str, str | None] = {
    "smollm": None,
    # transformers/models/qwen2/tokenization_qwen2.py
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}
