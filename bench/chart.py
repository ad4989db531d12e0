"""The chart of a benchmark run: each workload's ratio of ours to the other."""

from pathlib import Path
from typing import Any


def draw_chart(workloads: dict[str, dict[str, Any]], path: Path) -> None:
    """Write a PNG of horizontal bars, the min and max of the ratios as whiskers. A time counts upside down."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names, medians, below, above = [], [], [], []
    for name, row in reversed(workloads.items()):
        ratio = {key: 1 / value if row["unit"] == "ms" else value for key, value in row["ratio"].items()}
        low, high = sorted((ratio["min"], ratio["max"]))
        names.append(name)
        medians.append(ratio["median"])
        below.append(ratio["median"] - low)
        above.append(high - ratio["median"])
    figure, axes = plt.subplots(figsize=(9, 3.2), layout="constrained")
    bars = axes.barh(names, medians, xerr=[below, above], capsize=4, color="#c7000b")
    axes.bar_label(bars, fmt="%.2fx", padding=12)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0, max(medians) * 1.2)
    axes.set_xlabel("times as fast as Hugging Face generate (same model, bf16, same run)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
