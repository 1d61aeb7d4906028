"""Questions to any OpenAI-compatible server, several in flight at once.

The server is asked through `support/openai_client.py`: faults that may pass are retried, and a pair without a usable
reply is returned as a failure. The API key is read from OPENAI_API_KEY and never written.
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterable, Iterator
from itertools import accumulate, islice
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.inference.answer_score import answer_begin, score_from_alternatives
from lad_reasoner.inference.backends.messages import chat_content, request_seed
from lad_reasoner.inference.predictions import Failure
from lad_reasoner.inference.protocol import Answer, BackendName, BackendOptions, Question
from lad_reasoner.support.errors import RunError, UsageError, install_hint
from lad_reasoner.task.response import template_regex

if TYPE_CHECKING:
    from lad_reasoner.support.openai_client import ChatServer, NoReplyError, Reply

__all__ = ["BACKOFF", "TRIES", "OpenAIBackend", "score_reply"]

TRIES: Final = 9

#: Upper bound of the first wait before another try, in seconds; it doubles.
BACKOFF: Final = 0.5

_OPENAI: Final = "https://api.openai.com/v1"

#: Alternatives requested for each token; the most that servers give.
_ALTERNATIVES: Final = 20

#: Requests in a row without a reply after which the server counts as down.
_IN_A_ROW: Final = 8

#: Every parameter with which a server's own generation config could change a response, stated as plain sampling.
_PLAIN: Final = {"top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
_PLAIN_VLLM: Final = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


class OpenAIBackend:
    """A model behind a server.

    A score is read where the response answers, if the server gives log-probabilities; a spelling that is not among the
    alternatives it lists counts as 0. Nothing is forced on a malformed response, which keeps no score.

    Raises:
        UsageError: A package is not installed, or the address or the key cannot be used.
    """

    name: BackendName = "openai"
    model_digest = None
    dtype = None

    def __init__(self, options: BackendOptions) -> None:
        self.model, self._options = options.model, options
        self._plain: dict[str, Any] = {}
        self._silent = 0
        self._open_server()
        self.sampling = options.sampling(options.min_pixels, options.max_pixels)

    def _open_server(self) -> ChatServer:
        try:
            from lad_reasoner.support.openai_client import ChatServer
        except ModuleNotFoundError as error:
            remedy = install_hint("annotate")
            raise UsageError(f"--backend openai needs the package {error.name}", remedy=remedy) from error
        address = self._options.base_url or os.environ.get("OPENAI_BASE_URL") or _OPENAI
        option = "--base-url" if self._options.base_url else "OPENAI_BASE_URL"
        key = os.environ.get("OPENAI_API_KEY", "")
        return ChatServer(
            address, api_key=key, timeout=self._options.timeout, tries=TRIES, backoff=BACKOFF, option=option
        )

    def answer(self, questions: Iterable[Question]) -> Iterator[Answer | Failure]:
        """Answer with ``batch_size`` requests in flight, in the order in which the replies arrive.

        After an error nothing more is asked, and the replies in flight, which a server may charge for, are awaited.

        Raises:
            RunError: No request can succeed, or the server is down.
        """
        asked = ((question, sample) for question in questions for sample in question.samples)
        with asyncio.Runner() as runner:
            server = runner.run(self._connect())
            fault: BaseException | None = None
            flying: set[asyncio.Task[Answer | Failure]] = set()
            try:
                while True:
                    free = 0 if fault else self._options.batch - len(flying)
                    flying |= {runner.get_loop().create_task(self._ask(server, *item)) for item in islice(asked, free)}
                    if not flying:
                        break
                    landed, flying = runner.run(asyncio.wait(flying, return_when=asyncio.FIRST_COMPLETED))
                    for task in landed:
                        if error := task.exception():
                            fault = fault or error
                        else:
                            yield task.result()
            finally:
                runner.run(server.close())
        if fault:
            raise fault

    async def _connect(self) -> ChatServer:
        server = self._open_server()
        self._plain = dict(_PLAIN)
        if await server.is_vllm():
            self._plain |= _PLAIN_VLLM
            named = {"min_pixels": self._options.min_pixels, "max_pixels": self._options.max_pixels}
            if given := {name: value for name, value in named.items() if value}:
                self._plain["mm_processor_kwargs"] = given  # its own processor would undo limits above its own
        return server

    async def _ask(self, server: ChatServer, question: Question, sample: int) -> Answer | Failure:
        from lad_reasoner.support.openai_client import NoReplyError

        request = await asyncio.to_thread(self._request, server, question, sample)
        start = time.perf_counter()
        try:
            reply = await server.ask(request)
        except NoReplyError as error:
            self._require_hope(server, question, error)
            return Failure(question.pair_id, sample, error.reason)
        self._silent = 0
        return self._read(question, sample, reply, time.perf_counter() - start)

    def _require_hope(self, server: ChatServer, question: Question, error: NoReplyError) -> None:
        """Raise a RunError if the next request would fail in the same way."""
        from lad_reasoner.support.openai_client import BadReplyError, RejectedError

        of_file = bool(question.pair_id)
        again = "run the same command again to resume" if of_file else "ask again"
        if isinstance(error, RejectedError):
            if "logprob" in error.reason:
                remedy = "Add --no-scores" if of_file else "Only `lad predict --no-scores` does without"
                raise RunError("the server gives no log-probabilities", where=server.address, remedy=remedy) from None
            return
        if isinstance(error, BadReplyError):
            return
        if error.unreached:
            named = "--base-url or OPENAI_BASE_URL" if of_file else "OPENAI_BASE_URL"
            remedy = f"Start that server, or name another with {named}, then {again}"
            raise RunError(f"the server cannot be reached: {error}", where=server.address, remedy=remedy) from None
        self._silent += 1
        if self._silent >= _IN_A_ROW:
            problem = f"{_IN_A_ROW} requests in a row have no reply: {error}"
            raise RunError(problem, where=server.address, remedy=f"Check the server, then {again}") from None

    def _request(self, server: ChatServer, question: Question, sample: int) -> dict[str, Any]:
        options = self._options
        request: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": chat_content(question, options)}],
            server.tokens_key: options.max_new_tokens,
            "temperature": options.temperature,
            "seed": request_seed(options.seed, question.pair_id, sample),
            **self._plain,
        }
        if options.scores and question.scored:
            request |= {"logprobs": True, "top_logprobs": _ALTERNATIVES}
        if options.structured:
            request["structured_outputs"] = {"regex": template_regex(options.max_new_tokens)}
        return request

    def _read(self, question: Question, sample: int, reply: Reply, seconds: float) -> Answer:
        text = reply.text or reply.refusal or ""
        template = template_regex(self.sampling.max_new_tokens) if self.sampling.structured else ""
        if template and reply.finish_reason == "stop" and not re.fullmatch(template, text):
            remedy = "Ask a server that supports structured_outputs.regex (vLLM does), or leave out --structured"
            raise RunError(f"the response is not in the template: {text[:60]!r}", where=question.where, remedy=remedy)
        score = score_reply(text, reply)
        return Answer(
            pair_id=question.pair_id,
            sample=sample,
            response=text,
            score=score,
            score_source=None if score is None else "answer_token",
            prompt_tokens=reply.prompt_tokens,
            response_tokens=reply.completion_tokens,
            finish_reason="length" if reply.finish_reason == "length" else "stop",
            seconds=round(seconds, 6),
        )


def score_reply(text: str, reply: Reply) -> float | None:
    """Return the score from the alternatives listed where the answer's word begins."""
    begin = answer_begin(text)
    if begin is None or not reply.tokens:
        return None
    reach = accumulate(len(token) for token, _ in reply.tokens)
    listed = next((listed for (_, listed), end in zip(reply.tokens, reach, strict=True) if end > begin), ())
    return score_from_alternatives((item.token, item.logprob) for item in listed)
