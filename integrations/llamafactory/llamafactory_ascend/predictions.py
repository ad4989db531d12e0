"""Answers in a file as they come, so that a run which was ended goes on where it was."""

import json
from collections import defaultdict
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ascend_adapters.errors import SettingError
from llamafactory_ascend.rows import Row


class Predictions:
    """Holds `file`.part open: the run's settings in its first line, then an answer per line, in any order.

    An answer belongs to what its row says, wherever that stands, so rows may be mended or added between two runs.
    """

    def __init__(self, file: Path, settings: dict[str, Any]) -> None:
        """
        settings  on which answers depend: those of another run are not mixed with these

        Raises SettingError if the part there is of other settings.
        """
        self.file = file
        self.part = file.with_name(file.name + ".part")
        self._settings = settings
        self._records: dict[str, list[dict[str, str]]] = defaultdict(list)
        file.parent.mkdir(parents=True, exist_ok=True)
        self._read()

    def __enter__(self) -> Self:
        self._lines = self.part.open("a", encoding="utf-8")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._lines.close()

    def missing(self, rows: list[Row]) -> list[Row]:
        """Those of `rows` that have no answer yet."""
        left = {key: len(records) for key, records in self._records.items()}
        missing = []
        for row in rows:
            key = _key(row)
            if left.get(key, 0) > 0:
                left[key] -= 1
            else:
                missing.append(row)
        return missing

    def add(self, row: Row, prompt: str, predict: str) -> None:
        """Keeps an answer, on disk when this returns."""
        record = {"prompt": prompt, "predict": predict, "label": row.label}
        self._records[_key(row)].append(record)
        self._write({"row": _key(row), **record})

    def finish(self, rows: list[Row], keep_part: bool) -> list[dict[str, str]]:
        """Writes `file`, with the answers in the order of `rows`, and returns them.

        keep_part  for a later run that answers what is missing
        """
        taken: dict[str, int] = defaultdict(int)
        records = []
        for row in rows:
            key = _key(row)
            if taken[key] < len(self._records[key]):
                records.append(self._records[key][taken[key]])
                taken[key] += 1
        whole = self.file.with_name(self.file.name + ".new")
        whole.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
        whole.replace(self.file)
        if not keep_part:
            self.part.unlink()
        return records

    def _read(self) -> None:
        there = self.part.read_bytes() if self.part.exists() else b""
        end = there.rfind(b"\n") + 1  # what follows was being written when the run ended
        if not end:
            self.part.write_text(json.dumps({"settings": self._settings}, ensure_ascii=False) + "\n", "utf-8")
            return
        settings, *answers = map(json.loads, there[:end].splitlines())
        _check_same(self.part, settings["settings"], self._settings)
        for record in answers:
            self._records[record.pop("row")].append(record)
        with self.part.open("r+b") as file:
            file.truncate(end)

    def _write(self, record: dict[str, str]) -> None:
        self._lines.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._lines.flush()


def _check_same(part: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    differing = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if differing:
        told = "; ".join(f"{name}={there.get(name)!r}, here {here.get(name)!r}" for name in differing)
        raise SettingError(
            f"{part} has the answers of a run with other settings ({told}): give another save_name, or remove it."
        )


def _key(row: Row) -> str:
    """Of what a row says. What is no JSON, as pictures in memory, is taken by what it prints."""
    asked = [row.messages, row.label, row.system, row.tools, row.media.images, row.media.videos, row.media.audios]
    return sha256(json.dumps(asked, default=repr, sort_keys=True).encode()).hexdigest()[:16]
