"""What a run of the benchmark is told as: a summary, tables of docs/performance.md, and two pictures."""

import statistics
from pathlib import Path
from typing import Any

from bench.limits import Machine
from bench.workloads import Metric
from tools.marked_table import with_table

OURS = "ascend-adapters"  # the bare engine, as vLLM's own is measured
EMBEDDED = "ascend-adapters, embedded"
PLAIN = "ascend-adapters, torch operators"
OURS_EMBED = "ascend-adapters, embeddings"
VLLM_CPU = "vLLM, CPU build"
SENTENCE_TRANSFORMERS = "sentence-transformers"
NOT_PEERS = (OURS, EMBEDDED, PLAIN, OURS_EMBED)
DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"

Spread = dict[str, float]


def spread(values: list[float]) -> Spread:
    """Median, min and max."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def limits_of(rounds: list[dict[Metric, float]]) -> dict[str, Spread]:
    """Each metric's limit."""
    return {metric.name: spread([values[metric] for values in rounds]) for metric in rounds[0]}


def machine_of(machines: list[Machine]) -> dict[str, Spread]:
    """What the machine can do."""
    return {
        "memory, GB/s": spread([machine.bytes_per_second / 1e9 for machine in machines]),
        "bf16 products, GFLOP/s": spread([machine.flops_per_second / 1e9 for machine in machines]),
    }


def metrics_of(rounds: dict[str, list[dict[Metric, float]]]) -> dict[str, dict[str, Any]]:
    """Each metric's values, and how many times as good ours is as each other, round by round."""
    metrics: dict[Metric, None] = {metric: None for kept in rounds.values() for values in kept for metric in values}
    summary = {}
    for metric in metrics:
        values = {name: [of[metric] for of in kept] for name, kept in rounds.items() if metric in kept[0]}
        ours = values[OURS] if OURS in values else values[OURS_EMBED]
        summary[metric.name] = {
            "unit": metric.unit,
            "less_is_better": metric.less_is_better,
            "values": {name: spread(of) for name, of in values.items()},
            "ours_to": {name: spread(_ratios(ours, of)) for name, of in values.items() if of is not ours},
        }
    return summary


def _ratios(ours: list[float], others: list[float]) -> list[float]:
    return [our / other for our, other in zip(ours, others, strict=True)]


def times_as_good(row: dict[str, Any], ratio: Spread) -> Spread:
    """A ratio of times turned around, so that more is better."""
    if not row["less_is_better"]:
        return ratio
    return {"median": 1 / ratio["median"], "min": 1 / ratio["max"], "max": 1 / ratio["min"]}


def best_peer(row: dict[str, Any]) -> str | None:
    """The other engine that is best at a metric; None if there is no other."""
    peers = {name: of["median"] for name, of in row["values"].items() if name not in NOT_PEERS}
    if not peers:
        return None
    return (min if row["less_is_better"] else max)(peers, key=peers.__getitem__)


def write(results: dict[str, Any], folder: Path) -> None:
    """The tables, on the screen and in the document, and the pictures into `folder`."""
    tables = {"values": _values(results), "ratios": _ratio_table(results), "machine": _machine(results)}
    text = DOCUMENT.read_text()
    for name, table in tables.items():
        print(table)
        text = with_table(text, name, table)
    DOCUMENT.write_text(text)
    _draw_ratios(results, folder / "ratios.png")
    _draw_fractions(results, folder / "limits.png")


def cell(of: Spread, digits: int) -> str:
    """ "median (min - max)"."""
    return f"{of['median']:.{digits}f} ({of['min']:.{digits}f} - {of['max']:.{digits}f})"


def _values(results: dict[str, Any]) -> str:
    rows = []
    for name, row in results["metrics"].items():
        digits = 0 if min(of["median"] for of in row["values"].values()) > 100 else 1
        rows += [f"| {name}, {row['unit']} | {who} | {cell(of, digits)} |" for who, of in row["values"].items()]
    return "\n".join(["| | | |", "|---|---|---|", *rows, ""])


def _ratio_table(results: dict[str, Any]) -> str:
    names = [name for name in results["metrics"] if results["metrics"][name]["ours_to"]]
    others = dict.fromkeys(who for name in names for who in results["metrics"][name]["ours_to"])
    lines = [f"| | {' | '.join(others)} |", "|---" * (len(others) + 1) + "|"]
    for name in names:
        ratios = results["metrics"][name]["ours_to"]
        lines.append(f"| {name} | {' | '.join(cell(ratios[who], 2) if who in ratios else '' for who in others)} |")
    return "\n".join([*lines, ""])


def _machine(results: dict[str, Any]) -> str:
    environment, versions = results["environment"], results["versions"]
    lines = ["| | |", "|---|---|"]
    lines.append(f"| CPU | {environment['cpu']}, {environment['threads']} threads |")
    lines += [f"| {name} | {cell(of, 0)} |" for name, of in results["machine"].items()]
    lines += [f"| {name} | {seconds:.1f} s |" for name, seconds in results["startup_s"].items()]
    lines.append(f"| memory of the embedded engine above weights and KV cache | {results['memory_gib']:.2f} GiB |")
    lines += [f"| {who} | {', '.join(map(' '.join, of.items()))} |" for who, of in versions.items()]
    lines += [f"| {who} | missing: {reason.replace('|', ';')} |" for who, reason in results["missing"].items()]
    return "\n".join([*lines, ""])


def _draw_ratios(results: dict[str, Any], path: Path) -> None:
    """Ours to the best other, metric by metric."""
    bars = {}
    for name, row in results["metrics"].items():
        if (peer := best_peer(row)) is not None:
            bars[f"{name}\nagainst {peer}"] = times_as_good(row, row["ours_to"][peer])
    _draw_bars(bars, "times as good as the best other engine (same model, bf16, same run)", path, "{:.2f}x", line=1)


def _draw_fractions(results: dict[str, Any], path: Path) -> None:
    """How near ours and the best other come to what the machine can do."""
    bars = {}
    for name, limit in results["limits"].items():
        row = results["metrics"][name]
        for who in filter(None, (OURS, best_peer(row))):
            ratio = {key: value / limit["median"] for key, value in row["values"][who].items()}
            bars[f"{name}\n{who}"] = {key: 100 * value for key, value in times_as_good(row, ratio).items()}
    _draw_bars(bars, "% of the measured limit (weights read once a step, products at full speed)", path, "{:.0f}%")


def _draw_bars(bars: dict[str, Spread], label: str, path: Path, form: str, line: float | None = None) -> None:
    """Horizontal bars with their min and max as whiskers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = list(reversed(bars))
    medians = [bars[name]["median"] for name in names]
    below = [bars[name]["median"] - bars[name]["min"] for name in names]
    above = [bars[name]["max"] - bars[name]["median"] for name in names]
    figure, axes = plt.subplots(figsize=(10, 0.6 * len(bars) + 1), layout="constrained")
    drawn = axes.barh(names, medians, xerr=[below, above], capsize=4, color="#c7000b")
    axes.bar_label(drawn, labels=[form.format(value) for value in medians], padding=12)
    if line is not None:
        axes.axvline(line, color="black", linewidth=1)
    axes.set_xlim(0, max(medians) * 1.2)
    axes.set_xlabel(label)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
