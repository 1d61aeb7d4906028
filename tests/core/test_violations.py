"""What the extractor reads in rationales: hand-labelled sentences, half of them set aside before it was written."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_reasoner.task.violations import (
    VIOLATIONS,
    asserts_anomaly,
    find_assertions,
    gold_violations,
    named_violations,
)

DATA = Path(__file__).parent / "data"


def read_sentences(name: str) -> list[tuple[frozenset[str], str, str]]:
    with (DATA / f"{name}.tsv").open(encoding="utf-8", newline="") as lines:
        return [
            (frozenset(filter(None, row["asserted"].split(","))), row["form"], row["sentence"])
            for row in csv.DictReader(lines, delimiter="\t")
        ]


SENTENCES = read_sentences("rationales")
HELD_OUT = read_sentences("rationales_held_out")
#: Held-out sentences that are known to be misread; they stay so that the figures stay honest.
MISREAD = {"A second pushpin lies in the top right compartment, where just one belongs."}


@pytest.mark.parametrize(("asserted", "form", "sentence"), SENTENCES + HELD_OUT)
def test_a_sentence_asserts_what_its_label_says(asserted: frozenset[str], form: str, sentence: str) -> None:
    read = named_violations(sentence)
    if sentence in MISREAD:
        assert read != asserted
        return
    assert read == asserted, form
    assert asserts_anomaly(sentence) == bool(asserted)


@pytest.mark.parametrize("sentences", [SENTENCES, HELD_OUT], ids=["shown", "held out"])
def test_precision_recall_and_false_alarms(sentences) -> None:
    right = wrong = missed = alarms = normal = 0
    for asserted, _, sentence in sentences:
        read = named_violations(sentence)
        right, wrong, missed = (
            right + len(read & asserted),
            wrong + len(read - asserted),
            missed + len(asserted - read),
        )
        normal += not asserted
        alarms += not asserted and asserts_anomaly(sentence)
    assert len(sentences) >= 40
    assert normal >= 20
    assert right / (right + wrong) >= 0.9
    assert right / (right + missed) >= 0.9
    assert alarms / normal <= 0.05


def test_the_sentences_are_not_the_same() -> None:
    assert not {sentence for *_, sentence in SENTENCES} & {sentence for *_, sentence in HELD_OUT}


def test_the_docs_page_shows_every_sentence(repository) -> None:
    page = (repository / "docs" / "rationales.md").read_text(encoding="utf-8")
    for asserted, form, sentence in SENTENCES + HELD_OUT:
        assert f"| {sentence} | {', '.join(sorted(asserted)) or '-'} | {form} |" in page


DENIALS = (
    "There is hardly any scratch.",
    "It lacks any scratches.",
    "The bag is scratch-free, and the part is defect-free.",
    "The surface shows zero scratches.",
    "Missing parts: none. Defects: 0. Scratches: no",
    "The scratches I suspected turned out to be reflections.",
    "What looked like a crack is a reflection.",
    "The dark spot is a shadow.",
    "A missing screw would be an anomaly, but both screws are there.",
    "The cable has a cut end as usual.",
    "The torn edge is on purpose.",
    "The box has two different kinds of fruit.",
    "It has an additional washer, as does the reference.",
    "Both images show an extra nut.",
    "The spots on the banana chips are natural.",
    "It is unlikely that a part is missing, and I doubt that anything is bent.",
    "The lever is open in neither image.",
    "The query has two nuts; the reference has two nuts.",
    "There should be two screws and there are two.",
)

ASSERTIONS = {
    "There is without doubt a crack.": "broken",
    "No question, a washer is missing.": "missing",
    "The washer is not without scratches.": "scratch",
    "The compartment is unoccupied.": "missing",
    "The query misses a washer.": "missing",
    "The box lacks, as it seems, a washer.": "missing",
    "The label has fallen off.": "missing",
    "There should be two screws but there is just one.": "missing",
    "Instead of two screws there is one.": "missing",
    "I count 14 pushpins; there should be 15.": "missing",
    "I count 14 pushpins, not 15.": "missing",
    "Only a single washer can be seen.": "missing",
    "The query has three nuts, the reference two.": "extra",
    "The reference shows 2 nuts; the query shows 3.": "extra",
    "It has three washers although two are expected.": "extra",
    "Expected two washers, found three.": "extra",
    "Two pushpins share one compartment.": "extra",
    "The label is not where it should be.": "place",
    "The label is upside-down.": "place",
    "The tangerine was replaced by a peach.": "type",
    "The fruit label doesn't match the juice.": "type",
    "There's a hole in the bag.": "hole",
    "The juice level doesn't reach the neck.": "level",
    "The screw is not as long as it should be.": "length",
    "The screw is missing, but the rest looks fine.": "missing",
}


@pytest.mark.parametrize("sentence", DENIALS)
def test_what_is_denied_in_other_words_is_not_asserted(sentence: str) -> None:
    assert not asserts_anomaly(sentence)


@pytest.mark.parametrize(("sentence", "violation"), ASSERTIONS.items())
def test_what_is_asserted_in_other_words_is_read(sentence: str, violation: str) -> None:
    assert named_violations(sentence) == {violation}


ASSERTED = st.sampled_from(
    ["A nut is missing.", "The pin is bent.", "There is an extra washer.", "The labels are swapped."]
)
DENIED = st.sampled_from(["Nothing is missing.", "The pin is not bent.", "There is no extra washer."])


@settings(deadline=None)
@given(st.lists(ASSERTED, max_size=3), st.lists(DENIED, max_size=3))
def test_sentences_are_read_one_by_one(asserted: list[str], denied: list[str]) -> None:
    text = " ".join(asserted + denied)
    assert named_violations(text) == set().union(*map(named_violations, asserted))
    assert named_violations(" ".join(denied)) == set()


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    assert {found.violation for found in find_assertions(text)} <= {*VIOLATIONS, "anomaly"}


GOLD = [
    ("logical", "2_nectarines_1_tangerine", {"extra", "missing"}),
    ("logical", "0_nectarines_2_tangerines", {"missing"}),
    ("logical", "0_nectarines_4_tangerines", {"extra", "missing"}),
    ("logical", "1_additional_long_screw", {"extra"}),
    ("logical", "2_missing_washers", {"missing"}),
    ("logical", "1_very_short_screw", {"length"}),
    ("logical", "wrong_fill_level_not_enough", {"level"}),
    ("logical", "underflow", {"level"}),
    ("logical", "wrong_ratio", {"count"}),
    ("logical", "empty_bottle", {"level", "missing"}),
    ("logical", "wrong_connector_type_5_2", {"type"}),
    ("logical", "compartments_swapped", {"swapped"}),
    ("logical", "cable_color", {"color"}),
    ("structural", "juice_color", {"color"}),
    ("number", "unnamed", {"count", "extra", "missing"}),
]


@pytest.mark.parametrize(("kind", "defect", "violations"), GOLD)
def test_missing_extra_and_count_are_not_merged(kind: str, defect: str, violations: set[str]) -> None:
    assert gold_violations(kind, defect) == (violations, "")


def test_most_of_locos_logical_defects_name_their_violation(shared_data) -> None:
    with (shared_data / "facts" / "loco_defects.csv").open(newline="") as lines:
        names = [row["defect_name_table"] for row in csv.DictReader(lines) if row["type"] == "logical"]
    vague = [name for name in names if len(gold_violations("logical", name)[0]) > 3]
    assert vague == []
