"""Put all samples of a prompt into one sequence, so that the trainer computes the prompt once.

GRPO samples n responses for each prompt, and with a tiny model the prompt (two images) is most of a sequence. The
responses follow the prompt in one row, and a mask lets each attend only to the prompt and to itself:

    row   p p p p p | a a a | b b b b | c c          responses a, b, c

Every response has the position ids that follow the prompt, so its logits are those of a separate sequence.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Grouped", "group_samples", "rows_of"]

#: What a place in a row belongs to: padding, the prompt, or a response (numbered from 1).
_PADDING, _PROMPT = -1, 0


@dataclass(frozen=True)
class Grouped:
    """A batch of samples as G rows of S places.

    Attributes:
        first: Index of the first sample of each row.
        input_ids: ``(G, S)``.
        position_ids: ``(4, G, S)``: place in the text, then time, row and column.
        attention_mask: ``(G, 1, S, S)``: whether a place (third) attends to another (fourth).
        predictors: ``(T,)``: the place that predicts each response token, counted through all rows; samples in order.
        targets: ``(T,)``: where its log-probability goes in the concatenated tokens of all samples: one place before
            the token itself, as in verl.
        labels: ``(T,)``: its token id.
    """

    first: list[int]
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    predictors: torch.Tensor
    targets: torch.Tensor
    labels: torch.Tensor


def rows_of(prompts: Sequence[Hashable]) -> list[list[int]]:
    """Return the samples of each prompt, by index.

    Args:
        prompts: Names each sample's prompt; samples with the same name share prompt and images.
    """
    rows: dict[Hashable, list[int]] = {}
    for sample, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(sample)
    return list(rows.values())


def group_samples(
    sequences: Sequence[torch.Tensor],
    rows: Sequence[Sequence[int]],
    positions: Sequence[torch.Tensor],
    *,
    prompt_lengths: Sequence[int],
) -> Grouped:
    """Lay samples out by prompt.

    Args:
        sequences: Token ids of each sample: prompt, then response of at least one token.
        rows: The samples of each prompt, from `rows_of`.
        positions: ``(3, tokens)`` of each prompt: time, row and column of its tokens.
        prompt_lengths: Tokens of each sample's prompt, at least one.
    """
    totals = [prompt_lengths[row[0]] + sum(len(sequences[i]) - prompt_lengths[i] for i in row) for row in rows]
    width = max(totals)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    position_ids = torch.zeros(4, len(rows), width, dtype=torch.long)
    owner = torch.full((len(rows), width), _PADDING)
    predictors: list[torch.Tensor] = [torch.empty(0)] * len(sequences)
    for number, (row, places) in enumerate(zip(rows, positions, strict=True)):
        end = prompt = prompt_lengths[row[0]]
        input_ids[number, :prompt] = sequences[row[0]][:prompt]
        position_ids[:, number, :prompt] = torch.cat([torch.arange(prompt).unsqueeze(0), places])
        owner[number, :prompt] = _PROMPT
        for response, sample in enumerate(row, start=1):
            length = len(sequences[sample]) - prompt
            start, end = end, end + length
            input_ids[number, start:end] = sequences[sample][prompt:]
            position_ids[0, number, start:end] = prompt + torch.arange(length)
            position_ids[1:, number, start:end] = places.max() + 1 + torch.arange(length)
            owner[number, start:end] = response
            predictors[sample] = number * width + torch.cat([torch.tensor([prompt - 1]), torch.arange(start, end - 1)])
    return Grouped(
        first=[row[0] for row in rows],
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=_attends(owner),
        predictors=torch.cat(predictors),
        targets=_targets(sequences, prompt_lengths),
        labels=torch.cat([ids[prompt:] for ids, prompt in zip(sequences, prompt_lengths, strict=True)]),
    )


def _attends(owner: torch.Tensor) -> torch.Tensor:
    """Return which place attends to which; padding attends to the prompt, because an empty softmax is NaN."""
    seeing, seen = owner.unsqueeze(2), owner.unsqueeze(1)
    earlier = torch.ones(owner.shape[1], owner.shape[1], dtype=torch.bool).tril()
    return (((seen == _PROMPT) | (seen == seeing)) & earlier).unsqueeze(1)


def _targets(sequences: Sequence[torch.Tensor], prompt_lengths: Sequence[int]) -> torch.Tensor:
    starts = torch.tensor([0, *[len(ids) for ids in sequences]]).cumsum(0).tolist()
    return torch.cat(
        [
            torch.arange(start + prompt - 1, end - 1)
            for start, end, prompt in zip(starts[:-1], starts[1:], prompt_lengths, strict=True)
        ]
    )
