"""Token-by-token decoding of a batch whose prompts are already in the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from lad_reasoner.inference.backends.cache import GrowingCache
    from lad_reasoner.inference.backends.structured import TemplateGuide

__all__ = ["Decoded", "LanguageState", "Step", "decode", "sampling_draws", "spelling_evidence"]

#: Rows that have ended are dropped once at most this share is left: moving the others costs a copy of their cache.
_WORTH_MOVING: Final = 0.75


@dataclass
class LanguageState:
    """A batch between two forward passes.

    Attributes:
        cache: Keys and values, ``(rows, heads, length, head_dim)`` a layer.
        mask: 1 where the cache holds a token and 0 where it holds padding, ``(rows, length)``.
        position: Position of the next token, ``(rows,)``.
        logits: Of the next token, ``(rows, vocabulary)``, float32.
    """

    cache: GrowingCache
    mask: torch.Tensor
    position: torch.Tensor
    logits: torch.Tensor

    def select(self, rows: torch.Tensor) -> None:
        """Keep (or repeat) the given rows."""
        self.cache.batch_select_indices(rows)
        self.mask, self.position, self.logits = self.mask[rows], self.position[rows], self.logits[rows]


@dataclass
class Decoded:
    """One row's response.

    Attributes:
        tokens: Token ids, the end token included if there is one.
        evidence: log P(yes) and log P(no) as the next word, before each token.
        finished: Whether the row ended by itself.
    """

    tokens: list[int] = field(default_factory=list)
    evidence: list[Sequence[float]] = field(default_factory=list)
    finished: bool = False


Step = Callable[[LanguageState, torch.Tensor], None]
"""Appends one token ``(rows,)`` to the state."""


def sampling_draws(keys: Sequence[tuple[str, int]], *, seed: int, length: int) -> np.ndarray:
    """Return uniform random numbers in [0, 1), ``(len(keys), length)``: one stream per pair and sample.

    A response depends only on the seed, its pair and its sample, never on the other responses of a batch.
    """
    rows = []
    for pair_id, sample in keys:
        digest = hashlib.sha256(f"{seed}\n{sample}\n{pair_id}".encode()).digest()
        rows.append(np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little"))).random(length))
    return np.stack(rows)


def decode(
    state: LanguageState,
    step: Step,
    *,
    end_tokens: Sequence[int],
    max_new_tokens: int,
    spellings: Sequence[torch.Tensor],
    draws: np.ndarray | None = None,
    temperature: float = 1.0,
    guide: TemplateGuide | None = None,
) -> list[Decoded]:
    """Decode every row until its end token; rows that have ended leave the batch.

    Args:
        state: The batch after its prompts; used up.
        step: Runs the model on one more token a row.
        end_tokens: Ids that end a response.
        max_new_tokens: Longest response.
        spellings: The tokens that spell yes, and those that spell no.
        draws: Uniform draws ``(rows, max_new_tokens)`` for sampling; None for greedy.
        temperature: Of sampling.
        guide: Holds responses to a template.
    """
    results = [Decoded() for _ in state.mask]
    rows, ends = list(range(len(results))), set(end_tokens)
    if guide:
        guide.begin(len(rows))
    for index in range(max_new_tokens):
        if guide:
            guide.constrain(state.logits, rows)
        evidence = spelling_evidence(state.logits, spellings).tolist()
        taken = _take(state.logits, draws[rows, index] if draws is not None else None, temperature)
        for row, token, logs in zip(rows, taken.tolist(), evidence, strict=True):
            if not (result := results[row]).finished:
                result.tokens.append(token)
                result.evidence.append(logs)
                result.finished = token in ends
                if guide:
                    guide.accept(row, token)
        kept = [place for place, row in enumerate(rows) if not results[row].finished]
        if not kept or index + 1 == max_new_tokens:
            break
        if len(kept) <= _WORTH_MOVING * len(rows):
            keep = torch.tensor(kept, device=taken.device)
            state.select(keep)
            taken, rows = taken[keep], [rows[place] for place in kept]
        step(state, taken)
    return results


def spelling_evidence(logits: torch.Tensor, spellings: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the log of the probability that the next token is one of each group of tokens, ``(rows, groups)``."""
    total = logits.logsumexp(dim=-1)
    return torch.stack([logits[:, tokens].logsumexp(dim=-1) - total for tokens in spellings], dim=-1)


def _take(logits: torch.Tensor, draws: np.ndarray | None, temperature: float) -> torch.Tensor:
    if draws is None:
        return logits.argmax(dim=-1)
    reach = torch.softmax(logits.double() / temperature, dim=-1).cumsum(dim=-1)
    aim = torch.as_tensor(draws, device=logits.device, dtype=reach.dtype)[:, None] * reach[:, -1:]
    return torch.searchsorted(reach, aim, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)
