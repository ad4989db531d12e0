"""Writes the tables of docs/models.md from runs of the test families on each device: `make models`."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.core_backend.moe.ranks import run
from tools.marked_table import with_table

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "models.md"
CPU = "CPU"
DEVICES: dict[str, dict[str, str]] = {
    CPU: {"ASCEND_OP_SET": "cpu"},
    "simulated 910B3": {"ASCEND_SIMULATE": "910B3", "ASCEND_SIMULATE_FLOAT32": "1"},
    "simulated 310P3": {"ASCEND_SIMULATE": "310P3", "ASCEND_SIMULATE_FLOAT32": "1"},
}
Row = dict[str, Any]


def main() -> None:
    """Run everything; minutes."""
    text = DOCUMENT.read_text()
    with tempfile.TemporaryDirectory() as folder:
        for name, (module, cell) in TABLES.items():
            rows = {device: _run(module, Path(folder) / name, device) for device in DEVICES}
            text = with_table(text, name, _table(rows, cell))
    text = with_table(text, "bytes", _bytes_sent())
    DOCUMENT.write_text(text)


def _run(module: str, folder: Path, device: str) -> dict[str, Row]:
    """What each family did on a device, by its name."""
    print(f"{module} on {device}", file=sys.stderr)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ASCEND_")}
    done = subprocess.run(
        [sys.executable, "-m", module, str(folder)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={**environment, **DEVICES[device]},
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["family"]: row for row in rows}


def _table(rows: dict[str, dict[str, Row]], cell: Callable[[Row], str]) -> str:
    lines = ["| family | " + " | ".join(DEVICES) + " |", "|---" * (len(DEVICES) + 1) + "|"]
    refusals: dict[str, int] = {}
    for family in rows[CPU]:
        cells = []
        for device in DEVICES:
            row = rows[device][family]
            if row["error"]:
                message = row["error"].split(": ", 1)[1]
                number = refusals.setdefault(message, len(refusals) + 1)
                cells.append(f"refused ({number})")
            else:
                cells.append(cell(row))
        lines.append(f"| {family} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {message}" for message, number in refusals.items())]
    return "\n".join(lines).rstrip() + "\n"


def _tokens(row: Row) -> str:
    return f"{row['num_tokens'] - row['num_different']} of {row['num_tokens']}; {row['max_logprob_difference']:.0e}"


def _difference(row: Row) -> str:
    return f"{row['max_difference']:.0e}"


# Table -> the module that runs its families, and what a cell says.
TABLES: dict[str, tuple[str, Callable[[Row], str]]] = {
    "generating": ("tests.e2e.families", _tokens),
    "vision": ("tests.e2e.vision", _tokens),
    "pooling": ("tests.e2e.pooling_families", _difference),
}


def _bytes_sent() -> str:
    ways = ["all_gather", "all_to_all"]
    lines = ["| ranks | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
    for num_ranks in (2, 4):
        outcomes = [outcome for outcome in run(num_ranks, ways) if outcome.case == "equal"]
        cells = []
        for way in ways:
            sent = sum(outcome.sent_bytes for outcome in outcomes if outcome.way == way)
            per_token = sent / outcomes[0].num_tokens
            cells.append(f"{per_token:.0f} bytes per token, {per_token / outcomes[0].token_bytes:.1f} times its size")
        lines.append(f"| {num_ranks} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
