"""Which dataset a folder is, by its layout and category names: a mix-up would record a wrong label and licence."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lad_datasets.sources.samples import iter_folders
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import LOCO_CATEGORIES

__all__ = ["MVTEC_AD_CATEGORIES", "VISA_CATEGORIES", "recognise", "refuse_other_dataset"]

MVTEC_AD_CATEGORIES: Final = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)

VISA_CATEGORIES: Final = (
    "candle",
    "capsules",
    "cashew",
    "chewinggum",
    "fryum",
    "macaroni1",
    "macaroni2",
    "pcb1",
    "pcb2",
    "pcb3",
    "pcb4",
    "pipe_fryum",
)

#: Name and option by layout.
_DATASETS: Final = {
    "mvtec_ad": ("MVTec AD", "--mvtec"),
    "visa": ("VisA", "--visa"),
    "mvtec_loco": ("MVTec LOCO AD", "`lad build loco --root`, for evaluation alone"),
    "mmad": ("MMAD", "`lad build mmad --root` or `lad annotate --mmad`"),
    "folder": ("an own folder", "--folder"),
}

#: No two datasets share a category name.
_BY_CATEGORY: Final = {
    **dict.fromkeys(MVTEC_AD_CATEGORIES, "mvtec_ad"),
    **dict.fromkeys(VISA_CATEGORIES, "visa"),
    **dict.fromkeys(LOCO_CATEGORIES, "mvtec_loco"),
}


def recognise(root: Path) -> str:
    """Return the layout that a folder certainly is in; empty if that cannot be known.

    A synthetic tree has its own marker and counts as unknown, unless its layout alone gives it away.
    """
    if (root / "mmad.json").is_file():
        return "mmad"
    folders = list(iter_folders(root))
    if any((folder / "test" / "logical_anomalies").is_dir() for folder in folders):
        return "mvtec_loco"
    if (root / "1cls").is_dir():
        return _owner(_products(root / "1cls")) or "visa"
    if any((folder / "Data" / "Images").is_dir() for folder in folders):
        return "visa"
    return _owner(_products(root))


def _products(root: Path) -> list[str]:
    folders = iter_folders(root)
    return [folder.name for folder in folders if (folder / "test").is_dir() or (folder / "train").is_dir()]


def _owner(products: list[str]) -> str:
    """Return the dataset that all categories are of; empty if there is none."""
    datasets = {_BY_CATEGORY.get(name, "") for name in products}
    return datasets.pop() if len(datasets) == 1 else ""


def refuse_other_dataset(root: Path, layout: str) -> None:
    """Raise if a folder is another dataset than the one it is given as.

    An own folder may use MVTec AD's or VisA's category names; MVTec LOCO AD's layout is never an own folder.

    Raises:
        DataError: It is, or not one of its categories is this dataset's.
    """
    if (root / "synthetic.json").is_file() or not root.is_dir():
        return
    found = recognise(root)
    known = {name for name, owner in _BY_CATEGORY.items() if owner == layout}
    converted = root / "1cls" if layout == "visa" and (root / "1cls").is_dir() else root
    products = [folder.name for folder in iter_folders(converted) if (folder / "test").is_dir()]
    name, _ = _DATASETS[layout]
    if found and found != layout and not (layout == "folder" and found in {"mvtec_ad", "visa"}):
        other, option = _DATASETS[found]
        raise DataError(f"this is {other}, not {name}", where=root, remedy=f"Use {option}")
    if known and products and (foreign := [product for product in products if product not in known]):
        problem = f"{', '.join(foreign[:3])} {'is' if len(foreign) == 1 else 'are'} not of {name}"
        raise DataError(problem, where=root, remedy="Give own data as --folder, so that its licence stays its own")
