"""Sample n responses for each prompt of a batch, with the log-probabilities that the trainer will compute.

Each prompt is computed and cached once for all its samples. The samples share one cache, to which each step adds n
tokens. A mask lets each sample attend only to the prompt and to itself:

    cache of a prompt   p p p p p | a1 b1 c1 | a2 b2 c2 | ...        samples a, b, c

A step therefore reads the prompt's keys and values once instead of n times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from lad_reasoner.models.qwen_vl import run_language_model

if TYPE_CHECKING:
    from transformers import DynamicCache

    from lad_rehearsal.verl_cpu.encoding import EncodedPrompts

__all__ = ["RolloutSampling", "SampledResponse", "Vocabulary", "choose_tokens", "generate", "keep_top"]


@dataclass(frozen=True)
class RolloutSampling:
    """Sampling parameters of a rollout.

    Attributes:
        samples: Responses per prompt.
        max_new_tokens: Maximum length of a response, including the end token.
        temperature: 0 selects the most likely token.
        top_p: Sample from the most likely tokens that together reach this probability; 1 keeps all.
        top_k: Sample from this many most likely tokens; 0 or less keeps all.
    """

    samples: int
    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1


@dataclass(frozen=True)
class Vocabulary:
    """Special tokens.

    Attributes:
        end: Each of these ends a response.
        never: Never sampled: image and video placeholders, for which the trainer would need images.
    """

    end: torch.Tensor
    never: torch.Tensor


@dataclass(frozen=True)
class SampledResponse:
    """A sampled response.

    Attributes:
        tokens: Token ids, including the end token if there is one.
        log_probs: One per token, over the whole vocabulary at the sampling temperature (1 when greedy). Top-p, top-k
            and forbidden tokens do not change them, because the trainer recomputes them without these.
    """

    tokens: list[int]
    log_probs: list[float]


@dataclass
class _State:
    """The P prompts that still have an unfinished sample."""

    cache: DynamicCache
    index: torch.Tensor  # (P,) row in the whole batch
    mask: torch.Tensor  # (P, 1, samples, cached): what each sample attends to
    position: torch.Tensor  # (P,) of the next token
    logits: torch.Tensor  # (P, samples, vocabulary) of the next token

    def select(self, keep: torch.Tensor) -> None:
        self.cache.batch_select_indices(keep)
        self.index, self.mask = self.index[keep], self.mask[keep]
        self.position, self.logits = self.position[keep], self.logits[keep]


@torch.inference_mode()  # type: ignore[untyped-decorator]
def generate(
    model: Any, prompts: EncodedPrompts, sampling: RolloutSampling, vocabulary: Vocabulary, generator: torch.Generator
) -> list[SampledResponse]:
    """Return the responses; the samples of a prompt are adjacent."""
    shape = (len(prompts), sampling.samples)
    tokens = torch.zeros(*shape, sampling.max_new_tokens, dtype=torch.long)
    log_probs = torch.zeros(*shape, sampling.max_new_tokens)
    lengths = torch.full(shape, sampling.max_new_tokens)
    running = torch.ones(shape, dtype=torch.bool)
    state = _prefill(model, prompts, sampling.samples)
    for step in range(sampling.max_new_tokens):
        chosen, chosen_log_probs = choose_tokens(state.logits, sampling, vocabulary.never, generator)
        tokens[state.index, :, step], log_probs[state.index, :, step] = chosen, chosen_log_probs
        ended = running[state.index] & torch.isin(chosen, vocabulary.end)
        lengths[state.index] = lengths[state.index].masked_fill(ended, step + 1)
        running[state.index] &= ~ended
        unfinished = running[state.index].any(dim=1)
        if step + 1 == sampling.max_new_tokens or not unfinished.any():
            break
        if not unfinished.all():
            state.select(unfinished.nonzero().squeeze(1))
            chosen = chosen[unfinished]
        _advance(model, state, chosen)
    rows = zip(tokens.flatten(0, 1), log_probs.flatten(0, 1), lengths.flatten().tolist(), strict=True)
    return [SampledResponse(ids[:length].tolist(), scores[:length].tolist()) for ids, scores, length in rows]


def _prefill(model: Any, prompts: EncodedPrompts, samples: int) -> _State:
    from transformers import DynamicCache

    cache = DynamicCache(config=model.config.get_text_config())
    embeddings = model.get_input_embeddings()(prompts.input_ids)
    deep: dict[str, Any] = {}
    if prompts.vision:
        features = model.model.get_image_features(**prompts.vision)
        images = torch.cat(features.pooler_output)
        places = prompts.input_ids == model.config.image_token_id
        embeddings = embeddings.masked_scatter(places.unsqueeze(-1), images.to(embeddings.dtype))
        if (deepstack := getattr(features, "deepstack_features", None)) is not None:
            # Qwen3-VL adds features of earlier vision layers to the first language layers.
            deep = {"visual_pos_masks": places, "deepstack_visual_embeds": deepstack}
    hidden = run_language_model(
        model, cache, embeddings, mask=prompts.attention_mask, positions=prompts.position_ids, **deep
    )
    return _State(
        cache=cache,
        index=torch.arange(len(prompts)),
        mask=prompts.attention_mask.bool()[:, None, None].expand(-1, -1, samples, -1),
        position=prompts.next_position,
        logits=model.lm_head(hidden[:, -1:]).float().expand(-1, samples, -1),
    )


def _advance(model: Any, state: _State, chosen: torch.Tensor) -> None:
    """Append the chosen tokens, ``(P, samples)``, and compute the logits after them."""
    prompts, samples = chosen.shape
    itself = torch.eye(samples, dtype=torch.bool).expand(prompts, 1, -1, -1)
    state.mask = torch.cat([state.mask, itself], dim=-1)
    positions = state.position[None, :, None].expand(3, -1, samples)
    embeddings = model.get_input_embeddings()(chosen)
    hidden = run_language_model(model, state.cache, embeddings, mask=state.mask, positions=positions)
    state.logits, state.position = model.lm_head(hidden).float(), state.position + 1


def choose_tokens(
    logits: torch.Tensor, sampling: RolloutSampling, never: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample one token per sample; return the tokens and their log-probabilities, ``(P, samples)`` each."""
    scores = logits / sampling.temperature if sampling.temperature > 0 else logits
    log_probs = scores.log_softmax(dim=-1)
    allowed = log_probs.index_fill(-1, never, -torch.inf)
    if sampling.temperature > 0:
        kept = keep_top(allowed, top_p=sampling.top_p, top_k=sampling.top_k)
        # Dividing by exponential noise and taking the maximum is a multinomial draw, faster than torch.multinomial.
        noise = torch.empty_like(kept).exponential_(generator=generator)
        chosen = (kept.exp() / noise).argmax(dim=-1)
    else:
        chosen = allowed.argmax(dim=-1)
    return chosen, log_probs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)


def keep_top(log_probs: torch.Tensor, *, top_p: float, top_k: int) -> torch.Tensor:
    """Set the log-probability of all but the top tokens to minus infinity."""
    if 0 < top_k < log_probs.shape[-1]:
        smallest = log_probs.topk(top_k, dim=-1).values[..., -1:]
        log_probs = log_probs.masked_fill(log_probs < smallest, -torch.inf)
    if top_p < 1:
        ordered, places = log_probs.softmax(dim=-1).sort(dim=-1, descending=True)
        # Drop a token if those before it already reach top_p; the most likely token always stays.
        beyond = ordered.cumsum(dim=-1) - ordered >= top_p
        log_probs = log_probs.masked_fill(beyond.scatter(-1, places, beyond), -torch.inf)
    return log_probs
