"""Which dataset a folder is, by its layout and category names: a mix-up would record a wrong label and licence."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from lad_datasets.sources.samples import iter_folders
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import LOCO_CATEGORIES

__all__ = ["DATASETS", "MVTEC_AD_CATEGORIES", "VISA_CATEGORIES", "converted_root", "recognise"]
__all__ += ["refuse_other_dataset"]

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

#: Name and option of each layout.
DATASETS: Final = {
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
    datasets = {_BY_CATEGORY.get(name, "") for name in _products(converted_root(root))}
    return datasets.pop() if len(datasets) == 1 else ""


def converted_root(root: Path) -> Path:
    """Return where VisA's converted layout has its categories, if there is such a folder."""
    return root / "1cls" if (root / "1cls").is_dir() else root


def _products(root: Path) -> list[str]:
    marks = ("test", "train", "Data/Images")
    return [folder.name for folder in iter_folders(root) if any((folder / mark).is_dir() for mark in marks)]


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
    converted = converted_root(root)
    products = _products(converted)
    name, own_option = DATASETS[layout]
    if found and found != layout and not (layout == "folder" and found in {"mvtec_ad", "visa"}):
        other, option = DATASETS[found]
        place = "" if converted == root or found == "visa" else f" {converted}"
        raise DataError(f"this is {other}, not {name}", where=root, remedy=f"Use {option}{place}")
    if known and products and (foreign := [product for product in products if product not in known]):
        problem = f"{', '.join(foreign[:3])} {'is' if len(foreign) == 1 else 'are'} not of {name}"
        place = "" if converted == root else f" {converted}"
        remedy = f"Give own data as --folder{place}, so that its licence stays its own"
        raise DataError(problem, where=root, remedy=remedy)
    if converted != root and layout != "visa" and products:
        raise DataError("the categories are in its folder 1cls", where=root, remedy=f"Use {own_option} {converted}")
