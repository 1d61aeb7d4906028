"""The local page, over real HTTP: it answers, and it gives nothing of the host away."""

from __future__ import annotations

import io
import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from tests.chromium import open_chromium

from lad_reasoner.inference.ask import Verdict
from lad_reasoner.inference.predictions import Sampling
from lad_reasoner.inference.protocol import Answer, Question
from lad_reasoner.support.errors import RunError

pytest.importorskip("gradio", reason="the page needs gradio (extra serve)")
httpx = pytest.importorskip("httpx", reason="these tests ask over HTTP")

from lad_reasoner.inference.serve import _describe, serve  # noqa: E402

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


def comparison(client) -> dict:
    return next(item for item in client.get("/config").json()["dependencies"] if item["api_name"] == "compare")


def ask_over_http(client, *images: object) -> dict:
    """Put a question into the queue as a browser does, and return the message that ends it."""
    dependency = comparison(client)
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
    verdict, reasoning, response, table = message["output"]["data"]
    assert "<h2>Anomalous</h2>" in verdict
    assert "P(yes) = 0.88" in verdict
    assert table["data"][0][1:5] == ["a.png", "b.png", "Anomalous", "0.875"], table
    assert reasoning == "<img src=x onerror=alert(1)> a pin is missing"
    assert response == SAID
    assert [picture.data for picture in page[0].asked[-1].images] == [image, image]  # the bytes as they came


def test_what_the_model_says_is_shown_in_plain_text_components(client) -> None:
    """The verdict alone is HTML, of the page's own words; the history's cells are strings, never markup."""
    components = {item["id"]: item for item in client.get("/config").json()["components"]}
    shown = [components[place] for place in comparison(client)["outputs"]]
    assert [item["type"] for item in shown] == ["html", "textbox", "textbox", "dataframe"]
    assert set(shown[3]["props"]["datatype"]) <= {"str"} or shown[3]["props"]["datatype"] == "str"
    image = file_data(upload(client, png()))
    assert "onerror" not in ask_over_http(client, image, image)["output"]["data"][0]


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
        assert message.get("refused") == 403 or "Not answered" in message["output"]["data"][0], message
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
        found = chromium.find_elements("css selector", "#verdict h2")
        return str(found[0].text) if found else ""

    drop(0, "reference")
    drop(-1, "query")
    chromium.find_element("xpath", "//button[normalize-space()='Compare']").click()
    wait_until(lambda: verdict() == "Anomalous")
    drop(-1, "next")
    wait_until(lambda: verdict() == "")


@pytest.mark.parametrize(("form", "announced"), [("HEIF", True), ("TIFF", True), ("PNG", False)])
def test_a_photo_that_the_browser_may_not_show_is_announced(page, chromium, tmp_path, form, announced) -> None:
    from PIL import Image

    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    photo = tmp_path / {"HEIF": "a.heic", "TIFF": "a.TIF", "PNG": "heic.png"}[form]
    Image.new("RGB", (64, 64), "teal").save(photo, form)
    chromium.get(page[1])
    wait_until(lambda: len(chromium.find_elements("css selector", "input[type=file]")) == 2)
    chromium.find_element("css selector", "input[type=file]").send_keys(str(photo))
    wait_until(lambda: chromium.find_elements("css selector", "img[src*='file=']"))
    told = "compared all the same"
    if announced:
        wait_until(lambda: told in chromium.find_element("css selector", "#verdict").text)
    else:
        time.sleep(0.5)
        assert told not in chromium.find_element("css selector", "#verdict").text


def test_a_response_that_was_cut_off_is_announced() -> None:
    whole = Verdict(None, "", 0.5, "forced", False, "", 1.0)
    assert "cut off at --max-new-tokens" not in _describe(whole)
    assert "cut off at --max-new-tokens" in _describe(replace(whole, cut=True))


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
        verdict = message["output"]["data"][0]
        assert "no readable image: no known image format (of PNG, JPEG, WEBP, BMP, TIFF" in verdict
        assert "Accepted: PNG, JPEG, WEBP, BMP, TIFF" in verdict
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
        pytest.raises(
            RunError, match=rf"^127\.0\.0\.1:{port}: the port is taken\. Choose another --host or --port\.$"
        ),
        serve(Constant(), host="127.0.0.1", port=port, max_megabytes=1),
    ):
        pass


def test_a_foreign_address_is_an_error_of_one_line() -> None:
    with (
        pytest.raises(RunError, match=r"^192\.0\.2\.1:7860: cannot listen: .+\. Choose another --host or --port\.$"),
        serve(Constant(), host="192.0.2.1", port=7860, max_megabytes=1),
    ):
        pass


@pytest.mark.parametrize(
    "name", ["a\0b.png", "x" * 5000 + ".png", "../../etc/passwd", "\x1b[2J.png", ".", "con", "a/b.png"]
)
def test_a_bad_upload_name_shows_nothing_of_the_host(page, client, name, capfd) -> None:
    boundary = "b0undary"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
    body = head.encode() + b"Content-Type: image/png\r\n\r\n" + png() + f"\r\n--{boundary}--\r\n".encode()
    reply = client.post(
        "/gradio_api/upload", content=body, headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    assert reply.status_code < 500
    shown = reply.text + "".join(capfd.readouterr())
    assert "Traceback" not in shown
    assert "site-packages" not in shown
    if reply.status_code == 200:
        image = file_data(reply.json()[0])
        assert "Anomalous" in ask_over_http(client, image, image)["output"]["data"][0]


@pytest.mark.parametrize("body", [b"", b"--", b"{", b"\xff" * 100, b"[" * 100_000])
@pytest.mark.parametrize("path", ["upload", "queue/join", "run/predict", "cancel", "reset"])
def test_a_malformed_request_shows_nothing_of_the_host(client, path, body, capfd) -> None:
    kind = "multipart/form-data; boundary=x" if path == "upload" else "application/json"
    reply = client.post(f"/gradio_api/{path}", content=body, headers={"Content-Type": kind})
    shown = reply.text + "".join(capfd.readouterr())
    assert reply.status_code >= 200
    assert "Traceback" not in shown
    assert "site-packages" not in shown


def test_many_files_in_one_upload_are_refused(client) -> None:
    files = [("files", (f"{index}.png", b"x" * 900_000, "image/png")) for index in range(5)]
    assert client.post("/gradio_api/upload", files=files).status_code == 413


def test_the_upload_folder_has_a_limit(tmp_path: Path) -> None:
    import asyncio

    from lad_reasoner.inference.serve_guard import RequestGuard

    with (tmp_path / "large").open("wb") as file:
        file.truncate(51_000)
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload", "headers": [(b"host", b"localhost")]}
    guard = RequestGuard(None, folder=tmp_path, host="127.0.0.1", max_bytes=1000)
    asyncio.run(guard(scope, None, send))
    assert sent[0]["status"] == 507


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:7860", "", "evil@127.0.0.1.x"]
)
def test_a_foreign_host_name_is_refused(client, host) -> None:
    for path in ("/", "/config", "/gradio_api/queue/data?session_hash=x"):
        assert client.get(path, headers={"Host": host}).status_code in {400, 403}


def test_our_own_names_and_addresses_are_allowed(client) -> None:
    for host in ("localhost:7860", "127.0.0.1", "[::1]:7860", "192.168.1.5:7860", socket.gethostname()):
        assert client.get("/config", headers={"Host": host}).status_code == 200


def test_requests_of_other_sites_are_refused(client) -> None:
    for origin in ("https://evil.example", "null"):
        reply = client.post("/gradio_api/upload", files={"files": ("a.png", png())}, headers={"Origin": origin})
        assert reply.status_code == 403


@pytest.mark.parametrize(
    "path", ["/gradio_api/vibe-edit", "/monitoring", "/gradio_api/runs", "/gradio_api/run-history/records", "/login"]
)
def test_routes_that_the_page_does_not_need_are_closed(client, path) -> None:
    assert client.get(path).status_code == 403


def test_folders_of_killed_servers_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    from lad_reasoner.inference.serve_guard import upload_folder

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = (
        "import os, signal, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from lad_reasoner.inference.serve_guard import upload_folder\n"
        "with upload_folder() as folder:\n"
        "    (folder / 'a.png').write_bytes(b'x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = tmp_path.iterdir()
    with upload_folder() as running:
        assert not left.exists()
        with upload_folder() as other:
            assert running.exists()  # a server that runs keeps its own
        assert not other.exists()
    assert list(tmp_path.iterdir()) == []
