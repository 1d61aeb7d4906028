"""The local page, over real HTTP: it answers, and it gives nothing of the host away."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.chromium import open_chromium

from lad_reasoner.inference.predictions import Sampling
from lad_reasoner.inference.protocol import Answer, Question
from lad_reasoner.support.errors import RunError

pytest.importorskip("gradio", reason="the page needs gradio (extra serve)")
httpx = pytest.importorskip("httpx", reason="these tests ask over HTTP")

from lad_reasoner.inference.serve import serve  # noqa: E402

pytestmark = pytest.mark.slow

SAID = "<think> <img src=x onerror=alert(1)> a pin is missing </think><answer> yes </answer>"


class Constant:
    """A backend that always says the same, and keeps what it was asked."""

    name = "transformers"
    model = "constant"
    model_digest = None
    dtype = None
    sampling = Sampling(temperature=0, max_new_tokens=8, seed=0, structured=False, min_pixels=None, max_pixels=None)

    def __init__(self) -> None:
        self.asked: list[Question] = []

    def answer(self, questions: Iterable[Question]) -> Iterator[Answer]:
        for question in questions:
            self.asked.append(question)
            yield Answer(question.pair_id, 0, SAID, 0.875, "answer_token", 3, 4, "stop", 0.1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def page():
    backend = Constant()
    with serve(backend, host="127.0.0.1", port=free_port(), max_megabytes=1) as address:
        yield backend, address.rstrip("/")


@pytest.fixture
def client(page):
    with httpx.Client(base_url=page[1], timeout=30) as opened:
        yield opened


def png(size: int = 40) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (size, size), "teal").save(stream, "PNG")
    return stream.getvalue()


def upload(client, data: bytes, name: str = "a.png") -> str:
    reply = client.post("/gradio_api/upload", files={"files": (name, data, "image/png")})
    assert reply.status_code == 200, reply.text
    return reply.json()[0]


def ask_over_http(client, *images: object) -> dict:
    """Put a question into the queue as a browser does, and return the message that ends it."""
    dependency = next(item for item in client.get("/config").json()["dependencies"] if len(item["inputs"]) == 2)
    body = {"data": list(images), "fn_index": dependency["id"], "session_hash": "test"}
    joined = client.post("/gradio_api/queue/join", json=body)
    if joined.status_code != 200:
        return {"refused": joined.status_code}
    with client.stream("GET", "/gradio_api/queue/data", params={"session_hash": "test"}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if message.get("msg") in {"process_completed", "unexpected_error", "close_stream"}:
                return message
    raise AssertionError("the queue ended without an answer")


def file_data(path: str, **more: str) -> dict:
    return {"path": path, "meta": {"_type": "gradio.FileData"}, **more}


def test_a_pair_is_answered(page, client) -> None:
    image = png()
    message = ask_over_http(client, file_data(upload(client, image)), file_data(upload(client, image, "b.png")))
    assert message["success"], message
    verdict, reasoning, response = message["output"]["data"]
    assert verdict == "Anomalous (yes), P(yes) 0.88"
    assert reasoning == "<img src=x onerror=alert(1)> a pin is missing"
    assert response == SAID
    assert [picture.data for picture in page[0].asked[-1].images] == [image, image]  # the bytes as they came


def test_what_the_model_says_is_shown_in_plain_text_components(client) -> None:
    components = client.get("/config").json()["components"]
    outputs = next(item for item in client.get("/config").json()["dependencies"] if len(item["inputs"]) == 2)[
        "outputs"
    ]
    assert {item["type"] for item in components if item["id"] in outputs} == {"textbox"}


SECRETS = ["/etc/passwd", "/proc/self/environ", "../../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "/etc/./passwd"]


@pytest.mark.parametrize(
    "prefix", ["/gradio_api/file=", "/file=", "/gradio_api/file/", "/gradio_api//file=", "/file/"]
)
@pytest.mark.parametrize("path", SECRETS)
def test_no_file_of_the_host_is_read(client, prefix, path) -> None:
    for spelling in (path, path.replace("/", "%2f"), path.replace("/", "%252f")):
        reply = client.get(f"{prefix}{spelling}")
        assert reply.status_code in {403, 404}, (spelling, reply.status_code)
        assert "root:" not in reply.text
        assert "PATH=" not in reply.text


def test_neither_the_project_nor_a_link_in_the_folder_is_read(client, repository) -> None:
    own = Path(upload(client, png()))
    link = own.with_name("link.png")
    link.symlink_to("/etc/passwd")
    for path in (repository / "pyproject.toml", Path("pyproject.toml"), link):
        assert client.get(f"/gradio_api/file={path}").status_code == 403
    assert client.get(f"/gradio_api/file={own}").status_code == 200


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/x", "https://example.invalid/", "file:///etc/passwd"])
def test_no_redirect_and_no_proxy(client, path) -> None:
    for prefix in ("/gradio_api/file=", "/file=", "/gradio_api/proxy=", "/proxy="):
        assert client.get(f"{prefix}{path}", follow_redirects=False).status_code == 403


@pytest.fixture
def canary():
    """A server that counts who calls."""
    calls: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            calls.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(png())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/canary.png", calls
    server.shutdown()


def test_a_question_cannot_name_a_file_or_an_address(page, client, canary) -> None:
    address, calls = canary
    asked = len(page[0].asked)
    own = file_data(upload(client, png()))
    for other in (file_data("/etc/passwd"), file_data("/etc/hostname", url=address), file_data(address), None):
        message = ask_over_http(client, own, other)
        assert not message.get("success"), message
        assert "root:" not in json.dumps(message)
    assert len(page[0].asked) == asked
    assert calls == []


@pytest.fixture
def chromium():
    with open_chromium() as opened:
        yield opened


def test_a_verdict_does_not_outlive_its_images(page, chromium, tmp_path: Path) -> None:
    sizes = {"reference": 40, "query": 41, "next": 42}
    for name, size in sizes.items():
        (tmp_path / f"{name}.png").write_bytes(png(size))
    chromium.get(page[1])

    def drop(place: int, name: str) -> None:
        wait_until(lambda: len(fields()) == 2)
        fields()[place].send_keys(str(tmp_path / f"{name}.png"))
        wait_until(lambda: shown(sizes[name]))

    def fields():
        return chromium.find_elements("css selector", "input[type=file]")

    def shown(width: int) -> bool:
        script = "return [...document.images].some((image) => image.naturalWidth === arguments[0])"
        return bool(chromium.execute_script(script, width))

    def verdict() -> str:
        found = chromium.find_elements("css selector", "#verdict textarea")
        return str(found[0].get_property("value")) if found else ""

    drop(0, "reference")
    drop(-1, "query")
    chromium.find_element("xpath", "//button[normalize-space()='Compare']").click()
    wait_until(lambda: verdict() == "Anomalous (yes), P(yes) 0.88")
    drop(-1, "next")
    wait_until(lambda: verdict() == "")


def wait_until(true) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_is_no_image_is_refused(page, client) -> None:
    asked = len(page[0].asked)
    good = file_data(upload(client, png()))
    for data, name in ((b"GIF89a" + b"\0" * 40, "a.gif"), (b"<svg onload='alert(1)'/>", "a.svg"), (b"text", "a.png")):
        message = ask_over_http(client, good, file_data(upload(client, data, name)))
        assert not message.get("success")
        assert "no readable image, expected PNG, JPEG or WebP" in message["output"]["error"]
    assert len(page[0].asked) == asked


def test_large_uploads_are_refused(client) -> None:
    reply = client.post("/gradio_api/upload", files={"files": ("a.png", b"x" * (2 << 20), "image/png")})
    assert reply.status_code == 413


def test_the_page_asks_nothing_of_the_network(client) -> None:
    reply = client.get("/")
    assert reply.status_code == 200
    policy = reply.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy


def test_a_taken_port_is_an_error_of_one_line(page) -> None:
    port = int(page[1].rpartition(":")[2])
    with (
        pytest.raises(RunError, match="choose another --port"),
        serve(Constant(), host="127.0.0.1", port=port, max_megabytes=1),
    ):
        pass
