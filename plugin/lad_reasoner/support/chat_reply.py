"""Replies of OpenAI-compatible servers: the parts that are read, validated, and the errors of requests without one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["Alternative", "BadReplyError", "NoReplyError", "RejectedError", "Reply", "read_error", "read_reply"]

#: Error bodies and the beginnings of malformed replies are kept up to this length.
_KEPT_CHARACTERS: Final = 4096


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Alternative(_Part):
    """A token that the server considered; ``logprob`` may be -inf."""

    token: str
    logprob: Annotated[float, Field(le=0.1)]


class _Token(_Part):
    token: str
    top_logprobs: tuple[Alternative, ...] = ()


class _Logs(_Part):
    content: tuple[_Token, ...] | None = None


class _Message(_Part):
    content: str | None = None
    refusal: str | None = None


class _Choice(_Part):
    message: _Message
    finish_reason: str | None = None
    logprobs: _Logs | None = None


_Count = Annotated[int, Field(ge=0, le=10**9)]


class _Usage(_Part):
    prompt_tokens: _Count | None = None
    completion_tokens: _Count | None = None


class _Completion(_Part):
    choices: Annotated[tuple[_Choice, ...], Field(min_length=1)]
    usage: _Usage | None = None


class _ErrorDetail(_Part):
    message: str = ""
    code: str | int | None = None


class _ErrorBody(_Part):
    error: _ErrorDetail | str


@dataclass(frozen=True, slots=True)
class Reply:
    """A valid reply.

    Attributes:
        text: What the model wrote; empty if it wrote nothing.
        finish_reason: The server's own word.
        refusal: The model's words of refusal, or None.
        prompt_tokens: As the server counts; None if it does not.
        completion_tokens: As the server counts; None if it does not.
        tokens: Each token of the text with the alternatives to it; empty without log-probabilities.
        unsure: Earlier tries that the server may have worked on, and charged.
    """

    text: str
    finish_reason: str | None = None
    refusal: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tokens: tuple[tuple[str, tuple[Alternative, ...]], ...] = ()
    unsure: int = 0


class NoReplyError(Exception):
    """A request that ended without a reply.

    Args:
        reason: In words, without secrets.
        unsure: Tries that the server may have worked on, and charged.
        unreached: No connection could be made.
    """

    def __init__(self, reason: str, *, unsure: int = 0, unreached: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.unsure, self.unreached = reason, unsure, unreached


class BadReplyError(NoReplyError):
    """A reply that is not a chat completion; ``body`` is its beginning, as far as it was read as text."""

    def __init__(self, reason: str, *, body: str = "", oversized: bool = False) -> None:
        super().__init__(reason, unsure=1)
        self.body, self.oversized = body, oversized


class RejectedError(NoReplyError):
    """The server rejects the request itself; ``code`` is its word for why."""

    def __init__(self, reason: str, *, code: str) -> None:
        super().__init__(reason)
        self.code = code


def read_reply(body: bytes, redact: Callable[[str], str]) -> Reply:
    """Return the first choice of a chat completion, given its decompressed body.

    Raises:
        BadReplyError: The body is not a chat completion.
    """
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"a reply that is not a chat completion ({place + ': ' if place else ''}{first['msg']})"
        text = redact(body[: 8 * _KEPT_CHARACTERS].decode("utf-8", errors="replace"))[:_KEPT_CHARACTERS]
        raise BadReplyError(redact(reason)[:300], body=text) from None
    choice, usage = completion.choices[0], completion.usage or _Usage()
    logs = (choice.logprobs.content if choice.logprobs else None) or ()
    finish, refusal = choice.finish_reason, choice.message.refusal
    return Reply(
        text=redact(choice.message.content or ""),
        finish_reason=finish and redact(finish)[:100],
        refusal=refusal and redact(refusal),
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        tokens=tuple((token.token, token.top_logprobs) for token in logs),
    )


def read_error(body: bytes) -> tuple[str, str]:
    """Return the code and the message of an error body, which may be anything."""
    text = body[: 1 << 16].decode("utf-8", errors="replace")
    try:
        error = _ErrorBody.model_validate_json(text).error
    except ValidationError:
        return "", " ".join(text.split())
    if isinstance(error, str):
        return "", error
    return str(error.code or ""), error.message
