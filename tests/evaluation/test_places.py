"""Words for a place: what is read, and whether it is right on random masks."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lad_reasoner.evaluation.outcomes import JudgedPair, ScoredReply, System
from lad_reasoner.evaluation.places import find_places
from lad_reasoner.evaluation.rationales import score_rationales
from lad_reasoner.pairs.reader import Truth

SENTENCES = [
    ("A pin is missing in the lower left compartment.", {"bottom", "left"}),
    ("A pin is missing at the top right.", {"top", "right"}),
    ("The clamp on the right is bent.", {"right"}),
    ("A scratch runs across the left half.", {"left"}),
    ("There is a dent in the centre.", {"middle"}),
    ("A nut is missing in the upper row.", {"top"}),
    ("The middle wire is blue instead of red.", {"middle"}),
    ("The fill level is lower than in the reference.", set()),
    ("It is not in the right place.", set()),
    ("The number of nuts is not right.", set()),
    ("One compartment is left empty.", set()),
    ("The top and the bottom labels are swapped.", {"top"}),
    ("The bottom label is missing.", set()),
    ("The cable differs on the left side and to the right.", set()),
    ("top ok missing ok middle ok ok ok bottom ok ok ok", set()),
    ("A scratch from the left to the right at the bottom.", {"bottom"}),
]


@pytest.mark.parametrize(("sentence", "expected"), SENTENCES)
def test_a_word_is_a_place_only_where_it_means_one(sentence: str, expected: set[str]) -> None:
    assert find_places(sentence) == expected


def test_places_are_those_of_the_masks_thirds(tmp_path) -> None:
    rng = np.random.default_rng(4)
    rows, right, stated = [], 0, 0
    words = {"left": 0, "right": 0, "top": 1, "bottom": 1}
    for number in range(60):
        area = np.zeros((90, 120), dtype=np.uint8)
        top, left = int(rng.integers(0, 80)), int(rng.integers(0, 110))
        area[top : top + 9, left : left + 9] = 255
        mask = tmp_path / "c" / "ground_truth" / "dent" / f"{number:03d}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(area).save(mask)
        word = str(rng.choice(list(words)))
        truth = Truth(f"p{number}", "d", "c", "yes", "structural", "dent", f"c/test/dent/{number:03d}.png")
        rows.append(JudgedPair(truth, (ScoredReply("yes", reasoning=f"There is a dent on the {word} side."),)))
        stated += 1
        centre = (left + 4.5) / 120 if words[word] == 0 else (top + 4.5) / 90
        right += centre < 1 / 3 if word in {"left", "top"} else centre >= 2 / 3
    system = System("m", tuple(rows))
    found = score_rationales(system, masks=tmp_path, resamples=100).figures["places"]
    assert found.value == pytest.approx(right / stated)
    assert found.low < found.value < found.high
    assert score_rationales(system, resamples=0).figures["places"].value is None


def test_boxes_of_the_data_are_places_too() -> None:
    answer = '{"label": "yes", "boxes": [[0.7, 0.0, 1.0, 0.2]], "size": [10, 10]}'
    truth = Truth("p", "d", "c", "yes", "logical", "missing_nut", "q.png", answer)
    reply = ScoredReply("yes", reasoning="A nut is missing in the top left corner.")
    score = score_rationales(System("m", (JudgedPair(truth, (reply,)),)), resamples=0)
    assert score.figures["places"].value == 0.5
