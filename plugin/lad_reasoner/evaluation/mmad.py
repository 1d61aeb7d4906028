"""MMAD's multiple-choice evaluation: accuracy by dataset and by seven types of question, and their means.

Its rules, from https://github.com/jam-cc/MMAD (evaluation/examples/helper/summary.py and GPT4/gpt4v.py) and the paper
(Jiang et al., ICLR 2025):

- "Object Structure" and "Object Details" are "Object Analysis", which leaves seven types;
- of "Anomaly Detection" the mean of the accuracy on normal and on anomalous images counts, since datasets hold unequal
  numbers of the two; an image is normal if it lies in a folder ``good``;
- a dataset's average is the mean of its seven types, the overall row the mean of the datasets;
- a response answers by the last letter A to E that stands alone, and without one by the option most like it.

One thing is ours: a reply that cannot be read is wrong, where MMAD's script drops it. A reply in which several letters
stand alone ("B. A bent pin." ends in the letter A) is read by the same rule, and counted as doubtful.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from lad_reasoner.evaluation.score import data_of
from lad_reasoner.evaluation.statistics import RESAMPLES, Bootstrap, Estimate, estimate
from lad_reasoner.inference.predictions import read_predictions
from lad_reasoner.pairs.reader import data_sha256, parquet_files, read_choices, read_truths
from lad_reasoner.pairs.schema import Choice
from lad_reasoner.support.confusion import Floats
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.files import unchanged
from lad_reasoner.task.task import NORMAL

__all__ = ["DETECTION", "TYPES", "ChoiceRun", "DatasetScore", "read_letter", "score_choices"]

DETECTION: Final = "Anomaly Detection"
TYPES: Final = (
    DETECTION,
    "Defect Classification",
    "Defect Localization",
    "Defect Description",
    "Defect Analysis",
    "Object Classification",
    "Object Analysis",
)
_MERGED: Final = {"Object Structure": "Object Analysis", "Object Details": "Object Analysis"}

#: What is counted of each image: right answers and questions on normal images and on anomalous ones where the type is
#: detection, and of each other type.
_SLOTS: Final = ("normal", "anomalous", *TYPES[1:])

_LETTER: Final = re.compile(r"\b([A-E])\b", re.ASCII)

HowRead = Literal["letter", "doubtful", "likeness", "unread"]


@dataclass(frozen=True, slots=True)
class DatasetScore:
    """One dataset, or the mean of all.

    Attributes:
        name: As MMAD calls it, or ``mean``.
        questions: The number of questions with a reply.
        average: The mean of the types; not defined if one is missing.
        overkill: Share of normal images that are called anomalous.
        miss: Share of anomalous images that are called normal.
    """

    name: str
    images: int
    questions: int
    types: dict[str, Estimate]
    average: Estimate
    overkill: Estimate
    miss: Estimate


@dataclass(frozen=True, slots=True)
class ChoiceRun:
    """What a model answered.

    Attributes:
        datasets: In the order of the data.
        replies: The number of replies: questions times samples.
        read: How many of them were read by a letter, by the last of several letters, by likeness, or not at all.
        missing: Ids of questions without a reply; they are not scored.
    """

    name: str
    datasets: tuple[DatasetScore, ...]
    mean: DatasetScore
    replies: int
    read: dict[HowRead, int]
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the scores as plain JSON values."""
        return asdict(self) | {"missing": len(self.missing)}


def read_letter(response: str, options: Mapping[str, str]) -> tuple[str | None, HowRead]:
    """Return the letter that a response chooses, and how it was read.

    A response with an ``<answer>`` block is read there alone, and one with reasoning after it, so that a letter in the
    reasoning is not read as the answer.

    Example:
        >>> read_letter("<think> A pin is missing </think><answer> B </answer>", {"A": "Yes.", "B": "No."})
        ('B', 'letter')
        >>> read_letter("No", {"A": "Yes.", "B": "No."})
        ('B', 'likeness')
        >>> read_letter("B. A bent pin.", {"A": "Yes.", "B": "No."})
        ('A', 'doubtful')
        >>> read_letter("<think> A pin is", {"A": "Yes.", "B": "No."})
        (None, 'unread')
    """
    text = response.rsplit("</think>", 1)[-1].rsplit("<answer>", 1)[-1].split("</answer>", 1)[0]
    text = text.split("<think>", 1)[0].strip()  # reasoning that was cut off has no answer yet
    if letters := _LETTER.findall(text):
        return letters[-1], "letter" if len(set(letters)) == 1 else "doubtful"
    # Options are at most a sentence long; comparing more text costs time and gains nothing.
    alike = get_close_matches(text[:500], options.values(), n=1, cutoff=0.0) if text else []
    if not alike:
        return None, "unread"
    return next(letter for letter, option in options.items() if option == alike[0]), "likeness"


def score_choices(
    predictions: Path, data: Path | None = None, *, name: str | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> ChoiceRun:
    """Score a file of predictions made on the data of `lad build mmad`; arguments as in `score.score_run`.

    The bootstrap resamples images with all their questions.

    Raises:
        DataError: A file cannot be read, the data is not what was predicted on or holds other questions, or no
            question has a reply.
    """
    lines = read_predictions(predictions)
    source = data or data_of(predictions)
    with unchanged(lambda: parquet_files(source)):
        if data_sha256(source) != lines[0].data_sha256:
            remedy = "Give the parquet they were made on with --data"
            raise DataError(f"predictions made on other data than {source}", where=predictions, remedy=remedy)
        choices, truths = read_choices(source), {truth.pair_id: truth for truth in read_truths(source)}
    rights: dict[str, list[bool]] = defaultdict(list)
    read: dict[HowRead, int] = {"letter": 0, "doubtful": 0, "likeness": 0, "unread": 0}
    for line in lines:
        if (choice := choices.get(line.pair_id)) is not None:
            letter, how = read_letter(line.response, choice.options)
            rights[line.pair_id].append(letter == choice.letter)
            read[how] += 1
    if not rights:
        raise DataError("there is no reply to any question of the data", where=predictions)
    counts: dict[str, dict[str, Floats]] = defaultdict(dict)
    for pair_id, right in rights.items():
        truth = truths[pair_id]
        own = counts[truth.category.split("/")[0]].setdefault(truth.query_path, np.zeros((2, len(_SLOTS))))
        own[:, _slot(choices[pair_id], normal=truth.label == NORMAL)] += sum(right) / len(right), 1
    bootstrap = Bootstrap(resamples, seed)
    scored = [_score(dataset, list(images.values()), bootstrap) for dataset, images in counts.items()]
    return ChoiceRun(
        name=name or predictions.stem,
        datasets=tuple(score for score, _ in scored),
        mean=_mean([score for score, _ in scored], [drawn for _, drawn in scored]),
        replies=sum(read.values()),
        read=read,
        missing=tuple(pair_id for pair_id in choices if pair_id not in rights),
    )


def _slot(choice: Choice, *, normal: bool) -> int:
    """Return where a question is counted."""
    name = _MERGED.get(choice.type, choice.type)
    if name not in TYPES:
        raise DataError(f"MMAD has no questions of the type {choice.type!r}; its types are {', '.join(TYPES)}")
    return _SLOTS.index(("normal" if normal else "anomalous") if name == DETECTION else name)


def _measure(counts: Floats) -> dict[str, Floats]:
    """Return a dataset's ``(...)`` figures by type, ``average``, ``overkill`` and ``miss``; NaN where not defined.

    ``counts``, ``(..., 2 * slots)``, holds right answers by slot, then questions by slot.
    """
    right, asked = np.split(counts, 2, axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.moveaxis(np.where(asked > 0, right / asked, np.nan), -1, 0)
    by_type = {DETECTION: (shares[0] + shares[1]) / 2} | dict(zip(TYPES[1:], shares[2:], strict=True))
    average = np.mean([by_type[name] for name in TYPES], axis=0)
    return by_type | {"average": average, "overkill": 1 - shares[0], "miss": 1 - shares[1]}


def _score(name: str, images: Sequence[Floats], bootstrap: Bootstrap) -> tuple[DatasetScore, dict[str, Floats]]:
    """Return a dataset's scores, and the bootstrap values behind their intervals."""
    rows = np.array(images).reshape(len(images), -1)
    drawn = _measure(bootstrap.counts(rows))
    values = _measure(rows.sum(axis=0))
    estimates = {figure: estimate(float(value), drawn[figure]) for figure, value in values.items()}
    questions = int(rows[:, len(_SLOTS) :].sum())
    return _dataset_score(name, len(images), questions, estimates), drawn


def _mean(scores: Sequence[DatasetScore], drawn: Sequence[dict[str, Floats]]) -> DatasetScore:
    """Return the mean of the datasets; their resamples are independent, so their mean is one of the mean."""
    figures = [score.types | {n: getattr(score, n) for n in ("average", "overkill", "miss")} for score in scores]
    estimates = {}
    for name in figures[0]:
        values = [figure[name].value for figure in figures]
        mean = math.nan if None in values else float(np.mean([value for value in values if value is not None]))
        estimates[name] = estimate(mean, np.mean([each[name] for each in drawn], axis=0))
    images, questions = sum(score.images for score in scores), sum(score.questions for score in scores)
    return _dataset_score("mean", images, questions, estimates)


def _dataset_score(name: str, images: int, questions: int, estimates: dict[str, Estimate]) -> DatasetScore:
    types = {kind: estimates[kind] for kind in TYPES}
    return DatasetScore(name, images, questions, types, estimates["average"], estimates["overkill"], estimates["miss"])
