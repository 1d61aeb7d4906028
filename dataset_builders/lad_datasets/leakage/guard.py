"""No test image of MVTec LOCO AD ever reaches a training file: by name, by content and by look."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from lad_datasets.files.images import sha256
from lad_datasets.leakage.perceptual_hash import look_of
from lad_datasets.sources import EVALUATION_DATASETS, mvtec_loco
from lad_reasoner.pairs.images import read_image_bytes
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.progress import track

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_DISTANCE", "Guard", "is_test_image", "refuse_test_image"]

_REMEDY: Final = "take it out: test images of MVTec LOCO AD are for evaluation alone"

#: Folder names that only MVTec LOCO AD's test set uses.
_TEST_FOLDERS: Final = frozenset({"logical_anomalies", "structural_anomalies"})

#: Looks of 256 bits this near are taken for one picture. docs/datasets.md says how it was chosen.
MAX_DISTANCE: Final = 12


def is_test_image(dataset: str, path: str) -> bool:
    """Tell by dataset id and path whether an image is one of MVTec LOCO AD's test set, or of its synthetic double.

    Example:
        >>> is_test_image("mvtec_loco", "screw_bag/test/good/000.png")
        True
        >>> is_test_image("mvtec_loco", "screw_bag/train/good/000.png")
        False
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    return bool(_TEST_FOLDERS & set(parts)) or (dataset in EVALUATION_DATASETS and "test" in parts)


def refuse_test_image(dataset: str, paths: Iterable[str], *, where: object) -> None:
    """Raise if any path is a test image of MVTec LOCO AD.

    Args:
        dataset: Id of the dataset that the paths belong to.
        paths: Relative to the dataset's root, or absolute.
        where: The row, for the error.

    Raises:
        DataError: One is.
    """
    for path in paths:
        if is_test_image(dataset, path):
            raise DataError(
                where, found=f"the test image {path} of {dataset}", expected="training data", remedy=_REMEDY
            )


class Guard:
    """The content and the look of every test image of an MVTec LOCO AD tree.

    Args:
        root: The tree.
        workers: Threads that read it.

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
        self._looks = np.stack([look for _, look in fingerprints])

    def check(self, data: bytes, where: object) -> None:
        """Raise if an image is one of them, as it is or scaled or compressed anew.

        Args:
            data: The encoded image.
            where: Its path, for the error.

        Raises:
            DataError: It is.
        """
        import numpy as np

        path = self._digests.get(sha256(data))
        how = "the same file as"
        if path is None:
            distances = np.bitwise_count(self._looks ^ look_of(data, where)).sum(axis=1)
            nearest = int(distances.argmin())
            if distances[nearest] > MAX_DISTANCE:
                return
            path, how = self._paths[nearest], f"the picture (perceptual distance {distances[nearest]} of 256) of"
        found = f"{how} the MVTec LOCO AD test image {path}"
        raise DataError(where, found=found, expected="training data", remedy=_REMEDY)


def _fingerprint(path: Path) -> tuple[str, NDArray[np.uint64]]:
    data = read_image_bytes(path)
    return sha256(data), look_of(data, path)
