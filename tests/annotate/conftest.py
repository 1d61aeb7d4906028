"""Small trees in the real layouts, MMAD's files about them, and an endpoint that misbehaves on demand."""

from __future__ import annotations

import contextlib
import json
import random
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image, ImageDraw


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts a browser takes seconds."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


def tiny_png(number: int, *, side: int = 8) -> bytes:
    """Return a grey PNG whose pixels hold a number, so that no two files are equal."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + number.to_bytes(4, "big").ljust(side, b"\x80")
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress(row * side, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _save(path: Path, number: int, *, box: tuple[int, int, int, int] | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = random.Random(number)
    image = Image.new("RGB", (84, 84), tuple(rng.randrange(60, 200) for _ in range(3)))
    ImageDraw.Draw(image).ellipse((12, 12, 72, 72), fill=tuple(rng.randrange(256) for _ in range(3)))
    if box:
        ImageDraw.Draw(image).rectangle(box, fill=(250, 250, 250))
    image.save(path, quality=95)


def _save_mask(path: Path, box: tuple[int, int, int, int], value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.new("L", (84, 84))
    ImageDraw.Draw(mask).rectangle(box, fill=value)
    mask.save(path)


class Trees:
    """MVTec AD and VisA trees of 28 test images, with MMAD's two files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mvtec, self.visa, self.mmad = folder / "mvtec", folder / "visa", folder / "mmad"
        self._draw_mvtec()
        self._draw_visa()
        self.write_mmad(self.default_mmad())
        knowledge = {"MVTec": {"bottle": {"broken_large": "<Broken> Large pieces of glass are missing at the rim."}}}
        (self.mmad / "domain_knowledge.json").write_text(json.dumps(knowledge))

    @property
    def roots(self) -> dict[str, Path]:
        return {"mvtec_ad": self.mvtec, "visa": self.visa}

    def arguments(self) -> list[str]:
        return ["--mvtec", str(self.mvtec), "--visa", str(self.visa), "--mmad", str(self.mmad)]

    def write_mmad(self, entries: dict[str, object]) -> None:
        self.mmad.mkdir(exist_ok=True)
        (self.mmad / "mmad.json").write_text(json.dumps(entries))

    def default_mmad(self) -> dict[str, object]:
        return {
            f"DS-MVTec/bottle/image/broken_large/{index:03d}.png": {
                "image_path": f"image/broken_large/{index:03d}.png",
                "mask_path": f"rbg_mask/broken_large/{index:03d}_rbg_mask.png",
                "conversation": [
                    {
                        "Question": "Is there any defect in the object?",
                        "Answer": "A",
                        "Options": {"A": "Yes.", "B": "No."},
                        "type": "Anomaly Detection",
                        "annotation": True,
                    },
                    {
                        "Question": "What does the defect look like?",
                        "Answer": "B",
                        "Options": {"A": "A stain.", "B": "A missing piece of glass at the rim"},
                        "type": "Defect Description",
                    },
                ],
                "similar_templates": ["MVTec-AD/bottle/train/good/000.png"],
                "random_templates": ["MVTec-AD/bottle/train/good/001.png"],
            }
            for index in range(4)
        }

    def _draw_mvtec(self) -> None:
        number = 0
        for category, defects in {"bottle": ["broken_large"], "cable": ["cable_swap", "bent_wire"]}.items():
            _save(self.mvtec / category / "train/good/000.png", number := number + 1)
            for defect in ["good", *defects]:
                for index in range(4):
                    box = None if defect == "good" else (2 + 20 * index, 2, 12 + 20 * index, 12)
                    _save(self.mvtec / category / "test" / defect / f"{index:03d}.png", number := number + 1, box=box)
                    if box:
                        _save_mask(self.mvtec / category / "ground_truth" / defect / f"{index:03d}_mask.png", box, 255)

    def _draw_visa(self) -> None:
        rows, split = ["image,label,mask"], ["object,split,label,image,mask"]
        for index in range(5):
            image = f"candle/Data/Images/Normal/{index:04d}.JPG"
            _save(self.visa / image, 500 + index)
            rows.append(f"{image},normal,")
            split.append(f"candle,{'train' if index == 0 else 'test'},normal,{image},")
        for index in range(4):
            image, mask = f"candle/Data/Images/Anomaly/{index:03d}.JPG", f"candle/Data/Masks/Anomaly/{index:03d}.png"
            _save(self.visa / image, 600 + index, box=(40, 60, 50, 70))
            _save_mask(self.visa / mask, (40, 60, 50, 70), 3)
            rows.append(f'{image},"foreign particals on candle",{mask}')
            split.append(f"candle,test,anomaly,{image},{mask}")
        (self.visa / "candle" / "image_anno.csv").write_text("\n".join(rows) + "\n")
        (self.visa / "split_csv").mkdir()
        (self.visa / "split_csv" / "1cls.csv").write_text("\n".join(split) + "\n")


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    return Trees(tmp_path / "data")


def good_reply(prompt: str) -> str:
    """Return a fit reply to a prompt: what a careful model might write."""
    anomalous = "shows a defect" in prompt
    answers = {
        "detection": ("Is there a defect?", f"{'Yes' if anomalous else 'No'}, as far as the surface can be seen."),
        "description": ("What does it look like?", "The part is round and of one colour on a plain background."),
        "localization": ("Where is the defect?", "A bright square stands in the upper part of the round object."),
        "analysis": (
            "What is wrong here?",
            "A bright patch breaks the even surface, as if a label had been left on it.",
        ),
    }
    asked = [topic for topic in answers if f"\n- {topic}: " in prompt]
    pairs = [{"topic": topic, "question": answers[topic][0], "answer": answers[topic][1]} for topic in asked]
    return json.dumps({"pairs": pairs})


class Server:
    """An OpenAI-compatible endpoint whose manners a test chooses.

    ``behave`` gets the idempotency key and how often it has been asked, and names what to do. ``billed`` counts the
    replies that were worked out, by key: a key that was answered before is answered again from memory, for nothing.
    """

    def __init__(self) -> None:
        self.behave: Callable[[str, int], str] = lambda key, times: "ok"
        self.raw: Callable[[str], tuple[int, bytes, dict[str, str]]] = lambda key: (200, b"", {})
        self.delay = 0.0
        self.asked: Counter[str] = Counter()
        self.billed: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, object]] = []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"owner": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client was killed
            super().handle()

    def do_POST(self) -> None:
        owner = self.owner
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if len(sent) < int(self.headers["Content-Length"]):
            return
        body = json.loads(sent)
        key = self.headers.get("Idempotency-Key", "")
        with owner.lock:
            owner.asked[key] += 1
            times = owner.asked[key]
            owner.headers.append(dict(self.headers))
            if len(owner.bodies) < 50:
                owner.bodies.append(body)
            owner.in_flight += 1
            owner.most_in_flight = max(owner.most_in_flight, owner.in_flight)
        try:
            time.sleep(owner.delay)
            getattr(self, f"_{owner.behave(key, times)}")(key, body["messages"][0]["content"][1]["text"])
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with owner.lock:
                owner.in_flight -= 1

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _complete(self, key: str, text: str | None, **message: object) -> None:
        finish = message.pop("finish_reason", "stop")
        value = {
            "choices": [{"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}],
            "usage": {"prompt_tokens": 400, "completion_tokens": 100},
        }
        with self.owner.lock:
            self.owner.billed[key] = 1
        self._send(200, json.dumps(value).encode())
        with self.owner.lock:
            self.owner.delivered[key] += 1

    def _raw(self, key: str, prompt: str) -> None:
        status, body, headers = self.owner.raw(key)
        if body == b"HEADERS":
            body = json.dumps({"error": {"message": str(dict(self.headers))}}).encode()
        self._send(status, body, **headers)

    def _ok(self, key: str, prompt: str) -> None:
        self._complete(key, good_reply(prompt))

    def _fenced(self, key: str, prompt: str) -> None:
        self._complete(key, f"```json\n{good_reply(prompt)}\n```")

    def _busy(self, key: str, prompt: str) -> None:
        self._send(429, b'{"error": {"message": "slow down"}}', Retry_After="0.05")

    def _broken(self, key: str, prompt: str) -> None:
        self._send(500, b"<html>oops</html>", Content_Type="text/html")

    def _hang(self, key: str, prompt: str) -> None:
        time.sleep(1.5)

    def _drip(self, key: str, prompt: str) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        for _ in range(20):
            self.wfile.write(b" ")
            self.wfile.flush()
            time.sleep(0.1)

    def _cut(self, key: str, prompt: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "5000")
        self.end_headers()
        self.wfile.write(b'{"choices": [{"mess')
        self.wfile.flush()
        self.close_connection = True

    def _no_json(self, key: str, prompt: str) -> None:
        self._send(200, b"{'choices': nothing}")

    def _prose(self, key: str, prompt: str) -> None:
        self._complete(key, "Sure! Here are some questions about your image.")

    def _wrong_schema(self, key: str, prompt: str) -> None:
        self._complete(key, json.dumps({"questions": ["Is it broken?"]}))

    def _double(self, key: str, prompt: str) -> None:
        pairs = json.loads(good_reply(prompt))["pairs"]
        self._complete(key, json.dumps({"pairs": [pairs[0]] * len(pairs)}))

    def _huge(self, key: str, prompt: str) -> None:
        self._complete(key, "x" * (5 << 18))

    def _refuse(self, key: str, prompt: str) -> None:
        self._complete(key, None, refusal="I cannot help with that.")

    def _filter(self, key: str, prompt: str) -> None:
        self._complete(key, "", finish_reason="content_filter")

    def _cut_short(self, key: str, prompt: str) -> None:
        self._complete(key, good_reply(prompt)[:40], finish_reason="length")

    def _reject(self, key: str, prompt: str) -> None:
        self._send(400, b'{"error": {"message": "response_format is not supported"}}')

    def _unauthorized(self, key: str, prompt: str) -> None:
        given = self.headers["Authorization"]
        self._send(401, json.dumps({"error": {"message": f"Incorrect API key provided: {given}"}}).encode())

    def _echo(self, key: str, prompt: str) -> None:
        self._complete(key, f"You sent {self.headers['Authorization']}")

    def _out_of_money(self, key: str, prompt: str) -> None:
        self._send(429, b'{"error": {"message": "pay first", "code": "insufficient_quota"}}')


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def make_png() -> Callable[[int], bytes]:
    return tiny_png
