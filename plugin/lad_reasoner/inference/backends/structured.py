"""Decoding held to the answer template for the transformers backend, through xgrammar, which vLLM uses too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lad_reasoner.support.errors import UsageError, install_hint
from lad_reasoner.task.response import template_regex

if TYPE_CHECKING:
    import torch

__all__ = ["TemplateGuide", "default_tokens"]


def default_tokens(*, structured: bool) -> int:
    """Return the default of ``max_new_tokens``: our choice.

    The template counts characters of reasoning, and English has about four in a token: both limits allow reasoning of
    the same length.
    """
    return 2048 if structured else 512


class TemplateGuide:
    """Rules out the tokens that leave the template, for each row of a batch; ``vocabulary`` is the size of the logits.

    Raises:
        UsageError: The template does not fit in ``max_new_tokens``, or xgrammar is not installed.
    """

    def __init__(self, tokenizer: Any, *, max_new_tokens: int, vocabulary: int) -> None:
        regex = template_regex(max_new_tokens)
        try:
            import xgrammar
        except ModuleNotFoundError as error:
            remedy = install_hint("predict")
            raise UsageError("--structured needs the package xgrammar", remedy=remedy) from error
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocabulary)
        self._grammar = xgrammar.GrammarCompiler(info).compile_regex(regex)
        self._xgrammar, self._vocabulary = xgrammar, vocabulary
        self._matchers: list[Any] = []

    def begin(self, rows: int) -> None:
        """Start a batch."""
        self._matchers = [self._xgrammar.GrammarMatcher(self._grammar) for _ in range(rows)]

    def constrain(self, logits: torch.Tensor, rows: list[int]) -> None:
        """Rule out, in place, the tokens that the given rows must not take; ``logits`` is ``(rows, vocabulary)``."""
        allowed = self._xgrammar.allocate_token_bitmask(len(rows), self._vocabulary)
        for place, row in enumerate(rows):
            if not self._matchers[row].is_terminated():  # a response that has ended takes any token
                self._matchers[row].fill_next_token_bitmask(allowed, place)
        self._xgrammar.apply_token_bitmask_inplace(logits, allowed.to(logits.device))

    def accept(self, row: int, token: int) -> None:
        """Advance a row by the token it took."""
        self._matchers[row].accept_token(token)
