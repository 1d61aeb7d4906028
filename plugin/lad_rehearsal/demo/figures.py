"""One figure with every step of the demonstration's GRPO runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

__all__ = ["draw_training"]

PANELS: Final = {
    "reward": "mean reward",
    "structure": "structure reward",
    "accuracy": "accuracy reward",
    "response_length": "response length (tokens)",
}
RUNS: Final = {"grpo": ("without SFT", "#b3541e"), "sft-grpo": ("with SFT", "#1f6f8b")}


def draw_training(grpo: Mapping[str, Any], path: Path) -> Path:
    """Plot reward, structure, accuracy and response length over GRPO steps, with and without SFT; return the path.

    The fourth panel corresponds to the paper's figure 5.

    Args:
        grpo: ``summary["grpo"]``.
        path: File to write; its suffix selects the format.
    """
    figure = Figure(figsize=(9, 5.6), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True)
    for axis, (name, title) in zip(axes.flat, PANELS.items(), strict=True):
        for run, (label, colour) in RUNS.items():
            steps = grpo[run]["steps"]
            axis.plot([row["step"] for row in steps], [row[name] for row in steps], label=label, color=colour, lw=1.8)
        axis.set_title(title, fontsize=10, loc="left")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        # Start at zero, so that changes keep their proportion.
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1] if name == "response_length" else 1.02)
    for axis in axes[1]:
        axis.set_xlabel("GRPO step")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0, 0].legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)
    return path
