"""A step's prompts in one call of the processor are what each would be by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lad_rehearsal.verl_cpu.encoding import encode_prompts
from lad_rehearsal.verl_cpu.grouping import group_samples

pytestmark = pytest.mark.frameworks


def alone(processor: Any, chat: Any) -> Any:
    text = processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    images = [part["image"] for part in chat[0]["content"] if part["type"] == "image"]
    return processor(text=[text], images=images or None, return_tensors="pt")


def test_each_prompt_is_encoded_as_if_alone(processor: Any, chats: Any) -> None:
    together = encode_prompts(processor, chats)
    for row, (chat, images) in enumerate(zip(chats, together.images(), strict=True)):
        made = alone(processor, chat)
        assert together.prompt_ids(row).tolist() == made["input_ids"][0].tolist()
        assert torch.equal(images["pixel_values"], made["pixel_values"])
        assert images["image_grid_thw"].tolist() == made["image_grid_thw"].tolist()


def test_positions_of_prompt_and_response_are_the_models_own(processor: Any, chats: Any) -> None:
    together = encode_prompts(processor, chats)
    for row, chat in enumerate(chats):
        made = alone(processor, chat)
        response = torch.full((1, 7), processor.tokenizer.convert_tokens_to_ids("."))
        ids = torch.cat([made["input_ids"], response], dim=1)
        kinds = torch.cat([made["mm_token_type_ids"], torch.zeros_like(response)], dim=1)
        expected, _ = processor.get_rope_index(
            ids, mm_token_type_ids=kinds, image_grid_thw=made["image_grid_thw"], attention_mask=torch.ones_like(ids)
        )
        length = together.attention_mask[row].sum()
        grouped = group_samples([ids[0]], [[0]], [together.position_ids[:, row, -length:]], prompt_lengths=[length])
        assert torch.equal(grouped.position_ids[1:], expected)
        assert grouped.position_ids[0, 0].tolist() == list(range(ids.shape[1]))


def test_some_prompts_keep_their_images_and_no_others_memory(processor: Any, chats: Any) -> None:
    together = encode_prompts(processor, chats)
    some = together.select(slice(1, 3))
    assert len(some) == 2
    for mine, theirs in zip(some.images(), together.images()[1:], strict=True):
        assert torch.equal(mine["pixel_values"], theirs["pixel_values"])
    # Ray pickles a tensor with all the memory that it is a view of.
    pixels = some.vision["pixel_values"]
    assert pixels.untyped_storage().nbytes() == pixels.nbytes
    assert some.input_ids.untyped_storage().nbytes() == some.input_ids.nbytes


def test_prompts_without_images(processor: Any) -> None:
    text_only = [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in ("yes", "yes or no")]
    encoded = encode_prompts(processor, text_only)
    assert encoded.vision == {}
    assert encoded.images() == [{}, {}]
    assert encoded.next_position.tolist() == encoded.attention_mask.sum(dim=1).tolist()


def test_prompts_with_and_without_images_together(processor: Any, chats: Any) -> None:
    mixed = encode_prompts(processor, [chats[0], [{"role": "user", "content": [{"type": "text", "text": "yes"}]}]])
    first, second = mixed.images()
    assert len(first["image_grid_thw"]) == 2
    assert second == {}
