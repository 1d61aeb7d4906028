"""A server that breaks HTTP itself: no answer in time, no end, no sense. Each request ends with one sentence."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from lad_reasoner.support.errors import RunError
from lad_reasoner.support.openai_client import ChatServer, NoReplyError

GOOD = json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode()
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ZIPPED = OK + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n"


def redirect(location: bytes) -> list[bytes]:
    return [b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"]


#: What a server sends, part by part, and words of the error.
ENDLESS = b"x" * 65536
ANSWERS: dict[str, tuple[Iterable[bytes], str]] = {
    "endless after the end of gzip": (
        itertools.chain([ZIPPED + gzip.compress(GOOD)], itertools.repeat(ENDLESS)),
        "more than",
    ),
    "endless body": (itertools.chain([OK + b"Connection: close\r\n\r\n"], itertools.repeat(ENDLESS)), "more than"),
    "endless chunks": (itertools.chain([CHUNKED], itertools.repeat(b"10000\r\n" + ENDLESS + b"\r\n")), "more than"),
    "one byte at a time": (itertools.chain([CHUNKED], itertools.repeat(b"1\r\nx\r\n")), "no reply in|more than"),
    "endless header": (itertools.chain([OK + b"X: "], itertools.repeat(ENDLESS)), "connection lost"),
    "endless headers": (itertools.chain([OK], itertools.repeat(b"X: y\r\n" * 1000)), "connection lost"),
    "endless continue": (itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), "no reply in|connection lost"),
    "endless trailers": (
        itertools.chain([CHUNKED + b"0\r\n"], itertools.repeat(b"X: y\r\n" * 1000)),
        "connection lost",
    ),
    "silence": ([], "no reply in"),
    "header and silence": ([OK + b"Content-Length: 50\r\n\r\n"], "no reply in"),
    "huge chunk size": ([CHUNKED + b"F" * 40 + b"\r\nx"], "connection lost|no reply in"),
    "negative length": ([OK + b"Content-Length: -1\r\n\r\n"], "connection lost"),
    "two lengths": ([OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx"], "connection lost"),
    "length of 6000 digits": ([OK + b"Content-Length: " + b"9" * 6000 + b"\r\n\r\nxx"], "connection lost"),
    "no status": ([b"HTTP/1.1 abc\r\n\r\n"], "connection lost"),
    "status 999": ([b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n"], "status 999"),
    "no HTTP": ([b"\x16\x03\x01\x02\x00\x01\x00"], "connection lost|no reply in"),
    "NUL in a header": ([OK + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n"], "."),
    "not modified": ([b"HTTP/1.1 304 Not Modified\r\n\r\n"], "redirects"),
    "encoding twice": ([OK + b"Content-Encoding: gzip, gzip\r\nContent-Length: 1\r\n\r\nx"], "unknown encoding"),
    **{
        f"redirect to {location!r:.30}": (redirect(location), "redirects|connection lost")
        for location in (
            *(b"file:///etc/passwd", b"http://[::1", b"//evil.example/", b"javascript:alert(1)", b"", b"\x1b[2J"),
            *(
                b"http://evil.example:99999/",
                b"http://\xff\xfe/",
                b"http://evil.example/" + b"a" * 50_000,
                b"http://a@b@c/",
            ),
        )
    },
}


@asynccontextmanager
async def raw_server(parts: Iterable[bytes]) -> AsyncIterator[str]:
    """Answer every connection with these bytes, then keep it open."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            await asyncio.sleep(60)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_server_that_breaks_http_costs_one_sentence(name) -> None:
    parts, words = ANSWERS[name]

    async def ask() -> None:
        async with (
            raw_server(parts) as url,
            ChatServer(url, api_key="", timeout=1.0, tries=1, bad_tries=1, max_bytes=1 << 20) as server,
        ):
            await server.ask({"model": "m"})

    with pytest.raises((NoReplyError, RunError), match=words) as caught:
        asyncio.run(asyncio.wait_for(ask(), 60))
    assert len(str(caught.value)) < 600
