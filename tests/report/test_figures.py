"""The paper's figures from one's own runs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from tests.report.conftest import WriteRuns, draw_pairs, png, write_pairs, write_predictions

from lad_reasoner.api import write_report as write_whole_report
from lad_reasoner.report.content import read_content
from lad_reasoner.report.figures import draw_sft_samples, draw_sizes, find_disputed, spread, write_figures
from lad_reasoner.report.page import ReportOptions, write_report
from lad_reasoner.report.plotting import mark_cut
from lad_reasoner.support.errors import DataError, UsageError

pytestmark = pytest.mark.slow


def test_figure_6_has_the_papers_rows_whose_size_is_known(write_runs: WriteRuns) -> None:
    data, runs = write_runs(60)
    content = read_content(runs, data, "paper", resamples=20)
    assert isinstance(draw_sizes(content), str)
    for run in content.runs:
        run.card["model"] = "Qwen2.5-VL-3B"
    figure = draw_sizes(content)
    names = {text.get_text() for text in figure.axes[0].texts}
    assert {"base", "sft", "LAD-Reasoner (paper)", "Qwen2.5-VL-72B (paper)"} <= names
    assert not any(name.startswith(("APRIL-GAN", "AnomalyGPT")) for name in names)

    figure.draw_without_rendering()
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in axes.texts]
        assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
        assert all(box.x1 <= axes.bbox.x1 for box in boxes)


@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=12), st.floats(1, 50))
def test_names_keep_their_order_and_their_distance(places: list[float], gap: float) -> None:
    moved = spread(places, gap=gap)
    order = sorted(range(len(places)), key=places.__getitem__)
    assert all(moved[after] - moved[before] >= gap - 1e-6 for before, after in pairwise(order))
    assert sum(moved) == pytest.approx(sum(places), abs=1e-6)  # pushed apart, not away
    if all(places[after] - places[before] >= gap for before, after in pairwise(order)):
        assert moved == pytest.approx(places)


@pytest.mark.parametrize(("found", "chosen"), [({5, 6}, 6), ({5}, 0)])
def test_figure_7_shows_what_the_last_run_has_over_the_others(tmp_path: Path, found: set[int], chosen: int) -> None:
    """Pair 5 is an anomaly that both find, 6 one that only the last finds, 0 a normal pair that only it accepts."""
    pairs = draw_pairs(10)
    data = write_pairs(tmp_path / "pairs.parquet", pairs)
    says = {
        "first": {place: "yes" if place in {0, 5} else "no" for place in range(10)},
        "last": {place: "yes" if place in found else "no" for place in range(10)},
    }
    runs = [
        write_predictions(
            tmp_path / f"{name}.jsonl",
            data,
            scores=False,
            responses={
                pairs[place].pair_id: f"<think> x </think><answer> {word} </answer>" for place, word in said.items()
            },
        )
        for name, said in says.items()
    ]
    content = read_content(runs, data, "paper", resamples=20)
    assert find_disputed(content, None).pair_id == pairs[chosen].pair_id


def test_a_figure_of_an_earlier_report_does_not_stay(write_runs: WriteRuns, tmp_path: Path) -> None:
    data, runs = write_runs(30)
    content = read_content(runs, data, "paper", resamples=20)
    pictures = write_report(content, tmp_path / "out", ReportOptions())
    (tmp_path / "figure-5.png").write_bytes(b"an earlier run's")
    _, notes = write_figures(content, pictures, tmp_path)
    assert [note[:8] for note in notes] == ["figure 2", "figure 3", "figure 5", "figure 6"]
    assert sorted({path.stem for path in tmp_path.glob("figure-*")}) == ["figure-4", "figure-7"]


def test_hostile_reasoning_is_drawn_as_text(tmp_path: Path) -> None:
    pairs = draw_pairs(15)
    data = write_pairs(tmp_path / "pairs.parquet", pairs)
    text = "<think> $\\frac{ \x00\x08 <script>alert(1)</script> & ]]> $ </think><answer> yes </answer>"
    run = write_predictions(tmp_path / "base.jsonl", data, responses={pair.pair_id: text for pair in pairs})
    content = read_content([run], data, "all", resamples=20)
    pictures = write_report(content, tmp_path / "out", ReportOptions())
    _, notes = write_figures(content, pictures, tmp_path / "figures", pair_id=pairs[5].pair_id)
    assert [note[:8] for note in notes] == ["figure 2", "figure 3", "figure 5", "figure 6"]
    from xml.etree import ElementTree as ET

    for file in (tmp_path / "figures").glob("*.svg"):
        ET.parse(file)  # noqa: S314 - our own file
        assert "<script" not in file.read_text()


def test_a_model_folder_with_broken_weights_ends_in_no_traceback(tmp_path: Path, caplog) -> None:

    model = tmp_path / "models" / "base"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"broken")
    data = write_pairs(tmp_path / "pairs.parquet", draw_pairs(10))
    run = write_predictions(tmp_path / "base.jsonl", data)
    content = read_content([run], data, "all", resamples=10)
    card = {**content.runs[0].card, "model": str(model)}
    content = replace(content, runs=(replace(content.runs[0], card=card),))
    assert "the size of no model is known" in draw_sizes(content)
    assert "figure 6 leaves out a model" in caplog.text


def write_sft(folder: Path, rows: int) -> Path:
    folder.mkdir()
    (folder / "1.png").write_bytes(png(1))
    said = [("user", "<image>\nIs it $sound$?"), ("assistant", "No. One <b>pin</b> is missing.")]
    row = {"messages": [{"role": role, "content": text} for role, text in said], "images": ["1.png"]}
    (folder / "train.json").write_text(json.dumps([row] * rows))
    return folder


def test_figure_2_shows_both_images_of_a_pair(tmp_path: Path) -> None:
    sft = write_sft(tmp_path / "sft", 1)
    (row,) = json.loads((sft / "train.json").read_text())
    row["messages"][0]["content"] = "Reference: <image>\nQuery: <image>\nIs it sound?"
    (sft / "2.png").write_bytes(png(2))
    pair = row | {"images": ["1.png", "2.png"]}
    alone = row | {"messages": [{"role": "user", "content": "<image>\nIs it sound?"}, row["messages"][1]]}
    (sft / "train.json").write_text(json.dumps([pair, alone]))
    figure = draw_sft_samples(sft)
    assert isinstance(figure, Figure)
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 0, 1, 0, 0]
    texts = [axes.texts[0].get_text() for axes in figure.axes if axes.texts]
    assert texts == ["Q: Reference: [image] Query: [image] Is it sound?", "Q: Is it sound?"]


@pytest.mark.parametrize("single", [False, True])
def test_the_page_shows_and_links_every_figure(write_runs: WriteRuns, tmp_path: Path, single: bool) -> None:
    data, runs = write_runs(30)
    sft = write_sft(tmp_path / "sft", 3)
    made = write_whole_report(
        runs, tmp_path / "out", data=data, sft=sft, before_after=("base", "sft"), resamples=20, single_file=single
    )
    page = made.page.read_text()
    shown = [int(number) for number in re.findall(r"<figcaption>Figure (\d)", page)]
    assert shown == [2, 3, 4, 7]
    assert [note[:8] for note in made.notes] == ["figure 5", "figure 6"]
    section = page[page.index('id="figures"') : page.index('id="runs"')]
    words = re.sub(r"<[^>]+>", "", section)
    assert "Figure 5 is left out: no GRPO run was named; give --training LABEL=FOLDER." in words
    dark = re.findall(r'<source srcset="([^"]+)" media="screen and \(prefers-color-scheme: dark\)">', section)
    assert len(dark) == 4
    assert all(
        source.startswith("data:image/svg+xml;base64,") if single else (tmp_path / "out" / source).is_file()
        for source in dark
    )
    sources = re.findall(r'(?:src|href)="([^"]+)"', section)
    if single:
        assert all(source.startswith("data:image/png;base64,") for source in sources)
    else:
        assert len(sources) == 4 * 4
        assert all((tmp_path / "out" / source).is_file() for source in sources)


def test_figures_2_and_3_name_what_is_wrong(write_runs: WriteRuns, tmp_path: Path) -> None:
    data, runs = write_runs(30)
    content = read_content(runs, data, "paper", resamples=20)
    pictures = write_report(content, tmp_path / "out", ReportOptions())
    with pytest.raises(UsageError, match=r"--before-after: there is no run 'grpo'. Use base, sft"):
        write_figures(content, pictures, tmp_path / "f", before_after=("base", "grpo"))
    with pytest.raises(UsageError, match=r"--before-after: both runs are 'sft'. Name two runs"):
        write_figures(content, pictures, tmp_path / "f", before_after=("sft", "sft"))
    for text in ("", "[]", "[1]", '[{"messages": [], "images": ["1.png"]}]', '{"a": 1}'):
        (tmp_path / "train.json").write_text(text)
        with pytest.raises(DataError, match=r"train\.json: (no SFT data can be read|the SFT data is empty)"):
            write_figures(content, pictures, tmp_path / "f", sft=tmp_path)


def test_models_of_one_size_have_a_row_each(write_runs: WriteRuns) -> None:
    data, runs = write_runs(60)
    content = read_content(runs, data, "all", resamples=20)
    for run in content.runs:
        run.card["model"] = "my-3B"
    figure = draw_sizes(content)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["base", "sft"]
    assert [axes.get_xlim() for axes in figure.axes] == [(0, 108)] * 2
    assert [len(axes.patches) for axes in figure.axes] == [2, 2]


@pytest.mark.parametrize(("low", "strokes"), [(0.0, 0), (-1.0, 0), (40.0, 2)])
def test_an_axis_that_does_not_begin_at_zero_is_marked(low: float, strokes: int) -> None:
    axes = Figure().subplots()
    axes.set_ylim(low, 50)
    mark_cut(axes)
    assert len(axes.lines) == strokes
    assert axes.get_ylim() == (low, 50)
