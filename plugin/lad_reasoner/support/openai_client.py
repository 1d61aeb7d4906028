"""One client for OpenAI-compatible servers, which may be slow, full, broken or hostile.

    async with ChatServer(url, api_key=key, timeout=60, tries=6) as server:
        reply = await server.ask({"model": "m", "messages": [...]})

A reply is bounded in bytes after decompression and validated before anything is read from it. Faults that may pass are
retried. The API key and the credentials of the address never reach a message, a reply or a traceback. Redirects are
not followed: they would carry the images and the key to another server.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, Final, Self
from urllib.parse import quote, unquote, urlsplit

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from lad_reasoner.support.chat_reply import BadReplyError, NoReplyError, RejectedError, Reply, read_error, read_reply
from lad_reasoner.support.errors import RunError, UsageError

__all__ = ["BadReplyError", "ChatServer", "NoReplyError", "Pace", "RejectedError", "Reply"]

#: Default limit of a decompressed reply: 4,096 tokens with 20 alternatives each are about 8 MB.
MAX_REPLY_BYTES: Final = 16 << 20

#: Longest wait for a server, whatever its Retry-After asks for.
_MAX_WAIT_SECONDS: Final = 300.0

#: Shorter keys are placeholders such as EMPTY, which may also be words of a reply.
_SHORTEST_SECRET: Final = 6

_TRANSIENT: Final = frozenset({408, 409, 425, 429})
_MISCONFIGURED: Final = {
    401: "The API key is wrong, or not for this server",
    403: "The API key does not give access to this model or from here",
    404: "There is no such model or path: check the address up to and including /v1",
}


class _TransientError(NoReplyError):
    """A fault that may pass; ``wait`` is what the server asked for, in seconds."""

    def __init__(self, reason: str, *, wait: float | None = None, unsure: int = 0, unreached: bool = False) -> None:
        super().__init__(reason, unsure=unsure, unreached=unreached)
        self.wait = wait


class Pace:
    """Spaces requests to so many per minute, and holds all of them back while the server asks for a pause."""

    def __init__(self, per_minute: float | None = None) -> None:
        self._interval = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Wait for the next free moment."""
        now = time.monotonic()
        turn = max(now, self._next)
        self._next = turn + self._interval
        await asyncio.sleep(turn - now)

    def pause(self, seconds: float) -> None:
        """Hold all requests back for some seconds."""
        self._next = max(self._next, time.monotonic() + seconds)


class ChatServer:
    """A server of the chat completions API. Use as an asynchronous context manager, in one event loop.

    Args:
        base_url: Address up to and including ``/v1``.
        api_key: Sent as a bearer token; empty for a server that needs none.
        timeout: Seconds per try.
        tries: Tries per request while its faults may pass (408, 409, 425, 429, 5xx, lost connections).
        bad_tries: Tries per request whose reply is not a chat completion.
        backoff: Upper bound of the first wait between tries, in seconds; it doubles.
        max_bytes: Limit of a reply, decompressed.
        per_minute: Requests per minute; None for no limit.
        option: The option or variable that holds the address, for messages.
        on_retry: Called with the reason before a request is sent again.

    Raises:
        UsageError: The address or the key cannot be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str,
        timeout: float,
        tries: int,
        bad_tries: int = 3,
        backoff: float = 0.5,
        max_bytes: int = MAX_REPLY_BYTES,
        per_minute: float | None = None,
        option: str = "--base-url",
        on_retry: Callable[[str], object] = lambda _reason: None,
    ) -> None:
        self.address, authorization, self._secrets = _read_address(base_url, api_key, option)
        self._timeout, self._tries, self._bad_tries, self._backoff = timeout, tries, bad_tries, backoff
        self._max_bytes, self._pace, self._on_retry = max_bytes, Pace(per_minute), on_retry
        headers = {"Accept-Encoding": "gzip", **({"Authorization": authorization} if authorization else {})}
        self._http = httpx.AsyncClient(headers=headers, timeout=timeout, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    @property
    def tokens_key(self) -> str:
        """Name of the token limit: OpenAI's own models know only the new one, most other servers only the old one."""
        return "max_completion_tokens" if urlsplit(self.address).hostname == "api.openai.com" else "max_tokens"

    async def is_vllm(self) -> bool:
        """Return whether the server lists its models as vLLM does; False if it lists none."""
        try:
            async with asyncio.timeout(min(self._timeout, 5.0)):
                _, _, body = await self._exchange("GET", "models", None, {})
        except (NoReplyError, TimeoutError, httpx.HTTPError, httpx.InvalidURL):
            return False
        return b'"owned_by":"vllm"' in body.replace(b" ", b"")

    async def ask(
        self,
        payload: Mapping[str, Any],
        *,
        idempotency_key: str = "",
        afford: Callable[[], bool] = lambda: True,
    ) -> Reply:
        """Send one request, and again while its faults may pass.

        Args:
            payload: The body, as the chat completions API defines it.
            idempotency_key: The same for the same question: a server that reads ``Idempotency-Key`` charges it once.
            afford: Called before a request is sent again that may have been charged already.

        Raises:
            NoReplyError: There is no reply to this request; others may have one.
            RunError: No request can succeed: the key, the model or the address is wrong, or the quota is used up.
        """
        unsure = 0

        def is_last(state: RetryCallState) -> bool:
            fault = state.outcome and state.outcome.exception()
            return state.attempt_number >= (self._bad_tries if isinstance(fault, BadReplyError) else self._tries)

        def count(state: RetryCallState) -> None:
            nonlocal unsure
            fault = state.outcome and state.outcome.exception()
            assert isinstance(fault, NoReplyError)
            unsure += fault.unsure
            if isinstance(fault, _TransientError) and fault.wait is not None:
                self._pace.pause(min(fault.wait, _MAX_WAIT_SECONDS))

        def before_sleep(state: RetryCallState) -> None:
            fault = state.outcome and state.outcome.exception()
            assert isinstance(fault, NoReplyError)
            if fault.unsure and not afford():
                raise NoReplyError(f"{fault}; another try would exceed the budget", unsure=unsure)
            self._on_retry(str(fault))

        retrying = AsyncRetrying(
            retry=retry_if_exception_type((_TransientError, BadReplyError)),
            stop=is_last,
            wait=wait_random_exponential(multiplier=self._backoff, max=60),
            after=count,
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            reply: Reply = await retrying(self._try, payload, idempotency_key)
        except _TransientError as fault:
            tried = f"{fault} ({self._tries} {'try' if self._tries == 1 else 'tries'})"
            raise NoReplyError(tried, unsure=unsure, unreached=fault.unreached) from None
        except BadReplyError as fault:
            fault.unsure = unsure
            raise fault from None
        return replace(reply, unsure=unsure)

    async def _try(self, payload: Mapping[str, Any], idempotency_key: str) -> Reply:
        await self._pace.wait()
        headers = {"Idempotency-Key": quote(idempotency_key, safe="#/")} if idempotency_key else {}
        try:
            async with asyncio.timeout(self._timeout):
                status, answered, body = await self._exchange("POST", "chat/completions", payload, headers)
        except (TimeoutError, httpx.TimeoutException):
            raise _TransientError(f"no reply in {self._timeout:g} s", unsure=1) from None
        except httpx.InvalidURL:  # httpx reads the address of a redirect that it does not follow
            raise self._redirects("") from None
        except httpx.HTTPError as error:
            unreached = isinstance(error, httpx.ConnectError)
            reason = self.redact(str(error)) or type(error).__name__
            words = "no connection" if unreached else "connection lost"
            raise _TransientError(f"{words} ({reason})", unsure=not unreached, unreached=unreached) from None
        if status != 200:
            raise self._fault_of(status, answered, body)
        return read_reply(body, self.redact)

    async def _exchange(
        self, method: str, path: str, payload: Mapping[str, Any] | None, headers: Mapping[str, str]
    ) -> tuple[int, httpx.Headers, bytes]:
        """Send one request; return the status, the headers and the decompressed body."""
        url = f"{self.address}/{path}"
        async with self._http.stream(method, url, json=payload, headers=dict(headers)) as response:
            encoding = response.headers.get("content-encoding", "identity").strip().lower()
            if encoding not in {"identity", "", "gzip", "x-gzip", "deflate"}:
                raise BadReplyError(f"a reply with the unknown encoding {self.redact(encoding)[:40]!r}")
            inflate = None if encoding in {"identity", ""} else zlib.decompressobj(wbits=47)
            body, received = bytearray(), 0
            async for chunk in response.aiter_raw():
                received += len(chunk)  # what follows the end of compressed data is held, but never inflated
                try:
                    body += inflate.decompress(chunk, self._max_bytes + 1 - len(body)) if inflate else chunk
                except zlib.error:
                    raise BadReplyError("a reply with broken compression") from None
                if max(len(body), received) > self._max_bytes:
                    raise BadReplyError(f"a reply of more than {self._max_bytes:,} bytes", oversized=True)
            return response.status_code, response.headers, bytes(body)

    def _fault_of(self, status: int, headers: httpx.Headers, body: bytes) -> Exception:
        """Return what a status other than 200 means."""
        if status in _MISCONFIGURED:
            # A server may repeat part of the key in its message, so the message is not printed.
            return RunError(f"status {status}", where=self.address, remedy=_MISCONFIGURED[status])
        if 300 <= status < 400:
            return self._redirects(_origin(headers.get("location", "")))
        code, said = read_error(body)
        if code == "insufficient_quota":
            return RunError("the quota is used up", where=self.address, remedy="Pay, then run the same command again")
        if status in _TRANSIENT or status >= 500:
            return _TransientError(f"status {status}", wait=_retry_after(headers))
        if 200 <= status < 300:
            return BadReplyError(f"status {status} in place of 200")
        return RejectedError(f"status {status}: {self.redact(said)[:300]}", code=self.redact(code)[:60])

    def _redirects(self, where: str) -> RunError:
        remedy = "Redirects are not followed; give the address of the server itself"
        return RunError(f"the server redirects{self.redact(where)[:200]}", where=self.address, remedy=remedy)

    def redact(self, text: str) -> str:
        """Return a text without the key and the credentials of the address."""
        return self._secrets.sub("[secret]", text)


def _read_address(base_url: str, api_key: str, option: str) -> tuple[str, str, re.Pattern[str]]:
    """Return the address without credentials, the Authorization header and a pattern of the secrets in it."""
    shown = base_url.rpartition("@")[2][:80]
    try:
        parts = urlsplit(base_url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        httpx.URL(base_url)
    except (ValueError, httpx.InvalidURL):
        usable = False
    if not usable or parts.query or not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        problem = f"{shown.partition('?')[0]!r} is not an http or https address without a query"
        raise UsageError(problem, where=option, remedy="Give an address such as http://127.0.0.1:8000/v1")
    key = api_key.strip()
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError("the API key has characters that cannot be sent", remedy="Set it again without line ends")
    authority = parts.netloc.rpartition("@")[2]
    address = f"{parts.scheme}://{authority}{parts.path}".rstrip("/")
    secrets, header = {key}, f"Bearer {key}" if key else ""
    if parts.username is not None:
        user, password = unquote(parts.username), unquote(parts.password or "")
        encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
        header = f"Basic {encoded}"
        secrets |= {encoded, password, parts.password or "", f"{user}:{password}"}
    secrets |= {unquote(secret) for secret in secrets}
    return address, header, _pattern_of({secret for secret in secrets if len(secret) >= _SHORTEST_SECRET})


def _pattern_of(secrets: Collection[str]) -> re.Pattern[str]:
    """Return a pattern of the secrets, as they are and in the spellings in which servers repeat what they were sent.

    Each character may be escaped as in URLs (also twice), JSON, Python or HTML. Hexadecimal and base64 text is found
    as a whole, in base64 at each of the three places of a byte.
    """
    spellings = set()
    for secret in secrets:
        raw = secret.encode()
        spellings |= {"".join(map(_escapes, secret)), raw.hex()}
        for before in range(3):
            own = slice(-(-8 * before // 6), 8 * (before + len(raw)) // 6)  # what no neighbouring byte changes
            encoded = base64.b64encode(bytes(before) + raw).decode()[own]
            spellings.add(re.escape(encoded).replace(r"\+", r"[+\-]").replace("/", "[/_]"))
    return re.compile("|".join(sorted(spellings, key=len, reverse=True)) or "(?!)", re.IGNORECASE)


def _escapes(mark: str) -> str:
    """Return a pattern of the spellings of a character."""
    number, octets = ord(mark), "".join(f"%(?:25)*{byte:02x}" for byte in mark.encode())
    return rf"(?:{re.escape(mark)}|{octets}|\\u{number:04x}|(?:\\x|&#x)0*{number:x};?|&#0*{number};)"


def _origin(location: str) -> str:
    """Return where a redirect leads, as words; empty if that cannot be read."""
    try:
        target = urlsplit(location)
    except ValueError:
        return ""
    return f" to {target.scheme}://{target.hostname}" if target.scheme and target.hostname else ""


def _retry_after(headers: httpx.Headers) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, given as a number or a date."""
    value = headers.get("retry-after", "")
    try:
        try:
            seconds = float(value)
        except ValueError:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(seconds, 0.0) if seconds < float("inf") else None
