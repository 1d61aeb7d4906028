"""The keys that both trainers' reward adapters give: the reward, its parts, and the same parts by category.

Trainers average a key over the rows that have it. ``tp fp tn fn`` and their ``_<category>`` twins therefore are
shares of one whole, from which F1 follows: 2 tp / (2 tp + fp + fn).
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Final

from lad_reasoner.response import Response, parse
from lad_reasoner.rewards import ACCURACY_WEIGHT, STRUCTURE_WEIGHT, combined_reward
from lad_reasoner.task import Label

__all__ = ["BY_CATEGORY", "score_response"]

#: The parts that are also given by category.
BY_CATEGORY: Final = ("accuracy", "structure", "tp", "fp", "tn", "fn")


def score_response(
    response: str,
    ground_truth: str,
    *,
    response_length: int | None = None,  # noqa: ARG001 - given by EasyR1; the paper's reward does not read it
    structure_weight: float = STRUCTURE_WEIGHT,
    accuracy_weight: float = ACCURACY_WEIGHT,
) -> dict[str, float]:
    """Score one response; `lad_reasoner.rewards.rlad_reward` says how.

    Args:
        response: The text, without special tokens.
        ground_truth: The gold JSON; its ``category``, if any, names the extra keys.
        response_length: In tokens.
        structure_weight: Weight of the structure reward.
        accuracy_weight: Weight of the accuracy reward.

    Raises:
        ValueError: The gold has no label of yes or no.

    Example:
        >>> gold = '{"label": "no", "category": "pushpins"}'
        >>> score_response("<answer> no </answer>", gold)["accuracy_pushpins"]
        1.0
    """
    said = parse(response)
    return _scores(said.answer, said.well_formed, ground_truth, structure_weight, accuracy_weight).copy()


@lru_cache(maxsize=16384)  # the responses to a pair differ in their words, but only six outcomes are possible
def _scores(
    answer: Label | None, well_formed: bool, ground_truth: str, structure_weight: float, accuracy_weight: float
) -> dict[str, float]:
    """Return the keys of an outcome; the caller must copy them."""
    scores = combined_reward(
        Response("", answer, well_formed),
        ground_truth,
        structure_weight=structure_weight,
        accuracy_weight=accuracy_weight,
    )
    if category := json.loads(ground_truth).get("category"):
        name = str(category).replace("/", "_")  # EasyR1's loggers nest keys at a slash
        scores |= {f"{part}_{name}": scores[part] for part in BY_CATEGORY}
    return scores
