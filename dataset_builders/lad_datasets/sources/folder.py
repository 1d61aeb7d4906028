"""Any user's own data, in the layout that anomaly detection tools share.

    <category>/train/good/*            normal images, which serve as references
    <category>/test/good/*             normal queries
    <category>/test/<defect>/*         anomalous queries; the folder's name is the defect's

Other names for ``good``: see ``folder_names.py``. Licence: the data owner's own. Reference: the layout is MVTec AD's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lad_datasets.sources.folder_names import COMMON, FolderNames
from lad_datasets.sources.recognise import DATASETS, recognise, refuse_other_dataset
from lad_datasets.sources.samples import GOOD, OWN_DATA, Sample, Tree, iter_folders, iter_images
from lad_datasets.sources.skipped import note_dead_links, note_skipped
from lad_reasoner.support.errors import DataError

__all__ = ["ASIDE", "scan", "scan_folders"]

LAYOUT: Final = "<category>/train/good and <category>/test/{good,<defect>}"

#: Folders of a category that hold something else than pairs are made of: masks, MVTec LOCO AD's validation images.
ASIDE: Final = ("ground_truth", "validation")

#: Names of masks and of their folders, and what they are the masks of.
_MASKS: Final = re.compile(r"(?:(?P<of>.+)[ ._-])?(?:masks?|gt|ground[ _-]?truths?)", re.IGNORECASE)


def scan(root: Path, names: FolderNames = COMMON) -> Tree:
    """List a tree's images.

    Raises:
        DataError: The folder is not laid out as above, or a name may mean normal or a defect.
    """
    refuse_other_dataset(root, "folder")
    samples, notes = scan_folders(root, names)
    if dataset := recognise(root):
        name, option = DATASETS[dataset]
        note = f"{root}: every category has a name of {name}; if it is {name}, use {option}, for its licence"
        notes = (note, *notes)
    return Tree("folder", "folder", root, OWN_DATA, samples, notes)


def scan_folders(root: Path, names: FolderNames = COMMON) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """List the images of a tree in the layout above.

    Returns:
        The samples, and lines on folder names that were read as normal and on what was skipped.

    Raises:
        DataError: The folder is absent, holds no category in this layout, or has a name that may mean normal.
    """
    if not root.is_dir():
        raise DataError("no such folder", where=root, remedy=f"The layout is {LAYOUT}")
    samples: list[Sample] = []
    notes = note_dead_links(root)
    found: set[str] = set()
    for category in iter_folders(root):
        own = list(_iter_category(root, category, names))
        samples += own
        if not own:
            notes.append(f"{category}: skipped: no images in train/good or test/*")
        notes += note_skipped(category, [root / sample.path for sample in own], aside=ASIDE)
        folders = [*iter_folders(category / "train"), *iter_folders(category / "test")]
        found |= {folder.name for folder in folders}
        notes += [f"{folder}: read as normal images" for folder in folders if _is_renamed(folder, names)]
    if not samples:
        listed = ", ".join(path.name for path in list(iter_folders(root))[:3]) or "nothing"
        remedy = f"The layout is {LAYOUT}; give the category folders' parent"
        if (root / "train").is_dir() or (root / "test").is_dir():
            remedy += f", which seems to be {root.parent}"
        raise DataError(f"no images in this layout (folders: {listed})", where=root, remedy=remedy)
    if unused := names.unused(found):
        raise DataError(f"no folder is called {', '.join(unused)}", where=root, remedy="Check --normal and --defect")
    return tuple(samples), tuple(notes)


def _is_renamed(folder: Path, names: FolderNames) -> bool:
    return (
        folder.name != GOOD
        and (folder.parent.name == "test" or any(iter_images(folder)))
        and not _holds_masks(folder, names)
        and names.is_normal(folder)
    )


def _iter_category(root: Path, category: Path, names: FolderNames) -> Iterator[Sample]:
    for folder in iter_folders(category / "train"):
        if names.is_normal(folder):
            for image in _iter_photos(folder):
                yield Sample(image.relative_to(root).as_posix(), category.name, "train", GOOD)
    for folder in iter_folders(category / "test"):
        if _holds_masks(folder, names):
            continue
        defect = GOOD if names.is_normal(folder) else folder.name
        for image in _iter_photos(folder):
            yield Sample(image.relative_to(root).as_posix(), category.name, "test", defect)


def _holds_masks(folder: Path, names: FolderNames) -> bool:
    """Return whether a folder under ``test`` holds masks: "masks", "ground_truth", "dent_mask" next to "dent"."""
    if folder.name in names.defect or not (found := _MASKS.fullmatch(folder.name)):
        return False
    return not found["of"] or (folder.parent / found["of"]).is_dir()


def _iter_photos(folder: Path) -> Iterator[Path]:
    """Yield the images of a folder without the masks among them: "000_mask.png" next to "000.png"."""
    images = list(iter_images(folder))
    stems = {image.stem for image in images}
    for image in images:
        found = _MASKS.fullmatch(image.stem)
        if not found or found["of"] not in stems:
            yield image
