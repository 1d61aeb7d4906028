"""Asks an endpoint about every subject: several at a time, each reply stored before the next request."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from lad_datasets.annotate.costs import Budget, prompt_tokens
from lad_datasets.annotate.endpoint import Endpoint
from lad_datasets.annotate.options import ModelOptions
from lad_datasets.annotate.prompt import build_messages
from lad_datasets.annotate.reply import QA, InvalidReplyError, RefusalError, parse_reply
from lad_datasets.annotate.store import Answered, Failed, Sent, Store
from lad_datasets.annotate.subjects import Subject
from lad_reasoner.support.chat_reply import Reply
from lad_reasoner.support.errors import DataError, RunError
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.openai_client import NoReplyError

__all__ = ["Runner"]

#: If this many requests in a row fail or are rejected, the next will too.
_IN_A_ROW: Final = 8

#: Finish reasons of endpoints whose filter stopped the model.
_SAFETY_STOPS: Final = frozenset({"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"})

#: Finish reasons that are faults in themselves, in words.
_FAULTS: Final = {
    "length": "cut at --max-tokens",
    "oversized": "larger than any reply can be",
    "body": "no chat completion",
    "rejected": "the endpoint finds fault with the request",
}


def _judge(answer: Answered, subject: Subject) -> list[QA]:
    """Return the pairs of a stored reply, unless it is a refusal or unfit."""
    reason = (answer.finish_reason or "").lower()
    if answer.refusal or reason in _SAFETY_STOPS:
        raise RefusalError(answer.refusal or f"stopped by the endpoint ({answer.finish_reason})")
    if reason in _FAULTS:
        raise InvalidReplyError(f"{_FAULTS[reason]}: {answer.text[:100]!r}")
    return parse_reply(answer.text, subject)


@dataclass(slots=True)
class _Held:
    """Money set aside for one request and for those of its tries that may have been charged."""

    budget: Budget
    bound: float
    times: int = 1

    def more(self) -> bool:
        """Set it aside once more; False if that would exceed the limit."""
        reserved = self.budget.reserve(self.bound)
        self.times += reserved
        return reserved

    def release(self, cost: float) -> float:
        """Give back what is held and return what it came to."""
        self.budget.settle(self.bound, cost, times=self.times)
        return cost


@dataclass(slots=True)
class Runner:
    """One run over the subjects.

    Attributes:
        findings: Get everything that is not a fit reply.
        stopped: Why no further request is sent; empty while they are.
        failed: Requests that ended without a reply.
        unreadable: Ids of subjects whose image cannot be sent.
    """

    store: Store
    budget: Budget
    findings: Findings
    options: ModelOptions
    stopped: str = ""
    failed: int = 0
    unreadable: set[str] = field(default_factory=set)
    _fault: BaseException | None = None
    _in_a_row: Counter[str] = field(default_factory=Counter)

    async def run(self, subjects: Sequence[Subject], *, api_key: str) -> None:
        """Ask about every subject that a further request may help.

        Raises:
            LadError: No request can succeed, or the disk is full.
        """
        pending = iter(subjects)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        endpoint = Endpoint(self.options, api_key=api_key, on_retry=partial(self.findings.add, "retry"))
        try:
            async with endpoint, asyncio.TaskGroup() as group:
                for _ in range(self.options.concurrency):
                    group.create_task(self._work(endpoint, pending))
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
        if self._fault is not None:
            raise self._fault

    def _interrupt(self) -> None:
        if self.stopped == "interrupted":
            raise KeyboardInterrupt  # asked twice: drop what is in flight
        self.stopped = "interrupted"
        self.findings.add("note", "interrupted: waiting for the replies in flight; once more drops them")

    async def _work(self, endpoint: Endpoint, pending: Iterator[Subject]) -> None:
        for subject in pending:
            while not self.stopped and (attempt := self._next_attempt(subject)) is not None:
                try:
                    answered = await self._attempt(endpoint, subject, attempt)
                except Exception as fault:
                    # Not raised at once: that would drop the replies that the others wait for, and have paid.
                    self.stopped = self.stopped or "a fault"
                    self._fault = self._fault or fault
                    return
                if not answered:
                    break
            if self.stopped:
                return

    def count_pairs(self, subject: Subject, counts: Counter[str]) -> list[QA]:
        """Return a subject's pairs; count them, or why there are none."""
        what, why = "unreadable" if subject.id in self.unreadable else "unasked", ""
        for answer in self.store.answers.get(subject.id, []):
            try:
                pairs = _judge(answer, subject)
            except InvalidReplyError as error:
                what, why = "invalid", str(error)
            except RefusalError as error:
                what, why = "refused", str(error)
            else:
                counts.update(images=1, pairs=len(pairs))
                return pairs
        counts[what] += 1
        if why:
            self.findings.add(what, f"{subject.id}: {why}")
        return []

    def _next_attempt(self, subject: Subject) -> int | None:
        """Return the number of the next attempt, or None if there is a fit reply, a refusal, or no attempt left."""
        answers = self.store.answers.get(subject.id, [])
        for answer in answers:
            try:
                _judge(answer, subject)
            except InvalidReplyError:
                continue
            except RefusalError:
                return None
            return None
        return len(answers) + 1 if len(answers) < self.options.attempts else None

    async def _attempt(self, endpoint: Endpoint, subject: Subject, attempt: int) -> bool:
        """Send one request and store what comes of it; False if nothing can be known now."""
        try:
            messages = await asyncio.to_thread(build_messages, subject, max_pixels=self.options.max_pixels)
            tokens = prompt_tokens(subject, max_pixels=self.options.max_pixels)
        except DataError as error:
            self.findings.add("unreadable", str(error))
            self.unreadable.add(subject.id)
            return False
        bound = self.budget.bound(tokens)
        while not self.budget.reserve(bound):
            if not self.budget.reserved:
                self.stopped = self.stopped or "budget"
                return False
            await asyncio.sleep(0.05)  # what is in flight may come to less than it was bound to
        self._store(Sent(id=subject.id, attempt=attempt, cost_bound=bound))
        held = _Held(self.budget, bound)
        try:
            reply = await endpoint.ask(messages, request_id=f"{subject.id}#{attempt}", afford=held.more)
        except NoReplyError as error:
            self._fail(subject, attempt, str(error), cost=held.release(bound * error.unsure))
            return False
        except RunError as error:
            self._fail(subject, attempt, str(error), cost=held.release(0.0))
            raise
        cost = 0.0
        if reply.finish_reason != "rejected":
            cost = self.budget.cost(tokens, reply.prompt_tokens, reply.completion_tokens)
        self._take(subject, attempt, reply, cost=held.release(cost + bound * reply.unsure))
        return True

    def _fail(self, subject: Subject, attempt: int, reason: str, *, cost: float) -> None:
        self._store(Failed(id=subject.id, attempt=attempt, reason=reason, cost_bound=cost))
        self.failed += 1
        self.findings.add("failed", f"{subject.id}: {reason}")
        self._count_in_a_row("failed", reason)

    def _take(self, subject: Subject, attempt: int, reply: Reply, *, cost: float) -> None:
        answer = Answered(
            id=subject.id,
            attempt=attempt,
            text=reply.text,
            finish_reason=reply.finish_reason,
            refusal=reply.refusal,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            cost=cost,
        )
        self._store(answer)
        if reply.finish_reason == "rejected":
            self._count_in_a_row("rejected", reply.text)
        else:
            self._in_a_row.clear()

    def _count_in_a_row(self, what: str, reason: str) -> None:
        self._in_a_row[what] += 1
        if self._in_a_row[what] >= _IN_A_ROW:
            structured = "Try --structured json_object or none"
            remedy = structured if what == "rejected" else "Run again when the endpoint answers"
            raise RunError(f"{_IN_A_ROW} requests {what} in a row: {reason}", remedy=remedy)

    def _store(self, event: Sent | Answered | Failed) -> None:
        try:
            self.store.append(event)
        except OSError as error:
            lost = "" if isinstance(event, Sent) else f"; what came of {event.id} is lost ({event.event})"
            problem = f"the disk takes no further line ({error.strerror}){lost}"
            remedy = "Free some space and run the same command again to continue"
            raise RunError(problem, where=self.store.path, remedy=remedy) from error
        if self.store.is_nearly_full and not self.stopped:
            self.stopped = "disk"
