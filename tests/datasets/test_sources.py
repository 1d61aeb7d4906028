"""What is in the trees is what is found: layouts, counts, names, and the stray files of real disks."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from lad_datasets.sources import folder, mvtec_ad, mvtec_loco, visa
from lad_datasets.sources.samples import CC_BY_4, CC_BY_NC_SA_4
from lad_reasoner.support.errors import DataError

NO_IMAGE = "no image by its ending (.bmp, .heic, .heif, .jpeg, .jpg, .png, .tif, .tiff, .webp)"


def touch(path: Path, data: bytes = b"x") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_mvtec_ad_at_full_size(mvtec_tree) -> None:
    tree = mvtec_ad.scan(mvtec_tree)
    counts = Counter((sample.split, sample.label) for sample in tree.samples)
    assert counts == {("train", "no"): 3629, ("test", "no"): 467, ("test", "yes"): 1258}
    assert tree.categories == list(mvtec_ad.CATEGORIES)
    assert len({(s.category, s.defect) for s in tree.samples if s.label == "yes"}) == 73
    assert tree.licence is CC_BY_NC_SA_4
    assert not tree.notes


def test_visa_raw_at_full_size(visa_tree) -> None:
    tree = visa.scan(visa_tree)
    assert len(tree.samples) == 10_821
    assert Counter(sample.label for sample in tree.queries()) == {"yes": 1200, "no": 962}
    assert Counter(s.category for s in tree.queries())["capsules"] == 160
    names = {sample.defect for sample in tree.samples}
    assert names == {"good", "foreign particals on candle", "bubble+discolor"}
    assert tree.licence is CC_BY_4


def test_visa_converted(tmp_path) -> None:
    for name in ("train/good/0001.JPG", "test/good/0002.JPG", "test/bad/000.JPG", "ground_truth/bad/000.png"):
        touch(tmp_path / "1cls" / "pcb1" / name)
    tree = visa.scan(tmp_path)
    assert [(s.path, s.split, s.defect) for s in tree.samples] == [
        ("1cls/pcb1/train/good/0001.JPG", "train", "good"),
        ("1cls/pcb1/test/bad/000.JPG", "test", "bad"),
        ("1cls/pcb1/test/good/0002.JPG", "test", "good"),
    ]
    assert visa.scan(tmp_path / "1cls").samples[0].path == "pcb1/train/good/0001.JPG"


def test_visa_names_what_its_tables_lack(tmp_path) -> None:
    touch(tmp_path / "candle/Data/Images/Normal/0000.JPG")
    touch(tmp_path / "candle/Data/Images/Anomaly/000.JPG")
    tree = visa.scan(tmp_path)
    assert [(s.split, s.defect) for s in tree.samples] == [("train", "good"), ("test", visa.UNNAMED)]
    assert [note.split(":")[0].rsplit("/", 1)[1] for note in tree.notes] == ["image_anno.csv", "1cls.csv"]


@pytest.mark.parametrize(
    ("table", "text", "found"),
    [
        ("candle/image_anno.csv", "picture,label\n", "columns are picture, label"),
        ("split_csv/1cls.csv", "object,split,label,image,mask\ncandle,test,normal,candle/none.JPG,\n", "no such file"),
        (
            "split_csv/1cls.csv",
            "object,split,label,image\ncandle,test,Normal,x\n",
            "line 2: split 'test' and label 'Normal'",
        ),
        ("split_csv/1cls.csv", "object,split,label,image\ncandle,test,good,x\n", "are not VisA's"),
        ("split_csv/1cls.csv", "object,split,label,image\ncandle,test,,x\n", "are not VisA's"),
        ("split_csv/1cls.csv", "object,split,label,image\ncandle,Test,normal,x\n", "are not VisA's"),
        ("split_csv/1cls.csv", "object,split,label,image\ncandle,train,anomaly,x\n", "are not VisA's"),
        ("candle/image_anno.csv", "image,label\nx,Normal\n", "means a normal image"),
        ("candle/image_anno.csv", 'image,label\nx,"chip,good"\n', "'good' means a normal image"),
    ],
)
def test_visa_tables_that_do_not_fit(tmp_path, table, text, found) -> None:
    touch(tmp_path / "candle/Data/Images/Normal/0000.JPG")
    touch(tmp_path / table, text.encode())
    with pytest.raises(DataError, match=found):
        visa.scan(tmp_path)


def test_mvtec_loco_at_full_size(loco_tree, facts) -> None:
    tree = mvtec_loco.scan(loco_tree, workers=2)
    counts = Counter((sample.category, sample.kind) for sample in tree.queries())
    expected = Counter(
        (row["category"], mvtec_loco.KINDS[row["type"]]) for row in facts("loco_index.csv") if row["split"] == "test"
    )
    assert counts == expected
    assert sum(counts.values()) == 1568
    named = {s.path: frozenset(s.defect.split("+")) for s in tree.queries() if s.label == "yes"}
    for row in facts("loco_index.csv"):
        if row["split"] == "test" and row["type"] != "good":
            path = f"{row['category']}/test/{row['type']}/{row['file']}"
            assert named[path] == frozenset((row["defects"] or mvtec_loco.UNNAMED).split(";"))
    assert sum("+" in s.defect for s in tree.queries()) == 47
    (note,) = tree.notes
    assert note.startswith(str(loco_tree / "splicing_connectors"))
    assert "14 anomalous images have no defect name" in note


def test_mvtec_loco_config_that_cannot_be_read(tmp_path) -> None:
    touch(tmp_path / "screw_bag/test/logical_anomalies/000.png")
    touch(tmp_path / "screw_bag/defects_config.json", b'[{"pixel_value": 255}]')
    with pytest.raises(DataError, match=r"defects_config.json.*defect_name"):
        mvtec_loco.scan(tmp_path)


def test_synthetic_trees_go_by_their_own_name_and_licence(tmp_path) -> None:
    touch(tmp_path / "cable/train/good/0.png")
    touch(tmp_path / "synthetic.json", json.dumps({"dataset": "synthetic_mvtec_ad", "seed": 0}).encode())
    tree = mvtec_ad.scan(tmp_path)
    assert (tree.dataset, tree.layout, tree.licence.hub_id) == ("synthetic_mvtec_ad", "mvtec_ad", "apache-2.0")


@pytest.mark.parametrize(
    "marker", [*(json.dumps({"dataset": x}) for x in ("synthetic_visa", "mine", "", None, 7)), "{}", "[]", "7", "{"]
)
def test_a_marker_of_another_dataset_is_refused(tmp_path, marker) -> None:
    touch(tmp_path / "cable/train/good/0.png")
    touch(tmp_path / "synthetic.json", marker.encode())
    with pytest.raises(DataError, match=r"synthetic\.json: the marker is not "):
        mvtec_ad.scan(tmp_path)


def test_stray_files_links_and_any_alphabet(tmp_path) -> None:
    root = tmp_path / "tree"
    for name in ("歯車 №5/train/good/ä b.PNG", "歯車 №5/test/good/1.jpeg", "歯車 №5/test/délta/2.WebP"):
        touch(root / name)
    for name in ("Thumbs.db", ".DS_Store", "._1.png", "notes.txt"):
        touch(root / "歯車 №5/test/good" / name)
    touch(root / "readme.txt")
    (root / "empty").mkdir()
    (root / "linked").symlink_to(root / "歯車 №5", target_is_directory=True)
    root.chmod(0o555)
    tree = folder.scan(root)
    assert tree.categories == ["linked", "歯車 №5"]
    assert [s.path for s in tree.samples if s.category == "linked"] == [
        "linked/train/good/ä b.PNG",
        "linked/test/délta/2.WebP",
        "linked/test/good/1.jpeg",
    ]
    assert [note.removeprefix(f"{root}/") for note in tree.notes] == [
        "empty: skipped: no images in train/good or test/*",
        *(f"{name}/test/good: skipped 1, {NO_IMAGE}: notes.txt" for name in ("linked", "歯車 №5")),
    ]


def test_nothing_is_passed_over_without_a_line(tmp_path, lad) -> None:
    root = tmp_path / "tree"
    for name in ("gear/train/good/0.png", "gear/train/bad/1.png", "gear/test/good/2.png", "gear/test/loose.png"):
        touch(root / name)
    for name in ("gear/test/dent/a.gif", "gear/test/rust/deep/4.png", "gear/licence.txt", "gear/ground_truth/x/m.png"):
        touch(root / name)
    (root / "gear/test/crack").mkdir()
    (root / "gear/test/crack/0.png").symlink_to(tmp_path / "nowhere.png")
    (root / "gear/test/worn").mkdir()
    (root / "gear/test/loop").symlink_to(root / "gear/test", target_is_directory=True)
    (root / "lost").symlink_to(tmp_path / "unmounted")
    for number in range(30):
        touch(root / f"gear/test/good/{number:02d}.json")
    tree = folder.scan(root)
    many = ", ".join(f"{number:02d}.json" for number in range(20)) + " and 10 more"
    assert [note.removeprefix(f"{root}") for note in tree.notes] == [
        ": skipped 1, links to nothing: lost",
        "/gear/test: skipped 1, images outside the layout: loose.png",
        "/gear/test/crack: skipped 1, links to nothing: 0.png",
        f"/gear/test/dent: skipped 1, {NO_IMAGE}: a.gif",
        f"/gear/test/good: skipped 30, {NO_IMAGE}: {many}",
        "/gear/test/rust/deep: skipped 1, images outside the layout: 4.png",
        "/gear/test/worn: skipped: an empty folder",
        "/gear/train/bad: skipped 1, images outside the layout: 1.png",
    ]


def test_visa_images_that_the_split_does_not_name(tmp_path) -> None:
    for name in ("Normal/0000.JPG", "Normal/0001.JPG", "Anomaly/000.JPG", "Anomaly/000.gif"):
        touch(tmp_path / "candle/Data/Images" / name)
    rows = "".join(
        f"candle,{split},{label},candle/Data/Images/{image},\n"
        for split, label, image in (("train", "normal", "Normal/0000.JPG"), ("test", "anomaly", "Anomaly/000.JPG"))
    )
    touch(tmp_path / "split_csv/1cls.csv", b"object,split,label,image,mask\n" + rows.encode())
    notes = [note.removeprefix(f"{tmp_path}/candle/") for note in visa.scan(tmp_path).notes]
    assert notes[1:] == [
        f"Data/Images/Anomaly: skipped 1, {NO_IMAGE}: 000.gif",
        "Data/Images/Normal: skipped 1, images outside the layout: 0001.JPG",
    ]


def test_mvtec_loco_folders_of_another_name(tmp_path) -> None:
    for name in ("train/good/0.png", "validation/good/0.png", "test/good/1.png", "test/logical/2.png"):
        touch(tmp_path / "screw_bag" / name)
    notes = mvtec_loco.scan(tmp_path).notes
    assert notes == (f"{tmp_path}/screw_bag/test/logical: skipped 1, images outside the layout: 2.png",)


@pytest.mark.parametrize("scan", [mvtec_ad.scan, folder.scan, visa.scan, mvtec_loco.scan])
def test_wrong_folders_say_what_was_expected(tmp_path, scan) -> None:
    with pytest.raises(DataError, match="no such folder"):
        scan(tmp_path / "absent")
    with pytest.raises(DataError, match="The layout is <"):
        scan(tmp_path)


def test_a_category_given_for_the_tree(tmp_path) -> None:
    touch(tmp_path / "cable/train/good/0.png")
    with pytest.raises(DataError, match=f"parent, which seems to be {tmp_path}"):
        mvtec_ad.scan(tmp_path / "cable")


def test_a_name_that_is_not_utf8_is_refused(tmp_path) -> None:
    folder_bytes = str(tmp_path / "gear/train/good").encode()
    os.makedirs(folder_bytes)  # noqa: PTH103 - bytes
    with open(folder_bytes + b"/\xff.png", "wb") as stream:  # noqa: PTH123 - bytes
        stream.write(b"x")
    with pytest.raises(DataError, match="the name is not UTF-8"):
        folder.scan(tmp_path)


def test_a_set_on_which_always_no_would_be_right_is_refused(lad, tmp_path) -> None:
    """Such as another dataset's tree, whose defect folders MVTec LOCO AD does not know."""
    for place in ("train/good", "test/good", "test/scratch"):
        folder = tmp_path / "tree" / "bottle" / place
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), "red" if "train" in place else "blue").save(folder / "000.png")
    done = lad("build", "loco", "--root", tmp_path / "tree", "--out", tmp_path / "loco.parquet")
    assert done.exit_code == 1
    assert "this is MVTec AD, not MVTec LOCO AD. Use --mvtec" in done.stderr
    assert not (tmp_path / "loco.parquet").exists()
