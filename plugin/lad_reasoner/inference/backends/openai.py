"""Questions to any OpenAI-compatible server: requests in flight together, retried when the server falters.

The API key is read from OPENAI_API_KEY and never written. The client's own retries are used: 408, 409, 429, 5xx and
connection faults, with exponential back-off, or as long as the server's Retry-After says.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import accumulate, islice
from typing import Any, Final

from lad_reasoner.inference.answer_score import answer_begin, score_from_alternatives
from lad_reasoner.inference.backends.messages import chat_content, request_seed
from lad_reasoner.inference.backends.structured import TEMPLATE_REGEX
from lad_reasoner.inference.predictions import Sampling
from lad_reasoner.inference.protocol import Answer, BackendName, BackendOptions, Question
from lad_reasoner.support.errors import RunError, UsageError

__all__ = ["OpenAIBackend"]

_RETRIES: Final = 8

#: Alternatives asked for at each token; the most that servers give.
_ALTERNATIVES: Final = 20


class OpenAIBackend:
    """A model behind a server.

    A score is read where the response answers, if the server gives log-probabilities; a spelling that is not among the
    alternatives it lists counts as 0. Nothing is forced on a malformed response, which keeps no score.

    Raises:
        UsageError: The package ``openai`` is not installed.
    """

    name: BackendName = "openai"
    model_digest = None
    dtype = None

    def __init__(self, options: BackendOptions) -> None:
        try:
            import openai
        except ImportError as error:
            remedy = "pip install openai"
            raise UsageError("--backend openai", found="no package openai", remedy=remedy) from error
        self.model, self._options = options.model, options
        self._client = openai.OpenAI(
            api_key=os.environ.get("OPENAI_API_KEY") or "none",  # local servers ask for none
            base_url=options.base_url,
            max_retries=_RETRIES,
            timeout=options.timeout,
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
        """Answer with ``batch_size`` requests in flight, in the order in which the server does.

        After a fault nothing more is asked, and what is in flight, which a server may charge for, is waited for.

        Raises:
            RunError: The server refused a request, or kept faltering.
        """
        asked = ((question, sample) for question in questions for sample in question.samples)
        fault: BaseException | None = None
        with ThreadPoolExecutor(self._options.batch_size) as pool:
            flying: set[Future[Answer]] = set()
            try:
                while True:
                    free = 0 if fault else self._options.batch_size - len(flying)
                    flying |= {pool.submit(self._ask, *item) for item in islice(asked, free)}
                    if not flying:
                        break
                    landed, flying = wait(flying, return_when=FIRST_COMPLETED)
                    for future in landed:
                        if error := future.exception():
                            fault = fault or error
                        else:
                            yield future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
        if fault:
            raise fault

    def _ask(self, question: Question, sample: int) -> Answer:
        import openai

        start = time.perf_counter()
        try:
            completion = self._client.chat.completions.create(**self._request(question, sample))
        except openai.OpenAIError as error:
            address = self._client.base_url.copy_with(userinfo=b"", query=None)  # a password is not for a log
            found = f"{type(error).__name__} ({str(error)[:200]})"
            expected = f"an answer from {address}"
            raise RunError(question.where, found=found, expected=expected, remedy=_remedy(error, question)) from error
        return self._read(question, sample, completion, time.perf_counter() - start)

    def _request(self, question: Question, sample: int) -> dict[str, Any]:
        options = self._options
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": chat_content(question, self._options)}],
            "max_tokens": options.max_new_tokens,
            "temperature": options.temperature,
            "seed": request_seed(options.seed, question.pair_id, sample),
        }
        if options.scores and question.scored:
            request |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        if options.structured:
            request["extra_body"] = {"structured_outputs": {"regex": TEMPLATE_REGEX}}
        return request

    def _read(self, question: Question, sample: int, completion: Any, seconds: float) -> Answer:
        choice = completion.choices[0]
        text = choice.message.content or ""
        if self.sampling.structured and choice.finish_reason == "stop" and not re.fullmatch(TEMPLATE_REGEX, text):
            remedy = "ask a server that knows structured_outputs.regex (vLLM does), or leave out --structured"
            raise RunError(
                question.where, found=f"a free response {text[:60]!r}", expected="the template", remedy=remedy
            )
        score = _score(text, choice.logprobs.content if choice.logprobs else None)
        usage = completion.usage
        return Answer(
            pair_id=question.pair_id,
            sample=sample,
            response=text,
            score=score,
            score_source=None if score is None else "answer_token",
            prompt_tokens=usage.prompt_tokens if usage else None,
            response_tokens=usage.completion_tokens if usage else None,
            finish_reason="length" if choice.finish_reason == "length" else "stop",
            seconds=round(seconds, 6),
        )


def _remedy(error: Exception, question: Question) -> str:
    """Return what to do about a server's fault: a question of a file is asked by `lad predict`, which resumes."""
    import openai

    of_file = bool(question.pair_id)
    if "logprob" in str(error):
        does_without = "add --no-scores" if of_file else "only `lad predict --no-scores` does without"
        return f"this server gives no log-probabilities: {does_without}"
    again = "run the same command again to resume" if of_file else "ask again"
    unreached = isinstance(error, openai.APIConnectionError) and not isinstance(error, openai.APITimeoutError)
    if unreached:
        named = "--base-url or OPENAI_BASE_URL" if of_file else "OPENAI_BASE_URL"
        return f"start that server, or name another with {named}, then {again}"
    return again


def _score(text: str, tokens: Any) -> float | None:
    """Return the score from the alternatives listed where the answer's word begins."""
    begin = answer_begin(text)
    if begin is None or not tokens:
        return None
    reach = accumulate(len(token.token) for token in tokens)
    token = next((token for token, end in zip(tokens, reach, strict=True) if end > begin), None)
    return score_from_alternatives((item.token, item.logprob) for item in token.top_logprobs) if token else None
