"""Any user's own data, in the layout that anomaly detection tools share.

    <category>/train/good/*            normal images, which serve as references
    <category>/test/good/*             normal images in question
    <category>/test/<defect>/*         anomalous images in question; the folder's name is the defect's

Licence: the data owner's own. Reference: the layout is MVTec AD's.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lad_datasets.sources.samples import GOOD, OWN_DATA, Sample, Tree, iter_folders, iter_images
from lad_datasets.sources.skipped import note_dead_links, note_passed_over
from lad_reasoner.support.errors import DataError

__all__ = ["CATEGORIES", "scan", "scan_folders"]

#: A user's categories are the user's.
CATEGORIES: Final = None

LAYOUT: Final = "<category>/train/good and <category>/test/{good,<defect>}"

#: Folders of a category that hold something else than pairs are made of: masks, MVTec LOCO AD's validation images.
ASIDE: Final = ("ground_truth", "validation")


def scan(root: Path) -> Tree:
    """List a tree's images.

    Raises:
        DataError: The folder is not laid out as above.
    """
    samples, notes = scan_folders(root)
    return Tree("folder", "folder", root, OWN_DATA, samples, notes)


def scan_folders(root: Path) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """List the images of a tree in the layout above.

    Returns:
        The samples, and lines on what was passed over.

    Raises:
        DataError: The folder is absent, or holds no category in this layout.
    """
    if not root.is_dir():
        raise DataError(root, found="no such folder", expected=LAYOUT)
    samples: list[Sample] = []
    notes = note_dead_links(root)
    for category in iter_folders(root):
        found = list(_iter_category(root, category))
        samples += found
        if not found:
            notes.append(f"{category}: passed over: no images in train/good or test/*")
        notes += note_passed_over(category, [root / sample.path for sample in found], aside=ASIDE)
    if not samples:
        names = ", ".join(path.name for path in list(iter_folders(root))[:3]) or "nothing"
        remedy = "give the category folders' parent"
        if (root / "train").is_dir() or (root / "test").is_dir():
            remedy += f", which seems to be {root.parent}"
        raise DataError(root, found=f"no images in this layout (folders: {names})", expected=LAYOUT, remedy=remedy)
    return tuple(samples), tuple(notes)


def _iter_category(root: Path, category: Path) -> Iterator[Sample]:
    for image in iter_images(category / "train" / GOOD):
        yield Sample(image.relative_to(root).as_posix(), category.name, "train", GOOD)
    for defect in iter_folders(category / "test"):
        for image in iter_images(defect):
            yield Sample(image.relative_to(root).as_posix(), category.name, "test", defect.name)
