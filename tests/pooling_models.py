"""Tiny pooling models of real architectures, as their makers publish them: with sentence-transformers' own files.

Weights are random and seeded, as in tests/models.py; the tokenizers take one token a byte.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing

from tests.models import CHAT_TEMPLATE, SEED, of_transformers, randomize

if TYPE_CHECKING:
    import transformers

VOCAB_SIZE = 320
MAX_LENGTH = 512
PROMPTS = {"query": "Instruct: find what answers\nQuery: ", "document": ""}
Task = Literal["embed", "score", "classify"]


@dataclass(frozen=True)
class PoolingFamily:
    """A kind of pooling model: what it is for, how its folder is made, and what the engine must be told."""

    name: str
    task: Task
    build: Callable[[Path], Path]
    settings: dict[str, Any] = field(default_factory=dict)  # of the engine, besides those of all families
    # Chip -> part of the message with which it is refused there.
    refused: dict[Literal["cpu", "910B3", "310P3"], str] = field(default_factory=dict)


@dataclass(frozen=True)
class Marks:
    """The special tokens of a tokenizer, in the order of their ids, and how a text and a pair are marked up."""

    tokens: dict[str, str]  # role, as transformers calls it -> token
    single: str
    pair: str
    has_token_types: bool = False
    chat_template: str | None = None


BERT = Marks(
    {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
    single="[CLS]:0 $A:0 [SEP]:0",
    pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
    has_token_types=True,
)
ROBERTA = Marks(
    {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>"},
    single="<s> $A </s>",
    pair="<s> $A </s> </s> $B </s>",
)
QWEN_EMBEDDING = Marks(
    {"pad_token": "<|endoftext|>", "eos_token": "<|im_end|>"},
    single="$A <|endoftext|>",
    pair="$A $B",
    chat_template=CHAT_TEMPLATE,  # of the language model that it was made from
)
QWEN = Marks(QWEN_EMBEDDING.tokens, single="$A", pair="$A $B")
# The token that Qwen3-Reranker answers with, besides those it is built from.
QWEN_RERANKER = Marks({**QWEN.tokens, "additional_special_tokens": "no yes"}, single="$A", pair="$A $B")


def tokenizer_of(marks: Marks) -> "transformers.PreTrainedTokenizerFast":
    """One token a byte, after the special ones."""
    specials = " ".join(marks.tokens.values()).split()
    vocabulary = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(vocabulary)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = TemplateProcessing(
        single=marks.single, pair=marks.pair, special_tokens=[(token, i) for i, token in enumerate(specials)]
    )
    names: dict[str, Any] = dict(marks.tokens)
    if "additional_special_tokens" in names:
        names["additional_special_tokens"] = names["additional_special_tokens"].split()
    inputs = (
        ["input_ids", "token_type_ids", "attention_mask"] if marks.has_token_types else ["input_ids", "attention_mask"]
    )
    return of_transformers(
        "PreTrainedTokenizerFast",
        tokenizer_object=tokenizer,
        model_max_length=MAX_LENGTH,
        model_input_names=inputs,
        chat_template=marks.chat_template,
        **names,
    )


def config_of(config_class: str, marks: Marks, **values: Any) -> Any:
    """A small configuration whose special tokens are those of `marks`."""
    ids = {f"{role}_id": i for i, role in enumerate(marks.tokens) if role != "additional_special_tokens"}
    sizes = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,  # of 32, as MiniLM's
        "max_position_embeddings": MAX_LENGTH,
    }
    return of_transformers(config_class, **{**sizes, **ids, **values})


def save(folder: Path, auto_class: str, config: Any, marks: Marks) -> Path:
    """Weights, configuration and tokenizer, as transformers saves them."""
    import transformers

    torch.manual_seed(SEED)
    model = getattr(transformers, auto_class).from_config(config, dtype=torch.float32)
    randomize(model)
    model.save_pretrained(folder)
    tokenizer_of(marks).save_pretrained(folder)
    return folder


def embedder(
    config_class: str, marks: Marks, pooling: str, *, normalized: bool = True, dense: int | None = None, **values: Any
) -> Callable[[Path], Path]:
    """Saved by the sentence-transformers that is installed."""

    def build(folder: Path) -> Path:
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import modules

        plain = save(
            folder.with_name(folder.name + "-plain"), "AutoModel", config_of(config_class, marks, **values), marks
        )
        transformer = modules.Transformer(str(plain))
        width = transformer.get_embedding_dimension()
        parts = [transformer, modules.Pooling(width, pooling)]
        if dense is not None:
            torch.manual_seed(SEED)
            parts.append(modules.Dense(width, dense))
        if normalized:
            parts.append(modules.Normalize())
        SentenceTransformer(modules=parts, prompts=PROMPTS, device="cpu").save(str(folder))
        shutil.rmtree(plain)
        return folder

    return build


def in_older_files(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """The same model in the files of sentence-transformers 5.3 and before, which most published models have."""

    def build_older(folder: Path) -> Path:
        build(folder)
        modules = json.loads((folder / "modules.json").read_text())
        for module in modules:
            module["type"] = "sentence_transformers.models." + module["type"].rsplit(".", 1)[1]
        (folder / "modules.json").write_text(json.dumps(modules))
        pooling_file = folder / "1_Pooling" / "config.json"
        pooling = json.loads(pooling_file.read_text())
        size, mode = pooling.pop("embedding_dimension"), pooling.pop("pooling_mode")
        flags = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken"}
        older = {f"pooling_mode_{flag}": known == mode for known, flag in flags.items()}
        pooling_file.write_text(json.dumps({"word_embedding_dimension": size, **older, **pooling}))
        (folder / "sentence_bert_config.json").write_text(
            json.dumps({"max_seq_length": MAX_LENGTH, "do_lower_case": False})
        )
        return folder

    return build_older


def classifier(config_class: str, marks: Marks, num_labels: int, **values: Any) -> Callable[[Path], Path]:
    """A sequence classifier, or with one label a cross-encoder."""

    def build(folder: Path) -> Path:
        config = config_of(config_class, marks, num_labels=num_labels, **values)
        return save(folder, "AutoModelForSequenceClassification", config, marks)

    return build


def qwen3_reranker(folder: Path) -> Path:
    """A language model whose score is how much it would rather answer "yes" than "no"."""
    return save(folder, "AutoModelForCausalLM", config_of("Qwen3Config", QWEN_RERANKER, **DECODER), QWEN_RERANKER)


DECODER: dict[str, Any] = {
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "tie_word_embeddings": False,
}
ROBERTA_SIZES: dict[str, Any] = {"max_position_embeddings": MAX_LENGTH + 2, "type_vocab_size": 1}
MODERN: dict[str, Any] = {"local_attention": 16, "global_attn_every_n_layers": 2, "bos_token_id": 2, "eos_token_id": 3}

POOLING_FAMILIES = {
    family.name: family
    for family in (
        PoolingFamily("BERT", "embed", embedder("BertConfig", BERT, "mean")),
        PoolingFamily("BERT, not normalized", "embed", embedder("BertConfig", BERT, "cls", normalized=False)),
        PoolingFamily("BERT with a dense layer", "embed", embedder("BertConfig", BERT, "mean", dense=48)),
        PoolingFamily("BERT in older files", "embed", in_older_files(embedder("BertConfig", BERT, "mean"))),
        PoolingFamily("XLM-R", "embed", embedder("XLMRobertaConfig", ROBERTA, "mean", **ROBERTA_SIZES)),
        PoolingFamily(
            "ModernBERT",
            "embed",
            embedder("ModernBertConfig", BERT, "mean", **MODERN),
            refused={"310P3": "sliding window attention is refused on 310P"},
        ),
        PoolingFamily(
            "Qwen3-Embedding",
            "embed",
            in_older_files(embedder("Qwen3Config", QWEN_EMBEDDING, "lasttoken", **DECODER)),
        ),
        PoolingFamily("BERT cross-encoder", "score", classifier("BertConfig", BERT, 1)),
        PoolingFamily("XLM-R cross-encoder", "score", classifier("XLMRobertaConfig", ROBERTA, 1, **ROBERTA_SIZES)),
        PoolingFamily(
            "Qwen3-Reranker",
            "score",
            qwen3_reranker,
            settings={
                "hf_overrides": {
                    "architectures": ["Qwen3ForSequenceClassification"],
                    "classifier_from_token": ["no", "yes"],
                    "is_original_qwen3_reranker": True,
                }
            },
        ),
        PoolingFamily("BERT classifier", "classify", classifier("BertConfig", BERT, 3)),
        PoolingFamily("Qwen3 classifier", "classify", classifier("Qwen3Config", QWEN, 3, **DECODER)),
    )
}
