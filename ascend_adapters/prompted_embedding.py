"""Embeddings with a prompt of the model's own files: only vLLM's /v2/embed knows them, and it speaks Cohere's words."""

import re
from typing import Any

from ascend_adapters.contract import Answer, Body

PAGE = "/v2/embed"
NO_INPUT_TYPE = "?"  # which no model has: asking for it gets an error that names those there are


def cohere_body(body: Body) -> Body:
    """An embeddings body with input_type, as /v2/embed takes it. Texts that are too long are an error there too."""
    wanted: Body = {
        "model": body["model"],
        "texts": [body["input"]] if isinstance(body["input"], str) else body["input"],
        "input_type": body["input_type"],
        "embedding_types": [body.get("encoding_format") or "float"],
        "truncate": "NONE",
        "priority": body.get("priority") or 0,
    }
    if body.get("dimensions") is not None:
        wanted["output_dimension"] = body["dimensions"]
    limit = body.get("truncate_prompt_tokens")
    if limit is not None:
        wanted["truncate"] = "START" if body.get("truncation_side") == "left" else "END"
        if limit > 0:
            wanted["max_tokens"] = limit
    return wanted


def openai_answer(answer: Answer, body: Body) -> Answer:
    """What /v2/embed answered, in OpenAI's words. Source: OpenAI API reference, embeddings."""
    vectors = answer["embeddings"][body.get("encoding_format") or "float"]
    num_tokens = answer["meta"]["billed_units"]["input_tokens"]
    return {
        "id": answer["id"],
        "object": "list",
        "model": body["model"],
        "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)],
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    }


def input_types_in(error: Any) -> tuple[str, ...]:
    """The names of a model's prompts, from what vLLM says about NO_INPUT_TYPE."""
    match = re.search(r"Supported values: (.+)", str(error))
    return tuple(match[1].split(", ")) if match else ()
