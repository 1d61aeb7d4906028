"""Offline generation with vLLM on GPUs: it batches by itself, and its prefix cache shares the references.

Written against vLLM's documented interface (``LLM.chat``). It was not run: the project's tests have no GPU.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from lad_reasoner.errors import UsageError
from lad_reasoner.inference.answer_score import answer_step, score_from_alternatives
from lad_reasoner.inference.backend import Answer, BackendName, BackendOptions, Question
from lad_reasoner.inference.messages import chat_content, request_seed
from lad_reasoner.inference.model_folder import model_digest
from lad_reasoner.inference.predictions import Sampling
from lad_reasoner.inference.structured import TEMPLATE_REGEX

__all__ = ["VllmBackend"]

#: Alternatives asked for at each token; vLLM's own limit.
_ALTERNATIVES: Final = 20

#: Images that a prompt may hold: k references and the query.
_MOST_IMAGES: Final = 16


class VllmBackend:
    """A model loaded by vLLM in this process, on every GPU it may see (tensor parallel).

    Raises:
        UsageError: vLLM is not installed.
    """

    name: BackendName = "vllm"

    def __init__(self, options: BackendOptions) -> None:
        try:
            import torch
            from vllm import LLM
        except ImportError as error:
            remedy = "install the extra 'vllm' on a machine with a GPU, or use --backend transformers"
            raise UsageError("--backend vllm", found="no package vllm", remedy=remedy) from error
        self.model, self._options = options.model, options
        self.model_digest = model_digest(Path(options.model))
        self.dtype = options.dtype or "bfloat16"
        self._llm: Any = LLM(
            options.model,
            dtype=self.dtype,
            seed=options.seed,
            tensor_parallel_size=max(1, torch.cuda.device_count()),
            enable_prefix_caching=True,
            limit_mm_per_prompt={"image": _MOST_IMAGES},
        )
        self.sampling = Sampling(
            temperature=options.temperature,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            structured=options.structured,
            min_pixels=options.min_pixels,
            max_pixels=options.max_pixels,
        )

    def answer(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answer ``batch_size`` pairs at a time, so that little is lost when a run is killed."""
        source = iter(questions)
        while batch := list(islice(source, self._options.batch_size)):
            yield from self._answer_batch([(question, sample) for question in batch for sample in question.samples])

    def _answer_batch(self, asked: Sequence[tuple[Question, int]]) -> Iterator[Answer]:
        start = time.perf_counter()
        chats = [[{"role": "user", "content": chat_content(question, self._options)}] for question, _ in asked]
        parameters = [self._parameters(question, sample) for question, sample in asked]
        outputs = self._llm.chat(chats, parameters, use_tqdm=False)
        seconds = round((time.perf_counter() - start) / len(asked), 6)
        for (question, sample), output in zip(asked, outputs, strict=True):
            yield self._read(question.pair_id, sample, output, seconds)

    def _parameters(self, question: Question, sample: int) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        options = self._options
        return SamplingParams(
            temperature=options.temperature,
            max_tokens=options.max_new_tokens,
            seed=request_seed(options.seed, question.pair_id, sample),
            logprobs=_ALTERNATIVES if question.scored else None,
            structured_outputs=StructuredOutputsParams(regex=TEMPLATE_REGEX) if options.structured else None,
        )

    def _read(self, pair_id: str, sample: int, output: Any, seconds: float) -> Answer:
        result = output.outputs[0]
        step = answer_step(result.token_ids, result.text, self._llm.get_tokenizer())
        score = None
        if step is not None:
            listed = result.logprobs[step].values()
            score = score_from_alternatives((item.decoded_token or "", item.logprob) for item in listed)
        return Answer(
            pair_id=pair_id,
            sample=sample,
            response=result.text,
            score=score,
            score_source=None if score is None else "answer_token",
            prompt_tokens=len(output.prompt_token_ids),
            response_tokens=len(result.token_ids),
            finish_reason="length" if result.finish_reason == "length" else "stop",
            seconds=seconds,
        )
