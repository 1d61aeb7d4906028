"""The policy that samples: a copy of the model in the trainer's process, given new weights after each step.

A copy, because the trainer's own model is sharded over all trainer processes: sampling from it would keep them in
lockstep, token by token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import torch

from lad_reasoner.support.errors import RunError, UsageError
from lad_rehearsal.verl_cpu.decoding import Response, Sampling, Vocabulary, generate

if TYPE_CHECKING:
    from lad_rehearsal.verl_cpu.encoding import EncodedPrompts

__all__ = ["FAMILIES", "Policy"]

#: transformers' model types that the runtime samples from; a test compares each with sequences computed one by one.
FAMILIES: Final = ("qwen2_5_vl", "qwen3_vl")


class Policy:
    """Holds the weights and samples from them.

    Args:
        path: Hugging Face folder of the model.
        dtype: Name of a torch dtype.
        attention: Attention implementation; the trainer's, so that their probabilities agree.
        seed: Of the sampler.
        max_rows: Responses sampled at once; bounds the memory of the key-value cache.

    Raises:
        UsageError: The model is of none of the `FAMILIES`.
    """

    def __init__(self, *, path: str, dtype: str, attention: str, seed: int, max_rows: int) -> None:
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_pretrained(
            path, dtype=getattr(torch, dtype), attn_implementation=attention
        ).eval()
        if model.config.model_type not in FAMILIES:
            found = f"a model of type {model.config.model_type}"
            raise UsageError(path, found=found, expected=" or ".join(FAMILIES))
        self._model = model
        self._weights = dict(model.named_parameters(remove_duplicate=False))
        self._generator = torch.Generator().manual_seed(seed)
        self._max_rows = max_rows
        self._version = 0
        end = model.generation_config.eos_token_id
        self._vocabulary = Vocabulary(
            end=torch.tensor(end if isinstance(end, list) else [end]),
            never=torch.tensor([model.config.image_token_id, model.config.video_token_id]),
        )

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def load(self, weights: Iterable[tuple[str, torch.Tensor]], *, version: int | None) -> None:
        """Take new weights, one by one.

        Args:
            weights: Name and whole tensor of each.
            version: The trainer's global step.

        Raises:
            RunError: A weight is missing, or the model has none of that name.
        """
        fresh = set()
        for name, tensor in weights:
            if name not in self._weights:
                raise RunError("weight update", found=f"weight {name!r}", expected="a name that the policy has")
            weight = self._weights[name]
            weight.copy_(tensor)
            fresh.add(weight.data_ptr())  # a tied weight goes by several names and comes under one
        stale = [name for name, weight in self._weights.items() if weight.data_ptr() not in fresh]
        if stale:
            raise RunError("weight update", found=f"{len(stale)} missing, such as {stale[0]!r}", expected="all")
        self._version = self._version if version is None else version

    def generate(self, prompts: EncodedPrompts, sampling: Sampling) -> tuple[int, list[Response]]:
        """Return the version of the weights, and the responses, a prompt's samples side by side."""
        step = max(1, self._max_rows // sampling.samples)
        responses: list[Response] = []
        for start in range(0, len(prompts), step):
            some = prompts if len(prompts) <= step else prompts.select(slice(start, start + step))
            responses += generate(self._model, some, sampling, self._vocabulary, self._generator)
        return self._version, responses
