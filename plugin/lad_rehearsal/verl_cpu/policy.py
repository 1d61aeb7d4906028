"""The policy that samples: a copy of the model in the trainer's process, with new weights after each step.

It is a copy because the trainer's model is sharded: sampling from that model would synchronise all trainer processes
for every token.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import torch

from lad_reasoner.support.errors import RunError, UsageError
from lad_rehearsal.verl_cpu.decoding import RolloutSampling, SampledResponse, Vocabulary, generate

if TYPE_CHECKING:
    from lad_rehearsal.verl_cpu.encoding import EncodedPrompts

__all__ = ["FAMILIES", "Policy"]

#: Model types of transformers that the runtime supports; a test compares each with separately computed sequences.
FAMILIES: Final = ("qwen2_5_vl", "qwen3_vl")


class Policy:
    """The sampling model and its weights.

    Args:
        path: Hugging Face folder of the model.
        dtype: Name of a torch dtype.
        attention: Attention implementation: the trainer's, so that their probabilities agree.
        seed: Random seed of the sampler.
        max_rows: Responses sampled at once; this bounds the memory of the key-value cache.

    Raises:
        UsageError: The model type is not one of `FAMILIES`.
    """

    def __init__(self, *, path: str, dtype: str, attention: str, seed: int, max_rows: int) -> None:
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_pretrained(
            path, dtype=getattr(torch, dtype), attn_implementation=attention
        ).eval()
        if model.config.model_type not in FAMILIES:
            problem = f"the CPU rollout does not support model type {model.config.model_type}"
            raise UsageError(problem, where=path, remedy=f"Use one of {', '.join(FAMILIES)}")
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
        """Copy the weights of a global step into the model: name and full tensor of each.

        Raises:
            RunError: A weight is missing or unknown.
        """
        fresh = set()
        for name, tensor in weights:
            if name not in self._weights:
                raise RunError(f"weight update: the policy has no weight {name!r}")
            weight = self._weights[name]
            weight.copy_(tensor)
            fresh.add(weight.data_ptr())  # a tied weight has several names and is sent under one
        if stale := [name for name, weight in self._weights.items() if weight.data_ptr() not in fresh]:
            raise RunError(f"weight update: {len(stale)} weights are missing, such as {stale[0]!r}")
        self._version = self._version if version is None else version

    def generate(self, prompts: EncodedPrompts, sampling: RolloutSampling) -> tuple[int, list[SampledResponse]]:
        """Return the version of the weights, and the responses; the samples of a prompt are adjacent."""
        step = max(1, self._max_rows // sampling.samples)
        responses: list[SampledResponse] = []
        for start in range(0, len(prompts), step):
            some = prompts if len(prompts) <= step else prompts.select(slice(start, start + step))
            responses += generate(self._model, some, sampling, self._vocabulary, self._generator)
        return self._version, responses
