"""What the report shows is what was said and scored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.report.conftest import WriteRuns, draw_pairs, write_pairs, write_predictions

from lad_reasoner.report.charts import draw_charts
from lad_reasoner.report.content import answer_error, read_content
from lad_reasoner.report.gallery import script_json, split_response
from lad_reasoner.support.errors import DataError, UsageError


@settings(max_examples=60, deadline=None)
@given(st.text() | st.from_regex(r"(<think>|</think>|<answer>|</answer>| |a|yes){0,12}", fullmatch=True))
def test_a_split_response_is_the_whole_response(text: str) -> None:
    before, reasoning, after = split_response(text)
    assert before + reasoning + after == text
    if reasoning:
        assert before.rstrip().endswith("<think>")


@settings(max_examples=60, deadline=None)
@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5))
def test_script_json_is_json_and_closes_no_script(value: object) -> None:
    text = script_json(value)
    assert json.loads(text) == value
    assert not set(text) & set("<\u2028\u2029")


def test_wrong_answers_come_before_right_ones_and_sure_ones_before_unsure() -> None:
    cases = [("yes", "no", 0.01), ("yes", "no", 0.4), ("no", "no", 0.45), ("no", "no", 0.02)]
    errors = [answer_error(*case) for case in cases]
    assert errors == sorted(errors, reverse=True)
    assert errors[1] > 1 > errors[2]
    assert answer_error("no", None, None) == 2.0


def test_the_paper_protocol_leaves_structural_pairs_out_and_says_how_many(write_runs: WriteRuns) -> None:
    data, runs = write_runs(60, models=3)
    content = read_content(runs, data, "paper", resamples=20)
    assert content.scored == len(content.truths) == 40
    assert content.left_out == {"structural": 20}
    assert [run.name for run in content.runs] == ["base", "sft", "grpo"]
    assert len(content.comparisons) == 3
    assert read_content(runs, data, "all", resamples=20).left_out == {}


def test_matrices_agree_with_the_scores(write_runs: WriteRuns) -> None:
    data, runs = write_runs(60)
    for run in read_content(runs, data, "all", resamples=20).runs:
        for name, group in {None: run.score.pooled, **run.score.categories}.items():
            answers, confusion = run.answers(name), group.confusion
            assert answers["yes", "yes"] == confusion.tp
            assert answers["no", "no"] == confusion.tn
            assert answers["yes", "no"] + answers["yes", None] == confusion.fn
            assert answers["no", "yes"] + answers["no", None] == confusion.fp


def test_a_limit_keeps_the_first_runs_worst(write_runs: WriteRuns) -> None:
    data, runs = write_runs(60)
    content = read_content(runs, data, "all", limit=5, resamples=20)
    every = read_content(runs, data, "all", resamples=20)
    kept = {truth.pair_id for truth in content.truths}
    first = every.runs[0]
    assert len(kept) == 5
    assert content.scored == 60
    assert min(first.error(truth) for truth in content.truths) >= max(
        first.error(truth) for truth in every.truths if truth.pair_id not in kept
    )


def test_several_samples_are_judged_by_their_vote(write_runs: WriteRuns) -> None:
    data, runs = write_runs(30, models=1, samples=5)
    (run,) = read_content(runs, data, "all", resamples=20).runs
    assert run.shown.name == "base (vote of 5)"
    assert all(len(samples) == 5 for samples in run.predictions.values())
    row = next(iter(run.judged.values()))
    assert len(row.replies) == 1
    assert row.replies[0].source == "mean P(yes)"


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.parquet", draw_pairs(15))
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_predictions(tmp_path / folder / "predictions.jsonl", data)
    runs = [tmp_path / folder / "predictions.jsonl" for folder in ("a", "b")]
    content = read_content(runs, data, "all", resamples=20)
    assert [run.name for run in content.runs] == ["a/predictions", "b/predictions"]
    with pytest.raises(UsageError, match="2 times"):
        read_content([runs[0], runs[0]], data)


def test_runs_on_other_data_are_refused(tmp_path: Path, write_runs: WriteRuns) -> None:
    data, runs = write_runs(15, models=1)
    other = write_pairs(tmp_path / "other.parquet", draw_pairs(30))
    theirs = write_predictions(tmp_path / "theirs.jsonl", other)
    with pytest.raises(DataError, match="other data"):
        read_content([*runs, theirs], data)


def test_charts_need_every_score(write_runs: WriteRuns) -> None:
    data, runs = write_runs(60)
    (first, second) = draw_charts(read_content(runs, data, "all", resamples=20).runs)
    assert [chart.title for chart in first] == [chart.title for chart in second] == ["Scores", "ROC", "Reliability"]
    roc = first[1]
    assert [kind for kind, _ in roc.lines] == ["diagonal", "other", "own"]
    assert roc.lines[-1][1].startswith("38.0,162.0 ")
    assert roc.lines[-1][1].endswith(" 252.0,10.0")


def test_no_charts_without_scores(write_runs: WriteRuns) -> None:
    data, runs = write_runs(30, models=1, scores=False)
    assert draw_charts(read_content(runs, data, "all", resamples=20).runs) == [()]


def test_the_constant_answers_stand_below_the_runs(write_runs: WriteRuns, tmp_path: Path) -> None:
    from lad_reasoner.report.page import ReportOptions, write_report

    data, runs = write_runs(60, models=1)
    content = read_content(runs, data, "paper", resamples=20)
    yes, no = content.constants
    truths = [row.truth for row in content.runs[0].judged.values()]
    share = sum(truth.label == "yes" for truth in truths) / len(truths)
    assert yes.pooled.metrics["accuracy"].value == pytest.approx(share)
    assert yes.pooled.metrics["f1"].value == pytest.approx(2 * share / (1 + share))
    assert no.pooled.metrics["accuracy"].value == pytest.approx(1 - share)
    assert (yes.pooled.metrics["mcc"].value, no.pooled.yes_share.value) == (None, 0)
    write_report(content, tmp_path / "out", ReportOptions())
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('<tr class="constant"><th scope="row">always') == 4  # of scores and of replies
    assert "MCC" in page


def test_a_right_verdict_with_a_wrong_reason_is_marked(tmp_path: Path) -> None:
    from dataclasses import replace

    from lad_reasoner.report.gallery import gallery_data
    from lad_reasoner.report.pictures import PairPictures

    pairs = [replace(pair, defect="missing_part" if pair.label == "yes" else "good") for pair in draw_pairs(10)]
    data = write_pairs(tmp_path / "pairs.parquet", pairs)
    yes, no = (pair.pair_id for pair in (pairs[5], pairs[0]))
    for anomalous, normal, marks in (
        ("A part is missing.", "Nothing is missing.", (False, False)),
        ("The part is bent.", "A part is bent.", (True, True)),
        ("Something.", "Nothing is bent.", (True, False)),
    ):
        responses = {
            pair.pair_id: f"<think> {text} </think><answer> {pair.label} </answer>"
            for pair in pairs
            for text in [anomalous if pair.label == "yes" else normal]
        }
        run = write_predictions(tmp_path / f"{len(anomalous)}.jsonl", data, responses=responses)
        content = read_content([run], data, "all", resamples=20)
        shown = gallery_data(content, dict.fromkeys(responses, PairPictures((), "", None)))["pairs"]
        reasons = {pair["id"]: pair["said"][0]["reason"] for pair in shown}
        assert (reasons[yes], reasons[no]) == marks
