"""What the report shows: the scores, the comparisons, and every scored pair with what each model answered."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lad_reasoner.evaluation.boxes import BoxScore, score_boxes
from lad_reasoner.evaluation.classes import ClassScore, score_classes
from lad_reasoner.evaluation.compare import Comparison, compare_systems
from lad_reasoner.evaluation.outcomes import (
    JudgedPair,
    System,
    constant,
    frame_of,
    join,
    majority,
    read_replies,
    run_names,
)
from lad_reasoner.evaluation.protocols import Protocol, select
from lad_reasoner.evaluation.rationales import RationaleScore, is_wrong_reason, score_rationales
from lad_reasoner.evaluation.score import RunScore, data_of, score_system
from lad_reasoner.evaluation.statistics import RESAMPLES
from lad_reasoner.inference.predictions import Prediction, read_predictions, read_run_card
from lad_reasoner.pairs.frames import Frame
from lad_reasoner.pairs.masks import report_absent
from lad_reasoner.pairs.reader import Truth, data_sha256, read_truths
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.classes import read_response
from lad_reasoner.task.task import ANOMALOUS, LABELS, Label
from lad_reasoner.task.violations import asserts_anomaly

__all__ = ["Content", "RunContent", "answer_error", "read_content"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContent:
    """One file of predictions.

    Attributes:
        name: The name everywhere in the report.
        card: The run card, with the fields of every line; empty values where no card was found.
        shown: The scores of what is judged: of each pair's vote, where there are several samples.
        judged: By pair_id, the reading that counts: the only reply, or the majority vote of several samples.
        predictions: By pair_id, every sample in order.
        rationale: The scores of its reasoning; None if no reply has any.
        classes: The scores of its classes; None if the data does not ask for classes.
        boxes: The scores of its boxes; None if the data does not ask for boxes.
        frame: In which its replies state boxes.
    """

    name: str
    card: Mapping[str, Any]
    score: RunScore
    shown: RunScore
    judged: Mapping[str, JudgedPair]
    predictions: Mapping[str, tuple[Prediction, ...]]
    rationale: RationaleScore | None
    classes: ClassScore | None
    boxes: BoxScore | None
    frame: Frame

    def error(self, truth: Truth) -> float:
        """Return how wrong the run is on a pair, from 0 to 2; a pair without a reply is as wrong as can be."""
        row = self.judged.get(truth.pair_id)
        return 2.0 if row is None else answer_error(truth.label, row.replies[0].answer, row.replies[0].score)

    def wrong_reason(self, truth: Truth) -> bool:
        """Return whether the verdict is right and the reasoning of a reply behind it is not.

        Of an anomalous query it names no right violation, where the data names the violation; of a normal query it
        asserts one.
        """
        row = self.judged.get(truth.pair_id)
        if row is None or not row.right:
            return False
        parsed = (read_response(line.response, truth.gold) for line in self.predictions[truth.pair_id])
        reasoning = next((reply.reasoning for reply in parsed if reply.answer == row.replies[0].answer), "")
        if truth.label == ANOMALOUS:
            return bool(is_wrong_reason(truth, reasoning))
        return asserts_anomaly(reasoning)

    def answers(self, category: str | None = None) -> Counter[tuple[Label, Label | None]]:
        """Count (truth, answer) over a category, or over all; an unparsed answer is None."""
        rows = (row for row in self.judged.values() if category in {None, row.truth.category})
        return Counter((row.truth.label, row.replies[0].answer) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Everything the report shows except its pictures.

    Attributes:
        comparisons: Of every two runs; empty for one run.
        constants: The scores of always answering yes and always answering no.
        truths: The pairs in the gallery, in file order.
        scored: Pairs that the protocol scores.
        answered: Of these, those to which any run replied.
        left_out: Pairs that it leaves out, by kind.
    """

    data: Path
    protocol: Protocol
    runs: tuple[RunContent, ...]
    comparisons: tuple[Comparison, ...]
    constants: tuple[RunScore, ...]
    truths: tuple[Truth, ...]
    scored: int
    answered: int
    left_out: Mapping[str, int]


def answer_error(label: Label, answer: Label | None, score: float | None) -> float:
    """Return how wrong an answer is: wrong ones from 1 to 2, right ones from 0 to 1, by the score's distance.

    Example:
        >>> answer_error("yes", "no", 0.25), answer_error("no", "no", 0.25), answer_error("yes", None, None)
        (1.75, 0.25, 2.0)
    """
    wrong = float(answer != label)
    distance = wrong if score is None else abs(float(label == ANOMALOUS) - min(max(score, 0.0), 1.0))
    return wrong + distance


def read_content(
    predictions: Sequence[Path],
    data: Path | None = None,
    protocol: Protocol = "paper",
    *,
    limit: int | None = None,
    masks: Path | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Content:
    """Read predictions, score them and compare them.

    Args:
        predictions: Files of `lad predict`, all made on one data file.
        data: The pair parquet; the one that the first run card names by default.
        protocol: Which pairs are scored.
        limit: The gallery holds only so many pairs, those on which the first run is most wrong; scores use all.
        masks: Root of the dataset with its masks, to score points and places.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.

    Raises:
        DataError: A file cannot be read, the data is not what was predicted on, or there is nothing to score.
        UsageError: A file is given twice.
    """
    names = run_names(predictions)
    source = data or data_of(predictions[0])
    digest, known = data_sha256(source), read_truths(source)
    scored = select(known, protocol)
    if masks:
        report_absent(masks, [truth.query_path for truth in scored if truth.label == ANOMALOUS])
    systems: list[tuple[System, list[Prediction]]] = []
    for name, path in zip(names, predictions, strict=True):
        lines = read_predictions(path)
        if lines[0].data_sha256 != digest:
            remedy = "A report shows models on the same pairs; give the parquet they were made on with --data"
            raise DataError(f"predictions made on other data than {source}", where=path, remedy=remedy)
        systems.append((join(name, read_replies(lines), scored=scored, known=known, frame=frame_of(lines)), lines))
    runs = tuple(
        _run_content(system, lines, path, protocol, masks=masks, resamples=resamples, seed=seed)
        for (system, lines), path in zip(systems, predictions, strict=True)
    )
    outcomes = [system for system, _ in systems]
    answered = [truth for truth in scored if any(truth.pair_id in run.judged for run in runs)]
    return Content(
        data=source,
        protocol=protocol,
        runs=runs,
        comparisons=tuple(compare_systems(outcomes, resamples=resamples, seed=seed)) if len(runs) > 1 else (),
        constants=tuple(score_system(constant(label, answered), protocol, resamples=0) for label in LABELS),
        truths=_gallery(answered, runs[0], limit),
        scored=len(scored),
        answered=len(answered),
        left_out=Counter(truth.kind for truth in known) - Counter(truth.kind for truth in scored),
    )


def _run_content(
    system: System,
    lines: Sequence[Prediction],
    path: Path,
    protocol: Protocol,
    *,
    masks: Path | None,
    resamples: int,
    seed: int,
) -> RunContent:
    by_pair: dict[str, list[Prediction]] = defaultdict(list)
    for line in sorted(lines, key=lambda line: line.sample):
        by_pair[line.pair_id].append(line)
    score = shown = score_system(system, protocol, resamples=resamples, seed=seed)
    judged = system
    if system.samples > 1:  # the gallery shows pairs, so other references of the query have no vote here
        judged = majority(system, by="pair")
        shown = score_system(judged, protocol, resamples=resamples, seed=seed)
    reasons = any(reply.reasoning for row in system.rows for reply in row.replies)
    fields = lines[0].model_dump(include={"model", "model_digest", "backend", "dtype", "prompt_sha256", "sampling"})
    return RunContent(
        name=system.name,
        card={**read_run_card(path), **fields, "data_sha256": lines[0].data_sha256, "file": str(path)},
        score=score,
        shown=shown,
        judged={row.truth.pair_id: row for row in judged.rows},
        predictions={pair_id: tuple(samples) for pair_id, samples in by_pair.items()},
        rationale=score_rationales(system, masks=masks, resamples=resamples, seed=seed) if reasons else None,
        classes=score_classes(system, resamples=resamples, seed=seed),
        boxes=score_boxes(system, masks=masks, resamples=resamples, seed=seed),
        frame=system.frame,
    )


def _gallery(answered: Sequence[Truth], first: RunContent, limit: int | None) -> tuple[Truth, ...]:
    if limit is None or limit >= len(answered):
        return tuple(answered)
    worst = sorted(answered, key=first.error, reverse=True)[:limit]
    kept = {truth.pair_id for truth in worst}
    return tuple(truth for truth in answered if truth.pair_id in kept)
