"""The endpoint backend against a local server that falters in every way servers do."""

from __future__ import annotations

import base64
import json
import math
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lad_reasoner.inference.backends.load import load_backend
from lad_reasoner.inference.predict import predict
from lad_reasoner.inference.predictions import read_predictions
from lad_reasoner.inference.protocol import BackendOptions, Question
from lad_reasoner.pairs.reader import iter_pairs
from lad_reasoner.support.errors import RunError
from lad_reasoner.task.task import prompt_text

pytestmark = pytest.mark.slow

TOKENS = ["<think>", " one", " missing", " </think>", "<answer>", " yes", " </answer>"]


def completion(tokens: list[str], *, finish: str = "stop", scores: bool = True) -> dict[str, object]:
    alternatives = [(" yes", math.log(0.5)), ("Yes", math.log(0.1)), (" no", math.log(0.2)), (" maybe", -9.0)]
    content = [
        {
            "token": token,
            "logprob": -0.1,
            "bytes": None,
            "top_logprobs": [{"token": text, "logprob": log, "bytes": None} for text, log in alternatives],
        }
        for token in tokens
    ]
    message = {"role": "assistant", "content": "".join(tokens)}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": message,
                "finish_reason": finish,
                "logprobs": {"content": content} if scores else None,
            }
        ],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }


class Server(ThreadingHTTPServer):
    """Answers with what ``reply(number of the request)`` gives: a status with a body, or None to cut the line."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, object]] = []
        self.flying = self.most_flying = 0
        self.lock = threading.Lock()
        self.reply = lambda _number: (200, completion(TOKENS))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            number = len(self.server.requests)
            self.server.flying += 1
            self.server.most_flying = max(self.server.most_flying, self.server.flying)
        time.sleep(0.05)
        found = self.server.reply(number)
        with self.server.lock:
            self.server.flying -= 1
        if found is None:
            self.connection.close()
            return
        data = found[1] if isinstance(found[1], bytes) else json.dumps(found[1]).encode()
        self.send_response(found[0])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Retry-After", "0")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    monkeypatch.setattr("lad_reasoner.inference.backends.openai.BACKOFF", 0.01)
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def options(server: Server, **changes: object) -> BackendOptions:
    url = f"http://127.0.0.1:{server.server_port}/v1"
    return BackendOptions(**({"model": "m", "base_url": url, "batch_size": 4, "timeout": 10.0} | changes))


def test_prompt_images_and_answer_travel_as_they_are(server, make_pairs) -> None:
    pair = next(iter_pairs(make_pairs(5)))
    question = Question(pair.pair_id, prompt_text(pair.problem), pair.images)
    (answer,) = load_backend("openai", options(server)).answer([question])
    assert answer.response == "".join(TOKENS)
    assert answer.score == pytest.approx(0.6 / 0.8)
    assert (answer.score_source, answer.prompt_tokens, answer.response_tokens) == ("answer_token", 11, 7)
    parts = server.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in parts] == ["text", "image_url", "text", "image_url", "text"]
    assert "<image>".join(part["text"] for part in parts if part["type"] == "text") == question.prompt
    sent = [part["image_url"]["url"].split(",")[1] for part in parts if part["type"] == "image_url"]
    assert [base64.b64decode(data) for data in sent] == [image.data for image in pair.images]


def test_a_server_that_falters_loses_nothing_and_is_asked_nothing_twice(server, make_pairs, tmp_path) -> None:
    faults = [(429, {"error": "slow down"}), (500, {"error": "oops"}), None, (503, b"not json")]
    server.reply = lambda number: faults[number // 2 % 4] if number % 2 == 0 else (200, completion(TOKENS))
    data, out = make_pairs(12), tmp_path / "out.jsonl"
    summary = predict(data, load_backend("openai", options(server)), out)
    assert (summary.wanted, summary.written) == (12, 12)
    assert Counter(item.pair_id for item in read_predictions(out)).most_common(1)[0][1] == 1
    assert 2 <= server.most_flying <= 4
    before = len(server.requests)
    assert predict(data, load_backend("openai", options(server)), out).written == 0
    assert len(server.requests) == before
    assert "secret-key" not in out.read_text() + out.with_suffix(".run.json").read_text()


def test_a_refusal_stops_the_run_in_one_line_and_keeps_what_came(server, make_pairs, tmp_path) -> None:
    server.reply = lambda number: (200, completion(TOKENS)) if number <= 6 else (401, {"error": "who are you"})
    out = tmp_path / "out.jsonl"
    with pytest.raises(RunError, match=r"/v1: status 401\. The API key is wrong") as caught:
        predict(make_pairs(12), load_backend("openai", options(server)), out)
    assert "secret-key" not in str(caught.value)
    assert len(read_predictions(out)) == 6


def test_answers_in_flight_when_a_refusal_comes_are_kept(server, make_pairs, tmp_path) -> None:
    def reply(number: int) -> tuple[int, object]:
        if number == 1:
            return 401, {"error": "who are you"}
        time.sleep(0.5)
        return 200, completion(TOKENS)

    server.reply = reply
    with pytest.raises(RunError, match="status 401"):
        predict(make_pairs(12), load_backend("openai", options(server)), tmp_path / "out.jsonl")
    assert (len(server.requests), len(read_predictions(tmp_path / "out.jsonl"))) == (4, 3)


def test_a_server_without_log_probabilities(server, make_pairs) -> None:
    pair = next(iter_pairs(make_pairs(5)))
    question = Question(pair.pair_id, prompt_text(pair.problem), pair.images)
    server.reply = lambda _: (400, {"error": {"message": "logprobs are not supported"}})
    with pytest.raises(RunError, match="--no-scores"):
        list(load_backend("openai", options(server)).answer([question]))
    server.reply = lambda _: (200, completion(TOKENS, scores=False))
    (answer,) = load_backend("openai", options(server, scores=False)).answer([question])
    assert "logprobs" not in server.requests[-1]
    assert (answer.score, answer.score_source) == (None, None)


def test_a_malformed_or_cut_response_is_kept_without_a_score(server, make_pairs) -> None:
    pair = next(iter_pairs(make_pairs(5)))
    server.reply = lambda _: (200, completion(["I", " think", " yes"], finish="length"))
    question = Question(pair.pair_id, prompt_text(pair.problem), pair.images)
    (answer,) = load_backend("openai", options(server)).answer([question])
    assert (answer.response, answer.score, answer.finish_reason) == ("I think yes", None, "length")


def test_a_server_that_ignores_the_template_is_found_out(server, make_pairs) -> None:
    pair = next(iter_pairs(make_pairs(5)))
    question = Question(pair.pair_id, prompt_text(pair.problem), pair.images)
    assert next(load_backend("openai", options(server, structured=True)).answer([question])).score is not None
    assert "regex" in server.requests[-1]["structured_outputs"]
    server.reply = lambda _: (200, completion(["yes"]))
    with pytest.raises(RunError, match="structured_outputs"):
        list(load_backend("openai", options(server, structured=True)).answer([question]))


def test_every_sample_has_its_own_seed_and_images_are_resized_as_in_training(server, make_pairs) -> None:
    from io import BytesIO

    from PIL import Image as Pillow

    pair = next(iter_pairs(make_pairs(5, sizes=((400, 200),))))
    question = Question(pair.pair_id, prompt_text(pair.problem), pair.images, (0, 1, 2))
    backend = load_backend("openai", options(server, temperature=1.0, max_pixels=28 * 28 * 8, min_pixels=28 * 28))
    assert sorted(answer.sample for answer in backend.answer([question])) == [0, 1, 2]
    assert len({request["seed"] for request in server.requests}) == 3
    url = server.requests[0]["messages"][0]["content"][3]["image_url"]["url"]
    assert Pillow.open(BytesIO(base64.b64decode(url.split(",")[1]))).size == (112, 56)
