"""Decoding held to the answer template (the paper's "structured decoding constraints").

The response is ``<think>`` reasoning ``</think><answer>`` yes or no ``</answer>``; the reasoning is the model's own,
free of tags, and closed in time for the answer to fit. Servers are given the same language as a regular expression.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any, Final, Literal

from lad_reasoner.inference.answer_score import spelling_tokens
from lad_reasoner.support.errors import UsageError
from lad_reasoner.task.task import LABELS

if TYPE_CHECKING:  # servers need the expression alone, without torch
    import torch

__all__ = ["TEMPLATE_REGEX", "TemplateGuide"]

#: Reasoning has a character that is not white space, and no tag.
TEMPLATE_REGEX: Final = r"<think>[^<]*[^<\s][^<]*</think><answer> ?(yes|no) ?</answer>"


@dataclass
class _Row:
    phase: Literal["reasoning", "answer", "done"] = "reasoning"
    forced: list[int] = field(default_factory=list)
    reasoned: bool = False
    length: int = 0


class TemplateGuide:
    """Says which tokens each row of a batch may take next.

    Args:
        tokenizer: The model's.
        end_token: Taken after the answer block.
        max_new_tokens: Longest response.
        vocabulary: Size of the logits.

    Raises:
        UsageError: The template does not fit in ``max_new_tokens``, or the tokenizer spells no label in one token.
    """

    def __init__(self, tokenizer: Any, *, end_token: int, max_new_tokens: int, vocabulary: int) -> None:
        self._open, self._close, self._answer, self._end = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in ("<think>", "</think>", "<answer>", "</answer>")
        )
        self._end = [*self._end, end_token]
        self._last = max_new_tokens - len(self._close) - len(self._answer) - len(self._end) - 1
        if self._last <= len(self._open):
            raise UsageError("--max-new-tokens", found=str(max_new_tokens), expected="room for the answer template")
        labels = [token for label in LABELS for token in spelling_tokens(tokenizer, label)]
        if not labels:
            raise UsageError(
                "--structured", found="a tokenizer without yes and no as tokens", expected="one that has them"
            )
        texts = tokenizer.batch_decode([[token] for token in range(min(vocabulary, len(tokenizer)))])
        first = texts[self._close[0]]
        self._closing = {token for token, text in enumerate(texts) if text.strip() == first}
        self._blank = {token for token, text in enumerate(texts) if not text.strip()}
        special = set(tokenizer.all_special_ids)
        tagged = {token for token, text in enumerate(texts) if "<" in text and token not in self._closing}
        self._not_reasoning = _mask({*tagged, *special, end_token, *range(len(texts), vocabulary)}, vocabulary)
        self._not_closing = _mask(self._closing, vocabulary)
        self._not_label = ~_mask(set(labels), vocabulary)
        self._rows: list[_Row] = []

    def begin(self, rows: int) -> None:
        """Start a batch."""
        self._rows = [_Row(forced=list(self._open)) for _ in range(rows)]

    def constrain(self, logits: torch.Tensor, rows: list[int]) -> None:
        """Rule out, in place, what the given rows must not take; ``logits`` is ``(rows, vocabulary)``."""
        for place, row in enumerate(rows):
            state = self._rows[row]
            if state.forced:
                kept = logits[place, state.forced[0]].clone()
                logits[place] = -inf
                logits[place, state.forced[0]] = kept.nan_to_num(neginf=0.0)
            elif state.phase == "reasoning":
                logits[place, self._not_reasoning.to(logits.device)] = -inf
                if not state.reasoned:
                    logits[place, self._not_closing.to(logits.device)] = -inf
            elif state.phase == "answer":
                logits[place, self._not_label.to(logits.device)] = -inf

    def accept(self, row: int, token: int) -> None:
        """Tell which token a row took."""
        state = self._rows[row]
        state.length += 1
        if state.forced:
            state.forced.pop(0)
        elif state.phase == "answer":
            state.phase, state.forced = "done", list(self._end)
        elif token in self._closing:
            state.phase, state.forced = "answer", [*self._close[1:], *self._answer]
        else:
            state.reasoned |= token not in self._blank
        if state.phase == "reasoning" and not state.forced and state.length >= self._last:
            state.phase, state.forced = "answer", [*self._close, *self._answer]


def _mask(tokens: set[int], vocabulary: int) -> torch.Tensor:
    import torch

    mask = torch.zeros(vocabulary, dtype=torch.bool)
    mask[sorted(tokens)] = True
    return mask
