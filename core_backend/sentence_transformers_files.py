"""The files in which sentence-transformers describes an embedding model, as vLLM 0.23 reads them."""

from typing import Any

LIBRARY = "sentence_transformers."
OLDER_MODULES = "sentence_transformers.models."  # where modules were until 5.3, and what vLLM looks for
COMPUTED = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")  # Dropout does nothing outside of training
# sentence-transformers' name of a pooling mode -> the flag of its older files.
POOLING_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


def as_vllm_reads(file_name: str, content: Any) -> Any:
    """The content of a model's JSON file, in the words of sentence-transformers 5.3 and before.

    modules.json       class paths begin with sentence_transformers.models
    */config.json      of a pooling module: a flag for the mode, instead of its name
    anything else      as it is
    Raises ValueError for a module, a pooling mode or a chat template that vLLM would leave out without a word.
    """
    if file_name == "sentence_bert_config.json" and "message" in (content or {}).get("modality_config", {}):
        raise ValueError(
            "this model's sentence_bert_config.json puts every text into a chat message, which the engine does not do: "
            "take message out of its modality_config if it was trained on plain texts, or use sentence-transformers."
        )
    if file_name == "modules.json" and isinstance(content, list):
        return [_in_older_words(module) for module in content]
    if isinstance(content, dict) and any(key.startswith("pooling_mode") for key in content):
        return {**content, POOLING_FLAGS[_pooling_mode(content)]: True}
    return content


def _in_older_words(module: dict[str, Any]) -> dict[str, Any]:
    path = str(module.get("type", ""))
    if not path.startswith(LIBRARY) or ".sparse_encoder." in path:
        return module
    name = path.rsplit(".", 1)[1]
    if name not in COMPUTED:
        raise ValueError(
            f"modules.json of this model names {name} ({path}), which the engine does not compute: it has "
            f"{', '.join(COMPUTED[:-1])}. Use another model, or sentence-transformers itself."
        )
    return {**module, "type": OLDER_MODULES + name}


def _pooling_mode(content: dict[str, Any]) -> str:
    """The only mode, by the newer name."""
    if "pooling_mode" in content:
        given = content["pooling_mode"]
        modes = [given] if isinstance(given, str) else list(given)
    else:
        names = {flag: mode for mode, flag in POOLING_FLAGS.items()}
        modes = [names.get(key, key) for key, value in content.items() if key.startswith("pooling_mode_") and value]
    if len(modes) != 1 or modes[0] not in POOLING_FLAGS:
        raise ValueError(
            f"this model pools its tokens by {' and '.join(modes) or 'nothing'}, and the engine by one of "
            f"{', '.join(POOLING_FLAGS)}. Use another model, or sentence-transformers itself."
        )
    return modes[0]
