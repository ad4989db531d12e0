"""One pooling family after the other through its makers' library and through the engine, in this process.

The library is sentence-transformers, or transformers for classifiers. Run as
`python -m tests.e2e.pooling_families FOLDER NAME...`: builds the models below FOLDER and prints one JSON line a family.
A process of its own, as tests/e2e/families.py is for models that generate.
"""

import json
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tests.e2e.as_library import use_vllm_as_library
from tests.pooling_models import MAX_LENGTH, POOLING_FAMILIES, PoolingFamily
from tests.references import reference

QUERY = "What is the capital of France?"
LENGTHS = (1, 2, 7, 16, 17, 33, 64, 128, 250, 300)  # of the texts, in tokens but for a few special ones
SETTINGS: dict[str, Any] = {
    "runner": "pooling",
    "dtype": "float32",
    "max_model_len": MAX_LENGTH,
    "max_num_seqs": 8,
    "max_num_batched_tokens": MAX_LENGTH,
    "kv_cache_memory_bytes": 64 << 20,
    "seed": 0,
    "disable_log_stats": True,
}
Rows = list[list[float]]


@dataclass
class Result:
    """What one family did on one device."""

    family: str
    device: str = ""
    num_texts: int = 0
    max_difference: float = 0.0  # of any number of an embedding, score or probability
    error: str = ""


def texts() -> list[str]:
    """Texts of printable characters, one token each."""
    generator = torch.Generator().manual_seed(7)
    characters = [torch.randint(32, 127, (length,), generator=generator).tolist() for length in LENGTHS]
    return ["".join(map(chr, text)) for text in characters]


def compare(family: PoolingFamily, folder: Path) -> Result:
    """Both answers to the same texts. What the engine refuses is a result too."""
    result = Result(family.name)
    family.build(folder)
    wanted = _wanted(family, folder)
    try:
        given = _ask_engine(family, folder, result)
        result.num_texts = len(given)
        result.max_difference = float((torch.tensor(given) - torch.tensor(wanted)).abs().max())
    except Exception as error:
        traceback.print_exc()
        result.error = f"{type(error).__name__}: {error}"
    return result


def _wanted(family: PoolingFamily, folder: Path) -> Rows:
    library = "transformers" if family.task == "classify" else "sentence-transformers"
    question = ["pooling", family.task, QUERY, texts(), family.settings]
    return reference(
        library,
        question,
        sorted({file.parent for file in folder.rglob("*.json")}),
        lambda: _REFERENCES[family.task](family, folder),
    )


def _embeddings(family: PoolingFamily, folder: Path) -> Rows:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return model.encode(texts()).tolist()


def _scores(family: PoolingFamily, folder: Path) -> Rows:
    if "classifier_from_token" in family.settings.get("hf_overrides", {}):
        return [[score] for score in _scores_of_language_model(folder)]
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(folder), device="cpu")
    return [[float(score)] for score in model.predict([(QUERY, text) for text in texts()])]


@torch.inference_mode()
def _scores_of_language_model(folder: Path) -> list[float]:
    """The probability of "yes" after a query and a text, where only "no" and "yes" may follow."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    no_and_yes = tokenizer.convert_tokens_to_ids(["no", "yes"])
    encoded = [tokenizer(QUERY + text, return_tensors="pt").input_ids for text in texts()]
    return [model(ids).logits[0, -1, no_and_yes].softmax(0)[1].item() for ids in encoded]


@torch.inference_mode()
def _probabilities(family: PoolingFamily, folder: Path) -> Rows:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = [tokenizer(text, return_tensors="pt") for text in texts()]
    return [model(**inputs).logits[0].softmax(0).tolist() for inputs in encoded]


_REFERENCES = {"embed": _embeddings, "score": _scores, "classify": _probabilities}


def _ask_engine(family: PoolingFamily, folder: Path, result: Result) -> Rows:
    from vllm import LLM
    from vllm.distributed import cleanup_dist_env_and_memory

    from core_backend.device import current_device

    result.device = str(current_device())
    llm = None
    try:
        llm = LLM(model=str(folder), **{**SETTINGS, **family.settings})
        if family.task == "embed":
            return [output.outputs.embedding for output in llm.embed(texts(), use_tqdm=False)]
        if family.task == "score":
            return [[output.outputs.score] for output in llm.score(QUERY, texts(), use_tqdm=False)]
        return [output.outputs.probs for output in llm.classify(texts(), use_tqdm=False)]
    finally:
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()


def main() -> None:
    use_vllm_as_library()
    from core_backend import upstream_patches

    upstream_patches.inspect_model_in_process()  # no process of its own for every architecture
    upstream_patches.apply_to_configuration()
    folder = Path(sys.argv[1])
    for name in sys.argv[2:] or POOLING_FAMILIES:
        result = compare(POOLING_FAMILIES[name], folder / name.replace(" ", "-").lower())
        print(json.dumps(asdict(result)), flush=True)


if __name__ == "__main__":
    main()
