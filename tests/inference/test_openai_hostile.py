"""A hostile or broken server: a malformed reply costs its own pair alone, memory is bounded, secrets stay hidden."""

from __future__ import annotations

import base64
import gzip
import html
import json
import logging
import subprocess
import sys
import threading
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest

from lad_reasoner.commands.lad import main
from lad_reasoner.inference.predictions import failures_path, read_predictions
from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.openai_client import ChatServer

KEY = "sk-secret-0123456789"
PASSWORD = "pass-word-4711"  # noqa: S105
GOOD = {"choices": [{"message": {"content": "<think> a </think><answer> yes </answer>"}, "finish_reason": "stop"}]}


def choice(**changes: object) -> bytes:
    return json.dumps({"choices": [{**GOOD["choices"][0], **changes}]}).encode()


def logged(alternative: str) -> bytes:
    token = f'{{"token": "yes", "top_logprobs": [{alternative}]}}'
    return choice(logprobs="LOGS").replace(b'"LOGS"', f'{{"content": [{token}]}}'.encode())


Headers = dict[str, str]
#: Status, body and headers of replies that are not chat completions.
BAD: dict[str, tuple[int, bytes, Headers]] = {
    "html": (200, b"<html><body>Please log in</body></html>", {"Content-Type": "text/html"}),
    "empty": (200, b"", {}),
    "spaces": (200, b" " * 5000, {}),
    "list": (200, b"[]", {}),
    "number": (200, b"7", {}),
    "null": (200, b"null", {}),
    "text": (200, b'"yes"', {}),
    "object": (200, b"{}", {}),
    "choices null": (200, b'{"choices": null}', {}),
    "choices empty": (200, b'{"choices": []}', {}),
    "choices text": (200, b'{"choices": "yes"}', {}),
    "choices of numbers": (200, b'{"choices": [1]}', {}),
    "choice null": (200, b'{"choices": [null]}', {}),
    "message null": (200, choice(message=None), {}),
    "message text": (200, choice(message="yes"), {}),
    "content list": (200, choice(message={"content": [{"type": "text", "text": "yes"}]}), {}),
    "content number": (200, choice(message={"content": 1}), {}),
    "content object": (200, choice(message={"content": {}}), {}),
    "finish number": (200, choice(finish_reason=3), {}),
    "usage word": (200, json.dumps({**GOOD, "usage": {"prompt_tokens": "many"}}).encode(), {}),
    "usage negative": (200, json.dumps({**GOOD, "usage": {"prompt_tokens": -1}}).encode(), {}),
    "usage list": (200, json.dumps({**GOOD, "usage": [1]}).encode(), {}),
    "usage of 6000 digits": (200, choice()[:-1] + b', "usage": {"prompt_tokens": ' + b"9" * 6000 + b"}}", {}),
    "logprob nan": (200, logged('{"token": "yes", "logprob": NaN}'), {}),
    "logprob huge": (200, logged('{"token": "yes", "logprob": 1e6}'), {}),
    "logprob infinite": (200, logged('{"token": "yes", "logprob": Infinity}'), {}),
    "logprob word": (200, logged('{"token": "yes", "logprob": "high"}'), {}),
    "token null": (200, logged('{"token": null, "logprob": -1}'), {}),
    "logs a list": (200, choice(logprobs=[1]), {}),
    "lone surrogate": (200, choice(message={"content": "SURROGATE"}).replace(b"SURROGATE", b"\\ud800"), {}),
    "events": (200, b'data: {"choices": []}\n\ndata: [DONE]\n\n', {"Content-Type": "text/event-stream"}),
    "deep": (200, b"[" * 200_000, {}),
    "deep inside": (200, choice(extra="DEEP").replace(b'"DEEP"', b"[" * 100_000), {}),
    "not utf-8": (200, b'{"choices": [{"message": {"content": "\xff\xfe"}}]}', {}),
    "utf-16": (200, json.dumps(GOOD).encode("utf-16"), {}),
    "cut": (200, choice()[:-9], {}),
    "two documents": (200, choice() + choice(), {}),
    "broken gzip": (200, b"\x1f\x8b\x08\x00junk", {"Content-Encoding": "gzip"}),
    "cut gzip": (200, gzip.compress(choice())[:-20], {"Content-Encoding": "gzip"}),
    "unknown encoding": (200, choice(), {"Content-Encoding": "br"}),
    "encoded twice": (200, gzip.compress(gzip.compress(choice())), {"Content-Encoding": "gzip, gzip"}),
    "no content": (204, b"", {}),
    "created": (201, choice(), {}),
    "gzip bomb": (200, gzip.compress(b" " * (64 << 20), 9), {"Content-Encoding": "gzip"}),
    "deflate bomb": (200, zlib.compress(b"[" * (64 << 20), 9), {"Content-Encoding": "deflate"}),
    "rejected": (400, b'{"error": {"message": "the prompt is too long", "code": 400}}', {}),
    "rejected with the header": (400, b"HEADERS", {}),
    "rejected with text": (422, b"<html>nope</html>", {}),
}


class Server(ThreadingHTTPServer):
    """Gives every request the reply that ``reply`` returns for its body and headers."""

    daemon_threads = True

    def __init__(self, reply: Callable[[dict[str, object]], tuple[int, bytes, Headers]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply, self.asked = reply, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked += 1
        status, data, headers = self.server.reply(body)
        if data == b"HEADERS":
            data = json.dumps({"error": {"message": f"bad request: {dict(self.headers)}"}}).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setattr("lad_reasoner.inference.backends.openai.BACKOFF", 0.001)
    running: list[Server] = []

    def start(reply: Callable[[dict[str, object]], tuple[int, bytes, Headers]]) -> Server:
        running.append(Server(reply))
        threading.Thread(target=running[-1].serve_forever, args=(0.02,), daemon=True).start()
        return running[-1]

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def run(words: list[str], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Return the exit code and everything that was printed, with the traceback that --debug lets through."""
    try:
        main(words)
    except SystemExit as stop:
        return int(stop.code or 0), "".join(capfd.readouterr())
    except Exception:
        return 1, "".join(capfd.readouterr()) + traceback.format_exc()
    return 0, "".join(capfd.readouterr())


def test_malformed_replies_cost_their_pairs_alone(serve, make_pairs, tmp_path: Path, capfd, caplog) -> None:
    """Every second pair meets a malformed reply; the others are answered, and the next run asks the failed ones."""
    caplog.set_level(logging.DEBUG)
    assert len(BAD) >= 40
    names, met, lock = list(BAD), {}, threading.Lock()

    def reply(body: dict[str, object]) -> tuple[int, bytes, Headers]:
        with lock:
            number = met.setdefault(body["seed"], len(met))
        return BAD[names[number // 2]] if number % 2 and number // 2 < len(names) else (200, choice(), {})

    server = serve(reply)
    data, out = make_pairs(2 * len(BAD)), tmp_path / "out.jsonl"
    url = server.url.replace("//", f"//me:{PASSWORD}@")
    words = ["predict", "--data", str(data), "--model", "m", "--backend", "openai", "--out", str(out), "--debug"]
    code, said = run([*words, "--base-url", url, "--batch-size", "4"], capfd)
    assert code == 1
    assert f"{len(BAD)} of {2 * len(BAD)} responses failed" in said
    assert len(read_predictions(out)) == len(BAD)
    failed = [json.loads(line) for line in failures_path(out).read_text().splitlines()]
    assert len({item["pair_id"] for item in failed}) == len(BAD)
    assert all(item["reason"] for item in failed)
    assert server.asked <= len(BAD) * 4  # three tries each at most
    basic = base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    shown = said + caplog.text + "".join(file.read_text() for file in tmp_path.iterdir() if file.is_file())
    for secret in (KEY, PASSWORD, basic):
        assert secret not in shown
    met.clear()
    server.reply = lambda _: (200, choice(), {})
    assert run([*words, "--base-url", url], capfd)[0] == 0
    assert Counter(item.pair_id for item in read_predictions(out)).total() == 2 * len(BAD)
    assert not failures_path(out).exists()


@pytest.mark.parametrize("status", [401, 403, 404, 400])
def test_a_server_that_repeats_the_key_does_not_get_it_printed(serve, make_pairs, tmp_path, capfd, status) -> None:
    server = serve(lambda _: (status, b"HEADERS", {}))
    words = ["--data", str(make_pairs(2)), "--model", "m", "--backend", "openai", "--out", str(tmp_path / "o.jsonl")]
    code, said = run(["predict", *words, "--base-url", server.url, "--debug"], capfd)
    assert code == 1
    assert KEY not in said + "".join(file.read_text() for file in tmp_path.iterdir() if file.is_file())


@pytest.mark.parametrize("secret", [KEY, "me:pä/ss+wörd?~", "pä/ss+wörd?~"])
@pytest.mark.parametrize("before", ["", "x", "Bearer "])
def test_no_spelling_of_a_secret_is_shown(secret: str, before: str) -> None:
    """Servers repeat a header as it came, or escaped for the format of their message."""
    server = ChatServer("http://me:p%C3%A4%2Fss%2Bw%C3%B6rd%3F~@host/v1", api_key=KEY, timeout=1, tries=1)
    text = before + secret
    urls = quote(text, safe=""), quote(text).lower(), "".join(f"%{byte:02X}" for byte in text.encode())
    marks = (
        [f"\\u{ord(mark):04x}" for mark in text],
        [f"&#{ord(mark)};" for mark in text],
        [f"&#x{ord(mark):X};" for mark in text],
    )
    coded = base64.b64encode(text.encode()).decode(), base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    plain = text, text.upper(), text.encode().hex(), text.encode().hex().upper(), json.dumps(text), html.escape(text)
    for spelling in (*urls, quote(urls[0]), *map("".join, marks), *coded, *plain):
        shown = server.redact(f"bad request: {spelling}, sent again")
        assert shown.startswith("bad request: ")
        assert shown.endswith(", sent again")
        assert "[secret]" in shown, spelling
        assert len(shown) <= len("bad request: [secret], sent again") + 6 * len(before) + 4, (spelling, shown)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(serve, make_pairs, tmp_path, capfd, status) -> None:
    elsewhere = serve(lambda _: (200, choice(), {}))
    server = serve(lambda _: (status, b"", {"Location": f"{elsewhere.url}/chat/completions?key={KEY}"}))
    words = ["--data", str(make_pairs(2)), "--model", "m", "--backend", "openai", "--out", str(tmp_path / "o.jsonl")]
    code, said = run(["predict", *words, "--base-url", server.url], capfd)
    assert code == 1
    assert "the server redirects to http://127.0.0.1" in said
    assert KEY not in said
    assert elsewhere.asked == 0


ADDRESSES = [
    "file:///etc/passwd",
    "ftp://host/v1",
    "http://[::1",
    "http://host\n/v1",
    "http://ho st/v1",
    "http://host:port/v1",
    "http://host:99999/v1",
    "http:///v1",
    "host:8000/v1",
    "http://host/v1?key=secret-word",
    f"gopher://me:{PASSWORD}@host",
    "http://h\u00f6st/v1",
    "http://host\x1b[2J/v1",
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_other_addresses_are_refused_at_once(address: str) -> None:
    with pytest.raises(UsageError, match=r"--base-url: .* is not an http or https address") as caught:
        ChatServer(address, api_key=KEY, timeout=1, tries=1)
    assert "secret-word" not in str(caught.value)
    assert PASSWORD not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["sk-line\nend", "sk-\u00fcml\u00e4ut", "sk two words"])
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(UsageError, match="the API key has characters") as caught:
        ChatServer("http://host/v1", api_key=key, timeout=1, tries=1)
    assert key not in str(caught.value)


PEAK = """
import asyncio, sys
from lad_reasoner.support.openai_client import BadReplyError, ChatServer
async def main():
    async with ChatServer(sys.argv[1], api_key="", timeout=60, tries=1, bad_tries=1) as server:
        try:
            await server.ask({"seed": 1})
        except BadReplyError as error:
            print(error, file=sys.stderr)
def peak():
    status = open("/proc/self/status").read()
    return int(status.partition("VmHWM:")[2].split()[0])
before = peak()
asyncio.run(main())
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_bomb_of_900_mib_takes_little_memory(serve, encoding: str) -> None:
    squeeze = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join(squeeze.compress(b" " * (1 << 20)) for _ in range(900)) + squeeze.flush()
    server = serve(lambda _: (200, bomb, {"Content-Encoding": encoding}))
    done = subprocess.run([sys.executable, "-c", PEAK, server.url], capture_output=True, text=True, check=True)
    assert "more than 16,777,216 bytes" in done.stderr
    assert int(done.stdout) < 64 << 10  # KiB


def test_a_vllm_server_is_told_every_sampling_parameter(serve, make_pairs, tmp_path, capfd, monkeypatch) -> None:
    bodies: list[dict[str, object]] = []
    server = serve(lambda body: (bodies.append(body), (200, choice(), {}))[1])
    words = ["--data", str(make_pairs(1)), "--model", "m", "--backend", "openai", "--base-url", server.url]
    assert run(["predict", *words, "--out", str(tmp_path / "a.jsonl")], capfd)[0] == 0
    models = {"object": "list", "data": [{"id": "m", "owned_by": "vllm"}]}

    def do_get(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(json.dumps(models).encode())

    monkeypatch.setattr(Handler, "do_GET", do_get, raising=False)
    assert run(["predict", *words, "--out", str(tmp_path / "b.jsonl")], capfd)[0] == 0
    plain = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0, "temperature": 0.0}
    assert plain.items() <= bodies[0].items()
    assert "top_k" not in bodies[0]
    assert {**plain, "top_k": -1, "repetition_penalty": 1.0, "min_p": 0.0}.items() <= bodies[1].items()
