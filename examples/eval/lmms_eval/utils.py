"""Functions of the task `rlad`: the prompt of training, the parser of the rewards, the metrics of `lad score`."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from lad_reasoner import RunScore, Truth, prompt_text, score_responses, select

#: What EasyR1, verl and this package replace by an image.
IMAGE_MARKER = "<image>"
METRICS = ("rlad_accuracy", "rlad_f1", "rlad_macro_f1", "rlad_unparsed")


def scored_docs(docs: Any) -> Any:
    """Leave out structural anomalies, as the paper's protocol does."""
    kept = {truth.pair_id for truth in select([_truth(doc) for doc in docs.remove_columns("images")], "paper")}
    return docs.filter(lambda pair_id: pair_id in kept, input_columns="pair_id")


def doc_to_visual(doc: Mapping[str, Any]) -> list[Image.Image]:
    """Return the images: references first, the query last."""
    return [_open(image).convert("RGB") for image in doc["images"]]


def doc_to_text(doc: Mapping[str, Any], *_: Any) -> str:
    """Return the prompt for a model that gets all images first; it would read the markers as words."""
    return prompt_text(doc["problem"]).replace(IMAGE_MARKER, "").strip()


def doc_to_messages(doc: Mapping[str, Any], *_: Any) -> list[dict[str, Any]]:
    """Return the user's turn with the images where the prompt has them."""
    images = iter(doc_to_visual(doc))
    content: list[dict[str, Any]] = []
    for index, part in enumerate(prompt_text(doc["problem"]).split(IMAGE_MARKER)):
        content += [{"type": "image", "url": next(images)}] if index else []
        content += [{"type": "text", "text": part}] if part else []
    return [{"role": "user", "content": content}]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, tuple[Truth, str]]:
    """Return the ground truth and the response to it, for each metric."""
    return dict.fromkeys(METRICS, (_truth(doc), results[0]))


def accuracy(responses: Sequence[tuple[Truth, str]]) -> float | None:
    """Return the accuracy over all pairs."""
    return _score(responses).pooled.metrics["accuracy"].value


def f1(responses: Sequence[tuple[Truth, str]]) -> float | None:
    """Return F1 over all pairs; None if no pair is anomalous and none was called anomalous."""
    return _score(responses).pooled.metrics["f1"].value


def macro_f1(responses: Sequence[tuple[Truth, str]]) -> float | None:
    """Return the mean of the categories' F1; None if one of them is not defined."""
    return _score(responses).macro["f1"].value


def unparsed(responses: Sequence[tuple[Truth, str]]) -> float:
    """Return the share of responses without a readable answer."""
    pooled = _score(responses).pooled
    return pooled.unparsed / pooled.replies


def _score(responses: Sequence[tuple[Truth, str]]) -> RunScore:
    return score_responses(responses, resamples=0)


def _truth(doc: Mapping[str, Any]) -> Truth:
    return Truth(**{name: doc[name] for name in Truth.__dataclass_fields__})


def _open(image: Mapping[str, Any] | str) -> Image.Image:
    """Open an image that is stored, or whose path is (`lad build --images path`)."""
    if isinstance(image, str):
        return Image.open(Path(image))
    return Image.open(io.BytesIO(image["bytes"]))
