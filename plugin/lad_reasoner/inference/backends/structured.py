"""Decoding held to the answer template (the paper's "structured decoding constraints"), the same for every backend.

A response is ``<think>`` reasoning ``</think><answer>`` yes or no ``</answer>``. One regular expression says so to
vLLM, to servers, and, through xgrammar, which vLLM uses too, to the transformers backend.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.support.errors import UsageError, install_hint

if TYPE_CHECKING:  # servers need the expression alone, without torch
    import torch

__all__ = ["TemplateGuide", "default_tokens", "template_regex"]

#: The longest template without its reasoning; each character may take a token, and so does the end of the response.
_FRAME: Final = len("<think></think><answer> yes </answer>") + 1


def default_tokens(*, structured: bool) -> int:
    """Return the default of ``max_new_tokens``: our choice.

    The template counts characters of reasoning, and English has about four in a token: both limits allow reasoning of
    the same length.
    """
    return 2048 if structured else 512


def template_regex(max_new_tokens: int) -> str:
    r"""Return the template as a regular expression.

    The reasoning is not blank, has no tag, and is so short that the answer fits even if each character takes a token.
    Only characters outside ASCII may take several.

    Raises:
        UsageError: Nothing fits.

    Example:
        >>> from lad_reasoner.inference.backends.structured import template_regex
        >>> print(template_regex(100))
        <think>\s?[^<\s][^<]{0,60}</think><answer> ?(yes|no) ?</answer>
    """
    room = max_new_tokens - _FRAME - 2
    if room < 0:
        problem = f"--max-new-tokens {max_new_tokens} leaves no room for the template of --structured"
        raise UsageError(problem, remedy=f"Use at least {_FRAME + 2}")
    return rf"<think>\s?[^<\s][^<]{{0,{room}}}</think><answer> ?(yes|no) ?</answer>"


class TemplateGuide:
    """Rules out the tokens that leave the template, for each row of a batch.

    Args:
        tokenizer: The model's.
        max_new_tokens: Longest response.
        vocabulary: Size of the logits.

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
