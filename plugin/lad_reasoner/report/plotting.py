"""How the figures of this package look, and how they are written."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lad_reasoner.support.files import replace_when_done

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ACCENT",
    "DARK",
    "DOUBT",
    "GREY",
    "LINE_COLOURS",
    "WRONG",
    "darken",
    "finish_axes",
    "mark_cut",
    "save_figure",
]

ACCENT: Final = "#0d6a78"
GREY: Final = "#8b9399"
WRONG: Final = "#b3261e"
DOUBT: Final = "#8a5300"

#: One a run, in this order; then again from the first.
LINE_COLOURS: Final = (ACCENT, "#c8701e", "#6b5b95", "#7a7a2e", GREY)

#: What a colour becomes on the dark sheet of the report page; the other colours are readable on both.
DARK: Final = {
    "#ffffff": "#1b1f22",
    "#000000": "#e4e7e9",
    ACCENT: "#63bccb",
    WRONG: "#f0877d",
    DOUBT: "#e2b368",
    LINE_COLOURS[2]: "#ab9bdb",
    LINE_COLOURS[3]: "#b9b95c",
}


def finish_axes(axes: Axes, *, x: str = "", y: str = "") -> None:
    """Label the axes, and take away what is not needed."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def mark_cut(axes: Axes) -> None:
    """Mark a y-axis that does not begin at zero by two strokes at its lower end. Call it when the limits are final."""
    if axes.get_ylim()[0] > 0:
        for height in (0.03, 0.06):
            stroke = axes.plot((-0.012, 0.012), (height - 0.012, height + 0.012), transform=axes.transAxes)[0]
            stroke.set(color="black", linewidth=1, clip_on=False, zorder=5)


def darken(svg: str) -> str:
    """Return an SVG file of ``save_figure`` in the colours of a dark page; photographs in it stay as they are."""
    for light, dark in DARK.items():
        svg = svg.replace(light, dark)
    # matplotlib does not write black fills: they are SVG's default, which the outermost element changes.
    return svg.replace("<svg ", f'<svg fill="{DARK["#000000"]}" ', 1)


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``<name>.svg`` and ``<name>.png``, the same bytes for the same figure; return their paths."""
    from matplotlib import rc_context

    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    for path in paths:
        kind = path.suffix[1:]
        # A fixed salt: by default the ids inside an SVG are random.
        with replace_when_done(path) as draft, rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph ")  # a character that the font lacks is a box
            figure.savefig(draft, format=kind, dpi=160, metadata={"Date": None} if kind == "svg" else {})
    return paths
