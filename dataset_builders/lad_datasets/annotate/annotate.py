"""`lad annotate`: from test images and what is known of them to an annotation file."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from lad_datasets.annotate import template_writer
from lad_datasets.annotate.costs import Budget
from lad_datasets.annotate.options import ModelOptions, is_local, read_api_key
from lad_datasets.annotate.prompt import prompt_digest
from lad_datasets.annotate.reply import QA
from lad_datasets.annotate.store import RunCard, Store
from lad_datasets.annotate.subjects import Subject
from lad_datasets.files.annotations import ANNOTATIONS, SUMMARY, Annotation, read_lines, to_line
from lad_reasoner.support.errors import DataError, RunError, UsageError, install_hint
from lad_reasoner.support.files import locked, replace_when_done, write_json
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.progress import track
from lad_reasoner.task.task import IMAGE_MARKER

__all__ = ["SUBJECTS", "annotate_with_model", "annotate_with_templates"]

#: Beside the annotations: the images asked about with mask and priors, for the review page.
SUBJECTS: Final = "subjects.jsonl"


def annotate_with_templates(
    subjects: Sequence[Subject], out: Path, findings: Findings, *, overwrite: bool = False
) -> dict[str, Any]:
    """Write annotations without a model; a finished run about the same images is left as it is.

    Returns:
        The summary.

    Raises:
        UsageError: The folder has annotations of other images or by another writer, and ``overwrite`` is off.
    """
    counts = Counter[str]()

    def pairs_of(subject: Subject) -> list[QA]:
        try:
            pairs = template_writer.write_pairs(subject)
        except DataError as error:
            findings.add("unreadable", str(error))
            pairs = template_writer.write_pairs(replace(subject, mask=None))
        counts.update(images=1, pairs=len(pairs))
        return pairs

    with locked(out):
        if not overwrite:
            _refuse_loss(out, subjects, writer=template_writer.WRITER)
            if summary := _read_finished(out, subjects, writer=template_writer.WRITER):
                findings.add("note", f"{out}: the annotations are complete; pass --overwrite to write them again")
                return summary
        return _write(out, subjects, pairs_of, counts, findings, writer=template_writer.WRITER)


def annotate_with_model(
    subjects: Sequence[Subject], out: Path, options: ModelOptions, findings: Findings, *, overwrite: bool = False
) -> dict[str, Any]:
    """Let a model write annotations; what an earlier run has is not asked for again.

    The same model may continue with further images. ``overwrite`` allows fewer, or another writer's in their place.

    Returns:
        The summary.

    Raises:
        UsageError: The address is none, the key is missing, or the folder has another run's or more annotations.
        RunError: The run stopped early. What was answered until then is written all the same.
    """
    try:
        from lad_datasets.annotate.run import Runner
    except ModuleNotFoundError as error:
        remedy = install_hint("annotate")
        raise UsageError(f"--writer model needs the package {error.name}", remedy=remedy) from error

    key = read_api_key(options.key_variable, local=is_local(options.base_url))
    card = RunCard(
        model=options.model,
        base_url=options.base_url,
        prompt_sha256=prompt_digest(),
        max_pixels=options.max_pixels,
    )
    with locked(out), Store(out, card, findings) as store:
        if not overwrite:
            _refuse_loss(out, subjects, writer=options.model)
        budget = Budget(options.prices, limit=options.budget, max_tokens=options.max_tokens, spent=store.spent)
        runner = Runner(store, budget, findings, options)
        try:
            asyncio.run(runner.run(subjects, api_key=key))
        finally:
            counts = Counter[str](failed=runner.failed)
            pairs_of = partial(runner.count_pairs, counts=counts)
            summary = _write(out, subjects, pairs_of, counts, findings, writer=options.model, cost=budget.spent)
    _refuse_unfinished(runner.stopped, summary, out)
    return summary


def _refuse_unfinished(stopped: str, summary: dict[str, Any], out: Path) -> None:
    """Raise if the run ended before every image was asked about."""
    remedies = {
        "budget": "Raise --budget and run the same command again to continue",
        "disk": "Free some space and run the same command again to continue",
        "interrupted": "Run the same command again to continue",
    }
    left = summary["counts"].get("unasked", 0)
    if stopped in remedies or left:
        problem = f"{left} of {summary['subjects']} images not annotated ({stopped or 'their requests failed'})"
        again = "Run the same command again to continue; answered questions are not sent again"
        raise RunError(problem, where=out, remedy=remedies.get(stopped, again))


def _refuse_loss(out: Path, subjects: Sequence[Subject], *, writer: str) -> None:
    """Raise if the folder has annotations that this run would drop or replace by another writer's."""
    known = {subject.id for subject in subjects}
    path = out / ANNOTATIONS
    rows = list(read_lines(path, Annotation)) if path.is_file() else []
    lost = [row for row in rows if row.writer != writer or row.id.rpartition("#")[0] not in known]
    if lost:
        problem = f"the folder has {len(lost)} annotations that this run does not write, such as {lost[0].id}"
        raise UsageError(problem, where=out, remedy="Choose another --out, or pass --overwrite")


def _read_finished(out: Path, subjects: Sequence[Subject], *, writer: str) -> dict[str, Any]:
    """Return the summary of this writer's finished run about the same images; empty if there is none."""
    try:
        summary = json.loads((out / SUMMARY).read_text(encoding="utf-8"))
        lines = (out / SUBJECTS).read_text(encoding="utf-8").splitlines()
        same = [json.loads(line) for line in lines] == [json.loads(json.dumps(row.to_json())) for row in subjects]
    except (OSError, ValueError, RecursionError):
        return {}
    finished = same and isinstance(summary, dict) and (out / ANNOTATIONS).is_file()
    return summary if finished and summary.get("writer") == writer else {}


def _write(
    out: Path,
    subjects: Sequence[Subject],
    pairs_of: Callable[[Subject], list[QA]],
    counts: Counter[str],
    findings: Findings,
    *,
    writer: str,
    cost: float | None = None,
) -> dict[str, Any]:
    """Write ``annotations.jsonl`` and ``subjects.jsonl``, in the order of the subjects, whole or not at all.

    Returns:
        The summary, which is written last: where it stands, the run is finished.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / SUMMARY).unlink(missing_ok=True)
    with replace_when_done(out / ANNOTATIONS) as annotations, annotations.open("w", encoding="utf-8") as lines:
        for subject in track(subjects, total=len(subjects), description="annotations"):
            lines.writelines(map(to_line, _iter_rows(subject, pairs_of(subject), writer=writer)))
    with replace_when_done(out / SUBJECTS) as known, known.open("w", encoding="utf-8") as lines:
        lines.writelines(to_line(subject.to_json()) for subject in subjects)
    summary = {
        "writer": writer,
        "subjects": len(subjects),
        "counts": dict(sorted((+counts).items())),
        "findings": dict(sorted(findings.counts.items())),
        **({} if cost is None else {"cost_usd": round(cost, 6)}),
    }
    write_json(out / SUMMARY, summary)
    return summary


def _iter_rows(subject: Subject, pairs: Sequence[QA], *, writer: str) -> Iterator[dict[str, Any]]:
    for pair in pairs:
        yield {
            "id": f"{subject.id}#{pair.topic}",
            "images": [str(subject.image)],
            "question": f"{IMAGE_MARKER}\n{pair.question.strip()}",
            "answer": pair.answer.strip(),
            "dataset": subject.dataset,
            "category": subject.category,
            "kind": subject.kind,
            "defect": subject.defect,
            "writer": writer,
            "topic": pair.topic,
            "subject": subject.id,
        }
