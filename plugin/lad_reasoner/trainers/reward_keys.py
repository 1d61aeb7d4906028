"""The keys that both trainers' reward adapters give: the reward, its parts, and the same parts by category.

Trainers average a key over the rows that have it. ``tp fp tn fn`` and their ``_<category>`` twins therefore are
shares of one whole, from which F1 follows: 2 tp / (2 tp + fp + fn).
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

from lad_reasoner.rewards import ACCURACY_WEIGHT, STRUCTURE_WEIGHT, rlad_reward

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
    gold = _read_gold(ground_truth)
    scores = rlad_reward(
        response,
        gold or ground_truth,  # an unreadable gold goes on as it is, so that the error shows it
        structure_weight=structure_weight,
        accuracy_weight=accuracy_weight,
    )
    for part, key in _category_keys(gold.get("category")):
        scores[key] = scores[part]
    return scores


@lru_cache(maxsize=65536)  # each gold answer is read once for the n samples and epochs that share it
def _read_gold(ground_truth: str) -> dict[str, Any]:
    try:
        gold = json.loads(ground_truth)
    except (TypeError, ValueError):
        gold = None
    return gold if isinstance(gold, dict) else {}


@lru_cache(maxsize=1024)
def _category_keys(category: str | None) -> tuple[tuple[str, str], ...]:
    if not category:
        return ()
    # EasyR1's loggers nest keys at a slash.
    name = category.replace("/", "_")
    return tuple((part, f"{part}_{name}") for part in BY_CATEGORY)
