"""`lad annotate` without a model: what there is to annotate, and what the template writer says of it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageDraw

from lad_datasets.annotate.annotate import annotate_with_templates
from lad_datasets.annotate.prompt import build_messages, defect_phrase, prompt_text
from lad_datasets.annotate.reply import InvalidReplyError, parse_reply
from lad_datasets.annotate.subjects import Subject, find_subjects
from lad_datasets.annotate.template_writer import describe_mask, write_pairs
from lad_datasets.recipes.recipe import kind_of
from lad_datasets.sources.mmad import Statement
from lad_datasets.sources.samples import Sample
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.findings import Findings

if TYPE_CHECKING:
    from tests.annotate.conftest import Trees


def find(trees: Trees, **options: Any) -> tuple[list[Subject], Findings]:
    findings = Findings(quiet=True)
    return find_subjects(trees.roots, mmad_root=trees.mmad, findings=findings, **options), findings


def test_every_test_image_is_found_with_what_is_known_of_it(trees: Trees) -> None:
    subjects, findings = find(trees)
    assert Counter((s.category, s.kind) for s in subjects) == {
        ("bottle", "good"): 4,
        ("bottle", "appearance"): 4,
        ("cable", "good"): 4,
        ("cable", "color"): 4,  # cable_swap: the recipe's kind
        ("cable", "functional"): 4,  # bent_wire
        ("candle", "good"): 4,
        ("candle", "appearance"): 4,
    }
    assert all(s.kind == kind_of(s.dataset, Sample("", s.category, "test", s.defect)) for s in subjects)
    assert all((s.mask is not None) == s.is_anomalous for s in subjects)
    broken = next(s for s in subjects if s.id == "mvtec_ad/bottle/test/broken_large/000.png")
    assert [s.answer for s in broken.statements] == ["Yes.", "A missing piece of glass at the rim"]
    assert broken.knowledge.startswith("<Broken>")
    assert "24 of 28 images have no entry in MMAD" in " ".join(findings.lines)


def test_visa_images_are_joined_with_mmad_in_both_layouts(trees: Trees, tmp_path: Path) -> None:
    asked = {"Question": "Q?", "Answer": "A", "Options": {"A": "Yes."}, "type": "Anomaly Detection"}
    trees.write_mmad({"VisA/candle/test/bad/002.JPG": {"conversation": [asked]}})
    converted = tmp_path / "converted"
    for kind, folder in (("Normal", "good"), ("Anomaly", "bad")):
        shutil.copytree(trees.visa / "candle/Data/Images" / kind, converted / "1cls/candle/test" / folder)
    shutil.copytree(trees.visa / "candle/Data/Masks/Anomaly", converted / "1cls/candle/ground_truth/bad")
    for root in (trees.visa, converted):
        subjects = find_subjects({"visa": root}, mmad_root=trees.mmad, findings=Findings(quiet=True))
        joined = [s for s in subjects if s.statements]
        assert [s.image.stem for s in joined] == ["002"]
        assert joined[0].mask is not None


def test_a_statement_that_denies_the_dataset_is_not_used(trees: Trees) -> None:
    entries = trees.default_mmad()
    key = "DS-MVTec/bottle/image/broken_large/001.png"
    entries[key]["conversation"][0]["Answer"] = "B"  # type: ignore[index]
    trees.write_mmad(entries)
    subjects, findings = find(trees)
    assert findings.counts["contradiction"] == 1
    assert not next(s for s in subjects if s.id.endswith("broken_large/001.png")).statements


def test_duplicate_images_are_asked_about_once_and_contradicting_ones_never(trees: Trees) -> None:
    test = trees.mvtec / "bottle" / "test"
    shutil.copy(test / "good/000.png", test / "good/100.png")
    shutil.copy(test / "good/001.png", test / "broken_large/101.png")  # one file, said to be both
    subjects, findings = find(trees)
    ids = {s.id.removeprefix("mvtec_ad/bottle/test/") for s in subjects}
    assert {"good/000.png"} <= ids
    assert not {"good/100.png", "good/001.png", "broken_large/101.png"} & ids
    assert findings.counts["duplicate"] == 3


def test_a_limit_spreads_over_products_and_defects(trees: Trees) -> None:
    subjects, _ = find(trees, limit=7)
    assert len({(s.category, s.defect) for s in subjects}) == 7
    assert find(trees, limit=7)[0] == subjects


def test_no_tree_and_a_loco_tree_are_refused(trees: Trees, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--mvtec"):
        find_subjects({}, mmad_root=None, findings=Findings(quiet=True))
    loco = tmp_path / "loco" / "screw_bag"
    shutil.copytree(trees.mvtec / "bottle", loco)
    (loco / "test" / "broken_large").rename(loco / "test" / "logical_anomalies")
    with pytest.raises(DataError, match="MVTec LOCO AD"):
        find_subjects({"mvtec_ad": loco.parent}, mmad_root=None, findings=Findings(quiet=True))


def test_a_defect_of_an_own_folder_keeps_its_letters() -> None:
    subject = Subject("folder/a", "folder", "Getriebe 7B", "own", "Bolzen_fehlt+Bad", Path("a.png"), None)
    assert defect_phrase(subject) == "Bolzen fehlt"


def test_templates_say_what_the_annotations_say(trees: Trees, tmp_path: Path) -> None:
    subjects, findings = find(trees)
    summary = annotate_with_templates(subjects, tmp_path / "qa", findings)
    rows = [json.loads(line) for line in (tmp_path / "qa" / "annotations.jsonl").read_text().splitlines()]
    assert summary["counts"] == {"images": 28, "pairs": len(rows)}
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["writer"] for row in rows} == {"template"}
    by_id = {row["id"]: row for row in rows}
    described = by_id["mvtec_ad/bottle/test/broken_large/000.png#description"]
    assert described["answer"] == "A missing piece of glass at the rim."
    placed = by_id["mvtec_ad/bottle/test/broken_large/003.png#localization"]
    assert placed["answer"] == "The defect is in the upper right of the image and covers about 2% of it."
    named = by_id["visa/candle/Data/Images/Anomaly/000.JPG#detection"]
    assert named["answer"].endswith('shows a defect of the type "foreign particals on candle".')
    assert all(row["question"].startswith("<image>\n") for row in rows)
    for row in rows:
        if row["topic"] == "detection":
            affirmative = row["question"].removeprefix("<image>\n").startswith(("Would", "Is this"))
            assert row["answer"].startswith("Yes") == (affirmative == (row["defect"] == "good"))


def test_templates_write_the_same_bytes_again(trees: Trees, tmp_path: Path) -> None:
    for name in ("a", "b"):
        annotate_with_templates(find(trees)[0], tmp_path / name, Findings(quiet=True))
    assert (tmp_path / "a/annotations.jsonl").read_bytes() == (tmp_path / "b/annotations.jsonl").read_bytes()


def test_an_unreadable_mask_costs_only_what_it_would_have_said(trees: Trees, tmp_path: Path) -> None:
    (trees.mvtec / "bottle/ground_truth/broken_large/002_mask.png").write_bytes(b"\x89PNG broken")
    subjects, findings = find(trees)
    annotate_with_templates(subjects, tmp_path / "qa", findings)
    assert findings.counts["unreadable"] == 1
    ids = (tmp_path / "qa" / "annotations.jsonl").read_text()
    assert "broken_large/002.png#detection" in ids
    assert "broken_large/002.png#localization" not in ids


@pytest.mark.parametrize(
    ("box", "mode", "expected"),
    [
        ((0, 0, 9, 9), "L", "in the upper left of the image and covers about 1%"),
        ((45, 45, 54, 54), "1", "in the centre of the image and covers about 1%"),
        ((90, 45, 99, 54), "RGB", "in the middle right"),
        ((45, 90, 54, 99), "RGBA", "in the lower middle"),
        ((1, 1, 98, 98), "P", "spread over most of the image and covers about 96%"),
        ((50, 50, 51, 51), "I;16", "covers less than 1%"),
        (None, "L", ""),
    ],
)
def test_a_mask_is_put_in_words(tmp_path: Path, box: tuple[int, ...] | None, mode: str, expected: str) -> None:
    mask = Image.new("L", (100, 100))
    if box:
        ImageDraw.Draw(mask).rectangle(box, fill=1)  # VisA numbers its classes from 1
    if mode == "P":
        mask.putpalette([0, 0, 0] * 256)  # black on black: the indices count, not the colours
    elif mode == "1":
        mask = mask.point(lambda value: 255 * value).convert("1")
    else:
        mask = mask.convert(mode)
    mask.save(tmp_path / "mask.png")
    subject = Subject("a", "visa", "candle", "appearance", "bad", tmp_path / "a.png", tmp_path / "mask.png")
    assert expected in describe_mask(subject)
    assert bool(describe_mask(subject)) == bool(expected)


def test_a_nameless_defect_is_not_given_a_name() -> None:
    subject = Subject("a", "visa", "candle", "appearance", "bad", Path("a.png"), None)
    assert write_pairs(subject)[0].answer.endswith("The candle shows a defect.")
    assert "bad" not in prompt_text(subject)


def test_the_prompt_names_product_defect_and_priors() -> None:
    said = Statement("Defect Localization", "Where is it?", "At the rim")
    subject = Subject(
        "a", "mvtec_ad", "metal_nut", "color", "color", Path("a.png"), None, (said,), "Stains differ in hue.", ""
    )
    text = prompt_text(subject)
    for words in ("metal nut", "Where is it? -> At the rim", "Stains differ", "Look beyond them", "localization"):
        assert words in text
    assert "localization" not in prompt_text(Subject("a", "visa", "candle", "good", "good", Path("a.png"), None))


def test_large_images_are_shrunk_before_they_are_sent(tmp_path: Path) -> None:
    import base64
    from io import BytesIO

    Image.effect_noise((900, 600), 50).save(tmp_path / "a.png")
    subject = Subject("a", "visa", "candle", "good", "good", tmp_path / "a.png", None)
    for bound, kind, area in ((100_000, "image/jpeg", 100_000), (1_000_000, "image/png", 540_000)):
        url = build_messages(subject, max_pixels=bound)[0]["content"][0]["image_url"]["url"]
        head, data = url.split(",")
        assert head == f"data:{kind};base64"
        width, height = Image.open(BytesIO(base64.b64decode(data))).size
        assert 0.8 * area < width * height <= area


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({}, ""),
        ({"answer": "No, all is well on the surface."}, "does not begin with Yes"),
        ({"answer": "Yes."}, "has 4 characters"),
        ({"answer": "Yes, " + "it is broken " * 200}, "characters, not 20 to 1200"),
        ({"answer": "Yes, das Glas ist gebrochen und fehlt."}, "not in English"),
        (
            {"answer": "Yes, \u74f6\u53e3\u7f3a\u4e86\u4e00\u5757\u73bb\u7483 there is a part missing here"},
            "not in English",
        ),
        (
            {"answer": "Yes, a very long and quite specific sentence that the annotators wrote down once."},
            "copies 10 words",
        ),
        ({"answer": "Yes, according to the given information it is broken."}, "refers to the prompt"),
        ({"answer": "Yes, it is broken <|im_end|> there."}, "control text"),
        ({"question": "Look at <image>: is it broken?"}, "control text"),
        ({"question": "Why?"}, "has 4 characters"),
        ({"topic": "analysis"}, "topics"),
        ({"extra": 1}, "Extra inputs"),
    ],
)
def test_a_reply_that_would_spoil_training_is_refused(change: dict[str, Any], fault: str) -> None:
    prior = "a very long and quite specific sentence that the annotators wrote down"
    subject = Subject("a", "visa", "candle", "appearance", "bad", Path("a.png"), None, (), prior)
    pairs = [
        {"topic": "detection", "question": "Is it broken?", "answer": "Yes, the rim is broken on one side."},
        {"topic": "description", "question": "How does it look?", "answer": "The candle is round and of white wax."},
        {"topic": "localization", "question": "Where is it broken?", "answer": "The damage is at the upper edge."},
        {"topic": "analysis", "question": "What is wrong with it?", "answer": "A part of the wax has come off there."},
    ]
    text = json.dumps({"pairs": [pairs[0] | change, *pairs[1:]]})
    if not fault:
        assert len(parse_reply(text, subject)) == 4
        return
    with pytest.raises(InvalidReplyError, match=fault):
        parse_reply(text, subject)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_run_is_left_as_it_is(trees: Trees, tmp_path: Path) -> None:
    subjects, findings = find(trees)
    summary = annotate_with_templates(subjects, tmp_path / "qa", findings)
    (tmp_path / "qa" / "annotations.jsonl").touch()
    before = {path.name: path.stat().st_ino for path in (tmp_path / "qa").iterdir()}
    assert annotate_with_templates(subjects, tmp_path / "qa", findings) == summary
    assert {path.name: path.stat().st_ino for path in (tmp_path / "qa").iterdir()} == before
    assert any("the annotations are complete; pass --overwrite" in line for line in findings.lines)


def test_a_failed_run_of_a_model_is_not_taken_for_a_finished_one(trees: Trees, tmp_path: Path) -> None:
    subjects, findings = find(trees)
    wanted = annotate_with_templates(subjects, tmp_path / "wanted", findings)
    shutil.copytree(tmp_path / "wanted", tmp_path / "qa")
    (tmp_path / "qa" / "annotations.jsonl").write_text("")  # what remains where no request was answered
    summary = tmp_path / "qa" / "annotate.json"
    summary.write_text(json.dumps(wanted | {"writer": "a model", "pairs": 0}))
    assert annotate_with_templates(subjects, tmp_path / "qa", findings) == wanted
    assert files_of(tmp_path / "qa") == files_of(tmp_path / "wanted")


@pytest.mark.parametrize("change", ["fewer", "writer", "broken"])
def test_annotations_that_would_be_lost_are_not_replaced_unasked(trees: Trees, tmp_path: Path, change: str) -> None:
    subjects, findings = find(trees)
    annotate_with_templates(subjects, tmp_path / "qa", findings)
    path = tmp_path / "qa" / "annotations.jsonl"
    if change == "fewer":
        subjects = subjects[:-1]
    elif change == "writer":
        path.write_text(path.read_text().replace('"template"', '"a model"'))
    else:
        path.write_text("not an annotation")
    before = files_of(tmp_path / "qa")
    with pytest.raises((UsageError, DataError)):
        annotate_with_templates(subjects, tmp_path / "qa", findings)
    assert files_of(tmp_path / "qa") == before
    annotate_with_templates(subjects, tmp_path / "qa", findings, overwrite=True)
    assert files_of(tmp_path / "qa") != before


def test_a_run_continues_with_more_images(trees: Trees, tmp_path: Path) -> None:
    subjects, findings = find(trees)
    annotate_with_templates(subjects[:5], tmp_path / "qa", findings)
    summary = annotate_with_templates(subjects, tmp_path / "qa", findings)
    assert summary["subjects"] == len(subjects)
    annotate_with_templates(subjects, tmp_path / "whole", findings)
    assert (tmp_path / "qa/annotations.jsonl").read_bytes() == (tmp_path / "whole/annotations.jsonl").read_bytes()
