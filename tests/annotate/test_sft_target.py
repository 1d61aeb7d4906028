"""How many rows an SFT folder has, and the reason that is given."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lad_datasets.builders.sft_target import PAPER_ROWS, draw_rows, explain
from lad_datasets.files.annotations import Annotation


def notes(count: int, dataset: str = "mvtec_ad") -> list[Annotation]:
    return [
        Annotation(id=f"{dataset}{n}", images=("a",), question="q", answer="a", dataset=dataset, category="c")
        for n in range(count)
    ]


@given(count=st.integers(0, 40), rows=st.integers(0, 50), seed=st.integers(0, 3))
def test_so_many_are_drawn_whatever_their_order(count: int, rows: int, seed: int) -> None:
    given_ = notes(count) + notes(3, "synthetic_sft")
    drawn = draw_rows(given_, rows=rows, seed=seed)
    assert len(drawn) == min(count, rows) + 3  # the paper's number is not about other datasets
    assert draw_rows(given_[::-1], rows=rows, seed=seed) == drawn


def test_a_met_target_needs_no_reason(tmp_path: Path) -> None:
    target = explain(notes(3000), rows=PAPER_ROWS, findings={"rejected": 9}, summary=tmp_path / "none")
    assert target is not None
    assert (target.available, target.kept, target.reason) == (3000, 2731, "")


def test_a_missed_target_says_why(tmp_path: Path) -> None:
    summary = tmp_path / "annotate.json"
    summary.write_text(json.dumps({"counts": {"images": 20, "pairs": 60, "refused": 2, "invalid": 3}}))
    target = explain(notes(5), rows=10, findings={"rejected": 4, "edited": 1}, summary=summary)
    assert target is not None
    assert target.reason == "4 annotations rejected, 2 images that the model refused, 3 images without a fit reply"
    plain = explain(notes(5), rows=10, findings={}, summary=tmp_path / "none")
    assert plain is not None
    assert plain.reason == "only 5 were written"


def test_other_datasets_have_no_target(tmp_path: Path) -> None:
    assert explain(notes(5, "synthetic_sft"), rows=10, findings={}, summary=tmp_path) is None
