"""The keys that both trainers' reward adapters give: the reward, its parts, and the same parts by category.

Trainers average a key over the rows that have it. ``tp fp tn fn`` and their ``_<category>`` twins therefore are
shares of one whole, from which F1 follows: 2 tp / (2 tp + fp + fn).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import pstdev
from typing import Any, Final

from lad_reasoner.pairs.frames import Frame
from lad_reasoner.pairs.tokens import TrainerPixels
from lad_reasoner.task.classes import read_response
from lad_reasoner.task.gold import YES_NO, read_gold
from lad_reasoner.task.optional_rewards import OptionalRewards, OptionError, check_weight
from lad_reasoner.task.response import Response, parse, read_outcome
from lad_reasoner.task.rewards import ACCURACY_WEIGHT, STRUCTURE_WEIGHT, combined_reward, rlad_reward
from lad_reasoner.task.task import Label

__all__ = ["BY_CATEGORY", "GROUP_SIZE", "group_keys", "read_options", "score_response"]

#: The parts that are also given by category, where there are such parts: ``naming`` and ``box`` are optional.
BY_CATEGORY: Final = ("accuracy", "structure", "tp", "fp", "tn", "fn", "naming", "box")

#: The option that states how many consecutive rows of a training batch answer one prompt.
GROUP_SIZE: Final = "group_size"

_BASE_WEIGHTS: Final = ("structure_weight", "accuracy_weight")


def score_response(
    response: str,
    ground_truth: str,
    *,
    response_length: int | None = None,
    structure_weight: float = STRUCTURE_WEIGHT,
    accuracy_weight: float = ACCURACY_WEIGHT,
    **optional: float,
) -> dict[str, float]:
    """Score one response; `lad_reasoner.task.rewards.rlad_reward` says how.

    Args:
        response: The text, without special tokens.
        ground_truth: The gold answer; its ``category``, if any, names the extra keys.
        response_length: In tokens; read by the optional rewards of length alone.
        structure_weight: Weight of the structure reward.
        accuracy_weight: Weight of the accuracy reward.
        optional: See `lad_reasoner.task.optional_rewards.OptionalRewards`; none by default.

    Raises:
        ValueError: The gold has no label of yes or no, or an option is wrong.

    Example:
        >>> gold = '{"label": "no", "category": "pushpins"}'
        >>> score_response("<answer> no </answer>", gold)["accuracy_pushpins"]
        1.0
    """
    gold = read_gold(ground_truth)
    said = parse(response) if optional else read_outcome(response)
    if gold.answers == YES_NO and gold.choice is None:
        scores = _scores(said.answer, said.well_formed, ground_truth, structure_weight, accuracy_weight).copy()
    else:
        weights = {"structure_weight": structure_weight, "accuracy_weight": accuracy_weight}
        scores = _by_category(rlad_reward(response, ground_truth, **weights), ground_truth)
        said = read_response(response, gold)
        if gold.choice is not None:  # the optional rewards are paid for right answers
            said = said._replace(answer=gold.label if scores["accuracy"] else None)
    if optional:
        rewards = _optional(tuple(optional.items()))
        frame = (1, 1) if rewards.box_weight is None or gold.boxes is None else _frame(rewards).size(*gold.size)
        extra, parts = rewards.parts(said, ground_truth, response_length, frame)
        scores["overall"] += extra
        scores |= _by_category(parts, ground_truth)
    return scores


def group_keys(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return what a group of responses to one prompt shows: whether all are right or all wrong, and the spread.

    A group whose rewards are all equal has no advantage, so it teaches nothing. Averaged over the rows of a step, the
    first two keys are the shares of such groups.

    Example:
        >>> group_keys([{"overall": 1.0, "accuracy": 1.0}, {"overall": 0.5, "accuracy": 0.0}])
        {'unanimous_right': 0.0, 'unanimous_wrong': 0.0, 'reward_spread': 0.25}
    """
    right = [score.get("accuracy", score["overall"]) > 0 for score in scores]
    return {
        "unanimous_right": float(all(right)),
        "unanimous_wrong": float(not any(right)),
        "reward_spread": pstdev(score["overall"] for score in scores),
    }


def read_options(options: Mapping[str, Any]) -> OptionalRewards:
    """Check every option of ``worker.reward.reward_function_kwargs``, and return those of the optional rewards.

    Raises:
        OptionError: One is unknown, of the wrong type or out of bounds, or all weights are zero.
    """
    options = {name: value for name, value in options.items() if name != GROUP_SIZE}
    for name in _BASE_WEIGHTS:
        check_weight(name, options.get(name, 0.5))
    optional = OptionalRewards.read({name: value for name, value in options.items() if name not in _BASE_WEIGHTS})
    paid = [value for name, value in options.items() if name.endswith("_weight") and value]
    if not paid and set(_BASE_WEIGHTS) <= set(options):
        raise OptionError("accuracy_weight", "every weight is 0, so no response earns anything")
    return optional


@lru_cache
def _optional(options: tuple[tuple[str, float], ...]) -> OptionalRewards:
    return OptionalRewards.read(dict(options))


@lru_cache
def _frame(rewards: OptionalRewards) -> Frame:
    return Frame(rewards.box_scale, trainer=TrainerPixels(rewards.box_smallest, rewards.box_largest))


@lru_cache(maxsize=16384)  # the responses to a pair differ in their words, but only six outcomes are possible
def _scores(
    answer: Label | None, well_formed: bool, ground_truth: str, structure_weight: float, accuracy_weight: float
) -> dict[str, float]:
    """Return the keys of an outcome; the caller must copy them."""
    weights = {"structure_weight": structure_weight, "accuracy_weight": accuracy_weight}
    return _by_category(combined_reward(Response("", answer, well_formed), ground_truth, **weights), ground_truth)


def _by_category(scores: dict[str, float], ground_truth: str) -> dict[str, float]:
    """Return scores with those of `BY_CATEGORY` once more under the category's name."""
    if not (category := read_gold(ground_truth).category):
        return scores
    name = category.replace("/", "_")  # EasyR1's loggers nest keys at a slash
    return scores | {f"{part}_{name}": scores[part] for part in BY_CATEGORY if part in scores}
