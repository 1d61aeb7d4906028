"""The form of the answers that a file asks for: `--answers classes`."""

from __future__ import annotations

import json

import pytest

from lad_reasoner.inference.predict import default_template
from lad_reasoner.pairs.reader import read_truths
from lad_reasoner.support.errors import UsageError
from lad_reasoner.task.classes import gold_classes


def test_classes_are_in_the_gold_answer_and_in_verls_prompt(lad, small_tree, draw_tiny, tmp_path, rows_of) -> None:
    draw_tiny(small_tree / "gear/test/batch_7/0.png")
    out = tmp_path / "classes.parquet"
    done = lad("build", "grpo", "--folder", small_tree, "--answers", "classes", "--out", out)
    assert done.exit_code == 0, done.stderr
    rows = rows_of(out)
    assert len(rows) == 10  # the query of batch_7 states no class
    assert "gear/test/batch_7/0.png: the defect 'batch_7' states no class" in done.stderr
    golds = [json.loads(row["answer"]) for row in rows]
    assert {gold["answers"] for gold in golds} == {"classes"}
    classes = [gold_classes(gold["label"], gold["kind"], gold["defect"]) for gold in golds]
    assert sorted(map(min, classes)) == ["missing"] * 2 + ["normal"] * 4 + ["structural"] * 4
    assert all("normal, structural, or logical" in row["prompt"][0]["content"] for row in rows)
    assert [row["reward_model"]["ground_truth"] for row in rows] == [row["answer"] for row in rows]
    checked = lad("check", out)
    assert checked.exit_code == 0, checked.stdout + checked.stderr
    truths = read_truths(out)
    assert "logical: missing screw" in default_template(truths, structured=False)
    with pytest.raises(UsageError, match="asks for classes"):
        default_template(truths, structured=True)


def test_yes_and_no_stay_the_default(lad, small_tree, tmp_path, rows_of) -> None:
    out = tmp_path / "plain.parquet"
    assert lad("build", "grpo", "--folder", small_tree, "--out", out).exit_code == 0
    assert all("answers" not in json.loads(row["answer"]) for row in rows_of(out))
    assert all("yes or no" in row["prompt"][0]["content"] for row in rows_of(out))
