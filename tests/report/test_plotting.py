"""How figures are written."""

from __future__ import annotations

import re
import warnings
from importlib.resources import files
from pathlib import Path

from matplotlib.figure import Figure

from lad_reasoner.report.plotting import DARK, DOUBT, LINE_COLOURS, WRONG, darken, save_figure


def test_a_character_that_the_font_lacks_is_no_warning(tmp_path: Path) -> None:
    figure = Figure()
    figure.text(0, 0, "欠品 is missing")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert all(path.stat().st_size for path in save_figure(figure, tmp_path, "figure"))
    assert [str(warning.message) for warning in caught] == []


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_dark_variant_of_a_figure_can_be_read_on_the_dark_page(tmp_path: Path) -> None:
    style = (files("lad_reasoner.report") / "assets/report.css").read_text()
    sheet = DARK["#ffffff"]
    assert f"--sheet: {sheet}" in style
    figure = Figure()
    axes = figure.subplots()
    for place, colour in enumerate(colours := {*LINE_COLOURS, WRONG, DOUBT}):
        axes.plot([0, 1], [place, place], color=colour, label=str(place))
    axes.legend(frameon=False)
    svg, _ = save_figure(figure, tmp_path, "figure")
    dark = darken(svg.read_text())
    assert not [light for light in DARK if light in dark]
    ink = re.search(r'<svg fill="(#\w{6})"', dark)
    assert ink is not None
    for colour in (ink[1], *(DARK.get(colour, colour) for colour in colours)):
        assert colour in dark
        assert (luminance(colour) + 0.05) / (luminance(sheet) + 0.05) >= 4.5, colour
