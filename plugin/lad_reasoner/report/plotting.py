"""How the figures of this package look, and how they are written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["ACCENT", "GREY", "LINE_COLOURS", "WRONG", "finish_axes", "save_figure"]

ACCENT: Final = "#0d6a78"
GREY: Final = "#8b9399"
WRONG: Final = "#b3261e"

#: One a run, in this order; then again from the first.
LINE_COLOURS: Final = (ACCENT, "#c8701e", "#6b5b95", "#7a7a2e", GREY)


def finish_axes(axes: Axes, *, x: str = "", y: str = "") -> None:
    """Label the axes, and take away what is not needed."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.svg`` and ``<name>.png``, the SVG without a date; return their paths."""
    paths = []
    for suffix in ("svg", "png"):
        path = folder / f"{name}.{suffix}"
        figure.savefig(path, dpi=160, metadata={"Date": None} if suffix == "svg" else {})
        paths.append(path)
    return paths
