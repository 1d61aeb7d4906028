"""Samples that share one cached prompt are what the model says, with the log-probabilities of a full forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.trainers.cpu.conftest import positions_of

from lad_rehearsal.verl_cpu.decoding import RolloutSampling, Vocabulary, choose_tokens, generate, keep_top
from lad_rehearsal.verl_cpu.encoding import EncodedPrompts, encode_prompts

pytestmark = pytest.mark.frameworks


@pytest.fixture(scope="module")
def prompts(processor: Any, chats: Any) -> EncodedPrompts:
    return encode_prompts(processor, chats)


@pytest.fixture(scope="module")
def vocabulary(processor: Any, model: Any) -> Vocabulary:
    end = [processor.tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", ".")]
    return Vocabulary(end=torch.tensor(end), never=torch.tensor([model.config.image_token_id]))


def forward(model: Any, prompts: EncodedPrompts, row: int, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities of a response by one ordinary forward pass over prompt and response."""
    ids = torch.cat([prompts.prompt_ids(row), torch.tensor(tokens)]).unsqueeze(0)
    positions = positions_of(model, ids[0], prompts.images()[row].get("image_grid_thw"))
    with torch.no_grad():
        logits = model(input_ids=ids, position_ids=positions, **prompts.images()[row]).logits[0]
    return logits[-len(tokens) - 1 : -1].log_softmax(dim=-1)


def test_greedy_responses_are_those_of_generate(
    processor: Any, model: Any, prompts: EncodedPrompts, vocabulary: Vocabulary
) -> None:
    responses = generate(model, prompts, RolloutSampling(1, 12, temperature=0), vocabulary, torch.Generator())
    theirs = model.generate(
        input_ids=prompts.input_ids,
        attention_mask=prompts.attention_mask,
        mm_token_type_ids=(prompts.input_ids == model.config.image_token_id).int(),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=vocabulary.end.tolist(),
        suppress_tokens=vocabulary.never.tolist(),
        **prompts.vision,
    )[:, prompts.input_ids.shape[1] :]
    for mine, other in zip(responses, theirs.tolist(), strict=True):
        assert mine.tokens == other[: len(mine.tokens)]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probs_are_those_of_a_full_forward_pass(
    model: Any, prompts: EncodedPrompts, vocabulary: Vocabulary, temperature: float
) -> None:
    sampling = RolloutSampling(5, 16, temperature=temperature, top_p=0.9, top_k=50)
    responses = generate(model, prompts, sampling, vocabulary, torch.Generator().manual_seed(3))
    assert len({tuple(response.tokens) for response in responses}) > 3  # the samples of a prompt differ
    for number, response in enumerate(responses):
        logits = forward(model, prompts, number // 5, response.tokens) / temperature
        expected = logits.log_softmax(dim=-1)[range(len(response.tokens)), response.tokens]
        torch.testing.assert_close(torch.tensor(response.log_probs), expected, atol=1e-4, rtol=1e-4)


def test_a_response_ends_with_its_first_end_token(model: Any, prompts: EncodedPrompts, vocabulary: Vocabulary) -> None:
    common = [token for token in range(len(model.get_input_embeddings().weight)) if token % 3 == 0]
    ends = Vocabulary(end=torch.tensor(common), never=vocabulary.never)
    responses = generate(model, prompts, RolloutSampling(8, 20), ends, torch.Generator().manual_seed(0))
    lengths = {len(response.tokens) for response in responses}
    assert len(lengths) > 2
    for response in responses:
        places = [place for place, token in enumerate(response.tokens) if token in common]
        ended = [len(response.tokens) - 1]
        assert places == (ended if len(response.tokens) < 20 or response.tokens[-1] in common else [])


def test_forbidden_tokens_are_not_sampled_but_count_in_the_probability() -> None:
    logits = torch.tensor([[[5.0, 1.0, 0.0]]])
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.0, 1.0):
        chosen, log_probs = choose_tokens(
            logits, RolloutSampling(1, 1, temperature=temperature), torch.tensor([0]), generator
        )
        assert chosen.item() in {1, 2}
        assert log_probs.item() == pytest.approx(logits.log_softmax(-1)[0, 0, chosen.item()].item())


def test_tokens_are_drawn_with_their_probability() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(1, 40_000, -1)
    chosen, _ = choose_tokens(
        logits, RolloutSampling(1, 1), torch.tensor([], dtype=torch.long), torch.Generator().manual_seed(7)
    )
    shares = torch.bincount(chosen.flatten(), minlength=4) / chosen.numel()
    torch.testing.assert_close(shares, torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.012, rtol=0)


@pytest.mark.parametrize(
    ("top_p", "top_k", "kept"),
    [(1.0, -1, 4), (0.4, -1, 1), (0.51, -1, 2), (0.96, -1, 4), (1.0, 2, 2), (0.51, 1, 1), (1.0, 9, 4)],
)
def test_top_p_and_top_k(top_p: float, top_k: int, kept: int) -> None:
    log_probs = torch.tensor([[0.05, 0.5, 0.15, 0.3]]).double().log()
    left = keep_top(log_probs, top_p=top_p, top_k=top_k).isfinite()
    assert left.sum() == kept
    assert left[0, 1]
