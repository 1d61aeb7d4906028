"""`lad annotate` against a real OpenAI-compatible server with a tiny vision-language model: `transformers serve`.

The demo's base model writes no JSON, so its replies must be kept as unfit, each named. The same model, trained here
for a minute to answer the prompt about sound products in the form asked for, must annotate every image. What it
learned is one reply: the test is about the wire, the server, the schema and the records, not about insight.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lad_datasets.annotate.annotate import annotate_with_model
from lad_datasets.annotate.options import ModelOptions
from lad_datasets.annotate.prompt import build_messages
from lad_datasets.annotate.subjects import Subject
from lad_reasoner.support.findings import Findings

pytestmark = [pytest.mark.slow, pytest.mark.frameworks]

PIXELS = 84 * 84
REPLY = {
    "pairs": [
        {"topic": "detection", "question": "Is it sound?", "answer": "No defect is on the part."},
        {"topic": "description", "question": "How does it look?", "answer": "The part is even and of one colour."},
    ]
}


@pytest.fixture
def subjects(tmp_path: Path) -> list[Subject]:
    found = []
    for number in range(50):
        file = tmp_path / f"{number}.png"
        Image.new("RGB", (84, 84), (4 * number, 120, 200 - 3 * number)).save(file)
        found.append(
            Subject(f"mvtec_ad/pill/test/good/{number:03d}.png", "mvtec_ad", "pill", "good", "good", file, None)
        )
    return found


@pytest.fixture
def base(repository: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(repository / "plugin/lad_rehearsal/demo/base", tmp_path / "base"))


@contextmanager
def serving(model: Path) -> Iterator[str]:
    """Serve a model on a free port; yield the base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [Path(sys.executable).with_name("transformers"), "serve", model, "--device", "cpu", "--port", str(port)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    log = (model.parent / "server.log").open("w")
    running = subprocess.Popen(
        [*map(str, command), "--host", "127.0.0.1"], env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        for _ in range(600):
            if running.poll() is not None:
                pytest.fail(f"the server ended: {Path(log.name).read_text()[-2000:]}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        log.close()


def options(url: str, model: Path, *, max_tokens: int) -> ModelOptions:
    return ModelOptions(
        base_url=url,
        model=str(model),
        key_variable="LAD_API_KEY",
        max_pixels=PIXELS,
        max_tokens=max_tokens,
        attempts=1,
        concurrency=2,
        per_minute=None,
        timeout=300.0,
        tries=2,
        structured="json_schema",
        temperature=0.0,
        backoff=0.1,
        prices=None,
        budget=None,
    )


def teach(model_folder: Path, subjects: list[Subject]) -> None:
    """Train the model, in place, to write ``REPLY`` about any of the images."""
    import torch
    from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(0)
    torch.set_num_threads(1)
    processor: Any = AutoProcessor.from_pretrained(model_folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(model_folder, dtype=torch.float32)
    text = build_messages(subjects[0], max_pixels=PIXELS)[0]["content"][1]["text"]
    content = [{"type": "image"}, {"type": "text", "text": text}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    reply = json.dumps(REPLY, separators=(",", ":")) + "<|im_end|>"
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    recent: deque[float] = deque([1.0], maxlen=8)
    rng = random.Random(0)
    while max(recent) > 0.003:
        images = [Image.open(rng.choice(subjects).image)]
        batch = processor(text=[prompt + reply], images=images, return_tensors="pt")
        asked = processor(text=[prompt], images=images, return_tensors="pt")["input_ids"].shape[1]
        labels = batch["input_ids"].clone()
        labels[:, :asked] = -100
        loss = model(**batch, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent.append(loss.item())
    model.save_pretrained(model_folder)


def test_fifty_images_are_annotated_by_a_model_that_keeps_the_form(
    subjects: list[Subject], base: Path, tmp_path: Path
) -> None:
    teach(base, subjects)
    findings = Findings(quiet=True)
    with serving(base) as url:
        summary = annotate_with_model(subjects, tmp_path / "qa", options(url, base, max_tokens=400), findings)
    assert summary["counts"] == {"images": 50, "pairs": 100}, findings.lines[:3]
    rows = [json.loads(line) for line in (tmp_path / "qa" / "annotations.jsonl").read_text().splitlines()]
    assert {row["answer"] for row in rows} == {pair["answer"] for pair in REPLY["pairs"]}
    answered = [json.loads(line) for line in (tmp_path / "qa" / "records.jsonl").read_text().splitlines()]
    assert all(event["completion_tokens"] > 20 for event in answered if event["event"] == "answered")


def test_what_an_untaught_model_says_is_kept_and_named(subjects: list[Subject], base: Path, tmp_path: Path) -> None:
    findings = Findings(quiet=True)
    with serving(base) as url:
        summary = annotate_with_model(subjects, tmp_path / "qa", options(url, base, max_tokens=16), findings)
    assert summary["counts"] == {"invalid": 50}
    assert len(findings.of("invalid")) == 50
    kept = [json.loads(line) for line in (tmp_path / "qa" / "records.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "answered" and bool(event["text"]) for event in kept) == 50
    assert (tmp_path / "qa" / "annotations.jsonl").read_text() == ""
