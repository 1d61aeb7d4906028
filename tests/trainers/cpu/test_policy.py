"""The sampling policy takes all of the trainer's weights or says which are missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from lad_reasoner.support.errors import RunError, UsageError
from lad_rehearsal.demo.tiny import save_tiny
from lad_rehearsal.verl_cpu.decoding import RolloutSampling
from lad_rehearsal.verl_cpu.encoding import encode_prompts
from lad_rehearsal.verl_cpu.policy import Policy

pytestmark = pytest.mark.frameworks
GREEDY = RolloutSampling(1, 10, temperature=0)


@pytest.fixture(scope="module")
def folder(processor: Any, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_tiny(path, model=model, processor=processor)
    return path


@pytest.fixture
def policy(folder: Path) -> Policy:
    return Policy(path=str(folder), dtype="float32", attention="sdpa", seed=0, max_rows=256)


def weights(model: Any, factor: float = 1.0) -> dict[str, torch.Tensor]:
    """The trainer's state: tied weights under one name."""
    return {name: tensor * factor for name, tensor in model.named_parameters()}


def test_new_weights_change_what_is_sampled(policy: Policy, processor: Any, model: Any, chats: Any) -> None:
    prompts = encode_prompts(processor, chats)
    _, before = policy.generate(prompts, GREEDY)
    policy.load(weights(model, -1.0).items(), version=4)
    version, after = policy.generate(prompts, GREEDY)
    assert version == 4
    assert [response.tokens for response in before] != [response.tokens for response in after]
    policy.load(weights(model).items(), version=5)
    assert policy.generate(prompts, GREEDY) == (5, before)


def test_few_rows_at_once_give_the_same_responses(folder: Path, policy: Policy, processor: Any, chats: Any) -> None:
    prompts = encode_prompts(processor, chats)
    small = Policy(path=str(folder), dtype="float32", attention="sdpa", seed=0, max_rows=1)
    tokens = [[response.tokens for response in each.generate(prompts, GREEDY)[1]] for each in (policy, small)]
    assert tokens[0] == tokens[1]


def test_the_same_seed_samples_the_same(folder: Path, processor: Any, chats: Any) -> None:
    prompts = encode_prompts(processor, chats)
    made = []
    for seed in (1, 1, 2):
        policy = Policy(path=str(folder), dtype="float32", attention="sdpa", seed=seed, max_rows=256)
        made.append(policy.generate(prompts, RolloutSampling(4, 8)))
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_a_missing_weight_is_named(policy: Policy, model: Any) -> None:
    some = weights(model)
    del some["model.language_model.norm.weight"]
    with pytest.raises(RunError, match=r"model\.language_model\.norm\.weight"):
        policy.load(some.items(), version=1)


def test_an_unknown_weight_is_named(policy: Policy) -> None:
    with pytest.raises(RunError, match=r"lora_A"):
        policy.load([("lora_A", torch.zeros(1))], version=1)


def test_another_architecture_is_refused(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    class Other:
        @staticmethod
        def from_pretrained(*_args: object, **_options: object) -> Any:
            made = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
            made.config.model_type = "another"
            return made

    monkeypatch.setattr(transformers, "AutoModelForImageTextToText", Other)
    with pytest.raises(UsageError, match="another"):
        Policy(path=str(tmp_path), dtype="float32", attention="sdpa", seed=0, max_rows=1)
