"""The settings and request fields vLLM knows, without importing vLLM (tools/vllm_names.py writes the list)."""

import json
from collections.abc import Collection
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def _names() -> dict[str, Any]:
    names: dict[str, Any] = json.loads(files("ascend_adapters").joinpath("vllm_names.json").read_text())
    return names


def engine_settings() -> dict[str, str]:
    """Each setting's name and kind: "value", "list", "switch" (--x / --no-x) or "flag"."""
    settings: dict[str, str] = _names()["engine_settings"]
    return settings


@cache
def request_fields(call: str) -> frozenset[str]:
    """The fields of the request body of `call`, one of contract.TASKS."""
    return frozenset(_names()["request_fields"][call])


def closest(name: str, known: Collection[str]) -> str:
    """The end of an error message about the unknown `name`."""
    matches = get_close_matches(name, known, n=1)
    return f": did you mean {matches[0]!r}?" if matches else ": vLLM's documentation lists the ones there are."
