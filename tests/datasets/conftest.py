"""Trees in the real layouts, with the real names and counts and tiny pictures, drawn from the datasets' indexes."""

from __future__ import annotations

import csv
import json
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from lad_reasoner.commands.lad import build_app, command_line, run_app


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_HEADER = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
_TAIL = _chunk(b"IDAT", zlib.compress(b"\0" + b"\x80" * 8 + (b"\0" + b"\x80" * 8) * 7)) + _chunk(b"IEND", b"")
_numbers = count()


def tiny_png() -> bytes:
    """Return a sound 8x8 PNG that no other call returns."""
    return _HEADER + _chunk(b"tEXt", b"n\0%d" % next(_numbers)) + _TAIL


def tiny_mask(value: int) -> bytes:
    rows = b"\0" + bytes([value]) + b"\0" * 7 + (b"\0" * 9) * 7
    return _HEADER + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def read_facts(shared_data: Path, name: str) -> list[dict[str, str]]:
    with (shared_data / "facts" / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A tree at its full size takes seconds to draw: what asks for one is slow."""
    for item in items:
        if {"mvtec_tree", "visa_tree", "loco_tree"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def facts(shared_data) -> Callable[[str], list[dict[str, str]]]:
    return lambda name: read_facts(shared_data, name)


@pytest.fixture(scope="session")
def mvtec_tree(facts, tmp_path_factory) -> Path:
    """MVTec AD at its full counts."""
    root = tmp_path_factory.mktemp("mvtec_ad")
    for row in facts("mvtec_counts.csv"):
        for number in range(int(row["count"])):
            write(root / row["category"] / row["split"] / row["defect"] / f"{number:03d}.png", tiny_png())
    return root


@pytest.fixture(scope="session")
def loco_tree(facts, tmp_path_factory) -> Path:
    """MVTec LOCO AD at its full counts, with a mask for each defect and the configs that name them."""
    root = tmp_path_factory.mktemp("mvtec_loco_ad")
    values: dict[str, dict[str, int]] = defaultdict(dict)
    for row in facts("loco_defects.csv"):
        values[row["category"]][row["defect_name_table"]] = int(row["pixel_value"])
    for category, names in values.items():
        entries = [
            {"defect_name": name, "pixel_value": value, "saturation_threshold": 1, "relative_saturation": True}
            for name, value in names.items()
        ]
        write(root / category / "defects_config.json", json.dumps(entries).encode())
    for row in facts("loco_index.csv"):
        folder = root / row["category"]
        write(folder / row["split"] / row["type"] / row["file"], tiny_png())
        masks = folder / "ground_truth" / row["type"] / Path(row["file"]).stem
        for number, name in enumerate(filter(None, row["defects"].split(";"))):
            write(masks / f"{number:03d}.png", tiny_mask(values[row["category"]][name]))
    return root


@pytest.fixture(scope="session")
def visa_tree(facts, tmp_path_factory) -> Path:
    """VisA, raw, at its full counts, tables with CRLF line ends; every anomaly of capsules is a discolored bubble."""
    root = tmp_path_factory.mktemp("visa")
    rows = facts("visa_1cls.csv")
    tables: dict[str, list[str]] = defaultdict(lambda: ["image,label,mask"])
    for row in rows:
        write(root / row["image"], tiny_png())
        defect = '"bubble,discolor"' if row["object"] == "capsules" else "foreign particals on candle"
        label = "normal" if row["label"] == "normal" else defect
        tables[row["object"]].append(f"{row['image']},{label},{row['mask']}")
    for category, lines in tables.items():
        write(root / category / "image_anno.csv", "\r\n".join(lines).encode())
    split = ["object,split,label,image,mask", *(",".join(row.values()) for row in rows)]
    write(root / "split_csv" / "1cls.csv", "\r\n".join(split).encode())
    return root


@pytest.fixture
def draw_tiny() -> Callable[[Path], None]:
    """Write a tiny picture, a file like no other."""
    return lambda path: write(path, tiny_png())


@pytest.fixture
def small_tree(tmp_path) -> Path:
    """A user's own folder: two categories, four references and five queries each."""
    root = tmp_path / "own"
    for category in ("gear", "häkel ☃"):
        for number in range(4):
            write(root / category / "train" / "good" / f"{number}.png", tiny_png())
        for defect, amount in (("good", 2), ("dent", 2), ("missing_tooth", 1)):
            for number in range(amount):
                write(root / category / "test" / defect / f"{number}.png", tiny_png())
    return root


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def lad(capsys) -> Callable[..., Done]:
    """Run `lad` in this process; a user's mistake comes out as it does on a terminal."""

    def run(*words: object) -> Done:
        code = run_app(lambda: command_line(build_app)([str(word) for word in words]), debug=False)
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


def read_rows(path: Path, columns: list[str] | None = None) -> list[dict]:
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=columns).to_pylist()


@pytest.fixture
def rows_of() -> Callable[..., list[dict]]:
    return read_rows
