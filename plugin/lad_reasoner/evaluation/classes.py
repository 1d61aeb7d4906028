"""Answers by class: accuracy, macro F1 and the confusion table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from lad_reasoner.evaluation.outcomes import Query, System, query_of
from lad_reasoner.evaluation.statistics import RESAMPLES, Bootstrap, Estimate, estimate
from lad_reasoner.support.confusion import Floats
from lad_reasoner.task.classes import CLASS_NAMES, class_credit, gold_classes, read_class, settle
from lad_reasoner.task.gold import CLASSES
from lad_reasoner.task.response import answer_text

__all__ = ["UNREAD", "ClassScore", "score_classes"]

#: Column of the confusion table for replies without a readable class; they are wrong.
UNREAD: Final = "unread"


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The classes that a system states.

    Attributes:
        credit: Mean of what the reward pays: 1 for a right class, half for another violation of the right family.
        macro_f1: Mean of the F1 of each class that occurs in the truth.
        classes: The rows of the confusion table: classes that occur in the truth.
        stated: Its columns: classes that occur at all, then `UNREAD`.
        confusion: Counts by row and column.
    """

    name: str
    replies: int
    accuracy: Estimate
    credit: Estimate
    macro_f1: Estimate
    classes: tuple[str, ...]
    f1: tuple[float, ...]
    stated: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]


def score_classes(system: System, *, resamples: int = RESAMPLES, seed: int = 0) -> ClassScore | None:
    """Score the classes that a system states; None if its data does not ask for classes.

    A query with several defects has several right classes; the stated one counts, if right. The bootstrap resamples
    queries.
    """
    read = [
        (query_of(row.truth), *settle(said, right), class_credit(said, right))
        for row in system.rows
        if (gold := row.truth.gold).answers == CLASSES and (right := gold_classes(gold.label, gold.kind, gold.defect))
        for said in (read_class(answer_text(reply.response)) for reply in row.replies)
    ]
    if not read:
        return None
    classes = [name for name in CLASS_NAMES if any(truth == name for _, truth, _, _ in read)]
    extra = [name for name in CLASS_NAMES if name not in classes and any(said == name for _, _, said, _ in read)]
    stated = [*classes, *extra, UNREAD]
    queries: dict[Query, int] = {}
    places = [queries.setdefault(query, len(queries)) for query, _, _, _ in read]
    cells = np.zeros((len(queries), len(classes), len(stated)))
    paid = np.zeros((len(queries), 2))
    for place, (_, truth, said, credit) in zip(places, read, strict=True):
        cells[place, classes.index(truth), stated.index(said or UNREAD)] += 1
        paid[place] += credit, 1
    bootstrap = Bootstrap(resamples, seed)
    flat = cells.reshape(len(queries), -1)
    drawn = None
    if resamples:
        counts = bootstrap.counts(flat).reshape(-1, len(classes), len(stated))
        drawn = np.nanmean(_f1(counts), axis=-1)
        drawn = drawn if np.ptp(drawn) else None  # all right or all wrong: a bootstrap shows no spread
    total = cells.sum(axis=0)
    f1 = _f1(total)
    hits = np.column_stack([np.trace(cells, axis1=1, axis2=2), cells.sum(axis=(1, 2))])
    return ClassScore(
        name=system.name,
        replies=len(read),
        accuracy=bootstrap.proportion(hits),
        credit=bootstrap.proportion(paid),
        macro_f1=estimate(float(f1.mean()), drawn),
        classes=tuple(classes),
        f1=tuple(f1.tolist()),
        stated=tuple(stated),
        confusion=tuple(map(tuple, total.astype(int).tolist())),
    )


def _f1(confusion: Floats) -> Floats:
    """Return the F1 of each row's class of confusion tables ``(..., classes, stated)``; NaN without any trial."""
    classes = confusion.shape[-2]
    hits = np.diagonal(confusion[..., :classes], axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(2 * hits / (confusion.sum(axis=-1) + confusion.sum(axis=-2)[..., :classes]))
