"""MMAD's multiple-choice evaluation: how responses are read, what is averaged, and the figures MMAD published."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.pair_files import make_run_key, write_pairs

from lad_reasoner.commands.lad import main
from lad_reasoner.evaluation.mmad import DETECTION, TYPES, read_letter, score_choices
from lad_reasoner.pairs.schema import Choice, Image, Pair
from lad_reasoner.support.errors import DataError

OPTIONS = {"A": "Yes.", "B": "No.", "C": "Cannot be said.", "D": "A scratch at the top"}

#: One question of a set: dataset, number of the image, whether that is normal, type, whether the reply is right.
Asked = tuple[str, int, bool, str, bool]


@pytest.mark.parametrize(
    ("response", "letter", "how"),
    [
        ("B", "B", "letter"),
        ("Answer: C.", "C", "letter"),
        ("A or maybe B", "B", "doubtful"),  # the last one, as MMAD's script reads
        ("E", "E", "letter"),  # not offered: wrong, but a letter
        ("BAD", "A", "likeness"),  # no letter stands alone; the nearest option is a guess, as MMAD's is
        ("b", "B", "likeness"),
        ("a scratch at the top left", "D", "likeness"),
        ("<think> C looks like B </think><answer> A </answer>", "A", "letter"),
        ("<think> option C </think>\nB", "B", "letter"),
        ("<think> A <think> B </think> <answer>D", "D", "letter"),
        ("   ", None, "unread"),
        ("<answer></answer>", None, "unread"),
        ("<think> A scratch at the top", None, "unread"),  # cut off while it reasoned: a letter there is a word
        ("<think> no end <answer> B </answer>", "B", "letter"),
    ],
)
def test_how_a_response_is_read(response: str, letter: str | None, how: str) -> None:
    read, found = read_letter(response, OPTIONS)
    assert found == how
    if response not in {"BAD", "b"}:
        assert read == letter


@given(st.text(), st.dictionaries(st.sampled_from("ABCDE"), st.text(), min_size=1))
def test_reading_is_total(response: str, options: dict[str, str]) -> None:
    letter, how = read_letter(response, options)
    assert (letter is None) == (how == "unread")
    if how == "likeness":
        assert letter in options


def test_a_megabyte_is_read_in_time() -> None:
    assert read_letter("z" * 1_000_000, OPTIONS)[1] == "likeness"


@pytest.fixture
def write_answers(tmp_path: Path) -> Callable[[Iterable[Asked]], tuple[Path, Path]]:
    """Return a function that writes questions and the replies to them."""

    def write(asked: Iterable[Asked], *, samples: int = 1) -> tuple[Path, Path]:

        from lad_reasoner.inference.predictions import Prediction, PredictionStore
        from lad_reasoner.pairs.reader import data_sha256

        questions = list(asked)
        pairs = [_pair(number, *question[:4]) for number, question in enumerate(questions)]
        data, out = tmp_path / "mmad.parquet", tmp_path / "model.jsonl"
        out.unlink(missing_ok=True)
        write_pairs(data, pairs)
        key = make_run_key(data_sha256(data))
        with PredictionStore(out, key) as store:
            for pair, question in zip(pairs, questions, strict=True):
                for sample in range(samples):
                    text = "A" if question[4] else "B"
                    store.append(Prediction(**dict(key), pair_id=pair.pair_id, sample=sample, response=text))
        return out, data

    return write


def _pair(number: int, dataset: str, image: int, normal: bool, kind: str) -> Pair:
    folder = "good" if normal else "bad"
    picture = Image(data=b"", path=f"{dataset}/part/test/{folder}/{image}.png", sha256="")
    return Pair(
        pair_id=f"mmad/{picture.path}#{number}",
        dataset="mmad",
        category=f"{dataset}/part",
        label="no" if normal else "yes",
        kind="good" if normal else "appearance",
        defect=folder,
        references=[picture],
        query=picture,
        choice=Choice(kind, "What?", {"A": "this", "B": "that"}, "A"),
    )


def test_detection_is_the_mean_of_normal_and_anomalous(write_answers) -> None:
    asked = [("VisA", image, True, DETECTION, True) for image in range(2)]
    asked += [("VisA", image, False, DETECTION, image < 3) for image in range(6)]
    run = score_choices(*write_answers(asked), resamples=50)
    (visa,) = run.datasets
    assert visa.types[DETECTION].value == pytest.approx((1 + 3 / 6) / 2)
    assert (visa.overkill.value, visa.miss.value) == (0.0, 0.5)
    assert visa.average.value is None  # six types were not asked
    assert (visa.images, visa.questions) == (8, 8)


def test_structure_and_details_are_object_analysis(write_answers) -> None:
    kinds = ("Object Structure", "Object Details", "Object Analysis")
    run = score_choices(*write_answers([("VisA", 0, True, kind, kind == "Object Details") for kind in kinds]))
    assert run.mean.types["Object Analysis"].value == pytest.approx(1 / 3)


def test_an_unknown_type_is_named(write_answers) -> None:
    with pytest.raises(DataError, match="Object Colour"):
        score_choices(*write_answers([("VisA", 0, True, "Object Colour", True)]))


def test_images_are_drawn_with_all_their_questions(write_answers) -> None:
    """Answers that stand or fall by the image leave twice the doubt of ones that do not."""
    together = [("VisA", image, False, "Defect Analysis", image % 2 == 0) for image in range(40) for _ in range(4)]
    apart = [("VisA", image, False, "Defect Analysis", part % 2 == 0) for image in range(40) for part in range(4)]
    wide = score_choices(*write_answers(together)).mean.types["Defect Analysis"]
    narrow = score_choices(*write_answers(apart)).mean.types["Defect Analysis"]
    assert wide.value == narrow.value == 0.5
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * (0.25 / 40) ** 0.5, rel=0.15)
    assert narrow.low is None  # each image is half right: no resample differs


def test_several_samples_are_averaged_and_missing_questions_named(write_answers, capsys) -> None:
    asked = [("VisA", image, True, DETECTION, image > 0) for image in range(4)]
    predictions, data = write_answers(asked, samples=3)
    predictions.write_bytes(b"".join(predictions.read_bytes().splitlines(keepends=True)[3:]))
    with pytest.raises(SystemExit) as stop:
        main(["score", str(predictions), "--data", str(data), "--protocol", "mmad", "--json", "--resamples", "20"])
    assert stop.value.code == 0
    output = capsys.readouterr()
    run = json.loads(output.out)["runs"][0]
    assert (run["replies"], run["missing"]) == (9, 1)
    assert "1 questions without a reply" in output.err
    assert run["datasets"][0]["overkill"]["value"] == 0


@pytest.mark.parametrize(
    "words", [("--by", "kind"), ("--external", "a=b.csv"), ("--protocol", "paper"), ("--protocol", "all")]
)
def test_what_does_not_go_with_multiple_choice_is_refused(write_answers, capsys, words) -> None:
    predictions, data = write_answers([("VisA", 0, True, DETECTION, True)])
    command = ["score", str(predictions), "--data", str(data), "--protocol", "mmad", *words]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert "mmad" in capsys.readouterr().err


def test_pairs_of_another_kind_are_refused(write_run) -> None:
    from lad_reasoner.support.confusion import Confusion

    predictions, data = write_run({"screw_bag": Confusion(1, 1, 1, 1)})
    with pytest.raises(DataError, match="lad build mmad"):
        score_choices(predictions, data)


#: Qwen2.5-VL-7B-Instruct, 1 shot, as MMAD published it (answers_1_shot_Qwen2.5-VL-7B-Instruct_accuracy.csv in its
#: all_result): by dataset the seven types in our order, their average and the recall of detection, then how many
#: questions there are: of detection on normal and on anomalous images, and of each other type.
PUBLISHED = {
    "DS-MVTec": (
        (86.40039292041608, 73.11203319502074, 74.60184409052808, 74.60840890354493, 90.70539419087137),
        (99.56896551724138, 92.97732260424286),
        (84.56776591740936, 81.40293637846656),
        (465, 1226, 1205, 1193, 1213, 1205, 464, 1367),
    ),
    "MVTec-LOCO": (
        (61.51850053481957, 44.5010183299389, 51.83299389002036, 59.856262833675565, 72.95597484276729),
        (89.70588235294117, 78.9279112754159),
        (65.61407772279698, 55.846774193548384),
        (573, 992, 982, 982, 974, 954, 544, 1623),
    ),
    "VisA": (
        (75.5906804731109, 51.26050420168067, 61.06934001670844, 63.613445378151255, 73.34479793637145),
        (86.41711229946523, 82.85816108339273),
        (70.59343448412582, 58.180300500834726),
        (943, 1198, 1190, 1197, 1190, 1163, 935, 2806),
    ),
    "GoodsAD": (
        (60.9041768068341, 55.22501906941266, 55.24568393094289, 58.43960990247562, 76.02739726027397),
        (90.2559867877787, 79.92277992277992),
        (68.00295052578541, 68.30165542611894),
        (1269, 1631, 1311, 1506, 1333, 1460, 1211, 3367),
    ),
}
PUBLISHED_MEAN = (71.10343768379516, 72.19455716252939)


def _published_answers() -> Iterable[Asked]:
    for dataset, (first, second, (_, recall), counts) in PUBLISHED.items():
        shares = [2 * first[0] - recall, recall, *first[1:], *second]
        kinds = [DETECTION, DETECTION, *TYPES[1:]]
        for slot, (share, count, kind) in enumerate(zip(shares, counts, kinds, strict=True)):
            right = share * count / 100
            assert right == pytest.approx(round(right), abs=1e-6), "a share of whole answers"
            for image in range(count):
                yield dataset, image, slot == 0, kind, image < round(right)


@pytest.mark.slow
def test_published_figures_are_reproduced(write_answers) -> None:
    run = score_choices(*write_answers(_published_answers()), resamples=100)
    assert run.mean.questions == 39_672
    for score in run.datasets:
        first, second, (average, recall), _ = PUBLISHED[score.name]
        found = [score.types[kind].value for kind in TYPES]
        assert found == pytest.approx([share / 100 for share in (*first, *second)], abs=1e-12)
        assert score.average.value == pytest.approx(average / 100, abs=1e-12)
        assert 1 - score.miss.value == pytest.approx(recall / 100, abs=1e-12)
    assert run.mean.types[DETECTION].value == pytest.approx(PUBLISHED_MEAN[0] / 100, abs=1e-12)
    assert run.mean.average.value == pytest.approx(PUBLISHED_MEAN[1] / 100, abs=1e-12)
