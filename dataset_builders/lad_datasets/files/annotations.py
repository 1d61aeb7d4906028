"""Annotations (QA about images) and the decisions of their review, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lad_datasets.sources import licence_of
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.findings import Findings
from lad_reasoner.task.control_text import find_control_text

__all__ = ["ANNOTATIONS", "BLIND", "DECISIONS", "SUMMARY", "Annotation", "Decision", "read_annotations", "read_lines"]
__all__ += ["to_line"]

Model = TypeVar("Model", bound=BaseModel)

ANNOTATIONS: Final = "annotations.jsonl"
DECISIONS: Final = "decisions.jsonl"

#: The dataset of model replies that people judge blindly; they are never trained on.
BLIND: Final = "blind"

#: The summary of `lad annotate`: how many annotations, and the outcome of the other requests.
SUMMARY: Final = "annotate.json"


class Annotation(BaseModel):
    """One line of an annotation file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str = Field(min_length=1)
    images: tuple[str, ...] = Field(min_length=1)
    question: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    dataset: str
    category: str
    kind: str = ""
    defect: str = ""
    writer: str = ""


class Decision(BaseModel):
    """One line of a review's decisions; the last one on an id holds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    decision: Literal["accept", "reject", "edit"]
    question: str | None = None
    answer: str | None = None


def read_annotations(path: Path, findings: Findings) -> tuple[Path, list[Annotation]]:
    """Read annotations and apply the review's decisions.

    Args:
        path: A JSON lines file, or a folder with ``annotations.jsonl``.
        findings: Get each rejected annotation and decisions on unknown ids.

    Returns:
        The folder that image paths are relative to, and the annotations to keep, in file order.

    Raises:
        DataError: The file is absent or empty, or holds replies for a blind review, a line does not fit, an id recurs,
            a dataset's name is misspelled, or markers and images differ.
    """
    file = path / ANNOTATIONS if path.is_dir() else path
    annotations = list(read_lines(file, Annotation))
    if not annotations:
        raise DataError("the file has no annotations", where=file, remedy="Write some with `lad annotate`")
    if any(annotation.dataset == BLIND for annotation in annotations):
        problem = "these are replies of models for a blind review, about images that may be test images"
        raise DataError(problem, where=file, remedy="Train on what `lad annotate` writes")
    for name in {annotation.dataset for annotation in annotations}:
        licence_of(name)
    ids = [annotation.id for annotation in annotations]
    if len(set(ids)) != len(ids):
        twice = next(name for i, name in enumerate(ids) if name in ids[:i])
        raise DataError(f"the id {twice!r} occurs twice", where=file)
    decisions = _read_decisions(file.with_name(DECISIONS), set(ids), findings)
    kept = [_decide(annotation, decisions.get(annotation.id), findings) for annotation in annotations]
    result = [annotation for annotation in kept if annotation is not None]
    for annotation in result:
        question = find_control_text(annotation.question, images=len(annotation.images))
        if problem := question or find_control_text(annotation.answer):
            place = "question" if question else "answer"
            raise DataError(f"{place}: {problem}", where=f"{file}, annotation {annotation.id}")
    return file.parent, result


def _read_decisions(path: Path, ids: set[str], findings: Findings) -> dict[str, Decision]:
    if not path.is_file():
        return {}
    decisions = {decision.id: decision for decision in read_lines(path, Decision)}
    for name in sorted(decisions.keys() - ids):
        findings.add("unused decision", f"{path}: no annotation has the id {name!r}")
    return decisions


def _decide(annotation: Annotation, decision: Decision | None, findings: Findings) -> Annotation | None:
    """Return the annotation as the reviewer wants it, or None if it is rejected."""
    if decision is None or decision.decision == "accept":
        return annotation
    if decision.decision == "reject":
        findings.add("rejected", f"{annotation.id}: rejected in review")
        return None
    findings.add("edited", f"{annotation.id}: edited in review")
    edits = {"question": decision.question, "answer": decision.answer}
    return annotation.model_copy(update={key: value for key, value in edits.items() if value})


def to_line(row: Mapping[str, Any]) -> str:
    """Return a row as a line of such a file."""
    return json.dumps(row, ensure_ascii=False) + "\n"


def read_lines(path: Path, model: type[Model]) -> Iterator[Model]:
    """Yield the lines of a file.

    Raises:
        DataError: It is absent, or a line does not fit.
    """
    if not path.is_file():
        decisions = "Export the decisions on the page of `lad review`, and name that file"
        remedy = decisions if model is Decision else "Write one with `lad annotate`"
        raise DataError("no such file", where=path, remedy=remedy)
    number = 0
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _read_line(f"{path}:{number}", line, model)
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 after line {number}", where=path) from error


def _read_line(where: str, line: str, model: type[Model]) -> Model:
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(map(str, fault["loc"])) or "the line"
        keys = f"The keys are {', '.join(model.model_fields)}"
        raise DataError(f"{key}: {fault['msg']}", where=where, remedy=keys) from None
