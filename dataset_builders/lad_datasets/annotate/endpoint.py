"""The endpoint that writes annotations: one prompt at a time, each reply with what it may have cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Self

from lad_datasets.annotate.options import ModelOptions
from lad_datasets.annotate.reply import reply_schema
from lad_reasoner.support.openai_client import BadReplyError, ChatServer, RejectedError

__all__ = ["Endpoint", "EndpointReply"]

#: A reply of a few hundred tokens is a few kilobytes; a larger body is not a reply.
MAX_BODY_BYTES: Final = 1 << 20

_SAFETY_CODES: Final = frozenset({"content_filter", "content_policy_violation", "safety", "moderation_blocked"})


@dataclass(frozen=True, slots=True)
class EndpointReply:
    """What came back; the attributes are those of `store.Answered`.

    ``unsure`` counts tries that may have been charged in addition to the last one.
    """

    text: str
    finish_reason: str | None = None
    refusal: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    unsure: int = 0


class Endpoint:
    """An open connection. Use as an asynchronous context manager.

    Args:
        options: How it is asked.
        api_key: Never kept, printed or logged.
        on_retry: Called with the reason before a request is sent again.
    """

    def __init__(self, options: ModelOptions, *, api_key: str, on_retry: Callable[[str], None]) -> None:
        self._options = options
        self._server = ChatServer(
            options.base_url,
            api_key=api_key,
            timeout=options.timeout,
            tries=options.tries,
            bad_tries=1,  # a malformed reply uses up one of `options.attempts`
            backoff=options.backoff,
            max_bytes=MAX_BODY_BYTES,
            per_minute=options.per_minute,
            on_retry=on_retry,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.close()

    async def ask(
        self, messages: list[dict[str, Any]], *, request_id: str, afford: Callable[[], bool] = lambda: True
    ) -> EndpointReply:
        """Send one request, and again while its faults may pass.

        Args:
            messages: As the chat completions API defines them.
            request_id: The same for the same question, so that an endpoint may charge it once.
            afford: Called before a request is sent again that may have been charged already.

        Raises:
            NoReplyError: The request failed for good.
            RunError: No request can succeed.
        """
        try:
            reply = await self._server.ask(self._payload(messages), idempotency_key=request_id, afford=afford)
        except BadReplyError as fault:
            reason = "oversized" if fault.oversized else "body"
            return EndpointReply(fault.body or fault.reason, finish_reason=reason, unsure=fault.unsure - 1)
        except RejectedError as fault:
            if fault.code.lower() in _SAFETY_CODES:
                return EndpointReply(fault.reason, finish_reason="content_filter", refusal=fault.reason)
            return EndpointReply(fault.reason, finish_reason="rejected")
        return EndpointReply(
            text=reply.text,
            finish_reason=reply.finish_reason,
            refusal=reply.refusal,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            unsure=reply.unsure,
        )

    def _payload(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        options = self._options
        payload: dict[str, Any] = {
            "model": options.model,
            "messages": messages,
            self._server.tokens_key: options.max_tokens,
        }
        if options.structured == "json_schema":
            schema = {"name": "qa_pairs", "strict": True, "schema": reply_schema()}
            payload["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif options.structured == "json_object":
            payload["response_format"] = {"type": "json_object"}
        if options.temperature is not None:
            payload["temperature"] = options.temperature
        return payload
