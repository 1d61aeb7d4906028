"""An OpenAI-compatible endpoint that may be slow, full, broken or rude, asked one question at a time.

The API key comes from the environment, goes into one header, and is cut out of everything that is kept or printed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Self
from urllib.parse import urlsplit

import httpx
import openai
from pydantic import BaseModel, ConfigDict, ValidationError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from lad_datasets.annotate.options import ModelOptions
from lad_datasets.annotate.reply import reply_schema
from lad_reasoner.support.errors import RunError

__all__ = ["Endpoint", "NoAnswerError", "Pace", "Reply"]

#: A reply of a few hundred tokens is a few kilobytes; a body beyond this is no reply.
MAX_BODY_BYTES: Final = 1 << 20

#: What is kept of a body that is no chat completion.
_KEPT_CHARACTERS: Final = 4096

#: Waited for at most, whatever the endpoint asks for: an hour's ban is better met by another run.
MAX_WAIT_SECONDS: Final = 300.0

_PASSING: Final = frozenset({408, 409, 429})
_MISCONFIGURED: Final = {
    401: "the API key is wrong, or not for this endpoint",
    403: "the API key does not give access to this model or from here",
    404: "there is no such model or path; is --base-url right up to and including /v1?",
}
_SAFETY_CODES: Final = frozenset({"content_filter", "content_policy_violation", "safety", "moderation_blocked"})


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. The attributes are those of `store.Answered`; ``unsure`` counts tries that may have cost too."""

    text: str
    finish_reason: str | None = None
    refusal: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    unsure: int = 0


class NoAnswerError(Exception):
    """A request that ended without a reply.

    Args:
        reason: In words.
        unsure: Tries that the endpoint may have worked on, and charged.
    """

    def __init__(self, reason: str, *, unsure: int) -> None:
        super().__init__(reason)
        self.unsure = unsure


class _PassingError(Exception):
    """A fault that time may heal; ``wait`` is what the endpoint asked for, in seconds."""

    def __init__(self, reason: str, *, wait: float | None = None, unsure: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.unsure = wait, unsure


class _OversizedError(Exception):
    """A body beyond ``MAX_BODY_BYTES``."""


class Pace:
    """Lets requests go at most so often, and stops them all while the endpoint asks for a pause.

    Args:
        per_minute: Requests a minute; None for no limit.
    """

    def __init__(self, per_minute: float | None = None) -> None:
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Wait for one's turn."""
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + self._interval
        await asyncio.sleep(turn - now)

    def pause(self, seconds: float) -> None:
        """Let no request go for a while."""
        self._next = max(self._next, time.monotonic() + seconds)


class Endpoint:
    """An open connection. Use as an asynchronous context manager.

    Args:
        options: How it is asked.
        api_key: Never kept, printed or logged.
        pace: Shared by all requests.
        on_retry: Told, in words, why a request is sent again.
    """

    def __init__(self, options: ModelOptions, *, api_key: str, pace: Pace, on_retry: Callable[[str], None]) -> None:
        self._options, self._key, self._pace, self._on_retry = options, api_key, pace, on_retry
        self._http = httpx.AsyncClient(
            transport=_CappedTransport(httpx.AsyncHTTPTransport()), timeout=options.timeout, follow_redirects=False
        )
        self._client = openai.AsyncOpenAI(
            base_url=options.base_url, api_key=api_key, max_retries=0, http_client=self._http
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(
        self, messages: list[dict[str, Any]], *, request_id: str, afford: Callable[[], bool] = lambda: True
    ) -> Reply:
        """Send one request, again and again while its faults may pass.

        Args:
            messages: As the chat completions API has them.
            request_id: The same for the same question: an endpoint that knows ``Idempotency-Key`` charges it once.
            afford: Asked before a request is sent again that may have been charged already.

        Raises:
            NoAnswerError: It failed for good.
            RunError: No request can succeed: the key, the model or the address is wrong, or the quota is used up.
        """
        unsure = 0

        def count(state: RetryCallState) -> None:
            nonlocal unsure
            fault = state.outcome and state.outcome.exception()
            if isinstance(fault, _PassingError):
                unsure += fault.unsure
                if fault.wait is not None:
                    self._pace.pause(min(fault.wait, MAX_WAIT_SECONDS))

        def before_sleep(state: RetryCallState) -> None:
            fault = state.outcome and state.outcome.exception()
            if isinstance(fault, _PassingError) and fault.unsure and not afford():
                raise NoAnswerError(f"{fault}; another try would exceed the budget", unsure=unsure)
            self._on_retry(str(fault))

        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_PassingError),
            stop=stop_after_attempt(self._options.tries),
            wait=wait_random_exponential(multiplier=self._options.backoff, max=60),
            after=count,
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._try, messages, request_id)
        except _PassingError as fault:
            raise NoAnswerError(f"{fault} ({self._options.tries} tries)", unsure=unsure) from None
        return replace(reply, unsure=unsure)

    async def _try(self, messages: list[dict[str, Any]], request_id: str) -> Reply:
        await self._pace.wait()
        try:
            async with asyncio.timeout(self._options.timeout):
                body = await self._post(messages, request_id)
        except (TimeoutError, openai.APITimeoutError):
            raise _PassingError(f"no reply in {self._options.timeout:g} s", unsure=True) from None
        except _OversizedError:
            return Reply(f"more than {MAX_BODY_BYTES} bytes", finish_reason="oversized")
        except (openai.APIConnectionError, httpx.HTTPError) as error:
            refused = _caused_by(error, httpx.ConnectError)
            reason = str(error.__cause__ or error) or type(error.__cause__).__name__
            raise _PassingError(f"connection lost ({self._redact(reason)})", unsure=not refused) from None
        except openai.APIStatusError as error:
            return self._judge(error)
        return _read_body(self._redact(body.decode("utf-8", errors="replace")))

    async def _post(self, messages: list[dict[str, Any]], request_id: str) -> bytes:
        options = self._options
        extra: dict[str, Any] = {}
        if options.structured == "json_schema":
            schema = {"name": "qa_pairs", "strict": True, "schema": reply_schema()}
            extra["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif options.structured == "json_object":
            extra["response_format"] = {"type": "json_object"}
        if options.temperature is not None:
            extra["temperature"] = options.temperature
        # OpenAI's own newer models know only the second name, other servers mostly only the first.
        own = urlsplit(options.base_url).hostname == "api.openai.com"
        extra["max_completion_tokens" if own else "max_tokens"] = options.max_tokens

        raw = await self._client.chat.completions.with_raw_response.create(
            model=options.model, messages=messages, extra_headers={"Idempotency-Key": request_id}, **extra
        )
        return bytes(raw.http_response.content)

    def _judge(self, error: openai.APIStatusError) -> Reply:
        """Tell what a status other than success means.

        Raises:
            _PassingError: It may pass.
            RunError: No request can succeed.
        """
        status, code = error.status_code, str(error.code or "")
        said = self._redact(error.message)[:300]
        if status in _MISCONFIGURED:
            # An endpoint may repeat a part of the key in such a message: it is not printed.
            raise RunError(self._options.base_url, found=f"status {status}", remedy=_MISCONFIGURED[status])
        if code == "insufficient_quota":
            raise RunError(self._options.base_url, found="a used-up quota", remedy="pay, then run again to go on")
        if status in _PASSING or status >= 500:
            raise _PassingError(f"status {status}", wait=_retry_after(error.response.headers))
        if code.lower() in _SAFETY_CODES:
            return Reply(said, finish_reason="content_filter", refusal=said)
        return Reply(f"status {status}: {said}", finish_reason="rejected")

    def _redact(self, text: str) -> str:
        return text.replace(self._key, "[key]") if len(self._key) >= 8 else text


class _CappedTransport(httpx.AsyncBaseTransport):
    """Stops reading a body that is larger than any reply can be."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _CappedStream(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _CappedStream(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in self._inner:
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise _OversizedError
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")

    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    model_config = ConfigDict(extra="ignore")

    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    model_config = ConfigDict(extra="ignore")

    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Completion(BaseModel):
    model_config = ConfigDict(extra="ignore")

    choices: list[_Choice]
    usage: _Usage | None = None


def _read_body(body: str) -> Reply:
    try:
        completion = _Completion.model_validate_json(body)
    except ValidationError:
        return Reply(body[:_KEPT_CHARACTERS], finish_reason="body")
    if not completion.choices:
        return Reply(body[:_KEPT_CHARACTERS], finish_reason="body")
    choice, usage = completion.choices[0], completion.usage or _Usage()
    return Reply(
        text=choice.message.content or "",
        finish_reason=choice.finish_reason,
        refusal=choice.message.refusal,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )


def _caused_by(error: BaseException, kind: type[BaseException]) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, kind):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, which it says as a number or as a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
