"""The cost of a run: estimated before it starts, limited while it runs, counted afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lad_datasets.annotate.prompt import prompt_text
from lad_datasets.annotate.reply import topics_of
from lad_datasets.annotate.subjects import Subject
from lad_reasoner.pairs.images import image_size, read_image_bytes
from lad_reasoner.pairs.prompt_length import PromptRuler
from lad_reasoner.pairs.tokens import ProcessorPixels

__all__ = ["Budget", "CostEstimate", "Prices", "estimate", "prompt_tokens"]

#: Tokens of a question and its answer, as JSON. An estimate; the bound is --max-tokens.
_TOKENS_PER_PAIR: Final = 120

#: Until an endpoint has reported its token counts, its prompts may cost this many times the estimate.
_FIRST_MARGIN: Final = 2.0


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in USD per million tokens: of input tokens, images included, and of output tokens."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return the cost of these tokens in USD."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """The estimated size and cost of a run, one request per image.

    Attributes:
        cost: USD; None without prices.
        cost_bound: USD if every reply were as long as allowed; None without prices.
    """

    requests: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None
    cost_bound: float | None


def prompt_tokens(subject: Subject, *, max_pixels: int) -> int:
    """Estimate the tokens of a prompt: its image as Qwen2.5-VL counts, which few endpoints exceed, and its text.

    Raises:
        DataError: The image is unreadable.
    """
    size = image_size(read_image_bytes(subject.image), subject.image)
    ruler = PromptRuler(processor=ProcessorPixels(28, 56 * 56, max_pixels))
    return ruler.measure(prompt_text(subject), [size])


def estimate(subjects: Iterable[Subject], *, prices: Prices | None, max_tokens: int, max_pixels: int) -> CostEstimate:
    """Estimate a run over these subjects."""
    requests = prompts = completions = 0
    for subject in subjects:
        requests += 1
        prompts += prompt_tokens(subject, max_pixels=max_pixels)
        completions += _TOKENS_PER_PAIR * len(topics_of(subject))
    likely = prices.cost(prompts, completions) if prices else None
    bound = prices.cost(_FIRST_MARGIN * prompts, max_tokens * requests) if prices else None
    return CostEstimate(requests, prompts, completions, likely, bound)


class Budget:
    """A limit that is never exceeded: the largest possible cost of a request is reserved before it is sent.

    Args:
        prices: Prices of tokens; None if costs are not counted.
        limit: Limit in USD; None for no limit.
        max_tokens: Maximum tokens per reply.
        spent: USD spent by earlier runs.

    Attributes:
        spent: USD spent so far.
        reserved: Number of requests in flight by reserved amount in USD, because sums of floats would not return to 0.
    """

    def __init__(self, prices: Prices | None, *, limit: float | None, max_tokens: int, spent: float = 0.0) -> None:
        self._prices, self._limit, self._max_tokens = prices, limit, max_tokens
        self.spent, self.reserved = spent, Counter[float]()
        self._margin = _FIRST_MARGIN
        self._seen = False

    def bound(self, tokens: int) -> float:
        """Return the largest possible cost of a request, given its estimated prompt tokens."""
        return self._prices.cost(self._margin * tokens, self._max_tokens) if self._prices else 0.0

    def reserve(self, bound: float) -> bool:
        """Reserve an amount; return False if that would exceed the limit."""
        if self._limit is not None and self.spent + sum(self.reserved.elements()) + bound > self._limit:
            return False
        self.reserved[bound] += 1
        return True

    def settle(self, bound: float, cost: float, *, times: int = 1) -> None:
        """Replace an amount, reserved once or several times, by the actual cost."""
        self.reserved -= Counter({bound: times})
        self.spent += cost

    def cost(self, estimated: int, prompt: int | None, completion: int | None) -> float:
        """Return the cost of a reply and adapt to how the endpoint counts; missing counts cost their bound."""
        if self._prices is None:
            return 0.0
        if prompt is None or completion is None:
            return self.bound(estimated)
        ratio = prompt / max(1, estimated)
        self._margin = max(self._margin, ratio) if self._seen else max(1.2 * ratio, 1.0)
        self._seen = True
        return self._prices.cost(prompt, completion)
