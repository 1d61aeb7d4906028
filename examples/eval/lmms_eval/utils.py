"""What the task `rlad` needs: the prompt of training, the parser of the rewards, the metrics of `lad score`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lad_reasoner.evaluation.outcomes import JudgedPair, System, Verdict
from lad_reasoner.evaluation.protocols import select
from lad_reasoner.evaluation.score import RunScore, score_system
from lad_reasoner.pairs.reader import Truth
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import IMAGE_MARKER, prompt_text

METRICS = ("rlad_accuracy", "rlad_f1", "rlad_macro_f1", "rlad_unparsed")


def scored_docs(docs: Any) -> Any:
    """Leave out what the paper's protocol does: structural anomalies."""
    kept = {truth.pair_id for truth in select([_truth(doc) for doc in docs.remove_columns("images")], "paper")}
    return docs.filter(lambda pair_id: pair_id in kept, input_columns="pair_id")


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Return the images: references first, the query last."""
    return [_open(image).convert("RGB") for image in doc["images"]]


def doc_to_text(doc: Mapping[str, Any], *_: Any) -> str:
    """Return the prompt for a model that is given all images first; the markers would be read as words."""
    return prompt_text(doc["problem"]).replace(IMAGE_MARKER, "").strip()


def doc_to_messages(doc: Mapping[str, Any], *_: Any) -> list[dict[str, Any]]:
    """Return the user's turn with the images where the prompt has them."""
    images = iter(doc_to_visual(doc))
    content: list[dict[str, Any]] = []
    for index, part in enumerate(prompt_text(doc["problem"]).split(IMAGE_MARKER)):
        content += [{"type": "image", "url": next(images)}] if index else []
        content += [{"type": "text", "text": part}] if part else []
    return [{"role": "user", "content": content}]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, JudgedPair]:
    """Put a response beside the truth."""
    response = parse(results[0])
    outcome = JudgedPair(_truth(doc), (Verdict(response.answer, response.well_formed),))
    return dict.fromkeys(METRICS, outcome)


def accuracy(outcomes: Sequence[JudgedPair]) -> float | None:
    """Return the accuracy over all pairs."""
    return _score(outcomes).pooled.metrics["accuracy"].value


def f1(outcomes: Sequence[JudgedPair]) -> float | None:
    """Return F1 over all pairs; None where nothing is anomalous and nothing was called so."""
    return _score(outcomes).pooled.metrics["f1"].value


def macro_f1(outcomes: Sequence[JudgedPair]) -> float | None:
    """Return the mean of the categories' F1; None where one is not defined."""
    return _score(outcomes).macro["f1"].value


def unparsed(outcomes: Sequence[JudgedPair]) -> float:
    """Return the share of responses without a readable answer."""
    pooled = _score(outcomes).pooled
    return pooled.unparsed / pooled.replies


def _score(outcomes: Sequence[JudgedPair]) -> RunScore:
    return score_system(System("lmms-eval", tuple(outcomes)), "paper", resamples=0)


def _truth(doc: Mapping[str, Any]) -> Truth:
    return Truth(**{name: doc[name] for name in Truth.__dataclass_fields__})


def _open(image: Mapping[str, Any] | str) -> Image.Image:
    """Open an image that is stored, or whose path is (`lad build --images path`)."""
    if isinstance(image, str):
        return Image.open(Path(image))
    return Image.open(io.BytesIO(image["bytes"]))
