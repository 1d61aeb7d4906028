"""The engine computes the positions of its samples, because verl loses them where all have the same length."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.trainers.cpu.conftest import positions_of

from lad_rehearsal.verl_cpu.encoding import encode_prompts
from lad_rehearsal.verl_cpu.engine import CpuEngine

pytestmark = pytest.mark.frameworks


def jagged(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.nested.as_nested_tensor(tensors, layout=torch.jagged)


@pytest.mark.parametrize("lengths", [(5, 5), (3, 6)], ids=["equally long", "of different lengths"])
def test_positions_follow_from_tokens_and_image_grids(
    processor: Any, model: Any, chats: Any, lengths: tuple[int, int]
) -> None:
    prompts = encode_prompts(processor, chats[:1])
    prompt, images = prompts.prompt_ids(0), prompts.images()[0]
    samples = [torch.cat([prompt, torch.arange(20, 20 + length)]) for length in lengths]
    engine = CpuEngine.__new__(CpuEngine)
    engine.model_config = SimpleNamespace(processor=processor)
    # As verl's agent loop stores them; what verl makes of its own position_ids is not read.
    batch = {
        "input_ids": jagged(samples),
        "prompts": jagged([prompt, prompt]),
        "uid": ["one", "one"],
        "multi_modal_inputs": [images, images],
    }
    grouped = engine.group_by_prompt(batch)
    assert grouped.first == [0]
    start = len(prompt)
    for ids, length in zip(samples, lengths, strict=True):
        expected = positions_of(model, ids, images["image_grid_thw"])[:, 0]
        assert torch.equal(grouped.position_ids[1:, 0, : len(prompt)], expected[:, : len(prompt)])
        assert torch.equal(grouped.position_ids[1:, 0, start : start + length], expected[:, len(prompt) :])
        start += length
