"""How figures are written."""

from __future__ import annotations

import warnings
from pathlib import Path

from matplotlib.figure import Figure

from lad_reasoner.report.plotting import save_figure


def test_a_character_that_the_font_lacks_is_no_warning(tmp_path: Path) -> None:
    figure = Figure()
    figure.text(0, 0, "欠品 is missing")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert all(path.stat().st_size for path in save_figure(figure, tmp_path, "figure"))
    assert [str(warning.message) for warning in caught] == []
