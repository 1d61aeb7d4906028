"""The endpoint that writes annotations: one prompt at a time, each reply with what it may have cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self

from lad_datasets.annotate.options import ModelOptions
from lad_datasets.annotate.reply import reply_schema
from lad_reasoner.support.chat_reply import Reply
from lad_reasoner.support.openai_client import BadReplyError, ChatServer, RejectedError

__all__ = ["Endpoint"]

#: A reply of a few hundred tokens is a few kilobytes; a larger body is not a reply.
MAX_BODY_BYTES: Final = 1 << 20

_SAFETY_CODES: Final = frozenset({"content_filter", "content_policy_violation", "safety", "moderation_blocked"})


class Endpoint:
    """An open connection. Use as an asynchronous context manager.

    The key is never kept, printed or logged. ``on_retry`` is called with the reason before a request is sent again.
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
    ) -> Reply:
        """Send one request, and again while its faults may pass; a reply that is unfit or rejected is returned too.

        Args:
            messages: As the chat completions API defines them.
            request_id: The same for the same question, so that an endpoint may charge it once.
            afford: Called before a request is sent again that may have been charged already.

        Raises:
            NoReplyError: The request failed for good.
            RunError: No request can succeed.
        """
        try:
            return await self._server.ask(self._payload(messages), idempotency_key=request_id, afford=afford)
        except BadReplyError as fault:
            reason = "oversized" if fault.oversized else "body"
            return Reply(fault.body or fault.reason, finish_reason=reason, unsure=fault.unsure - 1)
        except RejectedError as fault:
            if fault.code.lower() in _SAFETY_CODES:
                return Reply(fault.reason, finish_reason="content_filter", refusal=fault.reason)
            return Reply(fault.reason, finish_reason="rejected")

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
