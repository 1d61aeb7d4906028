"""`lad check` finds what is wrong with a finished file, and finds nothing wrong with what `lad build` made."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lad_reasoner.pairs.schema import pair_schema


@pytest.fixture
def built(lad, small_tree, tmp_path) -> Path:
    out = tmp_path / "x.parquet"
    lad("build", "grpo", "--folder", small_tree, "--recipe", "all", "--out", out)
    return out


def change(path: Path, **columns: Any) -> Path:
    """Rewrite the first row; a callable gets the old value."""
    rows = pq.read_table(path).to_pylist()
    for name, value in columns.items():
        rows[0][name] = value(rows[0][name]) if callable(value) else value
    pq.write_table(pa.Table.from_pylist(rows, schema=pair_schema()), path)
    return path


def test_what_is_built_passes(lad, built, small_tree, tmp_path) -> None:
    done = lad("check", built)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("0 errors, 0 warnings")
    assert "purpose training or evaluation, rows 10" in done.stdout  # a user's own photos serve either
    lad(
        "build", "grpo", "--folder", small_tree, "--recipe", "all", "--images", "path", "--out", tmp_path / "p.parquet"
    )
    assert lad("check", tmp_path / "p.parquet").exit_code == 0
    lad("build", "grpo", "--folder", small_tree, "--recipe", "all", "--shard-mb", 1, "--out", tmp_path / "folder")
    assert lad("check", tmp_path / "folder").exit_code == 0


def test_loco_files_are_for_evaluation(lad, shared_data, tmp_path) -> None:
    lad("build", "loco", "--root", shared_data / "real/mvtec_loco_ad", "--out", tmp_path / "l.parquet")
    (report,) = json.loads(lad("check", tmp_path / "l.parquet", "--max-pixels", 401408, "--json").stdout)
    assert report["errors"] == []
    assert report["facts"]["purpose"] == "evaluation"
    assert "constant answer: always answering 'yes' is right for 75.0% of the pairs" in report["warnings"]


def grey(mode: str = "L") -> bytes:
    out = BytesIO()
    Image.new(mode, (8, 8)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"problem": "Query: <image> ?"}, "1 <image> for 2 images"),
        ({"prompt": [{"role": "user", "content": "?"}]}, "column prompt has other <image> than column problem"),
        ({"label": "maybe"}, "label is 'maybe', not yes or no"),
        ({"label": "no"}, "column answer differs from the columns label"),
        ({"kind": "strange"}, "kind is 'strange', not one of good, logical"),
        ({"kind": "good"}, "label 'yes' does not go with kind 'good'"),
        ({"answer": "perhaps"}, "column answer: the gold answer 'perhaps' is not yes, no, or JSON"),
        ({"answer": "no"}, "column answer differs from the columns label"),
        ({"answer": '{"label": "Yes"}'}, "label is 'Yes', not yes or no"),
        ({"reward_model": {"style": "rule", "ground_truth": "{}"}}, "column reward_model: the gold answer"),
        ({"defect": "other"}, "column answer differs from the columns defect"),
        ({"category": None}, "no value in category"),
        ({"images": lambda old: [old[0], {"bytes": b"", "path": "e.png"}]}, "image 2 (e.png): a file of zero"),
        (
            {"images": lambda old: [old[0], {"bytes": old[1]["bytes"][:-20], "path": "t.png"}]},
            "t.png: a truncated PNG",
        ),
        ({"images": lambda old: [old[0], {"bytes": None, "path": "/no/such.png"}]}, "/no/such.png: no readable"),
        ({"images": lambda old: [old[1], old[1]]}, "the query is the same image as a reference"),
        ({"images": lambda old: [old[0], {"bytes": grey("RGBA"), "path": "a.png"}]}, "misread it (alpha channel)"),
        ({"reference_sha256": "a", "query_sha256": "a"}, "query_sha256 is also a reference's"),
        ({"pair_id": "folder/gear/test/dent/1.png"}, "pair_id folder/gear/test/dent/1.png occurs 2 times"),
        ({"query_path": "x/test/logical_anomalies/0.png"}, "is a test image of MVTec LOCO AD in a training file"),
        ({"dataset": "mvtec_loco"}, "is a test image of MVTec LOCO AD in a training file"),
    ],
)
def test_what_is_wrong_is_found(lad, built, columns, message) -> None:
    done = lad("check", change(built, **columns))
    assert done.exit_code == 1
    assert any(line.startswith("error: ") and message in line for line in done.stderr.splitlines()), done.stderr


def bare(path: Path, answers: list[str | None]) -> Path:
    """Rewrite a file with EasyR1's usual three columns and the given answers."""
    table = pq.read_table(path).select(["problem", "images"])[: len(answers)]
    pq.write_table(table.append_column("answer", pa.array(answers, pa.string())), path)
    return path


def test_easyr1s_three_columns_pass_with_bare_answers(lad, built) -> None:
    done = lad("check", bare(built, ["yes", "no", "yes", "no"]))
    assert done.exit_code == 0, done.stderr
    assert "0 errors" in done.stdout
    assert "rows 4" in done.stdout


@pytest.mark.parametrize("answer", ["perhaps", None])
def test_an_unreadable_bare_answer_is_an_error_of_its_row(lad, built, answer) -> None:
    done = lad("check", bare(built, ["yes", answer]))
    assert done.exit_code == 1
    assert "error: row 1, column answer: the gold answer" in done.stderr


def test_a_bare_answer_that_agrees_with_the_columns_passes(lad, built) -> None:
    assert lad("check", change(built, answer="yes")).exit_code == 0


def test_a_duplicate_is_a_warning(lad, built) -> None:
    rows = pq.read_table(built).to_pylist()
    done = lad("check", change(built, query_sha256=rows[1]["query_sha256"]))
    assert done.exit_code == 0
    assert (
        "warning: duplicate: folder/gear/test/dent/1.png is the same image as folder/gear/test/dent/0.png"
        in done.stderr
    )


def test_images_by_path_that_changed_since(lad, small_tree, tmp_path) -> None:
    out = tmp_path / "p.parquet"
    lad("build", "grpo", "--folder", small_tree, "--recipe", "all", "--images", "path", "--out", out)
    (small_tree / "gear/test/dent/0.png").write_bytes(grey())
    done = lad("check", out)
    assert done.exit_code == 1
    assert "pair folder/gear/test/dent/0.png: an image file has changed since the build" in done.stderr


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"PAR1 no"), "not readable parquet"),
        (
            lambda path: pq.write_table(pa.table({"problem": ["x"]}), path),
            "columns are missing: images, answer, data_source, prompt and 12 more. Build it with `lad build`",
        ),
        (lambda path: pq.write_table(pair_schema().empty_table(), path), "the file has no rows"),
        (
            lambda path: pq.write_table(
                pair_schema().empty_table().set_column(2, "answer", pa.array([], pa.int8())), path
            ),
            "column answer: the type is int8, not string",
        ),
    ],
)
def test_no_pair_parquet(lad, tmp_path, make, message) -> None:
    make(tmp_path / "x.parquet")
    done = lad("check", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert message in done.stderr


def test_no_file_to_check(lad, tmp_path) -> None:
    assert lad("check", tmp_path / "none.parquet").exit_code == 2
    (tmp_path / "notes.txt").write_text("x")
    done = lad("check", tmp_path / "notes.txt")
    assert done.exit_code == 2
    assert "the kind of this file is unknown. Name one of: pair parquet" in done.stderr


def test_a_renamed_parquet_is_known_by_its_first_bytes(lad, built, tmp_path) -> None:
    for name in ("x.parquet.bak", "x"):
        built = built.rename(tmp_path / name)
        assert lad("check", built).exit_code == 0
    (tmp_path / "empty").write_bytes(b"")
    assert "the kind of this file is unknown" in lad("check", tmp_path / "empty").stderr


@pytest.mark.slow
def test_token_budget(lad, shared_data, tmp_path) -> None:
    """Upstream's own figures for a pair at full size: juice_bottle 3306, splicing_connectors 3660 image tokens."""
    out = tmp_path / "l.parquet"
    lad("build", "loco", "--root", shared_data / "real/mvtec_loco_ad", "--subset", "all", "--out", out)
    (report,) = json.loads(lad("check", out, "--json").stdout)
    lengths = {row[0]: row[2:] for row in report["tables"][1]["rows"]}
    text = lengths["juice_bottle"][0] - 3306
    assert 20 < text < 150
    assert lengths["splicing_connectors"] == [3660 + text] * 4
    assert lengths["breakfast_box"] == [5244 + text] * 4
    assert report["facts"]["max_prompt_length"] == -(-(5244 + text) // 64) * 64
    assert lad("check", out, "--max-prompt-length", 5244 + text).exit_code == 0
    done = lad("check", out, "--max-prompt-length", 5243 + text)
    assert done.exit_code == 1
    assert f"1 prompts are longer, up to {5244 + text}. Set it to" in done.stderr
