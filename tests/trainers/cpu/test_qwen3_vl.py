"""The runtime's sampler on Qwen3-VL, which adds what earlier vision layers saw to the first language layers."""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from tests.trainers.cpu.conftest import positions_of

from lad_rehearsal.rehearse.tiny_model import make_model
from lad_rehearsal.verl_cpu.decoding import RolloutSampling, Vocabulary, generate
from lad_rehearsal.verl_cpu.encoding import EncodedPrompts, encode_prompts
from lad_rehearsal.verl_cpu.policy import FAMILIES

pytestmark = pytest.mark.frameworks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("qwen3") / "model"
    make_model("qwen3_vl", path)
    return path


@pytest.fixture(scope="module")
def qwen3(folder: Path) -> Any:
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    assert model.config.model_type in FAMILIES
    with torch.no_grad():  # as drawn, what the pictures add is too little to be seen
        for name, weight in model.named_parameters():
            weight.mul_(6 if name.endswith(("proj.weight", "norm.weight", "fc1.weight", "fc2.weight")) else 1)
    return model


@pytest.fixture(scope="module")
def prompts(folder: Path, qwen3: Any, chats: Any) -> EncodedPrompts:
    from transformers import AutoProcessor
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLModel

    processor = AutoProcessor.from_pretrained(folder)
    processor.config = qwen3.config
    for name in ("get_rope_index", "get_vision_position_ids"):  # as verl binds them
        setattr(processor, name, MethodType(getattr(Qwen3VLModel, name), processor))
    return encode_prompts(processor, chats)


def log_probs(model: Any, prompts: EncodedPrompts, row: int, tokens: list[int]) -> torch.Tensor:
    """One ordinary forward pass over prompt and response."""
    ids = torch.cat([prompts.prompt_ids(row), torch.tensor(tokens)]).unsqueeze(0)
    positions = positions_of(model, ids[0], prompts.images()[row].get("image_grid_thw"))
    with torch.no_grad():
        logits = model(input_ids=ids, position_ids=positions, **prompts.images()[row]).logits[0]
    return logits[-len(tokens) - 1 : -1].log_softmax(dim=-1)[range(len(tokens)), tokens]


def test_log_probs_are_those_of_a_full_forward_pass(qwen3: Any, prompts: EncodedPrompts) -> None:
    never = torch.tensor([qwen3.config.image_token_id, qwen3.config.video_token_id])
    vocabulary = Vocabulary(end=torch.tensor(qwen3.generation_config.eos_token_id), never=never)
    responses = generate(qwen3, prompts, RolloutSampling(4, 12), vocabulary, torch.Generator().manual_seed(3))
    assert len({tuple(response.tokens) for response in responses}) > 3
    for number, response in enumerate(responses):
        expected = log_probs(qwen3, prompts, number // 4, response.tokens)
        torch.testing.assert_close(torch.tensor(response.log_probs), expected, atol=1e-4, rtol=1e-4)
