"""Prompts as the model takes them: a whole step's prompts in one call of the processor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["EncodedPrompts", "encode_prompts"]


@dataclass(frozen=True)
class EncodedPrompts:
    """Prompts of P rows, padded on the left to L tokens.

    Attributes:
        input_ids: ``(P, L)`` token ids; image tokens repeated to the size of their image.
        attention_mask: ``(P, L)``, 0 on padding.
        position_ids: ``(3, P, L)``: time, row and column of each token.
        next_position: ``(P,)``: of the first token of the response.
        image_counts: Images of each prompt.
        vision: All their images one after another: ``pixel_values (patches, values)`` and ``image_grid_thw (images,
            3)``; empty without images. One tensor, because Ray pickles each tensor with all of its memory.
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
        """Return some of the prompts, in memory of their own."""
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

    def positions(self, row: int, response_length: int) -> torch.Tensor:
        """Return time, row and column of each token of a prompt and its response, ``(tokens, 3)``."""
        seen = self.position_ids[:, row, self.attention_mask[row].bool()]
        new = self.next_position[row] + torch.arange(response_length)
        return torch.cat([seen, new.expand(3, -1)], dim=1).T


def encode_prompts(processor: Any, chats: Sequence[Sequence[Mapping[str, Any]]]) -> EncodedPrompts:
    """Encode chats whose images stand in the messages, as ``{"type": "image", "image": PIL image}``.

    Args:
        processor: A processor of Qwen2.5-VL or Qwen3-VL to which verl has bound the model's ``get_rope_index``.
        chats: One list of messages a prompt.
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
    positions, _ = processor.get_rope_index(
        made["input_ids"],
        mm_token_type_ids=made["mm_token_type_ids"],
        image_grid_thw=made.get("image_grid_thw"),
        attention_mask=made["attention_mask"],
    )
    kept = positions.masked_fill(made["attention_mask"].eq(0).unsqueeze(0), -1)
    return EncodedPrompts(
        input_ids=made["input_ids"],
        attention_mask=made["attention_mask"],
        position_ids=positions,
        next_position=kept.amax(dim=(0, 2)) + 1,
        image_counts=[len(some) for some in pictures],
        vision={key: made[key] for key in ("pixel_values", "image_grid_thw") if key in made},
    )


def _pictures(chat: Sequence[Mapping[str, Any]]) -> list[Any]:
    parts = [part for message in chat if not isinstance(message["content"], str) for part in message["content"]]
    return [part["image"] for part in parts if part["type"] == "image"]
