"""Encode all prompts of a step in one call of the processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["EncodedPrompts", "encode_prompts", "prompt_positions"]


@dataclass(frozen=True)
class EncodedPrompts:
    """P prompts, padded on the left to L tokens.

    Attributes:
        input_ids: ``(P, L)`` token ids; each image token is repeated once per merged patch.
        attention_mask: ``(P, L)``, 0 on padding.
        position_ids: ``(3, P, L)``: time, row and column of each token.
        next_position: ``(P,)``: position of the first response token.
        image_counts: Number of images of each prompt.
        vision: All images in order, as ``pixel_values (patches, values)`` and ``image_grid_thw (images, 3)``; empty
            without images. Both are single tensors, because Ray pickles each tensor with all of its memory.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    position_ids: torch.Tensor
    next_position: torch.Tensor
    image_counts: list[int]
    vision: dict[str, torch.Tensor]

    def __len__(self) -> int:
        return len(self.input_ids)

    def select(self, rows: slice) -> EncodedPrompts:
        """Return some of the prompts, copied into their own memory."""
        images = [some for some in self.images()[rows] if some]
        return EncodedPrompts(
            self.input_ids[rows].clone(),
            self.attention_mask[rows].clone(),
            self.position_ids[:, rows].clone(),
            self.next_position[rows].clone(),
            self.image_counts[rows],
            {key: torch.cat([some[key] for some in images]) for key in images[0]} if images else {},
        )

    def images(self) -> list[dict[str, torch.Tensor]]:
        """Return ``vision`` of each prompt."""
        if not self.vision:
            return [{} for _ in self.image_counts]
        grids = self.vision["image_grid_thw"].split(self.image_counts)
        pixels = self.vision["pixel_values"].split([int(grid.prod(dim=1).sum()) for grid in grids])
        return [
            {"pixel_values": patches, "image_grid_thw": grid} if len(grid) else {}
            for patches, grid in zip(pixels, grids, strict=True)
        ]

    def prompt_ids(self, row: int) -> torch.Tensor:
        """Return a prompt's token ids without the padding."""
        return self.input_ids[row][self.attention_mask[row].bool()]


def encode_prompts(processor: Any, chats: Sequence[Sequence[Mapping[str, Any]]]) -> EncodedPrompts:
    """Encode chats, one list of messages per prompt, that contain ``{"type": "image", "image": PIL image}``.

    verl has bound the model's ``get_rope_index`` to the processor, which is Qwen2.5-VL's or Qwen3-VL's.
    """
    texts = processor.apply_chat_template([list(chat) for chat in chats], add_generation_prompt=True, tokenize=False)
    pictures = [_pictures(chat) for chat in chats]
    made = processor(
        text=texts,
        images=[picture for some in pictures for picture in some] or None,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    ids, mask = made["input_ids"], made["attention_mask"]
    positions = prompt_positions(processor, ids, image_grid_thw=made.get("image_grid_thw"), attention_mask=mask)
    kept = positions.masked_fill(mask.eq(0).unsqueeze(0), -1)
    return EncodedPrompts(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        next_position=kept.amax(dim=(0, 2)) + 1,
        image_counts=[len(some) for some in pictures],
        vision={key: made[key] for key in ("pixel_values", "image_grid_thw") if key in made},
    )


def prompt_positions(
    processor: Any,
    input_ids: torch.Tensor,
    *,
    image_grid_thw: torch.Tensor | None,
    attention_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return time, row and column of each token by the model's own rule, ``(3, P, L)``.

    Args:
        processor: As for `encode_prompts`.
        input_ids: ``(P, L)`` token ids.
        image_grid_thw: ``(images, 3)`` of all prompts, in order; None without images.
        attention_mask: ``(P, L)``, 0 on padding; None means no padding.
    """
    positions, _ = processor.get_rope_index(
        input_ids,
        mm_token_type_ids=input_ids.eq(processor.config.image_token_id).long(),
        image_grid_thw=image_grid_thw,
        attention_mask=torch.ones_like(input_ids) if attention_mask is None else attention_mask,
    )
    made: torch.Tensor = positions
    return made


def _pictures(chat: Sequence[Mapping[str, Any]]) -> list[Any]:
    parts = [part for message in chat if not isinstance(message["content"], str) for part in message["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]
