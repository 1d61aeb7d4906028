"""Requests that `lad serve` passes on to gradio: those of its own page, under its own host names.

Everything else is answered before gradio sees it: files outside the upload folder, redirects, proxies, other routes,
foreign host names (DNS rebinding), foreign origins, bodies that are too large, and questions that name a file or an
address in place of an upload.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from lad_reasoner.support.files import try_lock

__all__ = ["RequestGuard", "upload_folder"]

_PREFIX: Final = "lad-serve-"

#: Routes that the page needs, and prefixes of such routes.
_ROUTES: Final = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json"})
_API: Final = "/gradio_api/"
_PREFIXES: Final = (
    *("/assets/", "/static/", "/svelte/", "/_app/"),
    *(f"{_API}{name}" for name in ("queue/", "heartbeat/", "run/", "file=")),
)
_API_ROUTES: Final = frozenset(
    {"upload", "upload_progress", "cancel", "reset", "startup-events", "app_id", "theme.css", "info"}
)
_UPLOAD: Final = f"{_API}upload"

#: Everything but an upload is a few lines of JSON.
_LARGEST_MESSAGE: Final = 1 << 20

#: Uploads that may lie in the folder together, in units of the largest upload.
_LARGEST_UPLOADS: Final = 50

_POLICY: Final = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; form-action 'self'"
)
_HEADERS: Final = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)

#: What even an empty file takes: a block of the disk, so that the number of uploads is limited too.
_BLOCK: Final = 4096

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class _RefusedError(Exception):
    """A request that is answered here; ``status`` and the text are the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@contextmanager
def upload_folder() -> Iterator[Path]:
    """Yield a folder for uploads that is removed at the end; those of killed servers are removed first."""
    for folder in Path(gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            if os.fstat(descriptor).st_uid == os.getuid() and try_lock(descriptor):
                shutil.rmtree(folder, ignore_errors=True)
            os.close(descriptor)
    folder = Path(mkdtemp(prefix=_PREFIX)).resolve()
    descriptor = os.open(folder, os.O_RDONLY)
    try_lock(descriptor)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


class RequestGuard:
    """An ASGI middleware in front of gradio for a server that listens on ``host``; ``max_bytes`` limits an upload."""

    def __init__(
        self, app: Callable[[_Message, _Receive, _Send], Awaitable[None]], *, folder: Path, host: str, max_bytes: int
    ) -> None:
        self._app, self._folder, self._max_bytes = app, folder.resolve(), max_bytes
        own = socket.gethostname().lower()
        self._names = frozenset({"localhost", host.lower().strip("[]"), own, f"{own}.local", socket.getfqdn().lower()})

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Pass an allowed request on, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: _Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                if message["status"] >= 500:
                    raise _RefusedError(500, "the server could not handle this request")
                started = True
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            self._require_allowed(scope)
            await self._app(scope, await self._receiver(scope, receive), send_guarded)
        except Exception as error:  # a traceback would show paths of the host
            if started:
                raise ConnectionAbortedError("the reply ended early") from None
            refused = error if isinstance(error, _RefusedError) else _RefusedError(400, "not a usable request")
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
                return
            headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
            await send({"type": "http.response.start", "status": refused.status, "headers": headers})
            await send({"type": "http.response.body", "body": str(refused).encode()})

    def _require_allowed(self, scope: _Message) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not _names_us(headers.get(b"host", ""), self._names):
            raise _RefusedError(403, "this page is not served under that host name; give --host NAME to allow it")
        origin = headers.get(b"origin")
        if origin is not None and not _names_us(urlsplit(origin).netloc, self._names):
            raise _RefusedError(403, "requests from other sites are not allowed")
        if not self._is_ours(scope["path"]):
            raise _RefusedError(403, "not allowed")

    def _is_ours(self, path: str) -> bool:
        decoded = unquote(path)  # some clients encode twice
        _, marker, file = decoded.partition("file=")
        if marker:
            if not path.startswith(f"{_API}file="):
                return False
            try:
                return Path(file).resolve().is_relative_to(self._folder)
            except (OSError, ValueError, RuntimeError):  # a NUL byte, a loop of links
                return False
        if "proxy=" in decoded or "/../" in decoded or "//" in decoded:
            return False
        if path in _ROUTES or path.startswith(_PREFIXES):
            return True
        return path.startswith(_API) and path.removeprefix(_API).rstrip("/") in _API_ROUTES

    async def _receiver(self, scope: _Message, receive: _Receive) -> _Receive:
        """Return a bounded source of the request's body; what a question names is checked."""
        if scope["type"] != "http" or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            return receive
        upload = scope["path"].rstrip("/") == _UPLOAD
        if upload and _size_of(self._folder) > _LARGEST_UPLOADS * self._max_bytes:
            raise _RefusedError(507, "too many uploads at the moment; try again in ten minutes")
        limit = self._max_bytes + _LARGEST_MESSAGE if upload else _LARGEST_MESSAGE
        read = 0

        async def bounded() -> _Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise _RefusedError(413, f"more than {limit:,} bytes")
            return message

        return bounded if upload else await self._checked(bounded)

    async def _checked(self, receive: _Receive) -> _Receive:
        """Read a message as a whole, and return a source that gives it again."""
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _RefusedError(400, "the request ended early")
            body, more = body + message.get("body", b""), message.get("more_body", False)
        try:
            tree = json.loads(body) if body else None
        except (ValueError, RecursionError):
            raise _RefusedError(400, "not JSON") from None
        for named in _named_files(tree):
            if not Path(named).resolve().is_relative_to(self._folder):
                raise _RefusedError(403, "only uploaded files can be named")
        waiting: list[_Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> _Message:
            return waiting.pop() if waiting else await receive()

        return again


def _names_us(authority: str, names: Collection[str]) -> bool:
    """Return whether a Host or an origin is a name of this server; addresses are, because no name can pose as one."""
    host = authority.rsplit(":", 1)[0] if not authority.endswith("]") else authority
    host = host.strip("[]").rstrip(".").lower()
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host in names or host.endswith(".localhost")
    return True


def _named_files(tree: Any) -> Iterator[str]:
    """Yield every path and address that a message names; the tree is walked without recursion."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            for key, value in node.items():
                if key in {"path", "name"} and isinstance(value, str):
                    yield value if "\0" not in value else "/"
                elif key == "url" and isinstance(value, str):
                    yield unquote(urlsplit(value).path).partition("file=")[2] or "/"
                else:
                    waiting.append(value)
        elif isinstance(node, list):
            waiting.extend(node)


def _size_of(folder: Path) -> int:
    size = 0
    for file in folder.rglob("*"):
        with suppress(OSError):
            size += max(file.lstat().st_size, _BLOCK)
    return size
