"""Reading pair parquets: every fault in one line, and memory that does not grow."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lad_reasoner.pairs.reader import data_sha256, iter_pairs, parquet_files, read_image, read_truths
from lad_reasoner.pairs.schema import Image, pair_schema
from lad_reasoner.support.errors import DataError


def test_pairs_come_back_in_order_with_images_references_first(make_pairs) -> None:
    pairs = list(iter_pairs(make_pairs(20, references=2)))
    assert len(pairs) == 20
    assert [pair.truth for pair in pairs] == read_truths(make_pairs(20, references=2))
    assert all(len(pair.images) == 3 and pair.images[-1].path == pair.truth.query_path for pair in pairs)
    assert all(len(image.sha256) == 64 for image in pairs[0].images)


def test_a_folder_of_shards_is_read_in_the_order_of_names(tmp_path, make_pairs) -> None:
    table = pq.read_table(make_pairs(9))
    for index in (2, 0, 1):
        pq.write_table(table.slice(3 * index, 3), tmp_path / f"loco-{index:05}.parquet")
    (tmp_path / "README.md").write_text("not data")
    assert [pair.pair_id for pair in iter_pairs(tmp_path)] == table["pair_id"].to_pylist()
    assert data_sha256(tmp_path) != data_sha256(parquet_files(tmp_path)[0])


def _change(table: pa.Table, column: str, values: list[object]) -> pa.Table:
    index = table.schema.get_field_index(column)
    return table.set_column(index, table.schema.field(index), pa.array(values, table.schema.field(index).type))


FAULTS = {
    "label": (lambda t: _change(t, "label", ["yes", "maybe", "no"]), "row 1, column label: 'maybe' is not a label"),
    "null": (lambda t: _change(t, "kind", ["good", None, "good"]), "row 1, column kind: None is not text"),
    "column": (lambda t: t.drop_columns(["kind"]), "no column kind"),
    "twice": (lambda t: _change(t, "pair_id", ["a", "a", "b"]), "pair_id 'a' occurs 2 times"),
    "empty": (lambda t: t.slice(0, 0), "no rows"),
}


@pytest.mark.parametrize(("change", "message"), FAULTS.values(), ids=FAULTS)
def test_faults_are_named_in_one_line(tmp_path, make_pairs, change, message) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(change(pq.read_table(make_pairs(3))), path)
    with pytest.raises(DataError) as caught:
        read_truths(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def _easyr1_rows(make_pairs, answers: list[str]) -> pa.Table:
    """Return rows of EasyR1's usual three columns."""
    table = pq.read_table(make_pairs(len(answers))).select(["problem", "images", "answer"])
    return _change(table, "answer", answers)


def test_easyr1s_three_columns_are_enough(tmp_path, make_pairs) -> None:
    answers = ["yes", "no", '{"label": "yes", "category": "pushpins", "kind": "logical", "defect": "missing"}']
    pq.write_table(_easyr1_rows(make_pairs, answers), tmp_path / "own.parquet")
    truths = read_truths(tmp_path / "own.parquet")
    assert [(truth.label, truth.category, truth.kind, truth.defect) for truth in truths] == [
        ("yes", "unnamed", "own", "unnamed"),
        ("no", "unnamed", "good", "good"),
        ("yes", "pushpins", "logical", "missing"),
    ]
    pairs = list(iter_pairs(tmp_path / "own.parquet"))
    assert [pair.truth for pair in pairs] == truths
    assert all(len(pair.images) == 2 and pair.images[1].data for pair in pairs)


def test_shards_of_three_columns_have_unique_ids(tmp_path, make_pairs) -> None:
    for name in ("a", "b"):
        pq.write_table(_easyr1_rows(make_pairs, ["yes", "no"]), tmp_path / f"{name}.parquet")
    assert [truth.pair_id for truth in read_truths(tmp_path)] == [f"row-00000{index}" for index in range(4)]


@pytest.mark.parametrize("answer", ["maybe", "YES!", "", "[]", None])
def test_an_unreadable_bare_answer_is_named_with_its_row(tmp_path, make_pairs, answer: str | None) -> None:
    pq.write_table(_easyr1_rows(make_pairs, ["yes", answer]), tmp_path / "own.parquet")
    with pytest.raises(DataError, match=r"own\.parquet, row 1, column answer: the gold answer"):
        read_truths(tmp_path / "own.parquet")


@pytest.mark.parametrize("problem", ["no marker", "<image>", "<image><image><image>"])
def test_markers_must_match_images(tmp_path, make_pairs, problem: str) -> None:
    path = tmp_path / "bad.parquet"
    pq.write_table(_change(pq.read_table(make_pairs(3)), "problem", [problem] * 3), path)
    with pytest.raises(DataError, match=r"row 0, pair .*use one per image"):
        list(iter_pairs(path))


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1"])
def test_a_file_that_is_no_parquet_is_named(tmp_path, content: bytes) -> None:
    path = tmp_path / "bad.parquet"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not readable parquet"):
        read_truths(path)


def test_absent_files_and_empty_folders_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_truths(tmp_path / "absent.parquet")
    with pytest.raises(DataError, match=r"no \*.parquet"):
        read_truths(tmp_path)


def test_an_image_is_its_bytes_or_the_file_at_its_path(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(b"file")
    assert read_image(Image(data=b"stored", path="a.png", sha256=""), tmp_path) == b"stored"
    assert read_image(Image(data=None, path="a.png", sha256=""), tmp_path) == b"file"
    assert read_image(Image(data=None, path=str(tmp_path / "a.png"), sha256=""), tmp_path / "other") == b"file"
    with pytest.raises(DataError, match="--image-root"):
        read_image(Image(data=None, path="b.png", sha256=""), tmp_path)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path) -> None:
    row = dict.fromkeys(pair_schema().names, "x")
    row |= {
        "label": "no",
        "answer": "no",
        "problem": "<image><image>",
        "prompt": [],
        "reward_model": None,
        "extra_info": None,
    }
    path = tmp_path / "big.parquet"
    with pq.ParquetWriter(path, pair_schema(), compression="none") as writer:
        for index in range(40):
            blob = bytes([index]) * 2_500_000
            rows = [row | {"images": [{"bytes": blob, "path": "p"}] * 2} for _ in range(4)]
            writer.write_table(pa.Table.from_pylist(rows, schema=pair_schema()))
    assert path.stat().st_size > 90_000_000  # dictionary encoding keeps repeated blobs once a row group
    before = pa.total_allocated_bytes()
    peak = max(pa.total_allocated_bytes() - before for _ in iter_pairs(path))
    assert peak < 60_000_000
