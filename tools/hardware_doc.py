"""Writes the tables of docs/hardware.md from the chip table and the list of required operators."""

from collections.abc import Callable
from pathlib import Path

from core_backend.hardware import CHIPS, Hardware
from core_backend.ops.required import REQUIRED
from core_backend.versions import TESTED

DOCUMENT = Path(__file__).parents[1] / "docs" / "hardware.md"


def with_tables(text: str) -> str:
    """The document with what stands between each pair of markers written anew."""
    for name, table in (("chips", _chips()), ("operators", _operators()), ("versions", _versions())):
        before, _, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->")
        text = f"{before}<!-- {name} -->\n{table}{end}{after}"
    return text


def _chips() -> str:
    rows = ["| | " + " | ".join(f"{chip.name}: {chip.products}" for chip in CHIPS.values()) + " |"]
    rows.append("|---" * (len(CHIPS) + 1) + "|")
    for title, cell in CELLS.items():
        rows.append(f"| {title} | " + " | ".join(cell(chip) for chip in CHIPS.values()) + " |")
    return "\n".join(rows) + "\n"


CELLS: dict[str, Callable[[Hardware], str]] = {
    "dtypes": lambda chip: ", ".join(chip.dtypes),
    "operator set": lambda chip: f"`{chip.operator_set}`",
    "KV cache": lambda chip: chip.kv_layout.upper(),
    "block sizes": lambda chip: ", ".join(map(str, chip.block_sizes or ())),
    "experts on other ranks": lambda chip: ", ".join(way.name for way in chip.moe_communication),
    "graphs": lambda chip: "behind `npu_graphs`" if chip.has_graphs else "no",
    "refused": lambda chip: ", ".join(chip.refused) or "nothing",
    "state": lambda chip: f"{'experimental, ' if chip.is_experimental else ''}not verified on hardware",
}


def _operators() -> str:
    sets = [name for name in REQUIRED if REQUIRED[name]]
    operators = sorted({operator for name in sets for operator in REQUIRED[name]})
    rows = ["| operator | " + " | ".join(f"`{name}`" for name in sets) + " |", "|---" * (len(sets) + 1) + "|"]
    for operator in operators:
        marks = " | ".join("x" if operator in REQUIRED[name] else "" for name in sets)
        rows.append(f"| `{operator}` | {marks} |")
    return "\n".join(rows) + "\n"


def _versions() -> str:
    return ", ".join(f"{name} {version}" for name, version in TESTED.items()) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(with_tables(DOCUMENT.read_text()))
