"""Offline generation with vLLM on GPUs: it batches by itself, and its prefix cache shares the references.

A model that fits ``--tensor-parallel`` GPUs is loaded as often as there are GPUs for it (data parallel), each copy in
a process of its own that sees its GPUs alone. Written against vLLM's public interface (``LLM.chat``,
``SamplingParams``, ``StructuredOutputsParams``; 0.11 and later). It was not run: the project's tests have no GPU.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from pathlib import Path
from typing import Any, Final

from lad_reasoner.inference.answer_score import answer_step, score_from_alternatives
from lad_reasoner.inference.backends.messages import chat_content, request_seed
from lad_reasoner.inference.backends.structured import TEMPLATE_REGEX
from lad_reasoner.inference.predictions import Sampling
from lad_reasoner.inference.protocol import Answer, BackendName, BackendOptions, Question
from lad_reasoner.models.compatibility import require_loadable
from lad_reasoner.models.weights import model_digest
from lad_reasoner.support.errors import RunError, UsageError

__all__ = ["VllmBackend"]

#: Alternatives asked for at each token; vLLM's own limit.
_ALTERNATIVES: Final = 20

#: Images that a prompt may hold: k references and the query.
_MOST_IMAGES: Final = 16


class VllmBackend:
    """A model loaded by vLLM, on every GPU that may be seen.

    Raises:
        UsageError: vLLM is not installed, or there are fewer GPUs than one copy of the model shall have.
    """

    name: BackendName = "vllm"

    def __init__(self, options: BackendOptions) -> None:
        if importlib.util.find_spec("vllm") is None:
            remedy = "install the extra 'vllm' on a machine with a GPU, or use --backend transformers"
            raise UsageError("--backend vllm", found="no package vllm", remedy=remedy)
        self.model, self._options = options.model, options
        require_loadable(options.model)
        self.model_digest = model_digest(Path(options.model))
        self.dtype = options.dtype or "bfloat16"
        self.sampling = Sampling(
            temperature=options.temperature,
            max_new_tokens=options.max_new_tokens,
            seed=options.seed,
            structured=options.structured,
            min_pixels=options.min_pixels,
            max_pixels=options.max_pixels,
        )
        groups = _gpu_groups(options.tensor_parallel)
        context = multiprocessing.get_context("spawn")  # a fork would inherit a half-started GPU
        free: Any = context.Queue()
        for group in groups:
            free.put(group)
        # A process starts, and loads its copy, when a batch finds the others at work; it stays for the next questions.
        self._pool = ProcessPoolExecutor(
            len(groups), context, initializer=_start, initargs=(options, self.dtype, free)
        )
        self._copies = len(groups)

    def answer(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answer ``batch_size`` pairs at a time and copy, so that little is lost when a run is killed.

        Raises:
            RunError: A copy of the model did not start, or died.
        """
        source, flying = iter(questions), set[Future[list[Answer]]]()
        try:
            while True:
                # One batch more than there are copies, so that none waits for this process.
                while len(flying) <= self._copies and (batch := self._batch(source)):
                    flying.add(self._pool.submit(_answer, batch))
                if not flying:
                    break
                landed, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in landed:
                    yield from future.result()
        except BrokenProcessPool as error:
            found, expected = "a copy of the model that did not start, or died", "all copies at work"
            remedy = "vLLM says why above; then run this again"
            raise RunError(self.model, found=found, expected=expected, remedy=remedy) from error
        finally:
            for future in flying:
                future.cancel()

    def _batch(self, source: Iterator[Question]) -> list[Question]:
        return list(islice(source, self._options.batch_size))


def _gpu_groups(size: int) -> list[str]:
    """Return the GPUs of each copy of the model, as CUDA_VISIBLE_DEVICES has them.

    Raises:
        UsageError: There are fewer GPUs than one copy shall have.
    """
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = named[:count] or [str(index) for index in range(count)]
    if len(names) < size:
        remedy = "use fewer, or --backend transformers on a CPU"
        raise UsageError("--tensor-parallel", found=f"{size} with {len(names)} GPUs", remedy=remedy)
    starts = range(0, len(names) - size + 1, size)
    return [",".join(names[start : start + size]) for start in starts]


#: The copy of the model in a process of the pool.
_copy: _Copy | None = None


def _start(options: BackendOptions, dtype: str, groups: Any) -> None:
    """Load this process's copy of the model on GPUs that no other process has."""
    global _copy  # noqa: PLW0603 - a pool's initializer has no other place to leave what its tasks use
    os.environ["CUDA_VISIBLE_DEVICES"] = groups.get()
    _copy = _Copy(options, dtype)


def _answer(batch: Sequence[Question]) -> list[Answer]:
    assert _copy is not None
    return list(_copy.answer_batch([(question, sample) for question in batch for sample in question.samples]))


class _Copy:
    """The model, loaded in this process."""

    def __init__(self, options: BackendOptions, dtype: str) -> None:
        from vllm import LLM

        self._options = options
        self._llm: Any = LLM(
            options.model,
            dtype=dtype,
            trust_remote_code=False,
            seed=options.seed,
            tensor_parallel_size=options.tensor_parallel,
            enable_prefix_caching=True,
            limit_mm_per_prompt={"image": _MOST_IMAGES},
        )

    def answer_batch(self, asked: Sequence[tuple[Question, int]]) -> Iterator[Answer]:
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
        if step is not None and result.logprobs:
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
