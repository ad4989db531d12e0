"""How near answers are to their labels: LLaMA-Factory's own BLEU-4 and ROUGE."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ascend_adapters.errors import SettingError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizer

NEEDED = {"nltk": "nltk", "jieba": "jieba", "rouge_chinese": "rouge-chinese"}


def check(file: Path | None) -> None:
    """Raises SettingError if a file of measures is asked for, and what measures is not installed."""
    if file is not None and (missing := _missing()):
        raise SettingError(
            f"matrix_save_name={str(file)!r} needs {', '.join(missing)}: pip install {' '.join(missing)}"
        )


def tell(records: list[dict[str, str]], tokenizer: "PreTrainedTokenizer", file: Path | None) -> None:
    """Prints the means over records with a label, from 0 to 100, and writes them to `file` as JSON."""
    labelled = [record for record in records if record["label"]]
    if _missing() or not labelled:
        return
    means = {f"predict_{name}": value for name, value in measure(labelled, tokenizer).items()}
    print(*(f"{name}: {value:.2f}" for name, value in means.items()), sep="\n")
    if file is not None:
        file.write_text(json.dumps(means, indent=4) + "\n")


def measure(records: list[dict[str, str]], tokenizer: "PreTrainedTokenizer") -> dict[str, float]:
    """Means of rouge-1, rouge-2, rouge-l (F1) and bleu-4, from 0 to 100.

    Source: llamafactory 0.9.5, train/sft/metric.py, as its training evaluates predictions.
    """
    import numpy as np
    from llamafactory.extras.constants import IGNORE_INDEX
    from llamafactory.train.sft.metric import ComputeSimilarity
    from transformers import EvalPrediction

    def padded(texts: list[str]) -> np.ndarray:
        ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
        longest = max(map(len, ids))
        return np.array([row + [IGNORE_INDEX] * (longest - len(row)) for row in ids])

    predictions, labels = (padded([record[name] for record in records]) for name in ("predict", "label"))
    means = ComputeSimilarity(tokenizer)(EvalPrediction(predictions, labels))
    return dict(means or {})


def _missing() -> list[str]:
    return [package for module, package in NEEDED.items() if find_spec(module) is None]
