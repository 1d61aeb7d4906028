"""Samples that share a prompt as one sequence, so that the trainer computes the prompt once.

GRPO draws n responses to each prompt, and at a CPU's sizes the prompt (two images) is most of a sequence. The
responses follow the prompt in one row, and a mask lets each see the prompt and itself alone:

    row   p p p p p | a a a | b b b b | c c          responses a, b, c

Position ids are those of each response right behind the prompt, so every token's logits are what they would be in a
sequence of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch

__all__ = ["Grouped", "group_samples"]

#: Owner of a place in a row: padding, the prompt, or a response (numbered from 1).
_PADDING, _PROMPT = -1, 0


@dataclass(frozen=True)
class Grouped:
    """A batch of samples as G rows of S places.

    Attributes:
        first: Index of the first sample of each row.
        input_ids: ``(G, S)``.
        position_ids: ``(4, G, S)``: place in the text, then time, row and column.
        attention_mask: ``(G, 1, S, S)``: whether a place (third) sees another (fourth).
        predictors: ``(T,)``: for each response token of each sample, in order, the place that predicts it, counted
            through all rows.
        targets: ``(T,)``: where its log-probability goes among all samples' tokens laid end to end: one place before
            the token itself, as verl has it.
        labels: ``(T,)``: its token id.
    """

    first: list[int]
    input_ids: torch.Tensor
    position_ids: torch.Tensor
    attention_mask: torch.Tensor
    predictors: torch.Tensor
    targets: torch.Tensor
    labels: torch.Tensor


def group_samples(
    sequences: Sequence[torch.Tensor],
    positions: Sequence[torch.Tensor],
    *,
    prompt_lengths: Sequence[int],
    prompts: Sequence[Hashable],
) -> Grouped:
    """Lay samples out by prompt.

    Args:
        sequences: Token ids of each sample: prompt, then response of at least one token.
        positions: ``(4, tokens)`` of each sample.
        prompt_lengths: Tokens of each sample's prompt, at least one.
        prompts: Names each sample's prompt; samples of the same name share prompt and images.
    """
    rows: dict[Hashable, list[int]] = {}
    for sample, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(sample)
    totals = [
        prompt_lengths[row[0]] + sum(len(sequences[i]) - prompt_lengths[i] for i in row) for row in rows.values()
    ]
    width = max(totals)
    input_ids = torch.zeros(len(rows), width, dtype=torch.long)
    position_ids = torch.zeros(4, len(rows), width, dtype=torch.long)
    owner = torch.full((len(rows), width), _PADDING)
    predictors: list[torch.Tensor] = [torch.empty(0)] * len(sequences)
    for number, row in enumerate(rows.values()):
        end = prompt = prompt_lengths[row[0]]
        input_ids[number, :prompt] = sequences[row[0]][:prompt]
        position_ids[:, number, :prompt] = positions[row[0]][:, :prompt]
        owner[number, :prompt] = _PROMPT
        for response, sample in enumerate(row, start=1):
            start, end = end, end + len(sequences[sample]) - prompt
            input_ids[number, start:end] = sequences[sample][prompt:]
            position_ids[:, number, start:end] = positions[sample][:, prompt:]
            owner[number, start:end] = response
            predictors[sample] = number * width + torch.cat([torch.tensor([prompt - 1]), torch.arange(start, end - 1)])
    return Grouped(
        first=[row[0] for row in rows.values()],
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=_see(owner),
        predictors=torch.cat(predictors),
        targets=_targets(sequences, prompt_lengths),
        labels=torch.cat([ids[prompt:] for ids, prompt in zip(sequences, prompt_lengths, strict=True)]),
    )


def _see(owner: torch.Tensor) -> torch.Tensor:
    """Return which place sees which; padding sees the prompt, lest its softmax be of nothing."""
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
