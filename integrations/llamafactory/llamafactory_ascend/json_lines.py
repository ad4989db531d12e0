"""Values of a JSON file, a list or one value per line, each with its line."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ascend_adapters.errors import SettingError


@dataclass(frozen=True)
class Broken:
    """A line that is no JSON."""

    reason: str


def values_of(file: Path) -> Iterator[tuple[int, Any]]:
    """Line numbers, from 1, and values; of a file with one value per line, Broken where a line is none.

    Raises SettingError if the file is one list, and no JSON: where its values end cannot be told then.
    """
    text = file.read_text("utf-8-sig")
    return _elements(file, text) if text.lstrip().startswith("[") else _lines(text)


def _lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                yield number, Broken(f"no JSON: {error.msg} (column {error.colno})")


def _elements(file: Path, text: str) -> Iterator[tuple[int, Any]]:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise SettingError(
            f"{file}:{error.lineno}: no JSON: {error.msg}. Mend it there; of a file with one row per line (.jsonl), "
            "the other rows would be answered."
        ) from None
    decode = json.JSONDecoder().raw_decode
    line, counted = 1, 0
    start = _next(text, text.index("[") + 1)
    while text[start] != "]":
        value, end = decode(text, start)
        line, counted = line + text.count("\n", counted, start), start
        yield line, value
        start = _next(text, end)


def _next(text: str, position: int) -> int:
    """Where the next value begins, or the list ends."""
    while text[position] in ", \t\r\n":
        position += 1
    return position
