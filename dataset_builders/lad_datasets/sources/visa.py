"""VisA: 12 objects, 10,821 images; its one-class split has 2,162 test images.

Licence: CC BY 4.0 (c) Amazon.
Reference: Zou et al., "SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and Segmentation",
ECCV 2022; https://github.com/amazon-science/spot-diff

Raw:

    <object>/Data/Images/{Normal,Anomaly}/*.JPG
    <object>/image_anno.csv            image,label,mask; label is "normal" or defect names, comma-separated
    split_csv/1cls.csv                 object,split,label,image,mask

Converted by the reference's own script, which loses the defect names (every anomalous image is ``bad``):

    1cls/<object>/{train/good,test/{good,bad},ground_truth/bad}
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from lad_datasets.sources.folder import scan_folders
from lad_datasets.sources.folder_names import COMMON, FolderNames, means_normal
from lad_datasets.sources.recognise import VISA_CATEGORIES, converted_root, refuse_other_dataset
from lad_datasets.sources.samples import CC_BY_4, GOOD, UNNAMED, Sample, Tree, iter_folders, iter_images, read_marker
from lad_datasets.sources.skipped import note_dead_links, note_skipped
from lad_reasoner.support.errors import DataError

__all__ = ["CATEGORIES", "UNNAMED", "scan"]

CATEGORIES: Final = VISA_CATEGORIES

SPLIT: Final = Path("split_csv", "1cls.csv")


def scan(root: Path, names: FolderNames = COMMON) -> Tree:
    """List a tree's images, raw or converted; ``names`` applies to the converted layout.

    Raises:
        DataError: The folder has neither layout or is another dataset, or a CSV lacks a column or names a file that is
            absent.
    """
    if not root.is_dir():
        raise DataError("no such folder", where=root, remedy="The layout is <object>/Data/Images or 1cls/<object>")
    refuse_other_dataset(root, "visa")
    dataset, licence = read_marker(root, dataset="visa", licence=CC_BY_4)
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]
    if any((folder / "Data" / "Images").is_dir() for folder in iter_folders(root)):
        samples, notes = _scan_raw(root)
    else:
        converted = converted_root(root)
        found, notes = scan_folders(converted, names)
        samples = tuple(replace(s, path=(converted / s.path).relative_to(root).as_posix()) for s in found)
    return Tree(dataset, "visa", root, licence, samples, notes)


def _scan_raw(root: Path) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    objects = [folder for folder in iter_folders(root) if (folder / "Data" / "Images").is_dir()]
    defects = {image: defect for folder in objects for image, defect in _iter_annotations(folder)}
    notes = tuple(
        f"{folder / 'image_anno.csv'}: absent; anomalous images of {folder.name} stay without a defect name"
        for folder in objects
        if not (folder / "image_anno.csv").is_file()
    )
    if (root / SPLIT).is_file():
        rows = _read_csv(root / SPLIT, ("object", "split", "label", "image"))
        _check_split(root / SPLIT, rows)
        samples = [sample for folder in objects for sample in _iter_split(root, folder.name, rows, defects)]
    else:
        notes += (f"{root / SPLIT}: absent; every normal image serves as a reference and none as a query",)
        samples = [sample for folder in objects for sample in _iter_unsplit(root, folder, defects)]
    if not samples:
        raise DataError("there are no images in <object>/Data/Images/{Normal,Anomaly}/*.JPG", where=root)
    return tuple(samples), (*notes, *_note_unused(root, objects, samples))


def _note_unused(root: Path, objects: Sequence[Path], samples: Sequence[Sample]) -> Iterator[str]:
    """Yield lines on the images that no row of the split takes, and on what is no image."""
    yield from note_dead_links(root)
    for folder in objects:
        taken = [root / sample.path for sample in samples if sample.category == folder.name]
        yield from note_skipped(folder / "Data" / "Images", taken)


def _iter_annotations(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield image path and defect name(s); the official spelling is kept, errors included ("foreign particals")."""
    for row in _read_csv(folder / "image_anno.csv", ("image", "label")):
        names = [name.strip() for name in row["label"].split(",") if name.strip()]
        if normal := [name for name in names if names != ["normal"] and means_normal(name)]:
            problem = f"the label {', '.join(names)!r} of {row['image']}: {normal[0]!r} means a normal image"
            remedy = 'The label is "normal", or the names of the defects'
            raise DataError(problem, where=folder / "image_anno.csv", remedy=remedy)
        if names and names != ["normal"]:
            yield row["image"].strip(), "+".join(names)


def _iter_split(root: Path, category: str, rows: list[dict[str, str]], defects: dict[str, str]) -> Iterator[Sample]:
    own = [row for row in rows if row["object"] == category]
    for split in ("train", "test"):
        for row in sorted((row for row in own if row["split"] == split), key=lambda row: row["image"]):
            path = row["image"].strip()
            if not os.path.isfile(root / path):  # noqa: PTH113 - pathlib raises where a name is too long
                remedy = f"{root / SPLIT} names it: unpack VisA again"
                raise DataError("no such file", where=root / path, remedy=remedy)
            defect = GOOD if row["label"].strip() == "normal" else defects.get(path, UNNAMED)
            yield Sample(path, category, "train" if split == "train" else "test", defect)


def _check_split(file: Path, rows: list[dict[str, str]]) -> None:
    """Raise if a row has another split or label than VisA's: read as anomalous, a "Normal" would be a wrong label."""
    known = {("train", "normal"), ("test", "normal"), ("test", "anomaly")}
    for number, row in enumerate(rows, start=2):
        split, label = row["split"], row["label"].strip()
        if (split, label) not in known:
            problem = f"split {split!r} and label {label!r} are not VisA's: train has normal, test normal and anomaly"
            remedy = "Correct the row, or unpack VisA again"
            raise DataError(problem, where=f"{file}, line {number}", remedy=remedy)


def _iter_unsplit(root: Path, folder: Path, defects: dict[str, str]) -> Iterator[Sample]:
    for image in iter_images(folder / "Data" / "Images" / "Normal"):
        yield Sample(image.relative_to(root).as_posix(), folder.name, "train", GOOD)
    for image in iter_images(folder / "Data" / "Images" / "Anomaly"):
        path = image.relative_to(root).as_posix()
        yield Sample(path, folder.name, "test", defects.get(path, UNNAMED))


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of a CSV with LF or CRLF line ends, or [] if it is absent."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            names = reader.fieldnames or ()
            if missing := [column for column in columns if column not in names]:
                problem = f"the columns are {', '.join(names) or 'missing'}, without {', '.join(missing)}"
                raise DataError(problem, where=path)
            return [{name: row[name] or "" for name in names} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"it is not a readable CSV ({error})", where=path, remedy="Unpack VisA again") from error
