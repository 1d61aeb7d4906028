"""SFT folders: annotations as reviewed, images that LLaMA-Factory will read right, no image in both parts."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lad_datasets.builders.sft import Turn, split_by_image
from lad_datasets.files.annotations import Annotation


def annotate(folder: Path, count: int = 6, **changed: object) -> Path:
    """Write annotations about three grey images, two each; ``changed`` changes the first row."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        name = f"images/{number // 2}.png"
        (folder / "images").mkdir(exist_ok=True)
        Image.new("L", (40, 40), 10 * (number // 2)).save(folder / name)
        row = {
            "id": f"r{number}",
            "images": [name],
            "question": f"<image>What is wrong ({number})?",
            "answer": f"<think> look </think><answer> {number} </answer>",
            "dataset": "mvtec_ad",
            "category": "cable",
            "kind": "good" if number % 2 else "color",
            "defect": "good" if number % 2 else "cable_swap",
            "writer": "tester",
        }
        rows.append(row | changed if number == 0 else row)
    (folder / "annotations.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return folder


def sft(lad, folder: Path, out: Path, *words: object):
    return lad("build", "sft", "--annotations", folder, "--out", out, *words)


def test_json_and_parquet_say_the_same(lad, tmp_path) -> None:
    done = sft(lad, annotate(tmp_path / "qa"), tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    rows = json.loads((tmp_path / "out/train.json").read_text())
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(6)]
    assert rows[0]["messages"] == [
        {"role": "user", "content": "<image>What is wrong (0)?"},
        {"role": "assistant", "content": "<think> look </think><answer> 0 </answer>"},
    ]
    assert rows[0]["images"] == [str(tmp_path / "qa/images/0.png")]
    assert [row["label"] for row in rows] == ["yes", "no"] * 3
    for plain, stored in zip(rows, pq.read_table(tmp_path / "out/train.parquet").to_pylist(), strict=True):
        assert stored["images"][0]["bytes"] == Path(plain["images"][0]).read_bytes()
        assert {k: v for k, v in stored.items() if k != "images"} == {k: v for k, v in plain.items() if k != "images"}


def test_what_llama_factory_and_the_hub_read(lad, tmp_path) -> None:
    sft(lad, annotate(tmp_path / "qa"), tmp_path / "out", "--val-fraction", 0.34)
    info = json.loads((tmp_path / "out/dataset_info.json").read_text())
    assert {name: entry["file_name"] for name, entry in info.items()} == {
        "lad_sft": "train.json",
        "lad_sft_parquet": "train.parquet",
        "lad_sft_val": "val.json",
        "lad_sft_val_parquet": "val.parquet",
    }
    assert all(entry["tags"]["role_tag"] == "role" for entry in info.values())
    card = (tmp_path / "out/README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\n")
    assert "  - split: val\n    path: val.parquet\n" in card
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["rows"] == {"train": 4, "val": 2}
    assert manifest["writers"] == ["tester"]


def test_the_split_is_by_image_and_the_same_every_time(lad, tmp_path) -> None:
    annotate(tmp_path / "qa")
    for name in ("a", "b"):
        sft(lad, tmp_path / "qa", tmp_path / name, "--val-fraction", 0.34)
    assert (tmp_path / "a/val.json").read_bytes() == (tmp_path / "b/val.json").read_bytes()
    assert (tmp_path / "a/train.parquet").read_bytes() == (tmp_path / "b/train.parquet").read_bytes()
    parts = [json.loads((tmp_path / "a" / name).read_text()) for name in ("train.json", "val.json")]
    train, val = ({image for row in rows for image in row["images"]} for rows in parts)
    assert not train & val
    assert len(val) == 1


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.floats(0, 0.99), st.integers(0, 5))
def test_no_image_is_on_both_sides(images, fraction, seed) -> None:
    row = Annotation(id="x", images=("i",), question="<image>", answer="a", dataset="d", category="c")
    turns = [Turn(row, (Path("i"),), ("shared", str(image))) for image in images]
    train, val = split_by_image(turns, val_fraction=fraction, seed=seed)
    assert len(train) + len(val) == len(turns)
    assert not {t.digests[-1] for t in train} & {t.digests[-1] for t in val}
    if fraction <= 0.5:
        assert train
    again = split_by_image(turns[::-1], val_fraction=fraction, seed=seed)
    assert sorted(t.digests for t in again[1]) == sorted(t.digests for t in val)


def test_decisions_are_honoured_and_counted(lad, tmp_path) -> None:
    folder = annotate(tmp_path / "qa")
    decisions = [
        {"id": "r0", "decision": "reject"},
        {"id": "r1", "decision": "accept"},
        {"id": "r2", "decision": "reject"},
        {"id": "r2", "decision": "edit", "answer": "better", "question": None},
        {"id": "ghost", "decision": "accept"},
    ]
    (folder / "decisions.jsonl").write_text("\n".join(map(json.dumps, decisions)))
    done = sft(lad, folder, tmp_path / "out")
    rows = {row["id"]: row for row in json.loads((tmp_path / "out/train.json").read_text())}
    assert sorted(rows) == ["r1", "r2", "r3", "r4", "r5"]
    assert rows["r2"]["messages"][1]["content"] == "better"
    assert rows["r2"]["messages"][0]["content"] == "<image>What is wrong (2)?"
    assert "rejected: r0: rejected in review" in done.stderr
    assert "no annotation has the id 'ghost'" in done.stderr
    assert "findings: edited 1, rejected 1, unused decision 1" in done.stderr


def test_an_image_that_would_be_misread_is_copied_upright(lad, tmp_path) -> None:
    folder = annotate(tmp_path / "qa")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (40, 20)).save(folder / "images/0.png", exif=exif)
    done = sft(lad, folder, tmp_path / "out")
    assert "repaired" in done.stderr
    name = json.loads((tmp_path / "out/train.json").read_text())[0]["images"][0]
    assert not Path(name).is_absolute()
    assert Image.open(tmp_path / "out" / name).size == (20, 40)
    stored = pq.read_table(tmp_path / "out/train.parquet").to_pylist()[0]["images"][0]["bytes"]
    assert stored == (tmp_path / "out" / name).read_bytes()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": "What?"}, "annotation r0: question: the text has 0 <image> for 1 images"),
        ({"answer": "<image>"}, "answer: trainers read the token <image> as control"),
        ({"answer": ""}, "annotations.jsonl:1: answer: String should have at least 1 character"),
        ({"images": []}, "annotations.jsonl:1: images: "),
        ({"id": "r1"}, "the id 'r1' occurs twice"),
        ({"images": ["none.png"]}, "none.png: no readable file"),
        ({"dataset": "mvtec_loco", "images": ["a/test/good/0.png"]}, "r0: a/test/good/0.png is a test image"),
    ],
)
def test_what_does_not_fit_is_named_and_nothing_is_left(lad, tmp_path, changed, message) -> None:
    done = sft(lad, annotate(tmp_path / "qa", **changed), tmp_path / "out")
    assert done.exit_code == 1
    assert message in done.stderr.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["qa"]


def test_skip_bad_leaves_out_and_counts(lad, tmp_path) -> None:
    folder = annotate(tmp_path / "qa")
    (folder / "images/1.png").write_bytes(b"")
    done = sft(lad, folder, tmp_path / "out", "--skip-bad")
    assert done.exit_code == 0
    assert len(json.loads((tmp_path / "out/train.json").read_text())) == 4
    assert done.stderr.count("left out: r") == 2


def test_only_an_earlier_build_is_overwritten(lad, tmp_path) -> None:
    folder = annotate(tmp_path / "qa")
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.tex").write_text("x")
    for words in ((), ("--overwrite",)):
        assert sft(lad, folder, precious, *words).exit_code == 2
    assert (precious / "chapter.tex").exists()
    assert sft(lad, folder, tmp_path / "out").exit_code == 0
    assert sft(lad, folder, tmp_path / "out").exit_code == 2
    assert sft(lad, folder, tmp_path / "out", "--overwrite").exit_code == 0


def test_no_annotations(lad, tmp_path) -> None:
    assert sft(lad, tmp_path, tmp_path / "out").exit_code == 1
    (tmp_path / "annotations.jsonl").write_text("\n")
    done = sft(lad, tmp_path, tmp_path / "out")
    assert "the file has no annotations. Write some with `lad annotate`" in done.stderr
    assert sft(lad, tmp_path, tmp_path / "out", "--val-fraction", 1).exit_code == 2


def test_annotations_that_are_no_text_are_one_line(lad, tmp_path) -> None:
    (tmp_path / "annotations.jsonl").write_bytes(b"\xff\xfe\xfa")
    done = lad("build", "sft", "--annotations", tmp_path, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].endswith("it is not UTF-8 after line 0")


def test_lad_check_reads_the_folder_and_each_of_its_files(lad, tmp_path) -> None:
    out = tmp_path / "out"
    sft(lad, annotate(tmp_path / "qa"), out, "--val-fraction", 0.34)
    for path, line in {
        out: "SFT folder, rows 12",
        out / "dataset_info.json": "SFT data, rows 12",
        out / "train.parquet": "SFT data, rows 4",
        out / "val.json": "SFT data, rows 2",
        tmp_path / "qa": "annotations, rows 6",
    }.items():
        done = lad("check", path)
        assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"{path}: {line}: 0 errors, 0 warnings"), (
            done.stderr
        )
    rows = [line.split() for line in lad("check", out).stdout.splitlines()]
    assert ["lad_sft_parquet", "mvtec_ad", "cable", "color", "2"] in rows


def _truncate_image(out: Path) -> str:
    image = Path(json.loads((out / "train.json").read_text())[0]["images"][0])
    image.write_bytes(image.read_bytes()[:60])
    return "lad_sft: row 1: "


def _drop_answer(out: Path) -> str:
    (out / "train.json").write_text((out / "train.json").read_text().replace("assistant", "user"))
    return "6 rows have no assistant's turn"


def _use_test_image(out: Path) -> str:
    image = out / "mvtec_loco/screw_bag/test/good/000.png"
    image.parent.mkdir(parents=True)
    Image.new("RGB", (40, 40)).save(image)
    rows = json.loads((out / "train.json").read_text())
    rows[3]["images"] = [str(image)]
    (out / "train.json").write_text(json.dumps(rows))
    return "is a test image of MVTec LOCO AD"


def _break_index(out: Path) -> str:
    (out / "dataset_info.json").write_text("[" * 20_000)
    return "is not readable"


def _lose_file(out: Path) -> str:
    (out / "train.parquet").unlink()
    return "train.parquet: no such file. Build it with `lad build sft`"


@pytest.mark.parametrize("change", [_truncate_image, _drop_answer, _use_test_image, _break_index, _lose_file])
def test_lad_check_finds_what_was_done_to_a_folder(lad, tmp_path, change) -> None:
    sft(lad, annotate(tmp_path / "qa"), tmp_path / "out")
    message = change(tmp_path / "out")
    done = lad("check", tmp_path / "out")
    assert done.exit_code == 1
    assert message in done.stderr
