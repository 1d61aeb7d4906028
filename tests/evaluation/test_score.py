"""From files to scores: what is counted, what is left out, what is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.evaluation.conftest import NO, YES

from lad_reasoner.commands.lad import main
from lad_reasoner.evaluation.compare import compare_systems
from lad_reasoner.evaluation.external import read_external, read_free_text
from lad_reasoner.evaluation.outcomes import JudgedPair, ScoredReply, System, majority
from lad_reasoner.evaluation.score import cell_counts, score_run, score_system
from lad_reasoner.pairs.reader import Truth, read_truths
from lad_reasoner.support.confusion import Confusion
from lad_reasoner.support.errors import DataError, UsageError


def outcome(number: int, label: str, *answers: str | None, query: int | None = None, **truth: str) -> JudgedPair:
    path = f"q/{number if query is None else query}.png"
    facts = {"dataset": "d", "category": "c", "kind": "good" if label == "no" else "logical", "defect": "x"} | truth
    replies = tuple(
        ScoredReply(answer, answer is not None, {"yes": 0.9, "no": 0.2, None: 0.5}[answer]) for answer in answers
    )
    return JudgedPair(Truth(pair_id=f"p{number}", label=label, query_path=path, **facts), replies)


def run(*rows: JudgedPair, resamples: int = 50):
    return score_system(System("m", rows), "all", resamples=resamples)


def test_an_unparsed_answer_is_wrong_and_counted() -> None:
    score = run(outcome(0, "yes", None), outcome(1, "no", None), outcome(2, "yes", "yes"), outcome(3, "no", "no"))
    assert score.pooled.confusion == Confusion(tp=1, fp=1, tn=1, fn=1)
    assert score.pooled.unparsed == 2
    assert score.pooled.template_rate == 0.5


@pytest.mark.parametrize(
    ("unparsed", "accuracy", "mcc", "auroc"), [(0, 1.0, 1.0, 1.0), (10, 0.5, 0.447, 0.875), (20, 0.0, None, 0.5)]
)
def test_figures_with_unparsed_answers(unparsed: int, accuracy: float, mcc: float | None, auroc: float) -> None:
    labels = ["yes", "no"] * 10
    rows = [outcome(n, label, None if n < unparsed else label) for n, label in enumerate(labels)]
    metrics = run(*rows, resamples=400).pooled.metrics
    for name, value in {"accuracy": accuracy, "balanced_accuracy": accuracy, "mcc": mcc, "auroc": auroc}.items():
        found = metrics[name]
        assert found.value == (None if value is None else pytest.approx(value, abs=1e-3)), name
        assert (found.low is None) == (found.high is None) == (value is None or (name, unparsed) == ("auroc", 20))
        assert found.low is None or found.low <= value <= found.high
    difference = compare_systems([System("a", tuple(rows)), System("b", tuple(rows))], resamples=50)[0]
    assert difference.mcc.value == (None if mcc is None else 0)


def test_samples_are_averaged_and_beside_it_voted() -> None:
    score = run(
        outcome(0, "yes", "yes", "yes", "no"), outcome(1, "no", "yes", None, "no"), outcome(2, "no", "no", "no", "no")
    )
    assert score.pooled.pairs == 3
    assert score.pooled.replies == 9
    assert score.pooled.metrics["accuracy"].value == pytest.approx(6 / 9)
    # Pair 1 is a tie, broken by its mean P(yes) of 1.6 / 3.
    assert score.vote.pooled.metrics["accuracy"].value == pytest.approx(2 / 3)
    assert (score.vote.pooled.unparsed, score.vote.pooled.ties) == (0, 1)
    assert score.vote.score_sources == {"mean P(yes)": 3}


TIES = [
    ([("yes", 0.9), ("no", 0.4)], "yes", True),  # mean 0.65
    ([("yes", 0.6), ("no", 0.1)], "no", True),
    ([("no", None), ("yes", 0.9)], "no", True),  # a score is missing: the first reply
    ([(None, 0.9), ("no", None), ("yes", None)], "no", True),  # the first that can be read
    ([("yes", 28.0), ("no", 31.0)], "yes", True),  # no probabilities: the first reply
    ([("no", 0.5), ("yes", 0.5)], "no", True),
    ([("yes", 0.1), ("yes", 0.1), ("no", 0.1)], "yes", False),  # no tie: the majority
    ([(None, 0.9), (None, 0.9)], None, False),
]


@pytest.mark.parametrize(("replies", "answer", "tied"), TIES)
def test_a_tie_is_broken_by_the_mean_probability_else_by_the_first_reply(replies, answer, tied) -> None:
    row = replace(outcome(0, "yes", "yes"), replies=tuple(ScoredReply(said, score=score) for said, score in replies))
    (vote,) = (row.replies[0] for row in majority(System("m", (row,))).rows)
    assert (vote.answer, vote.tied) == (answer, tied)
    scores = [score for _, score in replies]
    if None not in scores:
        assert vote.score == pytest.approx(sum(scores) / len(scores))


def test_even_numbers_of_replies_are_not_biased_toward_wrong() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    rows = []
    for number in range(2000):
        label = "yes" if number % 2 else "no"
        said = [label if rng.random() < 0.7 else {"yes": "no", "no": "yes"}[label] for _ in range(2)]
        rows.append(replace(outcome(number, label, "no"), replies=tuple(ScoredReply(answer) for answer in said)))
    vote = score_system(System("m", tuple(rows)), "all", resamples=0).vote
    assert vote is not None
    # Two replies without scores vote like the first one: 70%, where ties as errors gave 49%.
    assert vote.pooled.metrics["accuracy"].value == pytest.approx(0.7, abs=0.03)
    assert vote.pooled.ties == pytest.approx(840, abs=80)


def test_references_of_one_query_are_one_cluster() -> None:
    rows = [outcome(0, "yes", "yes", query=7), outcome(1, "yes", "no", query=7), outcome(2, "no", "no")]
    assert cell_counts(rows).tolist() == [[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]]


def test_the_references_of_a_query_vote_with_all_their_samples() -> None:
    score = run(
        outcome(0, "yes", "yes", "no", query=1),
        outcome(1, "yes", "yes", "yes", query=1),
        outcome(2, "yes", "no", None, query=1),
        outcome(3, "no", "yes", "no", query=2),
        outcome(4, "no", "no", "no", query=2),
    )
    assert (score.samples, score.votes, score.pooled.pairs, score.pooled.replies) == (2, 6, 5, 10)
    assert score.vote is not None
    assert score.vote.pooled.pairs == 2
    assert score.vote.pooled.confusion == Confusion(tp=1, fp=0, tn=1, fn=0)
    assert score.vote.pooled.metrics["auroc"].value == 1.0  # mean P(yes) of 0.72 against 0.38
    assert score.vote.name == "m (vote of 6)"
    assert score.vote.vote is None


def test_one_reply_a_query_has_no_vote() -> None:
    score = run(outcome(0, "yes", "yes"), outcome(1, "no", "no"))
    assert (score.votes, score.vote) == (1, None)


def test_queries_of_one_path_in_two_datasets_do_not_vote_together() -> None:
    rows = [outcome(0, "yes", "yes", query=1), outcome(1, "no", "no", query=1, dataset="e")]
    assert run(*rows).votes == 1


def test_references_of_one_query_widen_the_interval() -> None:
    """Three references that always agree tell no more than one."""
    alone = [outcome(i, "yes" if i % 2 else "no", "yes" if i % 3 else "no", query=i) for i in range(90)]
    thrice = [
        outcome(3 * i + k, "yes" if i % 2 else "no", "yes" if i % 3 else "no", query=i)
        for i in range(90)
        for k in range(3)
    ]
    one, three = (run(*rows, resamples=4000).pooled.metrics["accuracy"] for rows in (alone, thrice))
    assert one.value == three.value
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.1)


def test_a_vote_over_references_is_compared_with_a_single_answer() -> None:
    voted = System("a", tuple(outcome(i, "yes", "yes" if i % 3 else "no", query=i // 3) for i in range(12)))
    single = System("b", tuple(outcome(i, "yes", "no") for i in range(4)))
    (item,) = compare_systems([voted, single], resamples=50)
    assert (item.first, item.pairs, item.only_first, item.only_second) == ("a (vote of 3)", 4, 4, 0)


def test_a_metric_that_one_category_lacks_has_no_macro() -> None:
    score = run(outcome(0, "no", "no", category="a"), outcome(1, "yes", "yes", category="b"))
    assert score.categories["a"].metrics["f1"].value is None
    assert score.macro["f1"].value is None
    assert score.macro["accuracy"].value == 1.0
    assert score.pooled.metrics["f1"].value == 1.0


def test_one_reply_without_a_score_leaves_the_curves_undefined() -> None:
    rows = [outcome(0, "yes", "yes"), outcome(1, "no", "no")]
    assert run(*rows).pooled.metrics["auroc"].value == 1.0
    silent = replace(rows[0], replies=(ScoredReply("yes"),))
    assert run(silent, rows[1]).pooled.metrics["auroc"].value is None


def test_a_query_with_two_defects_counts_for_each_and_normals_for_none() -> None:
    score = run(
        outcome(0, "yes", "yes", defect="swap+missing"), outcome(1, "yes", "no", defect="swap"), outcome(2, "no", "no")
    )
    assert [(share.name, share.pairs, share.accuracy.value) for share in score.defects] == [
        ("c/missing", 1, 1.0),
        ("c/swap", 2, 0.5),
    ]
    assert {share.name: share.pairs for share in score.kinds} == {"good": 1, "logical": 2}


def test_two_models_are_compared_on_the_pairs_both_answered() -> None:
    first = System("a", tuple(outcome(i, "yes", "yes") for i in range(12)))
    second = System("b", tuple(outcome(i, "yes", "no" if i < 6 else "yes") for i in range(10)))
    (item,) = compare_systems([first, second], resamples=500)
    assert (item.pairs, item.only_first, item.only_second) == (10, 6, 0)
    assert item.p_value == pytest.approx(2 / 2**6)
    assert item.accuracy.value == pytest.approx(0.6)
    assert 0 < item.accuracy.low < 0.6 < item.accuracy.high


MATRIX = {"screw_bag": Confusion(tp=5, fp=2, tn=6, fn=3), "my_part": Confusion(tp=1, fp=1, tn=2, fn=1)}


def test_the_protocol_decides_whether_structural_anomalies_count(write_run) -> None:
    predictions, data = write_run(MATRIX, structural=4)
    assert score_run(predictions, data, resamples=10).pooled.pairs == 21
    everything = score_run(predictions, data, "all", resamples=10)
    assert everything.pooled.pairs == 29
    assert everything.pooled.confusion.fn == 12


def test_other_data_than_predicted_on_is_refused(write_run) -> None:
    predictions, _ = write_run(MATRIX)
    _, other = write_run(MATRIX, name="other", structural=1)
    with pytest.raises(DataError, match="predictions made on other data"):
        score_run(predictions, other)
    with pytest.raises(DataError, match="--data"):
        score_run(predictions)


def test_missing_pairs_are_counted_and_named_not_scored(write_run, capsys) -> None:
    predictions, data = write_run(MATRIX)
    lines = predictions.read_bytes().splitlines(keepends=True)
    predictions.write_bytes(b"".join(lines[2:]))
    assert score_run(predictions, data, resamples=10).missing == 2
    with pytest.raises(SystemExit) as stop:
        main(["score", str(predictions), "--data", str(data), "--resamples", "20", "--by", "defect"])
    captured = capsys.readouterr()
    assert stop.value.code == 0
    assert "2 pairs without a reply; not scored: mvtec_loco/screw_bag/logical/0.png" in captured.err
    assert "screw_bag/logical_defect" in captured.out


def test_json_is_pure_and_complete(write_run, capsys) -> None:
    predictions, data = write_run(MATRIX)
    with pytest.raises(SystemExit):
        main(["score", str(predictions), "--data", str(data), "--resamples", "20", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["runs"][0]["pooled"]["confusion"] == {"tp": 6, "fp": 3, "tn": 8, "fn": 4}
    assert found["runs"][0]["pooled"]["metrics"]["auroc"]["value"] is None
    assert len(found["paper"]) == 7


def test_the_table_names_both_averages_and_marks_the_papers_rows(write_run, capsys) -> None:
    predictions, data = write_run({"screw_bag": MATRIX["screw_bag"]})
    with pytest.raises(SystemExit):
        main(["score", str(predictions), "--data", str(data), "--resamples", "20"])
    table = capsys.readouterr().out
    assert "pooled" in table
    assert "macro" in table
    assert table.count("(paper)") == 7


TEXTS = [
    ("Yes, there is an anomaly in the image.", "yes"),
    ("No, there is no anomaly in the image.", "no"),
    ('  "NO".', "no"),
    ("<think> No pin is missing. </think><answer> Yes </answer>", "yes"),  # as responses are read everywhere
    ("<think> a </think><answer> yes </answer><answer> no </answer>", None),
    ("Not sure", None),
    ("nothing", None),
    ("There is no anomaly", None),  # only the first word is read: what comes later is for people
    ("", None),
    ("y\u0435s", None),
]


@pytest.mark.parametrize(("text", "answer"), TEXTS)
def test_free_text_is_read_by_its_first_word(text: str, answer: str | None) -> None:
    assert read_free_text(text) == answer


def test_another_system_is_read_by_path_or_id_with_a_threshold(write_run, tmp_path: Path, capsys) -> None:
    _, data = write_run(MATRIX)
    truths = read_truths(data)
    path = tmp_path / "april.csv"
    rows = [
        f"C:\\loco\\{truth.query_path.replace('/', chr(92))},{0.9 if truth.label == 'yes' else 0.5}"
        for truth in truths
    ]
    path.write_text("\ufeffpath,score\r\n" + "\r\n".join(rows))
    system = read_external("APRIL-GAN", path, data, "paper")
    score = score_system(system, "paper", resamples=10)
    assert score.pooled.metrics["accuracy"].value == 1.0  # 0.5 is not above 0.5
    assert score.pooled.metrics["auroc"].value == 1.0
    assert (score.missing, score.unknown) == (0, 0)
    with pytest.raises(SystemExit) as stop:
        main(["score", "--external", f"APRIL-GAN={path}", "--data", str(data), "--resamples", "10"])
    assert stop.value.code == 0
    assert "APRIL-GAN" in capsys.readouterr().out


def test_each_of_several_systems_has_its_threshold(write_run, tmp_path: Path, capsys) -> None:
    _, data = write_run(MATRIX)
    words = ["score", "--data", str(data), "--threshold", "0.7", "--threshold", "winclip=-1", "--resamples", "10"]
    for name, low, high in (("april", 0.5, 0.9), ("winclip", -2, 0.1), ("patch", -2, 0.6)):
        lines = [
            f"/results/screw_bag/{truth.query_path},{high if truth.label == 'yes' else low}"
            for truth in read_truths(data)
        ]
        (tmp_path / f"{name}.csv").write_text("path,score\n" + "\n".join(lines))
        words += ["--external", f"{name}={tmp_path / name}.csv"]
    with pytest.raises(SystemExit) as stop:
        main([*words, "--json"])
    assert stop.value.code == 0
    printed = capsys.readouterr()
    recalls = {run["name"]: run["pooled"]["metrics"]["recall"]["value"] for run in json.loads(printed.out)["runs"]}
    assert recalls == {"april": 1.0, "winclip": 1.0, "patch": 0.0}
    # Each path was found, below folders by category as well; and one answer for everything is reported.
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("patch: warning: every score gives the answer no at the threshold 0.7; ")


def test_a_system_of_which_no_pair_is_known_is_told_what_it_named(write_run, tmp_path: Path, capsys) -> None:
    _, data = write_run(MATRIX)
    (tmp_path / "o.csv").write_text("path,score\nelsewhere/000.png,1\n")
    with pytest.raises(SystemExit) as stop:
        main(["score", "--external", f"o={tmp_path / 'o.csv'}", "--data", str(data)])
    assert stop.value.code == 1
    assert "o: 1 unknown pairs: elsewhere/000.png" in capsys.readouterr().err


WORDS = [
    (["--threshold", "high"], "'high' is not a finite number"),
    (["--threshold", "nan"], "'nan' is not a finite number"),
    (["--threshold", "other=0.5"], "'other' is not an --external system; these are: o"),
    (["--external", "o=b.csv"], "o is given a second time"),
]


@pytest.mark.parametrize(("words", "message"), WORDS)
def test_wrong_words_about_other_systems_are_one_line(words: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["score", "--external", "o=a.csv", "--data", "d.parquet", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["score", "compare", "report"])
@pytest.mark.parametrize("words", [["--seed", "-1"], ["--resamples", "0"], ["--resamples", "1000001"]])
def test_the_bootstrap_has_its_bounds(verb: str, words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main([verb, "a.jsonl", "b.jsonl", *(["--out", "o"] if verb == "report" else []), *words])
    assert stop.value.code == 2
    assert f"Invalid value for '{words[0]}'" in capsys.readouterr().err


FAULTS = [
    ("a,b\n1,2\n", "columns are a, b"),
    ("", "an empty file"),
    ("pair_id,score\nx,high\n", "line 2, column score: 'high' is not a finite number"),
    ("pair_id,score\nx,nan\n", "finite"),
    ("pair_id,score\nx,\n", "the score is empty"),
    ("pair_id,score\nx,1\nx,1\n", "line 3: x occurs a second time"),
    ("path,score\n,1\n", "no pair_id and no path"),
    ("pair_id,score,score\nx,1,0\n", "line 1: two columns are called score"),
    ("pair_id,text\nx,no\ny,Yes, a pin, and more\n", "line 3: 4 values for 2 columns"),
]


@pytest.mark.parametrize(("content", "message"), FAULTS)
def test_faults_of_a_csv_are_named(write_run, tmp_path, content: str, message: str) -> None:
    _, data = write_run(MATRIX)
    path = tmp_path / "bad.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_external("x", path, data, "paper")


def test_the_papers_rows_appear_for_mvtec_loco_ad_alone(write_run, capsys, tmp_path) -> None:
    import pyarrow.parquet as pq

    _, data = write_run({"screw_bag": Confusion(tp=2, fp=1, tn=2, fn=1)})
    (tmp_path / "o.csv").write_text("path,score\nscrew_bag/good/3.png,0.7\n")
    table = pq.read_table(data)
    other = tmp_path / "other.parquet"
    pq.write_table(table.set_column(*_dataset_column(table, "synthetic_loco")), other)
    for file, rows in ((data, 7), (other, 0)):
        with pytest.raises(SystemExit):
            main(["score", "--external", f"o={tmp_path / 'o.csv'}", "--data", str(file), "--resamples", "10"])
        assert capsys.readouterr().out.count("(paper)") == rows


@pytest.fixture
def odd_scores(write_run, tmp_path: Path) -> tuple[Path, Path]:
    """A CSV of scores between 18 and 34, with 20 normal validation images that the data does not hold."""
    _, data = write_run({"screw_bag": Confusion(tp=2, fp=0, tn=3, fn=2)})
    rows = [
        f"{truth.query_path},{28.9 + number if truth.label == 'yes' else 18.2 + number / 9}"
        for number, truth in enumerate(read_truths(data))
    ]
    rows += [f"screw_bag/validation/good/{number:03}.png,{18 + number / 10}" for number in range(20)]
    path = tmp_path / "odd.csv"
    path.write_text("path,score\n" + "\n".join(rows))
    return path, data


def test_scores_off_the_scale_need_a_threshold(odd_scores, capsys) -> None:
    path, data = odd_scores
    words = ["score", "--external", f"PatchCore={path}", "--data", str(data), "--resamples", "10", "--json"]
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert "the scores of PatchCore lie between 18 and 31.9" in said
    assert "--threshold" in said
    for rule, note in (
        ("quantile:0.95:validation", "quantile:0.95:validation over 20 images"),
        ("f1-max:screw_bag", "f1-max:screw_bag over 27 images"),
        ("25", ""),
    ):
        with pytest.raises(SystemExit) as stop:
            main([*words, "--threshold", rule])
        assert stop.value.code == 0
        printed = capsys.readouterr()
        (run,) = json.loads(printed.out)["runs"]
        assert run["pooled"]["metrics"]["accuracy"]["value"] == 1.0, rule
        assert note in printed.err
        assert ("optimistic" in printed.err) == rule.startswith("f1-max")  # chosen on what is scored
        if rule.startswith("quantile"):
            assert "unknown pairs" not in printed.err  # the split that chose the threshold is no mistake


def test_a_rule_chooses_what_plain_search_chooses(odd_scores) -> None:
    import numpy as np

    path, data = odd_scores
    system = read_external("x", path, data, "paper", threshold="quantile:0.9:validation")
    assert f"{np.quantile([18 + number / 10 for number in range(20)], 0.9):.6g}" in system.notes[0]
    with pytest.raises(UsageError, match="lacks normal or anomalous images"):
        read_external("x", path, data, "paper", threshold="f1-max:validation")
    with pytest.raises(UsageError, match="no normal image"):
        read_external("x", path, data, "paper", threshold="quantile:0.9:train")


def test_one_answer_for_every_score_is_reported(odd_scores) -> None:
    path, data = odd_scores
    system = read_external("x", path, data, "paper", threshold=0.5)
    assert [note.partition(";")[0] for note in system.notes] == [
        "warning: every score gives the answer yes at the threshold 0.5"
    ]


def _dataset_column(table, name: str):
    import pyarrow as pa

    place = table.schema.get_field_index("dataset")
    return place, table.schema.field(place), pa.array([name] * len(table))


def test_each_of_locos_89_defects_has_its_share(shared_data) -> None:
    """The dataset's own list of defects; every second one is found."""
    import csv

    with (shared_data / "facts" / "loco_defects.csv").open(newline="") as lines:
        defects = [(row["category"], row["defect_name_table"], row["type"]) for row in csv.DictReader(lines)]
    assert len(defects) == 89
    rows = [
        outcome(number, "yes", "yes" if number % 2 else "no", category=category, defect=defect, kind=kind)
        for number, (category, defect, kind) in enumerate(defects)
    ]
    shares = {share.name: share.accuracy.value for share in run(*rows, outcome(99, "no", "no")).defects}
    assert shares == {f"{category}/{name}": float(i % 2) for i, (category, name, _) in enumerate(defects)}


def test_score_names_the_ties_of_a_vote(write_run, capsys) -> None:
    path, data = write_run({"nut": Confusion(tp=1, fp=1, fn=1, tn=1)})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    other = {YES: NO, NO: YES}
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with path.open("a") as stream:
        for line in lines[:3]:
            stream.write(json.dumps(line | {"sample": 1, "response": other[line["response"]]}) + "\n")
        stream.write(json.dumps(lines[3] | {"sample": 1}) + "\n")
    with pytest.raises(SystemExit):
        main(["score", str(path), "--data", str(data), "--resamples", "9"])
    assert "model: 3 of 4 votes are ties, decided by the mean P(yes)" in capsys.readouterr().out


def test_scores_that_give_one_answer_get_a_warning_with_the_options(write_run, tmp_path, capsys) -> None:
    _, data = write_run({"nut": Confusion(tp=2, fp=0, fn=0, tn=2)})
    rows = "".join(f"{truth.query_path},0.{10 + place}\n" for place, truth in enumerate(read_truths(data)))
    (tmp_path / "x.csv").write_text("path,score\n" + rows)
    with pytest.raises(SystemExit):
        main(["score", "--external", f"own={tmp_path / 'x.csv'}", "--data", str(data), "--resamples", "9"])
    said = capsys.readouterr().err
    assert "own: warning: every score gives the answer no at the threshold 0.5" in said
    assert "Give --threshold NUMBER, f1-max:SPLIT or quantile:SHARE:SPLIT." in said
