"""Samples laid out in one row with their prompt give the logits that each gives in a row of its own."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trainers.cpu.conftest import positions_of

from lad_rehearsal.verl_cpu.encoding import encode_prompts
from lad_rehearsal.verl_cpu.grouping import group_samples, rows_of

pytestmark = pytest.mark.frameworks


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.lists(st.integers(1, 6), min_size=1, max_size=4)), min_size=1, max_size=4
    ),
    st.randoms(),
)
def test_every_response_token_finds_its_place(groups: list[tuple[int, list[int]]], random: Any) -> None:
    samples = [
        (number, prompt, torch.arange(100 * number, 100 * number + prompt + response))
        for number, (prompt, responses) in enumerate(groups)
        for response in responses
    ]
    random.shuffle(samples)  # verl balances: samples of a prompt need not stand together
    sequences = [ids for _, _, ids in samples]
    lengths = [prompt for _, prompt, _ in samples]
    rows = rows_of([number for number, _, _ in samples])
    positions = [torch.arange(lengths[row[0]]).expand(3, -1) for row in rows]
    grouped = group_samples(sequences, rows, positions, prompt_lengths=lengths)
    assert len(grouped.input_ids) == len(groups)
    ends = torch.cat(sequences)
    # What predicts a token is the place before it: in the row, and in verl's layout.
    assert torch.equal(grouped.labels, torch.cat([ids[p:] for ids, p in zip(sequences, lengths, strict=True)]))
    assert torch.equal(
        ends[grouped.targets], torch.cat([ids[p - 1 : -1] for ids, p in zip(sequences, lengths, strict=True)])
    )
    assert torch.equal(grouped.input_ids.flatten()[grouped.predictors], ends[grouped.targets])


def test_logits_are_those_of_separate_rows(processor: Any, model: Any, chats: Any) -> None:
    prompts = encode_prompts(processor, chats)
    draw = torch.Generator().manual_seed(5)
    owners, lengths = [0, 1, 0, 2, 1, 0], [4, 7, 1, 5, 3, 9]
    responses = [torch.randint(20, 200, (length,), generator=draw) for length in lengths]
    sequences = [torch.cat([prompts.prompt_ids(row), ids]) for row, ids in zip(owners, responses, strict=True)]
    images = prompts.images()
    places = [
        positions_of(model, ids, images[row]["image_grid_thw"]) for ids, row in zip(sequences, owners, strict=True)
    ]
    prompt_lengths = [len(prompts.prompt_ids(row)) for row in owners]
    rows = rows_of([f"prompt {row}" for row in owners])
    grouped = group_samples(
        sequences,
        rows,
        [places[row[0]][:, 0, : prompt_lengths[row[0]]] for row in rows],
        prompt_lengths=prompt_lengths,
    )
    in_rows = [images[owners[sample]] for sample in grouped.first]
    with torch.no_grad():
        together = model(
            input_ids=grouped.input_ids,
            position_ids=grouped.position_ids,
            attention_mask=grouped.attention_mask,
            **{key: torch.cat([some[key] for some in in_rows]) for key in in_rows[0]},
        ).logits.flatten(0, 1)[grouped.predictors]
        alone = [
            model(input_ids=ids.unsqueeze(0), position_ids=place, **images[row]).logits[0, -length - 1 : -1]
            for ids, place, row, length in zip(sequences, places, owners, lengths, strict=True)
        ]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-4, rtol=1e-4)
