"""The gallery's data: what the page's script reads, as one JSON value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from lad_reasoner.evaluation.boxes import stated_boxes
from lad_reasoner.inference.predictions import Prediction
from lad_reasoner.pairs.frames import Frame
from lad_reasoner.pairs.reader import Truth
from lad_reasoner.report.content import Content, RunContent
from lad_reasoner.report.pictures import PairPictures
from lad_reasoner.task.classes import read_response
from lad_reasoner.task.response import parse
from lad_reasoner.task.rewards import rlad_reward

__all__ = ["gallery_data", "script_json", "split_response"]


def gallery_data(content: Content, pictures: Mapping[str, PairPictures]) -> dict[str, Any]:
    """Return what the gallery shows; the keys are short because they repeat thousands of times."""
    return {
        "runs": [run.name for run in content.runs],
        "pairs": [_pair(truth, content, pictures[truth.pair_id]) for truth in content.truths],
    }


def _pair(truth: Truth, content: Content, pictures: PairPictures) -> dict[str, Any]:
    return {
        "id": truth.pair_id,
        "category": truth.category,
        "kind": truth.kind,
        "defect": truth.defect,
        "label": truth.label,
        "path": truth.query_path,
        "references": pictures.references,
        "query": pictures.query,
        "mask": pictures.mask,
        "boxes": truth.gold.boxes or (),
        "said": [_said(run, truth) for run in content.runs],
    }


def _said(run: RunContent, truth: Truth) -> dict[str, Any] | None:
    """Return a run's replies to a pair; None without a reply."""
    if (row := run.judged.get(truth.pair_id)) is None:
        return None
    judged = row.replies[0]
    return {
        "answer": judged.answer,
        "score": _round(judged.score),
        "source": judged.source,
        "tied": judged.tied,
        "reason": run.wrong_reason(truth),
        "error": _round(run.error(truth)),
        "samples": [_sample(prediction, truth, run.frame) for prediction in run.predictions[truth.pair_id]],
    }


def _sample(prediction: Prediction, truth: Truth, frame: Frame) -> dict[str, Any]:
    response = read_response(prediction.response, truth.gold)
    reward = rlad_reward(prediction.response, truth.answer or {"label": truth.label})
    return {
        "text": split_response(prediction.response),
        "answer": response.answer,
        "boxes": [[_round(side) for side in box] for box in stated_boxes(prediction.response, truth.gold, frame)],
        "score": _round(prediction.score),
        "source": prediction.score_source,
        "reward": [reward["overall"], reward["structure"], reward["accuracy"]],
        "tokens": prediction.response_tokens,
        "cut": prediction.finish_reason == "length",
    }


def split_response(text: str) -> tuple[str, str, str]:
    """Return what stands before, in and after the reasoning: together the whole response, stored once.

    Example:
        >>> split_response("<think> a pin is missing </think><answer> yes </answer>")
        ('<think> ', 'a pin is missing', ' </think><answer> yes </answer>')
        >>> split_response("I cannot tell.")
        ('', '', 'I cannot tell.')
    """
    reasoning = parse(text).reasoning
    if not reasoning:
        return "", "", text
    start = text.index(reasoning, text.index("<think>"))
    return text[:start], reasoning, text[start + len(reasoning) :]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def script_json(value: object) -> str:
    r"""Return JSON that may stand inside a script element: no `<`, so neither `</script` nor `<!--`.

    Example:
        >>> script_json(["</script>"])
        '["\\u003c/script>"]'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<\u2028\u2029":  # the two separators end a line in older scripts
        text = text.replace(character, f"\\u{ord(character):04x}")
    # Half a surrogate pair is no text, and no file can hold it.
    return text.encode("utf-8", "replace").decode()
