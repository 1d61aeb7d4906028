"""The answers of questions that were asked again with a reply's own words alone (`lad predict --without-images`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lad_reasoner.evaluation.outcomes import System
from lad_reasoner.inference.predictions import read_predictions, read_run_card
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.classes import read_response

__all__ = ["add_again"]


def add_again(system: System, predictions: Path, path: Path) -> System:
    """Return the system of ``predictions`` with the answers in ``path``, for which its questions were asked again.

    Raises:
        DataError: A file cannot be read, or was not made from these replies.
    """
    card = read_run_card(path)
    if "reasoning_of" not in card:
        raise DataError("these predictions were not made with lad predict --without-images", where=path)
    if card.get("reasoning_run") != read_predictions(predictions)[0].digest:
        problem = f"these replies were asked again from {card['reasoning_of']}, another run than {predictions}"
        raise DataError(problem, where=path, remedy="Give --again in the order of the predictions")
    answers: dict[tuple[str, int], str] = {}
    truths = {row.truth.pair_id: row.truth for row in system.rows}
    for line in read_predictions(path):
        if line.pair_id in truths:
            said = read_response(line.response, truths[line.pair_id].gold).answer
            answers[line.pair_id, line.sample] = said or ""
    rows = []
    for row in system.rows:
        own = (answers.get((row.truth.pair_id, sample)) for sample in range(len(row.replies)))
        replies = tuple(replace(reply, again=again) for reply, again in zip(row.replies, own, strict=True))
        rows.append(replace(row, replies=replies))
    return replace(system, rows=tuple(rows))
