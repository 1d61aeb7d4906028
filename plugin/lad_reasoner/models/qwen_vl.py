"""Image tokens and the language model's forward, for Qwen2-VL, Qwen2.5-VL and Qwen3-VL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["expand_image_tokens", "run_language_model"]


def expand_image_tokens(
    ids: Sequence[int], grids: Sequence[Sequence[int]], *, image_token: int, merge_size: int
) -> list[int]:
    """Return token ids in which each image token is repeated once per merged patch of its image.

    Args:
        ids: Token ids with one image token per image.
        grids: Frames, rows and columns of patches of each image, in order.
        image_token: Id of the image token.
        merge_size: Patches per merged patch along each side.

    Example:
        >>> from lad_reasoner.models.qwen_vl import expand_image_tokens
        >>> expand_image_tokens([1, 9, 2], [(1, 4, 4)], image_token=9, merge_size=2)
        [1, 9, 9, 9, 9, 2]
    """
    counts = iter([frames * rows * columns // merge_size**2 for frames, rows, columns in grids])
    return [same for token in ids for same in [token] * (next(counts) if token == image_token else 1)]


def run_language_model(
    network: Any, cache: Any, embeddings: torch.Tensor, *, mask: torch.Tensor, positions: torch.Tensor, **deep: Any
) -> torch.Tensor:
    """Run only the language model, and return its hidden states, ``(rows, length, hidden)``.

    The model around it would embed images again, and verl replaces its forward in the trainer's process.

    Args:
        network: A ``Qwen2VLForConditionalGeneration``, or that of Qwen2.5-VL or Qwen3-VL.
        cache: Keys and values of earlier tokens; it is extended.
        embeddings: ``(rows, length, hidden)``.
        mask: Which cached and new tokens are attended to.
        positions: ``(3, rows, length)``: time, row and column.
        **deep: Features of earlier vision layers, for Qwen3-VL.
    """
    output = network.model.language_model(
        inputs_embeds=embeddings,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        **deep,
    )
    hidden: torch.Tensor = output.last_hidden_state
    return hidden
