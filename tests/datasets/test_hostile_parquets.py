"""Whatever stands in a parquet, every reader gives rows or one sentence with file, row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lad_datasets.checks.check import CheckOptions, check_file
from lad_reasoner.pairs.reader import iter_pairs, read_choices, read_truths
from lad_reasoner.pairs.schema import COLUMNS
from lad_reasoner.support.errors import LadError
from lad_reasoner.training.easyr1.config import load_config, read_keys
from lad_reasoner.training.preflight.pair_file import PairFile

CONFIG = load_config(["data.train_files=x", "data.prompt_key=problem"], read_keys(None))
READERS = {
    "read_truths": read_truths,
    "iter_pairs": lambda path: list(iter_pairs(path)),
    "read_choices": read_choices,
    "check": lambda path: check_file(path, CheckOptions()),
    "easyr1 check": lambda path: PairFile.read(path, CONFIG),
}

TEXT = st.one_of(
    st.text(max_size=20), st.sampled_from(["yes", "no", "<image><image>?", "good", "\x1b[31m", "\u202e", "a\nb"])
)
IMAGE = st.fixed_dictionaries({"bytes": st.none() | st.binary(max_size=40), "path": st.none() | st.text(max_size=10)})
TURN = st.fixed_dictionaries({"role": st.none() | TEXT, "content": st.none() | TEXT})
VALUES = {
    pa.string(): st.none() | TEXT,
    pa.int64(): st.none() | st.integers(-(2**63), 2**63 - 1),
    pa.float64(): st.none() | st.floats(),
    pa.bool_(): st.none() | st.booleans(),
    pa.binary(): st.none() | st.binary(max_size=20),
    pa.list_(pa.string()): st.none() | st.lists(st.none() | TEXT, max_size=3),
    pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])): st.none()
    | st.lists(st.none() | IMAGE, max_size=3),
    pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])): st.none()
    | st.lists(st.none() | TURN, max_size=2),
    pa.struct([("style", pa.string()), ("ground_truth", pa.string())]): st.none()
    | st.fixed_dictionaries({"style": st.none() | TEXT, "ground_truth": st.none() | TEXT}),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """A table with the columns of a pair parquet, some missing, twice, or of another type."""
    rows = draw(st.integers(0, 3))
    usual = {"images": list(VALUES)[6], "prompt": list(VALUES)[7], "reward_model": list(VALUES)[8]}
    usual["extra_info"] = pa.string()
    names = [name for name in COLUMNS if draw(st.integers(0, 30))]
    names += [name for name in COLUMNS if not draw(st.integers(0, 60))]
    arrays = []
    for name in names:
        kind = usual.get(name, pa.string()) if draw(st.integers(0, 20)) else draw(st.sampled_from(list(VALUES)))
        arrays.append(pa.array(draw(st.lists(VALUES[kind], min_size=rows, max_size=rows)), kind))
    return pa.Table.from_arrays(arrays, names=names)


def read_with_all(path: Path) -> None:
    for reader in READERS.values():
        try:
            reader(path)
        except LadError as error:
            assert "\n" not in str(error)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(table=tables())
def test_any_table(tmp_path, table) -> None:
    pq.write_table(table, tmp_path / "x.parquet")
    read_with_all(tmp_path / "x.parquet")


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), begin=st.sampled_from([b"", b"PAR1"]))
def test_any_bytes(tmp_path, data, begin) -> None:
    (tmp_path / "x.parquet").write_bytes(begin + data + begin)
    read_with_all(tmp_path / "x.parquet")


@pytest.fixture
def table(lad, small_tree, tmp_path) -> pa.Table:
    assert lad("build", "grpo", "--folder", small_tree, "--out", tmp_path / "x.parquet").exit_code == 0
    return pq.read_table(tmp_path / "x.parquet")


def invalid_utf8(table: pa.Table) -> pa.Table:
    raw = pa.array([b"\xff\xfe"] * table.num_rows, pa.binary()).view(pa.string())
    return table.set_column(table.schema.get_field_index("category"), "category", raw)


def replaced(name: str, value: Any):
    def change(table: pa.Table) -> pa.Table:
        index = table.schema.get_field_index(name)
        return table.set_column(index, name, pa.array([value] * table.num_rows, table.schema.field(name).type))

    return change


@pytest.mark.parametrize(
    "change",
    [
        invalid_utf8,
        lambda table: table.append_column("category", table.column("label")),
        replaced("images", [None, None]),
        replaced("images", [{"bytes": None, "path": None}] * 2),
        replaced("prompt", [None]),
        replaced("reward_model", {"style": "rule", "ground_truth": None}),
        replaced("label", None),
    ],
)
def test_a_hostile_column_is_an_error_everywhere_it_is_read(lad, table, tmp_path, change) -> None:
    pq.write_table(change(table), tmp_path / "y.parquet")
    read_with_all(tmp_path / "y.parquet")
    done = lad("check", tmp_path / "y.parquet")
    assert done.exit_code == 1
    assert "error: " in done.stderr
    assert "Traceback" not in done.stderr


def test_the_large_types_of_other_writers_are_read_everywhere(lad, table, tmp_path) -> None:
    text, images = (
        pa.large_string(),
        pa.large_list(pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())])),
    )
    schema = pa.schema([(name, images if name == "images" else text) for name in ("problem", "images", "answer")])
    pq.write_table(table.select(schema.names).cast(schema), tmp_path / "y.parquet")
    done = lad("check", tmp_path / "y.parquet")
    assert (done.exit_code, done.stderr.count("error: ")) == (0, 0), done.stderr
    assert [truth.label for truth in read_truths(tmp_path / "y.parquet")] == table["label"].to_pylist()
