"""Questions and answers for SFT, each with its own images, in the annotation format of `lad build sft`."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from lad_rehearsal.synthetic import qa
from lad_rehearsal.synthetic.render import render
from lad_rehearsal.synthetic.scenes import (
    DEFECT_KINDS,
    LOGICAL,
    STRUCTURAL,
    Layout,
    Scene,
    break_scene,
    draw_dense,
    draw_layout,
)

__all__ = ["ANNOTATIONS", "DATASET", "QuestionSample", "draw_comparison", "draw_damage", "draw_pair", "draw_parts"]
__all__ += ["draw_samples", "write_annotations"]

ANNOTATIONS: Final = "annotations.jsonl"
DATASET: Final = "synthetic_sft"

#: Number of samples rendered at once.
_BATCH: Final = 32


@dataclass(frozen=True, slots=True)
class QuestionSample:
    """A question about one or two scenes, and its answer.

    Attributes:
        category: Kind of question: ``parts``, ``damage``, ``comparison`` or ``pair``.
        defect: "good", the defect's name, or "several".
    """

    category: str
    question: str
    scenes: tuple[Scene, ...]
    answer: str
    defect: str


def draw_parts(layout: Layout, rng: np.random.Generator) -> QuestionSample:  # noqa: ARG001 - one signature for all
    """Ask for the part in each slot of one image."""
    scene = Scene(layout)
    return QuestionSample("parts", qa.PARTS_QUESTION, (scene,), qa.parts_answer(scene), "good")


def draw_damage(layout: Layout, rng: np.random.Generator) -> QuestionSample:
    """Ask which slots of one image are damaged."""
    scene = draw_dense(Scene(layout), rng)
    return QuestionSample("damage", qa.DAMAGE_QUESTION, (scene,), qa.damage_answer(scene), "several")


def draw_comparison(layout: Layout, rng: np.random.Generator, *, share: float = 0.5) -> QuestionSample:
    """Ask the task's question about two images that differ in about ``share`` of their slots."""
    reference, query = Scene(layout), draw_dense(Scene(layout), rng, share=share)
    answer = qa.pair_answer(reference, query)
    return QuestionSample("comparison", qa.pair_question(), (reference, query), answer, "several")


def draw_pair(
    layout: Layout, rng: np.random.Generator, *, defects: Sequence[str] = (*LOGICAL, *STRUCTURAL)
) -> QuestionSample:
    """Ask the task's question about a pair; with probability 0.5 the query has one of ``defects``."""
    reference = query = Scene(layout)
    defect = "good" if rng.random() < 0.5 else str(rng.choice(defects))
    if defect != "good":
        query = break_scene(reference, defect, rng)
    return QuestionSample("pair", qa.pair_question(), (reference, query), qa.pair_answer(reference, query), defect)


#: Share of each kind of question in the annotations. Chosen by measurement: docs/demo-model.md.
_SHARES: Final[dict[Callable[[Layout, np.random.Generator], QuestionSample], float]] = {
    draw_parts: 0.1,
    draw_damage: 0.05,
    draw_comparison: 0.85,
}


def draw_samples(
    count: int, *, rng: np.random.Generator, exclude: Collection[Layout] = ()
) -> Iterator[QuestionSample]:
    """Yield random questions, each about a new layout that is not in ``exclude``."""
    draws = list(_SHARES)
    for index in rng.choice(len(draws), size=count, p=list(_SHARES.values())):
        layout = draw_layout(rng)
        while layout in exclude:
            layout = draw_layout(rng)
        yield draws[index](layout, rng)


def write_annotations(
    out: Path, *, rows: int, pixels: int, rng: np.random.Generator, exclude: Collection[Layout]
) -> None:
    """Write ``annotations.jsonl`` and its images under ``sft/``."""
    (out / "sft").mkdir(parents=True, exist_ok=True)
    samples = list(draw_samples(rows, rng=rng, exclude=exclude))
    with (out / ANNOTATIONS).open("w", encoding="utf-8") as lines:
        for start in range(0, rows, _BATCH):
            batch = samples[start : start + _BATCH]
            images = iter(render([scene for s in batch for scene in s.scenes], rng=rng, size=pixels).images)
            for number, sample in enumerate(batch, start):
                names = [f"sft/{number:05d}_{index}.png" for index in range(len(sample.scenes))]
                for name in names:
                    Image.fromarray(next(images)).save(out / name, compress_level=1)
                lines.write(json.dumps(_row(number, sample, names)) + "\n")


def _row(number: int, sample: QuestionSample, images: list[str]) -> dict[str, object]:
    return {
        "id": f"{DATASET}/{number:05d}",
        "images": images,
        "question": sample.question,
        "answer": sample.answer,
        "dataset": DATASET,
        "category": sample.category,
        "kind": DEFECT_KINDS.get(sample.defect, "good" if sample.defect == "good" else "appearance"),
        "defect": sample.defect,
        "writer": "template",
    }
