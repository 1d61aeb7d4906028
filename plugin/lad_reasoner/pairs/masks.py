"""The masks of a dataset: where they lie, what area they mark, and its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from lad_reasoner.pairs.images import decode_mask, read_image_bytes
from lad_reasoner.task.boxes import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["mask_boxes", "mask_files", "read_area"]

#: A region below this share of the marked area is a speck, not a place. Our choice.
_SPECK: Final = 0.01


def mask_files(root: Path, query_path: str) -> tuple[Path, ...]:
    """Return the masks of a query.

    MVTec LOCO AD has ``ground_truth/<type>/NNN/*.png``, MVTec AD ``ground_truth/<type>/NNN_mask.png``, VisA
    ``Data/Masks/Anomaly/NNN.png`` or, converted, ``ground_truth/<type>/NNN.png``.

    Args:
        root: The dataset's root.
        query_path: ``.../<category>/test/<type>/NNN.png``, or VisA's ``.../<object>/Data/Images/Anomaly/NNN.JPG``. It
            comes from a data file and is not trusted: only its last parts count, and none may lead out of ``root``.
    """
    parts = PurePosixPath(query_path).parts[-5:]
    if not {"..", "/"}.isdisjoint(parts):
        return ()
    stem = PurePosixPath(query_path).stem
    if len(parts) == 5 and parts[1:4] == ("Data", "Images", "Anomaly"):
        return _existing(root / parts[0] / "Data" / "Masks" / "Anomaly" / f"{stem}.png")
    if len(parts) < 4 or parts[-3] != "test":
        return ()
    folder = root / parts[-4] / "ground_truth" / parts[-2]
    found = _existing(folder / f"{stem}_mask.png") or _existing(folder / f"{stem}.png")
    return found or tuple(sorted((folder / stem).glob("*.png")))


def _existing(path: Path) -> tuple[Path, ...]:
    return (path,) if path.is_file() else ()


def read_area(files: Sequence[Path]) -> NDArray[np.bool_]:
    """Return the union of masks, ``(height, width)``.

    Args:
        files: At least one.

    Raises:
        DataError: A mask cannot be read.
    """
    import numpy as np
    from PIL import Image

    masks = [decode_mask(read_image_bytes(file), file) > 0 for file in files]
    height, width = masks[0].shape
    whole = [m if m.shape == masks[0].shape else np.asarray(Image.fromarray(m).resize((width, height))) for m in masks]
    return np.asarray(np.any(whole, axis=0))


def mask_boxes(area: NDArray[np.bool_]) -> tuple[Box, ...]:
    """Return the boxes of an area's connected regions as shares of the image, the largest region first.

    Regions of less than 1% of the area are left out. Shares are rounded to four digits.
    """
    import numpy as np
    from scipy import ndimage

    regions, count = ndimage.label(area, structure=np.ones((3, 3)))
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    height, width = area.shape
    places = ndimage.find_objects(regions)
    boxes = []
    for index in sorted(range(count), key=lambda index: -int(sizes[index])):
        rows, columns = places[index]
        if sizes[index] >= _SPECK * sizes.sum():
            sides = columns.start / width, rows.start / height, columns.stop / width, rows.stop / height
            left, top, right, bottom = (round(float(side), 4) for side in sides)
            boxes.append((left, top, right, bottom))
    return tuple(boxes)
