"""A Qwen2.5-VL of random weights, small enough to run in a test, and chats about drawn pictures."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("verl")

from lad_rehearsal.demo.tiny import build_model, build_processor  # noqa: E402


@pytest.fixture(scope="package")
def processor() -> Any:
    """A processor as verl makes it: with the model's `get_rope_index` bound to it."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLModel

    made = build_processor(["all parts are there", "a part is missing"])
    made.config = build_model(made.tokenizer).config
    made.get_rope_index = Qwen2_5_VLModel.get_rope_index.__get__(made)
    made.get_vision_position_ids = Qwen2_5_VLModel.get_vision_position_ids.__get__(made)
    return made


@pytest.fixture(scope="package")
def model(processor: Any) -> Any:
    """The model, its layers and logits enlarged: as drawn, all tokens are about equally likely, which hides faults."""
    made = build_model(processor.tokenizer, seed=1).eval()
    with torch.no_grad():
        for name, weight in made.model.language_model.named_parameters():
            weight.mul_(4 if name.endswith("proj.weight") or name == "norm.weight" else 1)
    return made


def chat(text: str, *colours: str, size: tuple[int, int] = (84, 84)) -> list[dict[str, Any]]:
    """One user's turn: an image of each colour, then the text."""
    images = [{"type": "image", "image": Image.new("RGB", size, colour)} for colour in colours]
    return [{"role": "user", "content": [*images, {"type": "text", "text": text}]}]


@pytest.fixture(scope="package")
def chats() -> list[list[dict[str, Any]]]:
    """Prompts of different lengths; the last has images of another size."""
    return [
        chat("Find any anomaly", "red", "blue"),
        chat("Can you find any anomaly in the query image compared to the reference?", "white", "green"),
        chat("yes or no", "black", "gray", size=(56, 84)),
    ]


def positions_of(model: Any, ids: torch.Tensor, grids: torch.Tensor | None) -> torch.Tensor:
    """Time, row and column of each token of one sequence, ``(3, 1, tokens)``, by the model's own rule."""
    kinds = ids.eq(model.config.image_token_id).long().unsqueeze(0)
    mask = torch.ones_like(kinds)
    made, _ = model.model.get_rope_index(
        ids.unsqueeze(0), mm_token_type_ids=kinds, image_grid_thw=grids, attention_mask=mask
    )
    return made
