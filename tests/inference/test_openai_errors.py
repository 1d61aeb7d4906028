"""What is said when a server cannot be reached or refuses."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from lad_reasoner.commands.lad import main


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lad_reasoner.inference.backends.openai.TRIES", 1)
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port on which nothing answers: it is taken, and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def image(tmp_path: Path) -> str:
    from PIL import Image

    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


def run(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line]
    return line


def test_ask_names_the_address_it_tried_and_speaks_of_one_pair(nobody: int, image: str, capsys, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://me:password@127.0.0.1:{nobody}/v1")
    line = run(["ask", "--reference", image, "--query", image, "--model", "m", "--backend", "openai"], capsys)
    assert line.startswith(f"error: http://127.0.0.1:{nobody}/v1: the server cannot be reached: no connection")
    assert line.endswith("(1 try). Start that server, or name another with OPENAI_BASE_URL, then ask again.")
    assert "password" not in line


def test_predict_names_the_address_it_tried(nobody: int, make_pairs, tmp_path: Path, capsys) -> None:
    words = ["--data", str(make_pairs(5)), "--model", "m", "--backend", "openai", "--out", str(tmp_path / "o.jsonl")]
    line = run(["predict", *words, "--base-url", f"http://127.0.0.1:{nobody}/v1"], capsys)
    assert line.startswith(f"error: http://127.0.0.1:{nobody}/v1: the server cannot be reached")
    assert line.endswith("--base-url or OPENAI_BASE_URL, then run the same command again to resume.")


class Refusing(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        data = json.dumps({"error": {"message": "logprobs are not supported"}}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


def test_ask_recommends_no_option_that_it_lacks(image: str, capsys, monkeypatch) -> None:
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1")
        line = run(["ask", "--reference", image, "--query", image, "--model", "m", "--backend", "openai"], capsys)
        server.shutdown()
    assert line.endswith("gives no log-probabilities. Only `lad predict --no-scores` does without.")
