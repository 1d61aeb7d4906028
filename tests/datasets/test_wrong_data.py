"""What would give wrong labels, licences or names without a word is named instead."""

from __future__ import annotations

import json
import re
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lad_datasets.sources import mvtec_loco
from lad_datasets.sources.folder_names import FolderNames
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.control_text import find_control_text


@pytest.mark.parametrize(
    "name",
    [
        "good",
        "Good",
        "OK",
        "okay",
        "normal",
        "NORMAL",
        "Defect-Free",
        "no_defect",
        "Non Defective",
        "gut",
        "i.O.",
        "in Ordnung",
        "bon",
        "conforme",
        "Bueno",
        "sin defecto",
        "正常",
        "良品",
        "合格",
        "정상",
        "годен",
        "Dobrý",
        "godkänd",
        "\uff2f\uff2b",
        "no_anomalies",
        "good_no_defect",
        "without_defects",
        "defect_free_2",
        "ohne_Fehler",
        "keine_Fehler",
        "sans_défauts",
        "sin_fallas",
        "bez_wady",
        "bez_błędów",
        "zonder_gebreken",
        "欠陥なし",
        "異常なし",
        "无异常",
        "무결함",
        "хороший",
        "нормальный",
        "годный",
        "error_free",
        "fehlerlos",
        "felfri",
        "foutloos",
        "брака_нет",
        "fara_defecte",
    ],
)
def test_names_that_mean_normal(name) -> None:
    assert FolderNames().is_normal(Path("gear/test") / name)


@pytest.mark.parametrize(
    "name",
    [
        "scratch",
        "bent",
        "not_ok",
        "nok",
        "NG",
        "no good",
        "abnormal",
        "defective",
        "bad",
        "missing_cable",
        "not_good",
        "nogood",
        "imperfect",
        "incorrect",
        "unacceptable",
        "nonconforming",
        "non_conforme",
        "nicht_ok",
        "不良品",
        "不合格",
        "비정상",
        "broken",
        "token",
        "smoke",
        "carbon",
        "gutter",
        "bypass",
        "pin",
        "color",
        "none_of_both",
        "broken_template",
        "new_scratch",
    ],
)
def test_names_that_mean_a_defect(name) -> None:
    assert not FolderNames().is_normal(Path("gear/test") / name)


@pytest.mark.parametrize(
    "name",
    [
        "normal light",
        "good_2",
        "okBatch",
        "negative",
        "0",
        "000",
        "class_0",
        "class_1",
        "label_1",
        "label2",
        "1",
        "g\u043e\u043ed",
        "G\u03bf\u03bfd",
        "\u041e\u041a",
        "n\u043ermal",
        "g00d",
        "norma1",
        "label_0",
        "clean",
        "reference",
        "okparts",
        "goodimages",
        "allgood",
        "OK品",
        "良品データ",
        "正常画像",
        "合格品",
        "정상품",
        "gute_Teile",
        "buone",
        "хорошие",
        "conforming",
        "acceptable",
        "good_no_scratch",
        "good_not_bad",
        "not_a_good_part",
        "not_defect_free",
        "no_print_defect",
        "no_defect_light",
        "none",
        "okey",
        "baseline",
        "within_spec",
        "Grade A",
        "unbeschädigt",
        "makellos",
        "aprobado",
        "onbeschadigd",
        "virheetön",
        "megfelelő",
        "bình_thường",
        "kusursuz",
        "hatas\u0131z",
        "исправный",
        "正样本",
        "양호",
        "καλό",
        "תקין",
        "سليم",
        "सामान्य",
        "ปกติ",
        "κακό",
        "!good",
        "~good",
        "OK+",
        "OK-",
        "\u2713",
        "\u2717",
    ],
)
def test_doubtful_names_are_asked_about_and_can_be_decided(name) -> None:
    with pytest.raises(DataError, match=r"Pass --normal .* or --defect"):
        FolderNames().is_normal(Path("gear/test") / name)
    assert FolderNames(normal=[name.upper()]).is_normal(Path("gear/test") / name)
    assert not FolderNames(defect=[name]).is_normal(Path("gear/test") / name)


def test_no_name_of_the_published_datasets_is_doubtful(facts) -> None:
    for row in facts("mvtec_counts.csv"):
        assert FolderNames().is_normal(Path(row["defect"])) == (row["defect"] == "good")


def test_a_declared_name_does_not_decide_others_that_differ_in_a_mark() -> None:
    names = FolderNames(normal=["A+", "\u2713"], defect=["\u2717"])
    assert names.is_normal(Path("A+"))
    assert names.is_normal(Path("\u2713"))
    assert not names.is_normal(Path("\u2717"))
    with pytest.raises(DataError, match="may mean normal"):
        names.is_normal(Path("A-"))


def renamed(root: Path) -> Path:
    for category in root.iterdir():
        (category / "train/good").rename(category / "train/OK")
        (category / "test/good").rename(category / "test/Normal")
    return root


def test_normal_folders_of_other_names_are_normal_everywhere(lad, small_tree, tmp_path, rows_of) -> None:
    done = lad("build", "grpo", "--folder", renamed(small_tree), "--out", tmp_path / "x.parquet")
    assert done.exit_code == 0
    labels = {(row["query_path"].split("/")[2], row["label"]) for row in rows_of(tmp_path / "x.parquet")}
    assert labels == {("Normal", "no"), ("dent", "yes"), ("missing_tooth", "yes")}
    assert f"{small_tree}/gear/test/Normal: read as normal images" in done.stderr
    done = lad("annotate", "--folder", small_tree, "--out", tmp_path / "qa")
    assert done.exit_code == 0
    answers = {}
    for line in (tmp_path / "qa/annotations.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert row["dataset"] == "folder"
        answers.setdefault(Path(row["images"][0]).parent.name, set()).add("no defect" in row["answer"])
        assert "Normal" not in row["answer"]
        assert "good" not in row["answer"]
    assert answers == {"Normal": {True}, "dent": {False}, "missing_tooth": {False}}


@pytest.mark.parametrize("verb", [("build", "grpo"), ("annotate",)])
def test_a_doubtful_folder_stops_the_command_until_it_is_decided(lad, small_tree, tmp_path, verb) -> None:
    (small_tree / "gear/test/dent").rename(small_tree / "gear/test/negative")
    out = tmp_path / ("x.parquet" if verb[0] == "build" else "qa")
    done = lad(*verb, "--folder", small_tree, "--out", out)
    assert (done.exit_code, out.exists()) == (1, False)
    assert "Pass --normal 'negative' or --defect 'negative'" in done.stderr
    assert lad(*verb, "--folder", small_tree, "--out", out, "--defect", "negative").exit_code == 0


def test_a_declared_name_that_no_folder_has_is_named(lad, small_tree, tmp_path) -> None:
    done = lad("build", "grpo", "--folder", small_tree, "--normal", "gud", "--out", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert "no folder is called gud" in done.stderr


def plant(root: Path, draw_tiny, *paths: str) -> Path:
    for path in paths:
        draw_tiny(root / path)
    return root


MVTEC = ("cable/train/good/0.png", "cable/test/good/0.png", "cable/test/cable_swap/0.png")
VISA = ("1cls/candle/train/good/0.JPG", "1cls/candle/test/good/0.JPG", "1cls/candle/test/bad/0.JPG")
CONVERTED = tuple(path.removeprefix("1cls/") for path in VISA)
LOCO = ("pushpins/train/good/0.png", "pushpins/test/good/0.png", "pushpins/test/logical_anomalies/0.png")
OWN = ("gear/train/good/0.png", "gear/test/good/0.png", "gear/test/dent/0.png")


@pytest.mark.parametrize(
    ("paths", "option", "message"),
    [
        (MVTEC, "--visa", "this is MVTec AD, not VisA. Use --mvtec"),
        (VISA, "--mvtec", "this is VisA, not MVTec AD. Use --visa"),
        (CONVERTED, "--mvtec", "this is VisA, not MVTec AD. Use --visa"),
        (LOCO, "--mvtec", "this is MVTec LOCO AD, not MVTec AD"),
        (LOCO, "--visa", "this is MVTec LOCO AD, not VisA"),
        (LOCO, "--folder", "this is MVTec LOCO AD, not an own folder"),
        (tuple(f"1cls/{path}" for path in MVTEC), "--visa", "this is MVTec AD, not VisA"),
        (tuple(f"1cls/{path}" for path in OWN), "--visa", "gear is not of VisA"),
        (tuple(f"1cls/{path}" for path in (*MVTEC, *CONVERTED)), "--visa", "cable is not of VisA"),
        (tuple(f"1cls/{path}" for path in MVTEC), "--mvtec", "Use --mvtec ROOT/1cls"),
        (tuple(f"1cls/{path}" for path in MVTEC), "--visa", "Use --mvtec ROOT/1cls"),
        (tuple(f"1cls/{path}" for path in OWN), "--visa", "Give own data as --folder ROOT/1cls"),
        (tuple(f"1cls/{path}" for path in OWN), "--folder", "Use --folder ROOT/1cls"),
        (tuple(f"{path.split('/')[0]}/Data/Images/Normal/0.JPG" for path in OWN), "--visa", "gear is not of VisA"),
        (OWN[:1], "--visa", "gear is not of VisA. Give own data as --folder"),
        (OWN, "--mvtec", "gear is not of MVTec AD. Give own data as --folder"),
        (OWN, "--visa", "gear is not of VisA. Give own data as --folder"),
        ((*MVTEC, *OWN), "--mvtec", "gear is not of MVTec AD"),
    ],
)
@pytest.mark.parametrize("verb", [("build", "grpo", "--recipe", "all"), ("annotate",)])
def test_a_mix_up_names_the_right_option(lad, tmp_path, draw_tiny, *, paths, option, message, verb) -> None:
    plant(tmp_path / "tree", draw_tiny, *paths)
    done = lad(*verb, option, tmp_path / "tree", "--out", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert message.replace("ROOT", str(tmp_path / "tree")) in done.stderr
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(("paths", "option"), [(MVTEC, "--mvtec"), (OWN, "--folder"), (VISA, "--visa")])
def test_the_remedy_for_categories_below_1cls_works(lad, tmp_path, draw_tiny, paths, option) -> None:
    plant(tmp_path / "tree" / "1cls", draw_tiny, *(path.removeprefix("1cls/") for path in paths))
    root = tmp_path / "tree" / "1cls"
    done = lad("build", "grpo", "--recipe", "all", option, root, "--out", tmp_path / "x.parquet")
    assert done.exit_code == 0, done.stderr


def test_an_own_folder_keeps_its_licence_whatever_its_categories_are_called(lad, tmp_path, draw_tiny) -> None:
    plant(tmp_path / "tree", draw_tiny, *MVTEC)
    done = lad("build", "grpo", "--folder", tmp_path / "tree", "--out", tmp_path / "x.parquet")
    assert done.exit_code == 0
    assert "CC BY" not in (tmp_path / "x.card.md").read_text()


def test_an_own_folder_with_the_categories_of_a_dataset_is_reported(lad, tmp_path, draw_tiny) -> None:
    plant(tmp_path / "tree", draw_tiny, *MVTEC)
    done = lad("build", "grpo", "--folder", tmp_path / "tree", "--out", tmp_path / "x.parquet")
    assert "if it is MVTec AD, use --mvtec, for its licence" in done.stderr
    plant(tmp_path / "tree", draw_tiny, *OWN)
    done = lad("build", "grpo", "--folder", tmp_path / "tree", "--out", tmp_path / "y.parquet")
    assert "for its licence" not in done.stderr


def test_masks_among_the_test_images_are_no_queries(lad, tmp_path, draw_tiny, rows_of) -> None:
    """A mask is neither a photo nor a defect, wherever it lies; a torn face mask is both."""
    masks = ("gear/test/dent/0_mask.png", "gear/test/dent_mask/0.png", "gear/test/Masks/0.png", "gear/test/gt/0.png")
    plant(tmp_path / "tree", draw_tiny, *OWN, *masks, "gear/test/torn_mask/0.png", "gear/train/good/0_mask.png")
    done = lad("build", "grpo", "--folder", tmp_path / "tree", "--out", tmp_path / "x.parquet")
    assert done.exit_code == 0
    queries = {row["query_path"]: row["defect"] for row in rows_of(tmp_path / "x.parquet")}
    assert queries == {
        "gear/test/good/0.png": "good",
        "gear/test/dent/0.png": "dent",
        "gear/test/torn_mask/0.png": "torn_mask",
    }
    for mask in masks:
        assert f"{tmp_path / 'tree' / Path(mask).parent}: skipped 1" in done.stderr
    done = lad("build", "grpo", "--folder", tmp_path / "tree", "--defect", "gt", "--out", tmp_path / "y.parquet")
    assert "gear/test/gt/0.png" in {row["query_path"] for row in rows_of(tmp_path / "y.parquet")}


@pytest.mark.parametrize(
    "name", ["MVTec AD", "mvtec", "VisA", "mvtec-loco", "MVTec_AD", "\uff36isa", "Synthetic_VisA"]
)
@pytest.mark.parametrize("verb", ["build", "check"])
def test_a_dataset_in_another_spelling_does_not_lose_its_licence(lad, tmp_path, draw_tiny, name, verb) -> None:
    draw_tiny(tmp_path / "0.png")
    row = {"id": "1", "images": ["0.png"], "question": "<image>?", "answer": "a", "dataset": name, "category": "c"}
    file = tmp_path / "annotations.jsonl"
    file.write_text(json.dumps(row))
    words = (
        ["check", file] if verb == "check" else ["build", "sft", "--annotations", tmp_path, "--out", tmp_path / "s"]
    )
    done = lad(*words)
    assert done.exit_code == 1
    assert f"the dataset {name!r} looks like" in done.stderr
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    "token",
    [
        "<video>",
        "<audio>",
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|vision_start|>",
        "<|image_pad|>",
        "<|video_pad|>",
        "<|box_start|>",
        "<tool_call>",
        "</s>",
        "[INST]",
        "<IMG_CONTEXT>",
        "<|eot_id|>",
        "<image>",
        "[IMG]",
        "<\uff5cUser\uff5c>",
        "<end_of_utterance>",
        "<loc0012>",
    ],
)
@pytest.mark.parametrize("place", ["question", "answer", "edit", "name"])
def test_control_text_is_refused_on_every_way_in(lad, tmp_path, draw_tiny, *, token, place) -> None:
    draw_tiny(tmp_path / "0.png")
    row = {
        "id": "a",
        "images": ["0.png"],
        "question": "<image>\nIs it?",
        "answer": "No.",
        "dataset": "own",
        "category": "c",
    }
    if place in {"question", "answer"}:
        row[place] += token
    (tmp_path / "annotations.jsonl").write_text(json.dumps(row))
    if place == "edit":
        decision = {"id": "a", "decision": "edit", "answer": f"Yes. {token}"}
        (tmp_path / "decisions.jsonl").write_text(json.dumps(decision))
    if place == "name":
        plant(tmp_path / "tree", draw_tiny, *(path.replace("dent", token.replace("/", "")) for path in OWN))
        done = lad("annotate", "--folder", tmp_path / "tree", "--out", tmp_path / "qa")
        assert done.exit_code == (1 if find_control_text(token.replace("/", "")) else 0)
        done = lad("build", "grpo", "--folder", tmp_path / "tree", "--out", tmp_path / "x.parquet")
        assert done.exit_code == (1 if find_control_text(token.replace("/", "")) else 0)
        return
    for verb in (
        ("build", "sft", "--annotations", tmp_path, "--out", tmp_path / "sft"),
        ("check", tmp_path / "annotations.jsonl"),
    ):
        done = lad(*verb)
        assert done.exit_code == 1
        assert "annotation a" in done.stderr
        assert token in done.stderr


@pytest.mark.parametrize("name", ["<think>", "<answer>", "<|im_end|>", "<video>", "[IMG]", "<image>"])
@pytest.mark.parametrize("place", ["category", "defect"])
def test_names_with_control_tokens_are_refused_by_every_builder(lad, tmp_path, draw_tiny, name, place) -> None:
    old = {"category": "gear/", "defect": "dent"}[place]
    plant(tmp_path / "tree", draw_tiny, *(path.replace(old, name + "/" * (old[-1] == "/")) for path in OWN))
    for verb in (("build", "grpo"), ("annotate",)):
        done = lad(*verb, "--folder", tmp_path / "tree", "--out", tmp_path / "x.parquet")
        assert done.exit_code == 1
        assert f"trainers read the token {name} as control" in done.stderr
        assert not (tmp_path / "x.parquet").exists()


def test_plain_angle_brackets_are_text() -> None:
    for text in ("a < b > c", "<br>", "x <| y", "size <5%", "<think>", "[1] and [INSTALL]", "[NG]", "[OK]"):
        assert find_control_text(text) == ""


def loco_tree(root: Path, mask: Image.Image, draw_tiny) -> Path:
    plant(root, draw_tiny, *LOCO)
    entries = {"missing_pin": 255, "extra_pin": 254, "wrong_color": 253, "other": 250}
    config = [{"defect_name": name, "pixel_value": value} for name, value in entries.items()]
    (root / "pushpins/defects_config.json").write_text(json.dumps(config))
    folder = root / "pushpins/ground_truth/logical_anomalies/0"
    folder.mkdir(parents=True)
    mask.save(folder / "000.png")
    return root


def disc(value: int = 255) -> Image.Image:
    mask = Image.new("L", (96, 80), 0)
    ImageDraw.Draw(mask).ellipse([20, 20, 60, 60], fill=value)
    return mask


def deep(value: int) -> Image.Image:
    return Image.fromarray((np.asarray(disc()) > 0).astype(np.uint16) * np.uint16(value))


def two_values() -> Image.Image:
    values = np.zeros((80, 96), dtype=np.uint8)
    values[10:30, 10:30], values[50:70, 10:30] = 255, 250
    return Image.fromarray(values)


@pytest.mark.parametrize(
    ("mask", "defect", "clear"),
    [
        (disc(), "missing_pin", True),
        (disc(254), "extra_pin", True),
        (disc().resize((51, 43), Image.Resampling.BILINEAR), "missing_pin", False),
        (disc(253).resize((300, 222), Image.Resampling.BICUBIC), "wrong_color", False),
        (disc(249), "other", False),
        (disc(1), "unnamed", False),
        (two_values(), "missing_pin+other", True),
        (disc().convert("RGB"), "missing_pin", True),
        (deep(254 * 257), "extra_pin", True),
        (deep(255 * 257), "missing_pin", True),
        (deep(254), "extra_pin", True),
    ],
)
def test_a_mask_names_only_what_it_shows(tmp_path, draw_tiny, *, mask, defect, clear) -> None:
    tree = mvtec_loco.scan(loco_tree(tmp_path / "loco", mask, draw_tiny))
    (sample,) = [sample for sample in tree.samples if sample.kind == "logical"]
    assert sample.defect == defect
    assert any("uncertain" in note for note in tree.notes) != clear


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ('{"defect_name": "", "pixel_value": 1}', 'defect_name "" is not a name'),
        ('{"defect_name": " ", "pixel_value": 1}', 'defect_name " " is not a name'),
        ('{"defect_name": null, "pixel_value": 1}', "defect_name null is not a name"),
        ('{"defect_name": 7, "pixel_value": 1}', "defect_name 7 is not a name"),
        ('{"defect_name": "Good", "pixel_value": 1}', "defect_name 'Good' means a normal image"),
        ('{"defect_name": "b", "pixel_value": 255}', "pixel_value 255 is already that of 'a'"),
        *(
            (f'{{"defect_name": "b", "pixel_value": {value}}}', "is not an integer from 1 to 255")
            for value in ("0", "-1", "256", "1e400", "NaN", "254.9", "254.0", "true", "null", '"254"', "[1]")
        ),
        ('{"defect_name": "b"}', 'the entry is not {"defect_name"'),
        ("7", 'the entry is not {"defect_name"'),
    ],
)
def test_an_entry_of_the_config_that_names_nothing_is_refused(tmp_path, draw_tiny, *, entry, message) -> None:
    root = loco_tree(tmp_path / "loco", disc(), draw_tiny)
    config = root / "pushpins/defects_config.json"
    config.write_text(f'[{{"defect_name": "a", "pixel_value": 255}}, {entry}]')
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        mvtec_loco.scan(root)
    assert str(caught.value).startswith(f"{config}, entry 2")


@pytest.mark.parametrize(("text", "why"), [("[]", "names none"), ("{}", "names none"), (None, "is absent")])
def test_a_note_tells_an_empty_config_from_an_absent_one(tmp_path, draw_tiny, *, text, why) -> None:
    root = loco_tree(tmp_path / "loco", disc(), draw_tiny)
    config = root / "pushpins/defects_config.json"
    config.write_text(text) if text else config.unlink()
    (note,) = [note for note in mvtec_loco.scan(root).notes if "no defect name" in note]
    assert f"{config} {why}" in note


def test_a_name_with_a_line_end_is_refused(lad, small_tree, tmp_path) -> None:
    shutil.move(small_tree / "gear/test/dent", small_tree / "gear/test/de\nnt")
    done = lad("build", "grpo", "--folder", small_tree, "--out", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert r"de\nnt" in done.stderr
    assert "line end" in done.stderr


@pytest.mark.parametrize("parent", ["", "gear/test"], ids=["categories", "defects"])
def test_names_that_differ_in_their_unicode_form_alone_are_not_two(lad, small_tree, tmp_path, *, parent) -> None:
    for form in ("NFC", "NFD"):
        twin = small_tree / parent / unicodedata.normalize(form, "Gehäuse")
        shutil.copytree(small_tree / "gear" / ("test/dent" if parent else ""), twin)
    done = lad("build", "grpo", "--folder", small_tree, "--out", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert "two folders have this name, in two Unicode forms" in done.stderr
