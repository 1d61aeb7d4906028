"""The task file and the pair schema, which training and evaluation share."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from lad_reasoner.pairs.schema import COLUMNS, PROVENANCE_COLUMNS, Image, Pair, pair_schema
from lad_reasoner.task.response import parse
from lad_reasoner.task.rewards import rlad_reward
from lad_reasoner.task.task import KINDS, LOCO_CATEGORIES, QUESTION, problem_text, prompt_text, read_prompt_template


def pair(references: int = 1) -> Pair:
    images = [
        Image(data=b"png", path=f"screw_bag/train/good/00{i}.png", sha256=f"{i:064x}") for i in range(references)
    ]
    return Pair(
        pair_id="mvtec_loco/screw_bag/test/good/000.png",
        dataset="mvtec_loco",
        category="screw_bag",
        label="no",
        kind="good",
        defect="good",
        references=images,
        query=Image(data=b"png", path="screw_bag/test/good/000.png", sha256="f" * 64),
    )


def test_the_question_is_the_papers() -> None:
    assert QUESTION == "Can you find any anomaly in the query image compared to the reference?"
    assert "<think> think process </think><answer> yes or no </answer>" in read_prompt_template()


@pytest.mark.parametrize("references", [1, 2, 5])
def test_one_marker_an_image(references: int) -> None:
    assert problem_text(references).count("<image>") == references + 1
    assert prompt_text(problem_text(references)).count("<image>") == references + 1


def test_no_reference_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        problem_text(0)


def test_the_prompt_itself_earns_nothing() -> None:
    """A model that repeats the instruction must not be paid for it."""
    text = prompt_text(problem_text())
    assert parse(text).answer is None
    assert not parse(text).well_formed


def test_the_prompt_leaves_text_as_it_is() -> None:
    assert prompt_text('a < b & "c"', "{{ content }}") == 'a < b & "c"'


def test_the_papers_columns_in_their_order() -> None:
    assert list(LOCO_CATEGORIES.values()) == ["JB", "BB", "SB", "SC", "PP"]
    assert len(set(KINDS)) == len(KINDS)


@pytest.mark.parametrize("references", [1, 3])
def test_a_row_is_the_schema(references: int) -> None:
    row = pair(references).to_row()
    assert tuple(row) == COLUMNS
    table = pa.Table.from_pylist([row], schema=pair_schema())
    assert table.to_pylist() == [row]
    assert len(row["images"]) == references + 1
    assert set(PROVENANCE_COLUMNS) < set(COLUMNS)


def test_the_gold_answer_is_what_the_reward_reads() -> None:
    row = pair().to_row()
    assert json.loads(row["answer"]) == {"label": "no", "category": "screw_bag", "kind": "good", "defect": "good"}
    assert row["reward_model"]["ground_truth"] == row["answer"]
    assert rlad_reward("<think> same </think><answer> no </answer>", row["answer"])["overall"] == 1.0
