"""Models named on the hub: one sentence when it cannot be reached, and the copy on this machine where there is one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lad_reasoner.models import hub
from lad_reasoner.support.errors import DataError

pytest.importorskip("huggingface_hub")

NAME = "owner/model"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    return tmp_path


@pytest.fixture
def serve(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Start a hub that answers every request alike; a status of 0 is a hub that never answers."""
    done, servers = threading.Event(), []

    def start(status: int, body: bytes = b"{}", **headers: str) -> None:
        class Hub(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not status:
                    done.wait(30)
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Hub))
        threading.Thread(target=servers[0].serve_forever, daemon=True).start()
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{servers[0].server_port}")

    yield start
    done.set()
    for server in servers:
        server.shutdown()
        server.server_close()


def keep_copy(cache: Path) -> None:
    folder = cache / "models--owner--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("1" * 40)
    (folder / "snapshots" / ("1" * 40)).mkdir(parents=True)
    (folder / "snapshots" / ("1" * 40) / "config.json").write_text("{}")


def test_a_folder_needs_no_hub(tmp_path: Path) -> None:
    assert hub.has_hub(str(tmp_path)) is False


def test_a_model_on_the_hub_may_be_fetched(serve: Callable[..., None]) -> None:
    serve(200, b'{"id": "owner/model", "siblings": []}')
    assert hub.has_hub(NAME) is True


def test_an_unknown_model_is_one_sentence(serve: Callable[..., None]) -> None:
    serve(404, X_Error_Code="RepoNotFound")
    with pytest.raises(DataError, match=r"owner/model: the Hugging Face hub has no such model, or you have no access"):
        hub.has_hub(NAME)


@pytest.mark.parametrize("name", ["a/b/c", "two words", "-"])
def test_what_is_neither_folder_nor_name_is_refused(name: str, cache: Path) -> None:
    with pytest.raises(DataError, match="neither a folder nor a name on the Hugging Face hub"):
        hub.has_hub(name)


@pytest.mark.parametrize("fault", ["refused", "silent", "broken", "offline"])
def test_without_the_hub_only_a_copy_on_this_machine_helps(fault, cache, serve, monkeypatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 0.2)
    if fault == "refused":
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    elif fault == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        serve(0 if fault == "silent" else 502)
    with pytest.raises(DataError, match=r"owner/model: the model is not on this machine, and .* cannot be reached"):
        hub.has_hub(NAME)
    keep_copy(cache)
    assert hub.has_hub(NAME) is False
