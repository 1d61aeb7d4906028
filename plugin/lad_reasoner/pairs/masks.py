"""The masks of a dataset: where they lie, what area they mark, and its boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from lad_reasoner.pairs.images import decode_mask, exif_rotation, read_image_bytes
from lad_reasoner.support.findings import Findings
from lad_reasoner.task.boxes import Box

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["mask_boxes", "mask_files", "query_area", "query_file", "read_area", "read_mask", "report_absent"]

#: How to turn what was stored with width and height swapped, by its EXIF orientation.
_UNDO: Final[dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]]] = {
    5: lambda stored: stored.T,
    6: lambda stored: stored[::-1].T,
    7: lambda stored: stored[::-1, ::-1].T,
    8: lambda stored: stored[:, ::-1].T,
}

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


def report_absent(root: Path, query_paths: Iterable[str]) -> None:
    """Report if none of the anomalous queries has a mask: the root is probably another dataset's."""
    paths = list(query_paths)
    if paths and not any(mask_files(root, path) for path in paths):
        remedy = "give the root of the data's own dataset"
        Findings().add("no masks", f"{root}: none of the {len(paths)} anomalous queries has a mask here; {remedy}")


def query_file(root: Path, query_path: str) -> Path | None:
    """Return a query's own file below a dataset's root, if it is there; arguments as in `mask_files`."""
    parts = PurePosixPath(query_path).parts[-5:]
    parts = parts if parts[1:3] == ("Data", "Images") else parts[-4:]
    path = root.joinpath(*parts)
    return path if {"..", "/"}.isdisjoint(parts) and path.is_file() else None


def _existing(path: Path) -> tuple[Path, ...]:
    return (path,) if path.is_file() else ()


def read_mask(file: Path, photo: Path | None) -> NDArray[np.uint8] | None:
    """Return a mask's values as people see its photo: upright.

    A photo's EXIF rotation is applied to a mask of its stored shape, and not to one that is upright already. Without a
    photo, the mask is returned as it is.

    Returns:
        None if both may be the case: the rotation keeps the shape (by 180 degrees, mirrored, or of a square).

    Raises:
        DataError: The mask or the photo cannot be read.
    """
    import numpy as np

    mask = decode_mask(read_image_bytes(file), file)
    if photo is None or not photo.is_file():
        return mask
    orientation, (width, height) = exif_rotation(read_image_bytes(photo), photo)
    if orientation == 1:
        return mask
    if orientation not in _UNDO or width == height or mask.shape[0] == mask.shape[1]:
        return None
    is_stored = (mask.shape[1] > mask.shape[0]) != (width > height)
    return np.ascontiguousarray(_UNDO[orientation](mask)) if is_stored else mask


def read_area(files: Sequence[Path], photo: Path | None = None) -> NDArray[np.bool_] | None:
    """Return the union of masks, ``(height, width)``, upright; None without masks, and where `read_mask` returns it.

    Raises:
        DataError: A mask or the photo cannot be read.
    """
    import numpy as np
    from PIL import Image

    masks = [mask > 0 for file in files if (mask := read_mask(file, photo)) is not None]
    if not masks:
        return None
    height, width = masks[0].shape
    whole = [m if m.shape == masks[0].shape else np.asarray(Image.fromarray(m).resize((width, height))) for m in masks]
    return np.asarray(np.any(whole, axis=0))


def query_area(root: Path, query_path: str) -> NDArray[np.bool_] | None:
    """Return what a dataset's masks mark of a query; None without masks. Arguments as in `mask_files`."""
    return read_area(mask_files(root, query_path), query_file(root, query_path))


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
