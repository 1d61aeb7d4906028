"""The store of predictions: append-only JSON lines, one per response. A kill at any moment loses no finished line.

Every line names its run, so a file cannot mix two. Answers are not stored: they are parsed again when they are needed,
so a prediction never holds an outdated answer. The run card, ``NAME.run.json`` next to ``NAME.jsonl`` or ``NAME``,
lists the place of the data, the prompt, the versions and the hardware.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.files import name_write_errors, write_json
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.jsonl import LineFile

__all__ = [
    "SCHEMA_VERSION",
    "Failure",
    "Prediction",
    "PredictionStore",
    "RunKey",
    "Sampling",
    "ScoreSource",
    "failures_path",
    "read_predictions",
    "read_run_card",
    "refuse_special_file",
    "run_card_path",
    "write_run_card",
]

ScoreSource = Literal["answer_token", "forced"]

#: Of the lines of a file of predictions. It grows when an older release could misread them.
SCHEMA_VERSION: Final = 1

#: Longest time between two waits for the disk.
_SYNC_SECONDS: Final = 2.0

#: Repeated predictions that a report names; more are counted.
_NAMED: Final = 5

#: How every line begins, as pydantic writes the first field.
_BEGIN: Final = b'{"model":"'


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Sampling(_Record):
    """How responses are sampled.

    Attributes:
        temperature: 0 is greedy: the most likely token, with no repetition penalty.
        max_new_tokens: Maximum tokens per response.
        seed: Random seed of sampled responses. Each pair and sample has its own stream, so batching and resuming
            change nothing.
        structured: Whether decoding is held to the answer template.
        min_pixels: Smaller images are enlarged to this many pixels; None where a server decides.
        max_pixels: Larger images are shrunk to this many pixels; None where a server decides.
    """

    temperature: float
    max_new_tokens: int
    seed: int
    structured: bool
    min_pixels: int | None
    max_pixels: int | None


class RunKey(_Record):
    """What must be the same for every line of a file.

    Attributes:
        model: Path or name, as given.
        model_digest: Digest of a local model's weights and configuration; None for a remote one.
        backend: ``transformers``, ``vllm`` or ``openai``.
        dtype: Of the weights; None where a server decides.
        prompt_sha256: Digest of the format prompt's template.
        data_sha256: Digest of the pair parquet.
        schema_version: Of the line; lines without one are of version 1.
    """

    model: str
    model_digest: str | None
    backend: str
    dtype: str | None
    prompt_sha256: str
    data_sha256: str
    sampling: Sampling
    schema_version: Annotated[int, Field(ge=1, le=SCHEMA_VERSION)] = SCHEMA_VERSION

    @property
    def digest(self) -> str:
        """Digest of these fields, the same for every line of a file."""
        fields = self.model_dump(mode="json", include=set(RunKey.model_fields))
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def differences(self, other: RunKey) -> list[str]:
        """Return the names of the fields in which two runs differ; equal weights may be named differently."""
        same_weights = self.model_digest is not None and self.model_digest == other.model_digest
        return [
            name
            for name in RunKey.model_fields
            if getattr(self, name) != getattr(other, name) and not (name == "model" and same_weights)
        ]


class Prediction(RunKey):
    """One response.

    Attributes:
        sample: 0, or the index, never negative, among several sampled responses.
        response: The model's text, without special tokens.
        score: P(yes) / (P(yes) + P(no)) at the answer, in [0, 1]; None where the backend cannot tell.
        score_source: ``answer_token``: read where the model answered; ``forced``: read after an answer was forced on a
            response without one.
        prompt_tokens: Length of the prompt, images included.
        response_tokens: Length of the response.
        finish_reason: ``stop``, or ``length`` if the response was cut.
        seconds: Wall-clock seconds; a batch's time is shared equally by its responses.
    """

    pair_id: str
    sample: Annotated[int, Field(ge=0)] = 0
    response: str
    score: Annotated[float, Field(ge=0, le=1)] | None = None
    score_source: ScoreSource | None = None
    prompt_tokens: Annotated[int, Field(ge=0)] | None = None
    response_tokens: Annotated[int, Field(ge=0)] | None = None
    finish_reason: Literal["stop", "length"] = "stop"
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A question that could not be answered; the others still are. ``reason`` is in words, without secrets."""

    pair_id: str
    sample: int
    reason: str


class PredictionStore:
    """An open file of predictions, made if absent. Use as a context manager; one process at a time.

    Attributes:
        done: ``(pair_id, sample)`` of every line already there.
        repaired: What was repaired on opening, in words; empty if nothing.

    Raises:
        DataError: A line before the last is broken, or the file is not of predictions.
        UsageError: The file holds another run's predictions, or is a folder, device or pipe.
        RunError: Another process writes to the file.
    """

    def __init__(self, path: Path, key: RunKey) -> None:
        self.path, self.key = path, key
        refuse_special_file(path)
        self._file = LineFile(path, sync_seconds=_SYNC_SECONDS)
        try:
            self.repaired = _repair(path, self._file)
            existing = read_predictions(path, allow_empty=True)
            _require_same_run(existing, key, path)
        except BaseException:
            self._file.close()
            raise
        self.done = {(prediction.pair_id, prediction.sample) for prediction in existing}
        failures_path(path).unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        with name_write_errors(self.path):
            self._file.__exit__(kind, *rest)

    def append(self, prediction: Prediction) -> None:
        """Write one line.

        Raises:
            RunError: The file was removed or replaced meanwhile, so that the line would be lost.
            DataError: The disk is full, or the like.
        """
        with name_write_errors(self.path):
            self._file.append(prediction.model_dump_json().encode() + b"\n")
        self.done.add((prediction.pair_id, prediction.sample))

    def record_failure(self, failure: Failure) -> None:
        """List a pair that could not be answered in `failures_path`; the list covers the current run only."""
        path = failures_path(self.path)
        with name_write_errors(path), LineFile(path) as file:
            file.append(json.dumps(asdict(failure), ensure_ascii=False).encode("utf-8", "replace") + b"\n")


def _require_same_run(existing: Sequence[Prediction], key: RunKey, path: Path) -> None:
    if existing and (names := existing[0].differences(key)):
        problem = f"the file holds predictions of another run (different {', '.join(names)})"
        raise UsageError(problem, where=path, remedy="Resume that run with its own options, or choose another --out")


def refuse_special_file(path: Path) -> None:
    """Refuse to write predictions to what can be neither read again nor cut.

    Raises:
        UsageError: The path is there and is a folder, a device or a pipe.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or pipe"
        raise UsageError(f"this is {kind}, not a file", where=path, remedy="Choose another --out")


def _repair(path: Path, file: LineFile) -> str:
    """Move a broken last line to ``NAME.jsonl.broken``: it is the one that was being written when a run was killed."""
    content = path.read_bytes()
    cut = content.rstrip(b"\n").rfind(b"\n") + 1
    tail = content[cut:]
    if not tail.strip() or (tail.endswith(b"\n") and isinstance(_parse_line(tail, path), Prediction)):
        return ""
    _require_ours(path, before=content[:cut].lstrip(b"\n"), tail=tail)
    with path.with_name(path.name + ".broken").open("ab") as broken:
        broken.write(tail.rstrip(b"\n") + b"\n")
        broken.flush()
        os.fsync(broken.fileno())
    file.truncate(cut)
    moved = f"moved to {path.name}.broken, its pair is asked again"
    return f"{path}: the last line was broken ({len(tail)} bytes); {moved}"


def _require_ours(path: Path, *, before: bytes, tail: bytes) -> None:
    """Refuse a file of something else, which must not be cut; a lone line is ours if its beginning is."""
    first = before.partition(b"\n")[0] or tail
    begun = not before and first.startswith(_BEGIN[: len(first.rstrip(b"\n"))]) and not _is_json(first)
    if not begun and isinstance(_parse_line(first, path), str):
        raise DataError(f"not a prediction: {first[:60]!r}", where=f"{path}, line 1", remedy="Choose another --out")


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _parse_line(line: bytes, where: object) -> Prediction | str:
    """Return the prediction in a line, or what is wrong with it: the field, where it is one.

    Raises:
        DataError: A newer release wrote it.
    """
    try:
        return Prediction.model_validate_json(line)
    except ValidationError as error:
        if newer := _newer_version(line):
            problem = f"written by a newer lad-reasoner (schema version {newer}; this release reads {SCHEMA_VERSION})"
            raise DataError(problem, where=where, remedy="Upgrade lad-reasoner") from None
        first = error.errors(include_url=False, include_input=False)[0]
        return ": ".join([*map(str, first["loc"]), first["msg"]])


def _newer_version(line: bytes) -> int | None:
    try:
        number = json.loads(line)["schema_version"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return number if isinstance(number, int) and number > SCHEMA_VERSION else None


def read_predictions(path: str | Path, *, allow_empty: bool = False) -> list[Prediction]:
    """Read a file of predictions; of a pair and sample that occur twice, the first counts and the rest are reported.

    Raises:
        DataError: No such file, no line in it, a broken line, or lines of different runs.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError("no such file", where=path, remedy="Write predictions with `lad predict`")
    found: dict[tuple[str, int], tuple[int, Prediction]] = {}
    repeated: list[str] = []
    first: Prediction | None = None
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            prediction = _parse_line(line, where)
            if isinstance(prediction, str):
                remedy = "Running `lad predict` again repairs a broken last line"
                raise DataError(f"{line[:60]!r} is not a prediction ({prediction})", where=where, remedy=remedy)
            first = first or prediction
            if names := first.differences(prediction):
                problem = f"another {', '.join(names)} than on the first line"
                raise DataError(problem, where=where, remedy="Write one file per run")
            kept, _ = found.setdefault((prediction.pair_id, prediction.sample), (number, prediction))
            if kept != number:
                repeated.append(
                    f"lines {kept} and {number} both answer {prediction.pair_id}, sample {prediction.sample}"
                )
    if not found and not allow_empty:
        raise DataError("no predictions in this file", where=path)
    if repeated:
        rest = f"; and {len(repeated) - _NAMED} more" if len(repeated) > _NAMED else ""
        Findings().add("repeated", f"{path}: {'; '.join(repeated[:_NAMED])}{rest}; the first line counts")
    return [prediction for _, prediction in found.values()]


def failures_path(predictions: Path) -> Path:
    """Return where the pairs without a response are listed.

    Example:
        >>> failures_path(Path("base.jsonl")).name
        'base.failed.jsonl'
    """
    return predictions.with_name(predictions.name.removesuffix(".jsonl") + ".failed.jsonl")


def run_card_path(predictions: Path) -> Path:
    """Return where the run card of a file of predictions stands; only ``NAME`` and ``NAME.jsonl`` share one.

    Example:
        >>> run_card_path(Path("base.jsonl")).name, run_card_path(Path("model-2.5")).name
        ('base.run.json', 'model-2.5.run.json')
    """
    return predictions.with_name(predictions.name.removesuffix(".jsonl") + ".run.json")


def read_run_card(predictions: Path) -> dict[str, Any]:
    """Read the run card of a file of predictions; empty if there is none.

    Raises:
        DataError: It is not a JSON object.
    """
    path = run_card_path(predictions)
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"unreadable JSON ({error})", where=path) from error
    if not isinstance(card, dict):
        raise DataError(f"it holds a {type(card).__name__}, not a JSON object", where=path)
    return card


def write_run_card(predictions: Path, card: dict[str, Any]) -> None:
    """Write the run card, whole or not at all."""
    write_json(run_card_path(predictions), card)
