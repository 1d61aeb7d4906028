"""Batched generation with transformers for Qwen2-VL, Qwen2.5-VL and Qwen3-VL, on a CPU or a GPU.

The responses are those of ``generate``, token by token; what pairs have in common is computed once
(``shared_prefill.py``), and the samples of a pair share its prompt.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

import torch

from lad_reasoner.inference.answer_score import answer_step, forced_text, score_from_logs, spelling_tokens
from lad_reasoner.inference.backends.decoding import Decoded, decode, sampling_draws, spelling_evidence
from lad_reasoner.inference.backends.prompts import Prompt, Prompts
from lad_reasoner.inference.backends.shared_prefill import SharedPrefill
from lad_reasoner.inference.backends.structured import TemplateGuide
from lad_reasoner.inference.predictions import Failure, ScoreSource
from lad_reasoner.inference.protocol import Answer, BackendName, BackendOptions, Question
from lad_reasoner.models.compatibility import require_loadable, unsupported_type
from lad_reasoner.models.hub import has_hub
from lad_reasoner.models.weights import model_digest
from lad_reasoner.pairs.families import model_types
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.task.task import ANOMALOUS, NORMAL

__all__ = ["MODEL_TYPES", "TransformersBackend"]

#: Architectures whose positions and vision features ``SharedPrefill`` supports.
MODEL_TYPES: Final = model_types(answers=True)

#: A batch is saved as a whole, and on a CPU a model of more parameters than this takes minutes per pair: fewer pairs
#: are lost when a run is killed, and less memory is needed. Our choice.
_SMALL: Final = 1_000_000_000
_CPU_BATCH: Final = 4

_Item = TypeVar("_Item")
_Score = tuple[float | None, ScoreSource | None]


class TransformersBackend:
    """A model loaded in this process.

    Raises:
        UsageError: The model is of another architecture, or the device does not exist.
        DataError: The model cannot be loaded.
    """

    name: BackendName = "transformers"

    def __init__(self, options: BackendOptions) -> None:
        self.model = options.model
        self.model_digest = model_digest(Path(options.model))
        self._device = _device(options.device)
        self.dtype = options.dtype or ("float32" if self._device.type == "cpu" else "bfloat16")
        self._network, processor = _load(options.model, self._device, self.dtype)
        size = processor.image_processor.size
        self.sampling = options.sampling(
            options.min_pixels or size["shortest_edge"], options.max_pixels or size["longest_edge"]
        )
        self._tokenizer = processor.tokenizer
        self._ends = _end_tokens(self._network.generation_config, self._tokenizer)
        self._spellings = [
            torch.tensor(spelling_tokens(self._tokenizer, label), device=self._device, dtype=torch.long)
            for label in (ANOMALOUS, NORMAL)
        ]
        self._guide: TemplateGuide | None = None
        if options.structured:
            self._guide = TemplateGuide(
                self._tokenizer, max_new_tokens=options.max_new_tokens, vocabulary=self._network.lm_head.out_features
            )
        self._prompts = Prompts(
            processor,
            rope_index=self._network.model.get_rope_index,
            image_token=self._network.config.image_token_id,
            sampling=self.sampling,
            root=options.image_root,
        )
        self._longest = self._network.config.get_text_config().max_position_embeddings
        self._batch_size = options.batch
        if options.batch_size is None and self._device.type == "cpu" and self._network.num_parameters() > _SMALL:
            self._batch_size = _CPU_BATCH
        self._prefill = SharedPrefill(self._network, device=self._device, images=2 * self._batch_size)

    def answer(self, questions: Iterable[Question]) -> Iterator[Answer | Failure]:
        """Answer batch by batch; a prompt that is longer than the model allows becomes a failure."""
        for batch in _batches(questions, self._batch_size):
            start = time.perf_counter()
            fitting, failures = [], []
            for question, prompt in zip(batch, self._prompts.prepare(batch), strict=True):
                length = len(prompt.encoded.ids)
                if length < self._longest:
                    fitting.append((question, prompt))
                    continue
                reason = f"the prompt has {length:,} tokens; the model allows {self._longest - 1:,}"
                failures += [Failure(question.pair_id, sample, reason) for sample in question.samples]
            with torch.inference_mode():
                answers = self._answer_batch(fitting, start) if fitting else []
            yield from failures
            yield from answers

    def _answer_batch(self, batch: Sequence[tuple[Question, Prompt]], start: float) -> list[Answer]:
        asked = [(question, prompt, sample) for question, prompt in batch for sample in question.samples]
        decoded = self._decode(
            [prompt for _, prompt in batch],
            owners=[place for place, (question, _) in enumerate(batch) for _ in question.samples],
            keys=[(question.pair_id, sample) for question, _, sample in asked],
        )
        texts = self._tokenizer.batch_decode([item.tokens for item in decoded], skip_special_tokens=True)
        wanted = [question.scored for question, _, _ in asked]
        scores = self._scores([prompt for _, prompt, _ in asked], decoded, texts, wanted)
        seconds = round((time.perf_counter() - start) / len(asked), 6)
        return [
            Answer(
                pair_id=question.pair_id,
                sample=sample,
                response=text,
                score=score,
                score_source=source,
                prompt_tokens=len(prompt.encoded.ids),
                response_tokens=len(item.tokens),
                finish_reason="stop" if item.finished else "length",
                seconds=seconds,
            )
            for (question, prompt, sample), item, text, (score, source) in zip(
                asked, decoded, texts, scores, strict=True
            )
        ]

    def _decode(
        self, prompts: Sequence[Prompt], owners: Sequence[int], keys: Sequence[tuple[str, int]]
    ) -> list[Decoded]:
        """Decode one response per key; ``owners`` holds the index of the prompt that each continues."""
        state = self._prefill.prefill(prompts)
        if len(owners) > len(prompts):
            state.select(torch.tensor(owners, device=self._device))
        sampling, draws = self.sampling, None
        if sampling.temperature > 0:
            draws = sampling_draws(keys, seed=sampling.seed, length=sampling.max_new_tokens)
        return decode(
            state,
            self._prefill.step,
            end_tokens=self._ends,
            max_new_tokens=sampling.max_new_tokens,
            spellings=self._spellings,
            draws=draws,
            temperature=sampling.temperature,
            guide=self._guide,
        )

    def _scores(
        self, prompts: Sequence[Prompt], decoded: Sequence[Decoded], texts: Sequence[str], wanted: Sequence[bool]
    ) -> list[_Score]:
        """Return the score of every response; one without an answer is run again with an answer begun."""
        if not all(len(tokens) for tokens in self._spellings):
            return [(None, None)] * len(texts)
        scores: list[_Score] = []
        for item, text, asked in zip(decoded, texts, wanted, strict=True):
            step = answer_step(item.tokens, text, self._tokenizer) if asked else None
            scores.append((None, None) if step is None else (score_from_logs(*item.evidence[step]), "answer_token"))
        silent = (place for place, (score, _) in enumerate(scores) if score is None and wanted[place])
        for places in _batches(silent, self._batch_size):
            begun = [
                replace(prompts[place], ending=tuple(self._tokenizer(forced_text(texts[place]))["input_ids"]))
                for place in places
            ]
            evidence = spelling_evidence(self._prefill.prefill(begun).logits, self._spellings).tolist()
            for place, logs in zip(places, evidence, strict=True):
                scores[place] = (score_from_logs(*logs), "forced")
        return scores


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        found = f"{name!r} ({str(error).splitlines()[0]})"
        raise UsageError(f"no such device: {found}", where="--device", remedy="Use cpu, cuda or cuda:N") from error
    return device


def _load(model: str, device: torch.device, dtype: str) -> tuple[Any, Any]:
    """Return the network, ready to infer, and the processor."""
    from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()
    require_loadable(model, types=MODEL_TYPES)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": not has_hub(model)}
    try:
        # Code in a model folder is never run, and the user is not asked to allow it.
        kind = AutoConfig.from_pretrained(model, **options).model_type
        if kind in MODEL_TYPES:
            network, loading = AutoModelForImageTextToText.from_pretrained(
                model, dtype=getattr(torch, dtype), use_safetensors=True, output_loading_info=True, **options
            )
            processor = AutoProcessor.from_pretrained(model, **options)
    except Exception as error:  # a broken folder can fail in any way
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise DataError(f"the model cannot be loaded: {reason[:200]}", where=model) from error
    if kind not in MODEL_TYPES:
        raise unsupported_type(model, kind, MODEL_TYPES)
    if missing := sorted(loading["missing_keys"]):  # transformers gives them random values
        problem = f"the model cannot be loaded: {len(missing)} weights are missing, such as {missing[0]}"
        raise DataError(problem, where=model, remedy="Copy or download the folder again")
    return network.to(device).eval(), processor


def _end_tokens(generation_config: Any, tokenizer: Any) -> list[int]:
    """Return what ends a response: the generation config's end tokens and the tokenizer's."""
    ends = generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    return sorted({token for token in [*listed, tokenizer.eos_token_id] if token is not None})


def _batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
