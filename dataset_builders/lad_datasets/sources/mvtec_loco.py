"""MVTec LOCO AD: 5 categories; test set 575 normal, 561 logical and 432 structural anomalies.

Licence: CC BY-NC-SA 4.0 (c) MVTec Software GmbH.
Reference: Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
Localization", IJCV 2022; https://www.mvtec.com/company/research/datasets/mvtec-loco

    <category>/train/good/NNN.png
    <category>/validation/good/NNN.png                 not used: a reference is a training image, as in the paper
    <category>/test/{good,logical_anomalies,structural_anomalies}/NNN.png
    <category>/ground_truth/<type>/NNN/*.png           masks; a mask's pixel value names the defect,
    <category>/defects_config.json                     by this list of {"defect_name", "pixel_value", ...}

Its test images are for evaluation alone: ``leakage/guard.py`` keeps them out of every training file.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Final

from lad_datasets.sources.folder import ASIDE
from lad_datasets.sources.folder_names import means_normal
from lad_datasets.sources.recognise import refuse_other_dataset
from lad_datasets.sources.samples import (
    CC_BY_NC_SA_4,
    GOOD,
    UNNAMED,
    Sample,
    Tree,
    iter_folders,
    iter_images,
    read_marker,
)
from lad_datasets.sources.skipped import note_dead_links, note_skipped
from lad_reasoner.pairs.images import decode_mask, read_image_bytes
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import LOCO_CATEGORIES

__all__ = ["CATEGORIES", "KINDS", "UNNAMED", "scan"]

CATEGORIES: Final = tuple(LOCO_CATEGORIES)

#: Kind by the name of its folder under ``test``.
KINDS: Final = {GOOD: GOOD, "logical_anomalies": "logical", "structural_anomalies": "structural"}

#: Our choice: the least share of a mask's marked pixels that names a defect, and how far its value may be off.
_MIN_SHARE: Final = 0.2
_MAX_STEP: Final = 2

#: The largest value of a mask's pixel.
_MAX_VALUE: Final = 255

LAYOUT: Final = "<category>/train/good and <category>/test/{good,logical_anomalies,structural_anomalies}"


def scan(root: Path, *, defects: bool = True, workers: int = 1) -> Tree:
    """List a tree's images.

    ``workers`` threads read the masks to name the defects; without ``defects``, every anomalous image is ``unnamed``.

    Raises:
        DataError: The folder is not laid out as above, or a ``defects_config.json`` cannot be read.
    """
    if not root.is_dir():
        raise DataError("no such folder", where=root, remedy=f"The layout is {LAYOUT}")
    refuse_other_dataset(root, "mvtec_loco")
    dataset, licence = read_marker(root, dataset="mvtec_loco", licence=CC_BY_NC_SA_4)
    samples: list[Sample] = []
    notes = note_dead_links(root)
    for category in iter_folders(root):
        found = list(_iter_category(root, category))
        if not found:
            notes.append(f"{category}: skipped: no images in train/good or test/*")
        elif dataset == "mvtec_loco" and category.name not in CATEGORIES:
            known = ", ".join(CATEGORIES)
            notes.append(f"{category}: not one of MVTec LOCO AD's categories ({known}); taken all the same")
        if defects:
            found, unnamed = _name_defects(root, category, found, workers)
            notes += unnamed
        notes += note_skipped(category, [root / sample.path for sample in found], aside=ASIDE)
        samples += found
    if not any(sample.split == "test" for sample in samples):
        raise DataError("no test images in this layout", where=root, remedy=f"The layout is {LAYOUT}")
    return Tree(dataset, "mvtec_loco", root, licence, tuple(samples), tuple(notes))


def _iter_category(root: Path, category: Path) -> Iterator[Sample]:
    for image in iter_images(category / "train" / GOOD):
        yield Sample(image.relative_to(root).as_posix(), category.name, "train", GOOD, GOOD)
    for folder, kind in KINDS.items():
        for image in iter_images(category / "test" / folder):
            defect = GOOD if kind == GOOD else UNNAMED
            yield Sample(image.relative_to(root).as_posix(), category.name, "test", defect, kind)


def _name_defects(root: Path, category: Path, samples: list[Sample], workers: int) -> tuple[list[Sample], list[str]]:
    """Give each anomalous sample the names its masks carry; report what stays unnamed or is not clear, and why."""
    names = _read_defect_names(category / "defects_config.json")
    with ThreadPoolExecutor(workers) as pool:
        read = list(pool.map(lambda sample: _defect(root, sample, names), samples))
    named = [replace(sample, defect=defect) for sample, (defect, _) in zip(samples, read, strict=True)]
    blurred = [sample.path for sample, (_, clear) in zip(samples, read, strict=True) if not clear]
    notes = []
    if unnamed := [sample.path for sample in named if sample.defect == UNNAMED]:
        config = category / "defects_config.json"
        why = "their masks name none" if names else f"{config} {'names none' if config.is_file() else 'is absent'}"
        notes.append(f"{category}: {len(unnamed)} anomalous images have no defect name ({why}), such as {unnamed[0]}")
    if blurred:
        why = "their masks have other values than defects_config.json; were they resized?"
        notes.append(f"{category}: the defects of {len(blurred)} images are uncertain: {why} Such as {blurred[0]}")
    return named, notes


def _read_defect_names(config: Path) -> dict[int, str]:
    if not config.is_file():
        return {}
    try:
        entries = json.loads(config.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"the file is not JSON: {error}", where=config) from error
    names: dict[int, str] = {}
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries] if entries else [], 1):
        where = f"{config}, entry {number}"
        name, value = _read_entry(entry, where)
        if value in names:
            raise DataError(f"pixel_value {value} is already that of {names[value]!r}", where=where)
        names[value] = name
    return names


def _read_entry(entry: object, where: str) -> tuple[str, int]:
    """Return the name and the pixel value of an entry of the config."""
    if not isinstance(entry, dict) or not {"defect_name", "pixel_value"} <= entry.keys():
        raise DataError('the entry is not {"defect_name": ..., "pixel_value": ...}', where=where)
    name, value = entry["defect_name"], entry["pixel_value"]
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"defect_name {json.dumps(name)} is not a name", where=where)
    if means_normal(name):
        raise DataError(f"defect_name {name!r} means a normal image", where=where)
    if type(value) is not int or not 1 <= value <= _MAX_VALUE:
        raise DataError(f"pixel_value {json.dumps(value)} is not an integer from 1 to {_MAX_VALUE}", where=where)
    return name, value


def _defect(root: Path, sample: Sample, names: dict[int, str]) -> tuple[str, bool]:
    """Return the defects of a sample, ``+``-joined in the order of the config, and whether its masks are clear."""
    if sample.defect == GOOD or not names:
        return sample.defect, True
    image = Path(sample.path)
    masks = root / sample.category / "ground_truth" / image.parent.name / image.stem
    read = [_mask_values(mask, names) for mask in iter_images(masks)]
    values = {value for found, _ in read for value in found}
    return "+".join(name for value, name in names.items() if value in values) or UNNAMED, all(ok for _, ok in read)


def _mask_values(mask: Path, configured: Collection[int]) -> tuple[set[int], bool]:
    """Return the configured values that a mask shows, and whether it shows nothing else.

    A published mask has one value. One that was resized or compressed has others along its edges: a value counts if it
    is that of at least ``_MIN_SHARE`` of the marked pixels, as the nearest configured one.
    """
    import numpy as np

    counts = np.bincount(decode_mask(read_image_bytes(mask), mask).ravel(), minlength=256)
    counts[0] = 0
    marked, found = int(counts.sum()), set()
    for value in np.flatnonzero(counts >= max(1, _MIN_SHARE * marked)).tolist():
        nearest = min(configured, key=lambda known: abs(known - value))
        if abs(nearest - value) <= _MAX_STEP:
            found.add(nearest)
    return found, marked == sum(int(counts[value]) for value in found)
