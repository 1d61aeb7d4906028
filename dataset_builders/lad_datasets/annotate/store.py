"""The store of a model's replies: append-only JSON lines, each on disk before anything else happens.

Each line is one event. ``run`` names the run of the file. ``sent`` is written before a request is sent, so that the
requests in flight at a kill, which may have been charged, are known. ``answered`` holds the unchanged reply;
``failed`` means that a request ended without one. Whether a reply is valid is checked at each reading.

No line is ever deleted. A broken line (a run was killed, the disk was full) gets a line end and is skipped.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.files import name_write_errors
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.jsonl import LineFile

__all__ = ["RECORDS", "Answered", "Failed", "RunCard", "Sent", "Store"]

RECORDS: Final = "records.jsonl"

#: Kept free for the replies that are in flight when the disk fills up: given back at that moment.
_RESERVE_BYTES: Final = 4 << 20


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunCard(_Event):
    """What must be the same for every reply of a store; ``prompt_sha256`` is of the prompt's fixed part."""

    event: Literal["run"] = "run"
    model: str
    base_url: str
    prompt_sha256: str
    max_pixels: int


class _Request(_Event):
    """A request about the subject ``id``; ``attempt`` counts from 1, and a further one follows an unfit reply."""

    event: str
    id: str
    attempt: int


class Sent(_Request):
    """A request that is about to leave; it can cost at most ``cost_bound`` USD, 0 without prices."""

    event: Literal["sent"] = "sent"
    cost_bound: float = 0.0


class Answered(_Request):
    """A reply as it came.

    Attributes:
        text: The reply's text, or the body's beginning where it was no chat completion.
        finish_reason: The endpoint's own; ``body`` if the body was no chat completion, ``oversized`` if it was cut,
            ``rejected`` if the endpoint found fault with the request.
        refusal: The endpoint's words of refusal, or None.
        prompt_tokens: As the endpoint counts; None if it does not.
        completion_tokens: As the endpoint counts; None if it does not.
        cost: In USD, by those counts, or at most; 0 without prices.
    """

    event: Literal["answered"] = "answered"
    text: str
    finish_reason: str | None = None
    refusal: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float = 0.0


class Failed(_Request):
    """A request that ended without a reply; time-outs and cut connections may have cost ``cost_bound`` USD."""

    event: Literal["failed"] = "failed"
    reason: str
    cost_bound: float = 0.0


_EVENTS: Final[TypeAdapter[RunCard | Sent | Answered | Failed]] = TypeAdapter(
    Annotated[RunCard | Sent | Answered | Failed, Field(discriminator="event")]
)


class Store:
    """The replies of one run. Use as a context manager; one process at a time.

    Broken lines, and requests that were in flight when an earlier run was killed, are reported as findings.

    Attributes:
        answers: The replies, by subject, in order of attempts.
        spent: USD so far: replies by their cost, everything uncertain by its bound.

    Raises:
        UsageError: The file belongs to another run.
        RunError: Another process writes to it.
    """

    def __init__(self, folder: Path, card: RunCard, findings: Findings) -> None:
        self.path = folder / RECORDS
        self.answers: dict[str, list[Answered]] = {}
        self.spent = 0.0
        self._reserve = folder / ".reserve"
        with name_write_errors(self.path):
            self._file = LineFile(self.path)
            try:
                self._load(card, findings)
                self._fill_reserve()
            except BaseException as error:
                self._reserve.unlink(missing_ok=True)
                self._file.__exit__(type(error))
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reserve.unlink(missing_ok=True)
        self._file.close()

    def append(self, event: RunCard | Sent | Answered | Failed) -> None:
        """Write one line and wait for the disk.

        Raises:
            OSError: The line could not be written, not even into the space held in reserve.
        """
        line = event.model_dump_json(exclude_none=True).encode() + b"\n"
        try:
            self._file.append(line)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT} or not self._reserve.exists():
                raise
            self._reserve.unlink()
            self._file.append(line)
        if isinstance(event, Answered):
            self.answers.setdefault(event.id, []).append(event)

    @property
    def is_nearly_full(self) -> bool:
        """Whether the disk filled up, so that only what is in flight should still be written."""
        return not self._reserve.exists()

    def _fill_reserve(self) -> None:
        with self._reserve.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)

    def _load(self, card: RunCard, findings: Findings) -> None:
        in_flight: dict[tuple[str, int], Sent] = {}
        cards = []
        for event in self._iter_events(findings):
            match event:
                case RunCard():
                    cards.append(event)
                case Sent():
                    in_flight[event.id, event.attempt] = event
                case Answered():
                    in_flight.pop((event.id, event.attempt), None)
                    self._take(event)
                case Failed():
                    in_flight.pop((event.id, event.attempt), None)
                    self.spent += event.cost_bound
        for sent in in_flight.values():
            self.spent += sent.cost_bound
            findings.add("in flight", f"{sent.id}: sent by a run that was killed; it may have been charged")
        self._require_same_run(cards, card)

    def _take(self, answer: Answered) -> None:
        known = self.answers.setdefault(answer.id, [])
        if all(answer.attempt != other.attempt for other in known):
            known.append(answer)
            self.spent += answer.cost

    def _iter_events(self, findings: Findings) -> Iterator[RunCard | Sent | Answered | Failed]:
        with self.path.open("rb") as lines:
            line = b"\n"
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    yield _EVENTS.validate_json(line)
                except ValidationError:
                    findings.add("broken line", f"{self.path}:{number}: {line[:60]!r}; skipped")
        if not line.endswith(b"\n"):
            self._file.append(b"\n")  # so that the next line stands alone

    def _require_same_run(self, cards: list[RunCard], card: RunCard) -> None:
        if not cards:
            self.append(card)
            return
        other = [name for name in RunCard.model_fields if getattr(cards[0], name) != getattr(card, name)]
        if other:
            problem = f"the file has replies of another run (different {', '.join(other)})"
            raise UsageError(problem, where=self.path, remedy="Choose another --out")
