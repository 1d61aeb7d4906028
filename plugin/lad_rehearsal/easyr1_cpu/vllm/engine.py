"""vLLM's engine as EasyR1 uses it, with a model of transformers: for tiny models on a CPU, correct but slow."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from lad_reasoner.models.qwen_vl import expand_image_tokens
from lad_reasoner.support.errors import RunError

from .weights import Weights

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams"]


@dataclass
class SamplingParams:
    """Sampling parameters, named as in vLLM.

    Attributes:
        n: Responses per prompt.
        temperature: 0 selects the most likely token.
        top_p: Sample from the most likely tokens that together reach this probability.
        top_k: Sample from this many most likely tokens; 0 or less keeps all.
        seed: Random seed; None uses torch's own generator.
        max_tokens: Maximum length of a response.
        ignore_eos: Whether a response continues after the end token.
        detokenize: Not read, because EasyR1 decodes itself.
        logit_bias: Token id to the value added to its logit.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    max_tokens: int = 16
    ignore_eos: bool = False
    detokenize: bool = True
    logit_bias: Mapping[int, float] | None = None


@dataclass(frozen=True)
class CompletionOutput:
    """One response: its token ids, including the end token if there is one."""

    index: int
    token_ids: list[int]


@dataclass(frozen=True)
class RequestOutput:
    """The responses to one prompt."""

    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    """The engine.

    Args:
        model: A Hugging Face folder.
        dtype: Name of a torch dtype.
        max_model_len: Maximum length of prompt and response together, in tokens.
        tensor_parallel_size: Must be 1.
        limit_mm_per_prompt: Maximum number of images per prompt; None sets no limit.
        enable_lora: Whether the trainer sends adapters instead of weights.
        _: Other options of vLLM's engine, which are ignored, ``trust_remote_code`` too.

    Raises:
        RunError: tensor_parallel_size is not 1.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str = "float32",
        max_model_len: int | None = None,
        tensor_parallel_size: int = 1,
        limit_mm_per_prompt: Mapping[str, int] | None = None,
        enable_lora: bool = False,
        **_: Any,
    ) -> None:
        if tensor_parallel_size != 1:
            raise RunError(f"a rehearsal cannot split a model over {tensor_parallel_size} ranks")
        torch.set_num_threads(os.cpu_count() or 1)  # trainer and rollout alternate in this process
        self._processor = AutoProcessor.from_pretrained(model, trust_remote_code=False)
        self._model = AutoModelForImageTextToText.from_pretrained(
            model, dtype=getattr(torch, dtype), attn_implementation="sdpa", trust_remote_code=False
        ).eval()
        self._weights = Weights(self._model)
        self._longest = max_model_len
        self._most = dict(limit_mm_per_prompt or {})
        self._adapter = 0
        self._calls = 0
        self.llm_engine = SimpleNamespace(add_lora=self._add_lora, list_loras=self._list_loras)
        # The attributes through which EasyR1 reaches the model.
        runner = SimpleNamespace(model=self._weights)
        worker = SimpleNamespace(model_runner=runner)
        self.llm_engine.model_executor = SimpleNamespace(driver_worker=SimpleNamespace(worker=worker))
        if enable_lora:
            self._weights.keep_base()

    def sleep(self, level: int = 1) -> None:
        """Do nothing: there is no GPU memory to free."""

    def wake_up(self, tags: list[str] | None = None) -> None:
        """Do nothing: see `sleep`."""

    def _add_lora(self, request: Any) -> bool:
        self._weights.add_adapter(request.lora_tensors, request.peft_config)
        self._adapter = request.lora_int_id
        return True

    def _list_loras(self) -> set[int]:
        return {self._adapter} if self._adapter else set()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def generate(
        self,
        prompts: Sequence[Mapping[str, Any]],
        sampling_params: SamplingParams,
        lora_request: Sequence[Any] | None = None,  # noqa: ARG002 - the adapter is in the weights
        use_tqdm: bool = False,  # noqa: ARG002 - vLLM's signature
    ) -> list[RequestOutput]:
        """Return n responses for each prompt.

        A prompt has ``prompt_token_ids`` with one placeholder per image, and ``multi_modal_data.image``.

        Raises:
            ValueError: As in vLLM: too many images, a wrong number of placeholders, or a prompt that is too long.
        """
        rows = [self._expanded(prompt) for prompt in prompts]
        copies = sampling_params.n if sampling_params.temperature > 0 else 1
        width = max(len(ids) for ids, _ in rows)
        padding = self._model.generation_config.pad_token_id
        inputs = {
            "input_ids": torch.tensor([[padding] * (width - len(ids)) + ids for ids, _ in rows]),
            "attention_mask": torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids, _ in rows]),
        }
        images = [some for _, some in rows if some]
        inputs |= {key: torch.cat([some[key] for some in images]) for key in images[0]} if images else {}
        made = self._model.generate(**inputs, **self._options(sampling_params, copies))[:, width:].tolist()
        ends = set() if sampling_params.ignore_eos else self._ends()
        outputs = []
        for number in range(len(rows)):
            some = [_cut(ids, ends) for ids in made[number * copies : (number + 1) * copies]]
            some = some * (sampling_params.n // copies)  # all greedy responses are equal
            outputs.append(RequestOutput([CompletionOutput(index, ids) for index, ids in enumerate(some)]))
        return outputs

    def _expanded(self, prompt: Mapping[str, Any]) -> tuple[list[int], dict[str, torch.Tensor]]:
        """Return a prompt's token ids with one token per merged patch of its images, and the pixels."""
        pictures = (prompt.get("multi_modal_data") or {}).get("image", [])
        limit = self._most.get("image")
        if limit is not None and len(pictures) > limit:
            raise ValueError(f"At most {limit} image(s) may be provided in one prompt, found {len(pictures)}.")
        images: dict[str, torch.Tensor] = {}
        if pictures:
            images = dict(self._processor.image_processor(images=pictures, return_tensors="pt"))
        grids = images["image_grid_thw"].tolist() if images else []
        mark = self._model.config.image_token_id
        marks = list(prompt["prompt_token_ids"]).count(mark)
        if marks != len(pictures):
            raise ValueError(f"The prompt has {marks} image placeholder(s) and {len(pictures)} image(s).")
        merge_size = self._processor.image_processor.merge_size
        ids = expand_image_tokens(prompt["prompt_token_ids"], grids, image_token=mark, merge_size=merge_size)
        if self._longest is not None and len(ids) >= self._longest:
            raise ValueError(f"The prompt has {len(ids)} tokens; max_model_len is {self._longest}.")
        return ids, images

    def _options(self, sampling: SamplingParams, copies: int) -> dict[str, Any]:
        options: dict[str, Any] = {
            "max_new_tokens": sampling.max_tokens,
            "do_sample": sampling.temperature > 0,
            "eos_token_id": None if sampling.ignore_eos else sorted(self._ends()),
            "sequence_bias": {(token,): float(bias) for token, bias in (sampling.logit_bias or {}).items()} or None,
        }
        if options["do_sample"]:
            if sampling.seed is not None:
                # Different samples in each call, the same in each run.
                torch.manual_seed(sampling.seed + self._calls)
                self._calls += 1
            options |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": max(sampling.top_k, 0)}
            options["num_return_sequences"] = copies
        return options

    def _ends(self) -> set[int]:
        ends = self._model.generation_config.eos_token_id
        return set(ends if isinstance(ends, list) else [ends])


def _cut(ids: list[int], ends: set[int]) -> list[int]:
    """Return the tokens up to the first end token."""
    first = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return ids[: first + 1]
