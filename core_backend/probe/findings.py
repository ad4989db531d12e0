"""One finding, and the machine it is about."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["ok", "note", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what is there, and what to do about it."""

    check: str
    status: Status
    found: str
    wanted: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        wanted = f", wanted {self.wanted}" if self.wanted else ""
        return f"{self.check}: found {self.found}{wanted}: {self.remedy}"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to look. Another root is a container's or a disk's file system."""

    root: Path = Path("/")
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))

    def path(self, absolute: str) -> Path:
        """A path of the machine, below its root."""
        return self.root / absolute.lstrip("/")

    def read(self, absolute: str) -> str | None:
        """A file's text, or None."""
        try:
            return self.path(absolute).read_text(errors="replace")
        except OSError:
            return None
