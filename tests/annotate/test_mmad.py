"""MMAD's files: every variant that is documented, and every path that must not be followed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_datasets.sources import mmad
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.findings import Findings

ASKED = {"Question": "Any defect?", "Answer": "A", "Options": {"A": "Yes.", "B": "No."}, "type": "Anomaly Detection"}
KEY = "DS-MVTec/bottle/image/broken_large/000.png"
TYPES = [
    "Anomaly Detection",
    "Defect Classification",
    "Defect Localization",
    "Defect Description",
    "Defect Analysis",
    "Object Classification",
    "Object Structure",
    "Object Details",
    "Object Analysis",
]


def read(folder: Path, entries: object) -> tuple[mmad.Mmad, Findings]:
    folder.mkdir(exist_ok=True)
    (folder / "mmad.json").write_text(entries if isinstance(entries, str) else json.dumps(entries))
    findings = Findings(quiet=True)
    return mmad.read(folder, findings), findings


def test_every_question_type_is_read_with_its_right_option(tmp_path: Path) -> None:
    asked = [ASKED | {"type": kind, "Answer": "B", "Options": {"A": "x", "B": f"about {kind}"}} for kind in TYPES]
    found, _ = read(tmp_path, {KEY: {"conversation": asked}})
    entry = found.entries["mvtec_ad", "bottle", "broken_large", "000"]
    assert [(s.type, s.answer) for s in entry.statements] == [(kind, f"about {kind}") for kind in TYPES]


@pytest.mark.parametrize(("said", "anomalous"), [("A", True), ("B", False)])
def test_the_detection_question_says_whether_there_is_a_defect(tmp_path: Path, said: str, anomalous: bool) -> None:
    found, _ = read(tmp_path, {KEY: {"conversation": [ASKED | {"Answer": said}]}})
    assert next(iter(found.entries.values())).says_anomalous is anomalous


@pytest.mark.parametrize(("named", "on_disk"), [("rbg_mask", "rgb_mask"), ("rgb_mask", "rbg_mask"), ("mask", "mask")])
def test_the_mask_is_found_however_its_folder_is_spelled(tmp_path: Path, named: str, on_disk: str) -> None:
    file = tmp_path / "DS-MVTec/bottle" / on_disk / "broken_large" / f"000_{on_disk}.png"
    file.parent.mkdir(parents=True)
    file.touch()
    value = {"mask_path": f"{named}/broken_large/000_{named}.png", "conversation": []}
    found, _ = read(tmp_path, {KEY: value})
    assert next(iter(found.entries.values())).mask == file


def test_templates_lie_under_another_root(tmp_path: Path) -> None:
    value = {"similar_templates": ["MVTec-AD/bottle/train/good/007.png"], "random_templates": ["MVTec-AD/x.png"]}
    found, _ = read(tmp_path, {KEY: value})
    assert next(iter(found.entries.values())).templates == (
        tmp_path / "MVTec-AD/bottle/train/good/007.png",
        tmp_path / "MVTec-AD/x.png",
    )


def test_loco_entries_are_refused_and_counted(tmp_path: Path) -> None:
    keys = [f"MVTec-LOCO/screw_bag/test/good/{i:03d}.png" for i in range(3)]
    found, findings = read(tmp_path, {key: {"conversation": [ASKED]} for key in [*keys, KEY, "GoodsAD/a/b/c/d.png"]})
    assert list(found.entries) == [("mvtec_ad", "bottle", "broken_large", "000")]
    assert sorted(found.skipped.values()) == [1, 3]
    assert any("3 entries" in line and "MVTec LOCO AD" in line for line in findings.lines)


@pytest.mark.parametrize(
    "key",
    [
        "DS-MVTec/bottle/image/../../../../etc/passwd",
        "DS-MVTec/../MVTec-LOCO/screw_bag/test/000.png",  # LOCO by the back door
        "/etc/passwd",
        "C:/windows/image/x/y.png",
        "DS-MVTec\\..\\..\\secret\\a\\b.png",
        "VisA/candle/test/bad/000.JPG\0.png",
        "DS-MVTec/bottle/000.png",
        "",
    ],
)
def test_hostile_keys_are_refused(tmp_path: Path, key: str) -> None:
    found, findings = read(tmp_path, {key: {"conversation": [ASKED]}, KEY: {"conversation": [ASKED]}})
    assert len(found.entries) == 1
    assert findings.counts["refused"] + sum(found.skipped.values()) == 1


@pytest.mark.parametrize(
    ("field", "path"),
    [
        ("mask_path", "../../../../etc/passwd"),
        ("mask_path", "a\\..\\..\\..\\..\\b"),
        ("similar_templates", "/etc/passwd"),
        ("similar_templates", "../x.png"),
        ("random_templates", "MVTec-AD/../../x.png"),
    ],
)
def test_hostile_paths_inside_an_entry_are_refused(tmp_path: Path, field: str, path: str) -> None:
    value = {field: path if field == "mask_path" else [path]}
    found, findings = read(tmp_path, {KEY: value})
    assert not found.entries
    assert findings.counts["refused"] == 1


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    (secret / "image/broken_large").mkdir(parents=True)
    (secret / "image/broken_large/000.txt").write_text("not a caption")
    root = tmp_path / "mmad"
    (root / "DS-MVTec").mkdir(parents=True)
    (root / "DS-MVTec/bottle").symlink_to(secret)
    found, findings = read(root, {KEY: {"conversation": [ASKED]}})
    assert not found.entries
    assert "link to outside" in findings.lines[0]


@given(parts=st.lists(st.sampled_from(["..", ".", "a", "b", "/", "\\", "C:", "\0", " "]), max_size=6))
@settings(max_examples=100, deadline=None)
def test_no_path_leaves_the_folder(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp()
    try:
        path = mmad.resolve_inside(root, "/".join(parts))
    except DataError:
        return
    assert path.resolve().is_relative_to(root.resolve())


def test_doubles_are_told_and_the_first_is_kept(tmp_path: Path) -> None:
    other = json.dumps({"conversation": [ASKED | {"Answer": "B"}]})
    text = f'{{"{KEY}": {json.dumps({"conversation": [ASKED]})}, "{KEY}": {other}}}'
    found, findings = read(tmp_path, text)
    assert next(iter(found.entries.values())).says_anomalous is True
    assert findings.counts["duplicate"] == 1
    found, findings = read(tmp_path, {KEY: {"conversation": [ASKED]}, KEY.replace(".png", ".PNG"): {}})
    assert (len(found.entries), findings.counts["duplicate"]) == (1, 1)


@pytest.mark.parametrize(
    "value",
    [
        {"conversation": [ASKED | {"Answer": "E"}]},
        {"conversation": [{"Question": "?"}]},
        {"conversation": [ASKED | {"Question": "Look at <image>"}]},
        {"conversation": "none"},
        [],
        7,
    ],
)
def test_broken_entries_are_named_and_the_rest_is_kept(tmp_path: Path, value: object) -> None:
    whole = "VisA/candle/test/bad/000.JPG"
    found, findings = read(tmp_path, {KEY: value, whole: {"conversation": [ASKED]}})
    assert list(found.entries) == [("visa", "candle", "bad", "000")]
    assert KEY in findings.of("refused")[0]


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"'])
def test_a_file_of_another_form_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match=r"mmad\.json"):
        read(tmp_path, text)


def test_a_folder_without_either_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither"):
        mmad.read(tmp_path, Findings(quiet=True))


def test_the_real_domain_knowledge_is_read_and_lacks_what_it_is_known_to_lack(
    shared_data: Path, tmp_path: Path
) -> None:
    text = (shared_data / "facts" / "mmad_domain_knowledge.json").read_text()
    (tmp_path / "domain_knowledge.json").write_text(text)
    found = mmad.read(tmp_path, Findings(quiet=True))
    assert len(found.knowledge_of("mvtec_ad", "metal_nut", "bent")) > 500
    assert found.knowledge_of("visa", "candle", "bad")
    assert found.knowledge_of("mvtec_ad", "metal_nut", "flip") == ""
    assert found.knowledge_of("mvtec_ad", "pill", "pill_type") == ""


def test_a_real_caption_is_read(shared_data: Path) -> None:
    key = "DS-MVTec/pill/image/good/000.png"
    root = shared_data / "real" / "mmad"
    entry = mmad.Entry(key, (), None, (root / key).with_suffix(".txt"), ())
    assert "pill" in entry.read_caption()
