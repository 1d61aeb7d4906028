"""Questions and answers from the annotations alone, without a model, and labelled as such.

Everything comes from the annotations: the verdict and the defect's name from the dataset, the place and size from the
mask, descriptions from MMAD's statements. No image is read. The result lets the whole chain run without an endpoint,
and it is the baseline for annotations written by a model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from lad_datasets.annotate.prompt import defect_phrase, product_phrase
from lad_datasets.annotate.reply import QA, Topic
from lad_datasets.annotate.subjects import Subject
from lad_reasoner.pairs.masks import read_mask

__all__ = ["WRITER", "describe_mask", "write_pairs"]

#: The name of the writer in the data.
WRITER: Final = "template"

_QUESTIONS: Final[dict[Topic, tuple[str, ...]]] = {
    "detection": (
        "Is there any defect in this {product}?",
        "Does this image of a {product} show an anomaly?",
        "Would this {product} pass a visual inspection?",
        "Is this {product} free of defects?",
    ),
    "localization": (
        "Where is the defect on this {product}?",
        "In which part of the image is the {product} defective?",
    ),
}

#: Questions to which a sound product earns "Yes".
_AFFIRMATIVE: Final = frozenset({2, 3})

#: MMAD's types by the last word of their name, as our topics.
_MMAD_TOPICS: Final[dict[str, Topic]] = {"Description": "description", "Analysis": "analysis"}

_ROWS: Final = ("upper", "middle", "lower")
_COLUMNS: Final = ("left", "middle", "right")

#: A defect whose box fills more of both sides than this is described without a place.
_EVERYWHERE: Final = 0.7


def write_pairs(subject: Subject) -> list[QA]:
    """Write questions and answers from the annotations of an image.

    Raises:
        DataError: The mask is unreadable.
    """
    return list(_iter_pairs(subject))


def _iter_pairs(subject: Subject) -> Iterator[QA]:
    product, defect = product_phrase(subject.category), defect_phrase(subject)
    variant = _pick(subject, "detection")
    verdict = "Yes" if subject.is_anomalous == (variant not in _AFFIRMATIVE) else "No"
    shown = ("a defect" + (f' of the type "{defect}"' if defect else "")) if subject.is_anomalous else "no defect"
    question = _QUESTIONS["detection"][variant].format(product=product)
    yield QA(topic="detection", question=question, answer=f"{verdict}. The {product} shows {shown}.")
    if subject.mask is not None:
        question = _QUESTIONS["localization"][_pick(subject, "localization")].format(product=product)
        if place := describe_mask(subject):
            yield QA(topic="localization", question=question, answer=place)
    yield from _iter_statements(subject)
    if subject.caption and not subject.is_anomalous:
        yield QA(topic="description", question=f"Describe this {product}.", answer=subject.caption)


def _iter_statements(subject: Subject) -> Iterator[QA]:
    """Yield MMAD's statements of the types that no other annotation covers; the first of each."""
    done: set[Topic] = set()
    for statement in subject.statements:
        # "Object Analysis" and "Object Description" are about the product, which every image of it shares.
        kind, _, last = statement.type.rpartition(" ")
        topic = _MMAD_TOPICS.get(last)
        if topic is None or topic in done or kind == "Object":
            continue
        done.add(topic)
        yield QA(topic=topic, question=statement.question, answer=statement.answer.rstrip(".") + ".")


def _pick(subject: Subject, topic: Topic) -> int:
    """Choose a wording by the image's id, so that the same image always gets the same one."""
    digest = hashlib.sha256(f"{topic}/{subject.id}".encode()).digest()
    return digest[0] % len(_QUESTIONS[topic])


def describe_mask(subject: Subject) -> str:
    """Return where the defect is in its mask and how much of the image it covers; empty if the mask is blank."""
    import numpy as np

    assert subject.mask is not None
    mask = read_mask(subject.mask, subject.image)
    if mask is None:
        return ""
    marked = mask > 0
    rows, columns = np.flatnonzero(marked.any(axis=1)), np.flatnonzero(marked.any(axis=0))
    if not rows.size:
        return ""
    share = float(marked.mean())
    height, width = marked.shape
    tall, wide = (rows[-1] - rows[0] + 1) / height, (columns[-1] - columns[0] + 1) / width
    if min(tall, wide) > _EVERYWHERE:
        place = "The defect is spread over most of the image"
    else:
        row = _ROWS[min(2, int(3 * (rows[0] + rows[-1]) / 2 / height))]
        column = _COLUMNS[min(2, int(3 * (columns[0] + columns[-1]) / 2 / width))]
        middle = "centre" if row == column == "middle" else f"{row} {column}"
        place = f"The defect is in the {middle} of the image"
    amount = "less than 1%" if share < 0.01 else f"about {share:.0%}"
    return f"{place} and covers {amount} of it."
