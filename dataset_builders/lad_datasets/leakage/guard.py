"""No test image of MVTec LOCO AD ever reaches a training file: by name, by content and by look."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from lad_datasets.files.images import sha256
from lad_datasets.leakage.perceptual_hash import CROPS, HASH_BITS, looks_of_crops, looks_of_orientations
from lad_datasets.sources import EVALUATION_DATASETS, mvtec_loco
from lad_datasets.sources.folder_names import LOOKALIKE_LETTERS
from lad_reasoner.pairs.images import read_image_bytes
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.progress import track
from lad_reasoner.task.task import LOCO_CATEGORIES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_DISTANCE", "Guard", "is_test_image", "refuse_test_image"]

_REMEDY: Final = "Take it out: test images of MVTec LOCO AD are for evaluation alone"

#: Folder names that only MVTec LOCO AD's test set uses, in lower case without separators.
_TEST_FOLDERS: Final = re.compile(r"(?:logical|structural)anomal(?:y|ies)(?:\d+\w*)?")
_TRAINING_NAMES: Final = frozenset({"train", "training", "trainset", "validation", "val"})
_CATEGORIES: Final = frozenset(name.replace("_", "") for name in LOCO_CATEGORIES)
#: Folders of a category's test set, as they are or shortened.
_KINDS: Final = ("good", "logical", "structural")

#: What a copy's name adds to a category's or a test folder's: "mvtec_loco_pushpins", "screw_bag_2", "test_images".
_MORE: Final = r"(?:mvtec|loco|anomalydetection|ad|dataset|data|images?|imgs?|set|split|copy|zip|v|\d)*+"
_TEST: Final = rf"{_MORE}(?:tests?|testing|eval|evaluation){_MORE}"
_TEST_NAME: Final = re.compile(rf"{_TEST}(?:{'|'.join(_KINDS)})?(?:anomal(?:y|ies))?|good{_TEST}")
_CATEGORY: Final = re.compile(rf"{_MORE}(?:{'|'.join(_CATEGORIES)}){_MORE}")

#: "screw_bag_test", "test_screw_bag", "screw_bag_test_good_000.png".
_TEST_OF_CATEGORY: Final = re.compile(
    rf"{_CATEGORY.pattern}{_TEST}(?:(?:{'|'.join(_KINDS)}).*)?|{_TEST}{_CATEGORY.pattern}"
)

#: A folder of the dataset, whatever follows: "mvtec_loco_anomaly_detection", "loco_ad_2", "loco_dataset".
_DATASET: Final = re.compile(r"mvtec(?:ad)?loco|^loco(?:ad|dataset|anomaly)|^loco$")

#: Hashes of 256 bits that differ in this many or fewer belong to one picture. docs/datasets.md says how it was chosen.
MAX_DISTANCE: Final = 24


def is_test_image(dataset: str, path: str) -> bool:
    """Return whether, by dataset id and path, an image is one of MVTec LOCO AD's test set or of its synthetic double.

    Every spelling counts (``MVTec-LOCO``, ``Screw%20Bag``). Below a folder of the dataset's name, whatever is not in a
    category's ``train`` or ``validation`` is a test image; so is whatever is below ``<category>/test``,
    ``test/<category>`` or ``<category>_test``, and what such a copy is usually called (``screw_bag_2/test_images``).

    Example:
        >>> from lad_datasets.leakage.guard import is_test_image
        >>> is_test_image("mvtec_loco", "screw_bag/test/good/000.png")
        True
        >>> is_test_image("mvtec_loco", "screw_bag/train/good/000.png")
        False
        >>> is_test_image("folder", "/data/MVTec-LOCO/pushpins/good/000.png")
        True
    """
    parts = [_bare(part) for part in PurePosixPath(_unquote(path).replace("\\", "/")).parts]
    if any(map(_TEST_FOLDERS.fullmatch, parts)) or (dataset in EVALUATION_DATASETS and "test" in parts):
        return True
    tests = [_TEST_NAME.fullmatch(part) is not None for part in parts]
    for index, part in enumerate(parts):
        if _TEST_OF_CATEGORY.fullmatch(part):
            return True
        if not _CATEGORY.fullmatch(part):
            continue
        below, above = parts[index + 1 :], parts[max(0, index - 1) : index]
        if any(tests[index + 1 :]) or set(below[:1]) & set(_KINDS[1:]):
            return True
        within_test = any(tests[max(0, index - 1) : index]) or (
            set(above) & set(_KINDS) and any(tests[index - 2 : index])
        )
        named = any(map(_DATASET.search, parts[:index])) or (part not in _CATEGORIES and "loco" in part)
        if (within_test or named) and _is_test_below(below):
            return True
    return False


def _unquote(path: str) -> str:
    """Return a path without percent encoding, even where it was encoded twice."""
    while (plain := unquote(path)) != path:
        path = plain
    return path


@lru_cache(maxsize=65_536)
def _bare(part: str) -> str:
    """Return a component of a path in one spelling: without case, compatibility forms, look-alikes and separators."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", part).casefold())
    return re.sub(r"[\W_]+", "", plain.translate(LOOKALIKE_LETTERS))


def _is_test_below(below: list[str]) -> bool:
    """Return whether an image so far below a category of the dataset is not one of its training images."""
    return not below or below[0] not in _TRAINING_NAMES or any(map(_TEST_NAME.fullmatch, below))


def refuse_test_image(dataset: str, paths: Iterable[str], *, where: object, root: Path | None = None) -> None:
    """Raise a DataError if any path is a test image of MVTec LOCO AD, as it is spelled or where its links lead.

    Paths are absolute, or relative to ``root`` if the files are there.
    """
    base = os.path.realpath(root) if root is not None else ""
    for path in paths:
        spelled = os.path.join(base, path)  # noqa: PTH118 - thousands of them
        if is_test_image(dataset, spelled) or (base and is_test_image(dataset, os.path.realpath(spelled))):
            raise DataError(f"{path} is a test image of MVTec LOCO AD", where=where, remedy=_REMEDY)


class Guard:
    """The content and the look of every test image of an MVTec LOCO AD tree.

    Raises:
        DataError: It has no test images, or one of them is unreadable.
    """

    def __init__(self, root: Path, *, workers: int = 1) -> None:
        import numpy as np

        tree = mvtec_loco.scan(root, defects=False)
        self._paths = [sample.path for sample in tree.queries()]
        with ThreadPoolExecutor(workers) as pool:
            read = pool.map(lambda path: _fingerprint(root / path), self._paths)
            fingerprints = list(track(read, total=len(self._paths), description="guard"))
        self._digests = {digest: path for (digest, _), path in zip(fingerprints, self._paths, strict=True)}
        self._looks = np.concatenate([looks for _, looks in fingerprints])

    def check(self, data: bytes, where: object) -> None:
        """Raise if an image is one of them: as it is, scaled, compressed, turned, mirrored, padded or cropped by 5%.

        Raises:
            DataError: It is.
        """
        import numpy as np

        path = self._digests.get(sha256(data))
        how = "the same file as"
        if path is None:
            best, nearest = HASH_BITS, 0
            for look in looks_of_orientations(data, where):
                distances = np.bitwise_count(self._looks ^ look).sum(axis=1, dtype=np.uint16)
                if int(distances.min()) < best:
                    best, nearest = int(distances.min()), int(distances.argmin())
            if best > MAX_DISTANCE:
                return
            path = self._paths[nearest // len(CROPS)]
            how = f"the picture (perceptual distance {best} of {HASH_BITS}) of"
        raise DataError(f"{how} the MVTec LOCO AD test image {path}", where=where, remedy=_REMEDY)


def _fingerprint(path: Path) -> tuple[str, NDArray[np.uint64]]:
    data = read_image_bytes(path)
    return sha256(data), looks_of_crops(data, path)
