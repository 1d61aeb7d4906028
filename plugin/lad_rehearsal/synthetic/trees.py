"""Synthetic: seeded trees of rendered products in the layouts of MVTec AD, VisA (raw) and MVTec LOCO AD, QA for SFT.

Licence: Apache-2.0, like the project that renders them.

    OUT/mvtec_ad/<category>/{train/good,test/{good,<defect>},ground_truth/<defect>}      15 categories
    OUT/visa/<object>/{Data/{Images/{Normal,Anomaly},Masks/Anomaly},image_anno.csv}      12 objects
    OUT/visa/split_csv/1cls.csv
    OUT/mvtec_loco/<category>/{train,validation,test,ground_truth,defects_config.json}   5 categories
    OUT/annotations.jsonl, OUT/sft/NNNNN_{0,1}.png                                       questions and answers

The names are those of the real datasets, so that recipes and readers need no special case. The images are not: each
category has its own layout of coloured shapes. The layouts of the five LOCO categories are used nowhere else. Each
root contains ``synthetic.json``; with it, readers record ``synthetic_mvtec_ad`` etc. instead of the real dataset.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
from PIL import Image

from lad_datasets.sources import mvtec_ad, mvtec_loco, visa
from lad_datasets.sources.samples import GOOD, SYNTHETIC_IDS
from lad_reasoner.support.files import write_json
from lad_rehearsal.synthetic.annotations import write_annotations
from lad_rehearsal.synthetic.render import render
from lad_rehearsal.synthetic.scenes import LOGICAL, STRUCTURAL, Layout, Scene, break_scene, compare, draw_layouts

__all__ = ["GENERATOR", "MARKER", "VERSION", "Sizes", "draw_categories", "draw_trees"]

GENERATOR: Final = "lad-reasoner synthetic"
MARKER: Final = "synthetic.json"

#: Incremented whenever the same seed would give different images.
VERSION: Final = 1

_DEFECTS: Final = (*LOGICAL, *STRUCTURAL)

#: MVTec LOCO AD's pixel values run from 234 to 255.
_PIXEL_VALUES: Final = {defect: 255 - index for index, defect in enumerate(LOGICAL)} | {
    defect: 234 + index for index, defect in enumerate(STRUCTURAL)
}

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the trees.

    Attributes:
        train: Normal training images per category; LOCO's validation has a quarter of it.
        test: Test images per category of MVTec AD and VisA: half normal, the rest spread over all defects.
        loco_test: Normal plus logically anomalous test images per LOCO category, half each; a quarter as many are
            structurally anomalous.
        sft: Questions and answers.
        pixels: Edge of an image.
    """

    train: int = 8
    test: int = 40
    loco_test: int = 40
    sft: int = 400
    pixels: int = 84


@dataclass(frozen=True, slots=True)
class _Rendered:
    """One rendered image; ``defect`` is "good" or a defect's name, and each changed place has a mask."""

    defect: str
    image: npt.NDArray[np.uint8]
    masks: tuple[Mask, ...]


@dataclass(frozen=True, slots=True)
class _Product:
    """One category: its layout, and the source of randomness of its images."""

    layout: Layout
    rng: np.random.Generator
    sizes: Sizes

    def draw(self, defects: Sequence[str]) -> Iterator[_Rendered]:
        """Yield an image for each name: "good" or a defect."""
        normal = Scene(self.layout)
        for start in range(0, len(defects), 64):  # bounds the memory
            names = defects[start : start + 64]
            scenes = [normal if name == GOOD else break_scene(normal, name, self.rng) for name in names]
            pictures = render(scenes, rng=self.rng, size=self.sizes.pixels)
            for name, scene, image, marks in zip(names, scenes, pictures.images, pictures.marks, strict=True):
                masks = (marks > 0,) if name in STRUCTURAL else tuple(_iter_slot_masks(normal, scene, marks.shape[0]))
                yield _Rendered(name, image, masks)


def draw_trees(
    out: Path, *, seed: int = 0, sizes: Sizes | None = None, report: Callable[[str], None] = lambda _: None
) -> dict[str, int]:
    """Write the three trees and the annotations into ``out``, which is empty or does not exist.

    The same seed and sizes give the same bytes. ``report`` is called with the name of each finished category.

    Returns:
        Images of mvtec_ad, visa and mvtec_loco (without masks), and rows of annotations.
    """
    sizes = sizes or Sizes()
    layouts = draw_categories(seed)
    counts = {}
    for dataset, write in _TREES.items():
        root, counts[dataset] = out / dataset, 0
        for category, layout in layouts[dataset].items():
            rng = np.random.default_rng([seed, crc32(f"{dataset}/{category}".encode())])
            counts[dataset] += write(root / category, _Product(layout, rng, sizes))
            report(f"{dataset}/{category}")
        facts = {"dataset": SYNTHETIC_IDS[dataset], "seed": seed, "sizes": asdict(sizes)}
        write_json(root / MARKER, {"generator": GENERATOR, "version": VERSION, **facts})
    _write_visa_split(out / "visa", train=sizes.train)
    rng = np.random.default_rng([seed, crc32(b"annotations")])
    held_out = tuple(layouts["mvtec_loco"].values())
    write_annotations(out, rows=sizes.sft, pixels=sizes.pixels, rng=rng, exclude=held_out)
    return counts | {"annotations": sizes.sft}


def draw_categories(seed: int) -> dict[str, dict[str, Layout]]:
    """Return the layout of every category, by dataset; all layouts differ."""
    names = {"mvtec_loco": mvtec_loco.CATEGORIES, "mvtec_ad": mvtec_ad.CATEGORIES, "visa": visa.CATEGORIES}
    layouts = iter(draw_layouts(sum(map(len, names.values())), rng=np.random.default_rng(seed)))
    return {dataset: {category: next(layouts) for category in categories} for dataset, categories in names.items()}


def _iter_slot_masks(normal: Scene, scene: Scene, size: int) -> Iterator[Mask]:
    """Yield a mask of each slot that differs from the reference."""
    cell = size // 3
    for slot, state in enumerate(compare(normal, scene)):
        if state != "ok":
            mask = np.zeros((size, size), dtype=np.bool_)
            row, column = divmod(slot, 3)
            mask[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell] = True
            yield mask


def _spread(count: int, names: Sequence[str]) -> list[str]:
    """Return ``count`` names in equal numbers, up to a difference of one."""
    return [names[index * len(names) // count] for index in range(count)]


def _write_mvtec_category(folder: Path, product: _Product) -> int:
    sizes = product.sizes
    for index, drawn in enumerate(product.draw([GOOD] * sizes.train)):
        _save(folder / "train" / GOOD / f"{index:03d}.png", drawn.image)
    anomalous = sizes.test // 2
    seen: Counter[str] = Counter()
    for drawn in product.draw([GOOD] * (sizes.test - anomalous) + _spread(anomalous, _DEFECTS)):
        stem = f"{seen[drawn.defect]:03d}"
        seen[drawn.defect] += 1
        _save(folder / "test" / drawn.defect / f"{stem}.png", drawn.image)
        if drawn.masks:
            _save_mask(folder / "ground_truth" / drawn.defect / f"{stem}_mask.png", np.any(drawn.masks, axis=0), 255)
    return sizes.train + sizes.test


def _write_visa_object(folder: Path, product: _Product) -> int:
    """Write an object; the first normal images are the training set."""
    sizes = product.sizes
    anomalous = sizes.test // 2
    normal = sizes.train + sizes.test - anomalous
    rows = []
    for index, drawn in enumerate(product.draw([GOOD] * normal + _spread(anomalous, _DEFECTS))):
        kind, number = ("Anomaly", index - normal) if drawn.masks else ("Normal", index)
        image, mask = f"Data/Images/{kind}/{number:04d}.JPG", f"Data/Masks/Anomaly/{number:04d}.png"
        _save(folder / image, drawn.image)
        if drawn.masks:  # as in VisA, the pixel value is the defect's class
            _save_mask(folder / mask, np.any(drawn.masks, axis=0), 1 + _DEFECTS.index(drawn.defect))
        label = drawn.defect.replace("_", " ") if drawn.masks else "normal"
        rows.append([f"{folder.name}/{image}", label, f"{folder.name}/{mask}" if drawn.masks else ""])
    _write_csv(folder / "image_anno.csv", [["image", "label", "mask"], *rows])
    return len(rows)


def _write_visa_split(root: Path, *, train: int) -> None:
    """Write ``split_csv/1cls.csv`` from the tables of the objects."""
    rows = [["object", "split", "label", "image", "mask"]]
    for category in visa.CATEGORIES:
        with (root / category / "image_anno.csv").open(encoding="utf-8", newline="") as lines:
            for index, row in enumerate(csv.DictReader(lines)):
                label = "anomaly" if row["mask"] else "normal"
                rows.append([category, "train" if index < train else "test", label, row["image"], row["mask"]])
    _write_csv(root / visa.SPLIT, rows)


def _write_loco_category(folder: Path, product: _Product) -> int:
    sizes = product.sizes
    logical = sizes.loco_test // 2
    parts = {
        "train/good": [GOOD] * sizes.train,
        "validation/good": [GOOD] * max(1, sizes.train // 4),
        "test/good": [GOOD] * (sizes.loco_test - logical),
        "test/logical_anomalies": _spread(logical, tuple(LOGICAL)),
        "test/structural_anomalies": _spread(max(2, sizes.loco_test // 4), tuple(STRUCTURAL)),
    }
    for part, names in parts.items():
        truth = folder / "ground_truth" / Path(part).name
        for index, drawn in enumerate(product.draw(names)):
            _save(folder / part / f"{index:03d}.png", drawn.image)
            for number, mask in enumerate(drawn.masks):
                _save_mask(truth / f"{index:03d}" / f"{number:03d}.png", mask, _PIXEL_VALUES[drawn.defect])
    # Saturation as in MVTec LOCO AD's evaluation: half a slot suffices; a blemish counts in full.
    config = [
        {
            "defect_name": defect,
            "pixel_value": value,
            "saturation_threshold": 0.5 if defect in LOGICAL else 1.0,
            "relative_saturation": True,
        }
        for defect, value in _PIXEL_VALUES.items()
    ]
    write_json(folder / "defects_config.json", config)
    return sum(map(len, parts.values()))


#: For each tree, the function that writes a category and returns the number of its images.
_TREES: Final = {"mvtec_ad": _write_mvtec_category, "visa": _write_visa_object, "mvtec_loco": _write_loco_category}


def _save(path: Path, image: npt.NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Noise hardly compresses, so use the fastest level. The JPEG quality is that of VisA.
    Image.fromarray(image).save(path, compress_level=1, quality=95)


def _save_mask(path: Path, mask: Mask, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(mask, value, 0).astype(np.uint8)).save(path)


def _write_csv(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
