"""What every source gives: a tree of samples, each an image with what is known of it."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lad_reasoner.support.errors import DataError
from lad_reasoner.task.control_text import find_control_name
from lad_reasoner.task.task import ANOMALOUS, NORMAL, Label

__all__ = [
    "APACHE_2",
    "CC_BY_4",
    "CC_BY_NC_SA_4",
    "GOOD",
    "IMAGE_SUFFIXES",
    "OWN_DATA",
    "SYNTHETIC_IDS",
    "UNNAMED",
    "Licence",
    "Sample",
    "Tree",
    "iter_folders",
    "iter_images",
    "read_marker",
]

#: The defect and the kind of a normal image.
GOOD: Final = "good"

#: The defect of an anomalous image that nothing names.
UNNAMED: Final = "unnamed"

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif"})


@dataclass(frozen=True, slots=True)
class Licence:
    """Under what terms a dataset may be used.

    Attributes:
        hub_id: Its name in the Hugging Face Hub's front matter.
        commercial: Whether commercial use is allowed; None where only the data's owner knows.
    """

    name: str
    hub_id: str
    url: str
    commercial: bool | None


CC_BY_NC_SA_4: Final = Licence(
    "CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0", "https://creativecommons.org/licenses/by-nc-sa/4.0/", commercial=False
)
CC_BY_4: Final = Licence("CC BY 4.0", "cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/", commercial=True)
APACHE_2: Final = Licence("Apache-2.0", "apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0", commercial=True)
OWN_DATA: Final = Licence("the data owner's own", "other", "", commercial=None)


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a tree.

    Attributes:
        path: Relative to the tree's root, with forward slashes.
        category: The product.
        split: "train" holds normal images that serve as references; "test" holds the queries.
        defect: The dataset's own defect name(s), ``+``-joined; ``good`` for a normal image.
        kind: One of ``task.KINDS``; None where a recipe decides.
    """

    path: str
    category: str
    split: Literal["train", "test"]
    defect: str
    kind: str | None = None

    @property
    def label(self) -> Label:
        """Yes if the image is anomalous."""
        return NORMAL if self.defect == GOOD else ANOMALOUS


@dataclass(frozen=True, slots=True)
class Tree:
    """A dataset folder, scanned; no image has been read yet.

    Attributes:
        dataset: Recorded id: the layout's, or the marker's where the tree is synthetic.
        layout: The source module that scanned it, such as ``mvtec_ad``.
        samples: In path order, train before test, category by category.
        notes: What was skipped and why, one line each.
    """

    dataset: str
    layout: str
    root: Path
    licence: Licence
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = {name: sample for sample in self.samples for name in (sample.category, sample.defect)}
        for name, sample in names.items():
            if problem := find_control_name(name):
                problem = f"the name {name!r} cannot stand in a prompt: {problem}"
                raise DataError(problem, where=self.file(sample), remedy="Rename the folder or the defect")

    @property
    def categories(self) -> list[str]:
        """The categories found, in order."""
        return list(dict.fromkeys(sample.category for sample in self.samples))

    def file(self, sample: Sample) -> Path:
        """Return where the sample's image lies."""
        return self.root / sample.path

    def references(self, category: str) -> list[Sample]:
        """Return the normal training images of a category."""
        return [s for s in self.samples if s.split == "train" and s.category == category]

    def queries(self) -> list[Sample]:
        """Return every test image."""
        return [s for s in self.samples if s.split == "test"]


#: Id of the synthetic dataset by that of the real one in the same layout.
SYNTHETIC_IDS: Final = {"mvtec_ad": "synthetic_mvtec_ad", "visa": "synthetic_visa", "mvtec_loco": "synthetic_loco"}


def read_marker(root: Path, *, dataset: str, licence: Licence) -> tuple[str, Licence]:
    """Return the dataset id and licence of a tree: the given ones, or those of a synthetic tree's marker.

    Raises:
        DataError: The marker cannot be read, or names another dataset than this layout's synthetic one.
    """
    marker = root / "synthetic.json"
    if not marker.is_file():
        return dataset, licence
    try:
        found = json.loads(marker.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"the marker is not JSON: {error}", where=marker, remedy="Render the images again") from error
    expected = SYNTHETIC_IDS[dataset]
    if not isinstance(found, dict) or found.get("dataset") != expected:
        problem = f'the marker is not {{"dataset": "{expected}"}}'
        remedy = "Use the option of the tree's own layout, or render the images again"
        raise DataError(problem, where=marker, remedy=remedy)
    return expected, APACHE_2


def iter_folders(folder: Path) -> Iterator[Path]:
    """Yield the visible folders in a folder, by name; a link to a folder counts as one.

    Raises:
        DataError: Two names differ only in their Unicode form: they look the same and would count as two.
    """
    seen: set[str] = set()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and not path.name.startswith("."):
            if (name := unicodedata.normalize("NFC", path.name)) in seen:
                raise DataError("two folders have this name, in two Unicode forms", where=path, remedy="Merge them")
            seen.add(name)
            yield path


def iter_images(folder: Path) -> Iterator[Path]:
    """Yield the image files in a folder, by name; Thumbs.db, .DS_Store and their like are not images.

    Raises:
        DataError: A name is not UTF-8 or has a control character.
    """
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file():
                _refuse_name(path)
                yield path


def _refuse_name(path: Path) -> None:
    """Raise if a name is not UTF-8, which neither parquet nor JSON can hold, or has a line end or the like."""
    text = str(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError("the name is not UTF-8", where=os.fsencode(path), remedy="Rename it") from None
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in text):
        raise DataError("the name has a line end or another control character", where=repr(text), remedy="Rename it")
