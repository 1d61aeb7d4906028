"""The first sentences of the report say what its tables say."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.conftest import draw_pairs, write_pairs, write_predictions

from lad_reasoner.evaluation.headline import Headline
from lad_reasoner.evaluation.headline import read_headline as read_of_runs
from lad_reasoner.report.content import Content, read_content
from lad_reasoner.report.page import ReportOptions, write_report


def content_of(tmp_path: Path, *skills: float, samples: int = 1, count: int = 150) -> Content:
    data = write_pairs(tmp_path / "pairs.parquet", draw_pairs(count))
    runs = [
        write_predictions(tmp_path / f"model{place}.jsonl", data, skill=skill, seed=place, samples=samples)
        for place, skill in enumerate(skills)
    ]
    return read_content(runs, data, "paper", resamples=200)


def read_headline(content: Content) -> Headline:
    return read_of_runs([run.score for run in content.runs], content.comparisons)


@pytest.mark.parametrize("skills", [(0.55, 0.95, 0.6), (0.95, 0.6, 0.55)])
def test_the_best_run_leads_the_second_by_their_paired_difference(tmp_path: Path, skills: tuple[float, ...]) -> None:
    content = content_of(tmp_path, *skills)
    headline = read_headline(content)
    accuracies = {run.name: run.score.pooled.metrics["accuracy"].value for run in content.runs}
    best, second, _ = sorted(accuracies, key=lambda name: -accuracies[name])
    assert (headline.best, headline.second) == (best, second)
    assert headline.lead.value == pytest.approx(accuracies[best] - accuracies[second])
    assert 0 < headline.lead.low < headline.lead.value < headline.lead.high
    (comparison,) = (item for item in content.comparisons if {item.first, item.second} == {best, second})
    assert headline.p_value == comparison.p_holm < 0.05
    assert headline.clear


def test_no_run_leads_one_that_is_right_as_often(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.parquet", draw_pairs(40))
    runs = [write_predictions(tmp_path / f"{name}.jsonl", data, skill=0.7, seed=0) for name in "ab"]
    headline = read_headline(read_content(runs, data, "paper", resamples=200))
    assert headline.lead.value == 0
    assert headline.sentences()[1] == f"On the pairs that both answered, {headline.second} is right as often."


def test_what_chance_could_explain_is_not_called_clear(tmp_path: Path) -> None:
    content = content_of(tmp_path, 0.7, 0.72)
    assert not read_headline(content).clear
    write_report(content, tmp_path / "out", ReportOptions())
    assert "which chance alone could explain" in (tmp_path / "out" / "index.html").read_text()


def test_the_constant_answer_is_the_share_of_the_larger_class(tmp_path: Path) -> None:
    content = content_of(tmp_path, 0.7, count=20)  # under the paper's protocol 10 normal and 5 logical pairs
    headline = read_headline(content)
    assert (headline.constant, headline.baseline, headline.pairs) == ("no", pytest.approx(10 / 15), 15)
    assert headline.second is None
    assert not headline.clear


def test_of_several_samples_the_vote_is_told(tmp_path: Path) -> None:
    content = content_of(tmp_path, 0.7, 0.7, samples=5)
    headline = read_headline(content)
    run = next(run for run in content.runs if run.name == headline.best)
    assert headline.accuracy == run.score.vote.pooled.metrics["accuracy"]
    assert headline.accuracy != run.score.pooled.metrics["accuracy"]
