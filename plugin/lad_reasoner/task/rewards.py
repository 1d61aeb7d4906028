"""The rewards of GRPO (arXiv 2504.12749, eq. 7): structure and accuracy, weighted 0.5 and 0.5.

The third term of eq. 7, the KL penalty, is the trainer's: ``algorithm.disable_kl=false`` with ``use_kl_loss=false``
puts it in the reward, as in the paper. Standard library only, so any trainer can load this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lad_reasoner.task.classes import class_credit, class_label, gold_classes, read_class
from lad_reasoner.task.gold import CLASSES, read_gold
from lad_reasoner.task.response import Response, answer_text, parse
from lad_reasoner.task.task import ANOMALOUS, Label

__all__ = [
    "ACCURACY_WEIGHT",
    "STRUCTURE_WEIGHT",
    "accuracy_reward",
    "combined_reward",
    "rlad_reward",
    "structure_reward",
]

STRUCTURE_WEIGHT: Final = 0.5
ACCURACY_WEIGHT: Final = 0.5


def structure_reward(response: Response) -> float:
    """Return 1.0 if the response keeps to the template, else 0.0 (the paper's Structure Reward).

    Example:
        >>> structure_reward(parse("<think> all parts match </think><answer> no </answer>"))
        1.0
    """
    return float(response.well_formed)


def accuracy_reward(response: Response, label: Label) -> float:
    """Return 1.0 if and only if the answer is exactly the label, else 0.0 (the paper's Accuracy Reward).

    Example:
        >>> accuracy_reward(parse("<answer> no </answer>"), "no")
        1.0
    """
    return float(response.answer == label)


def rlad_reward(
    text: str,
    gold: str | Mapping[str, Any],
    *,
    structure_weight: float = STRUCTURE_WEIGHT,
    accuracy_weight: float = ACCURACY_WEIGHT,
) -> dict[str, float]:
    """Score one response.

    Args:
        text: The response, without special tokens.
        gold: The column ``answer`` of the pair parquet, in either form that `read_gold` accepts.
        structure_weight: Weight of the structure reward in ``overall``.
        accuracy_weight: Weight of the accuracy reward in ``overall``.

    Returns:
        The result of `combined_reward`. For answers by class, ``accuracy`` is 1.0 for a right class, ``credit`` also
        counts the right family (`lad_reasoner.task.classes.class_credit`) and is what ``overall`` pays. For a
        multiple-choice question ``accuracy`` is 1.0 for the right letter, and there is no confusion indicator.

    Raises:
        ValueError: ``gold`` has no label of yes or no.

    Example:
        >>> rlad_reward("<think> a cable is missing </think><answer> yes </answer>", '{"label": "yes"}')["overall"]
        1.0
    """
    weights = {"structure_weight": structure_weight, "accuracy_weight": accuracy_weight}
    truth = read_gold(gold)
    if truth.choice is not None:
        structure = structure_reward(parse(text))
        accuracy = float(answer_text(text).upper() == truth.choice["letter"])
        overall = structure_weight * structure + accuracy_weight * accuracy
        return {"overall": overall, "structure": structure, "accuracy": accuracy}
    if truth.answers != CLASSES:
        return combined_reward(parse(text), gold, **weights)
    said = read_class(answer_text(text))
    scores = combined_reward(parse(text)._replace(answer=class_label(said)), gold, **weights)
    credit = class_credit(said, gold_classes(truth.label, truth.kind, truth.defect))
    overall = structure_weight * scores["structure"] + accuracy_weight * credit
    return scores | {"overall": overall, "accuracy": float(credit == 1.0), "credit": credit}


def combined_reward(
    response: Response,
    gold: str | Mapping[str, Any],
    *,
    structure_weight: float = STRUCTURE_WEIGHT,
    accuracy_weight: float = ACCURACY_WEIGHT,
) -> dict[str, float]:
    """Score a parsed response against a gold answer, as in `rlad_reward`; the reasoning does not matter.

    Returns:
        ``overall`` (the weighted sum), and, each 0.0 or 1.0, ``structure``, ``accuracy`` and the confusion indicators
        ``tp fp tn fn``. An unparsed answer is wrong: ``fn`` if the query is anomalous, else ``fp``.

    Raises:
        ValueError: ``gold`` has no label of yes or no.
    """
    label = read_gold(gold).label
    structure, accuracy = structure_reward(response), accuracy_reward(response, label)
    right, anomalous = bool(accuracy), label == ANOMALOUS
    return {
        "overall": structure_weight * structure + accuracy_weight * accuracy,
        "structure": structure,
        "accuracy": accuracy,
        "tp": float(right and anomalous),
        "fp": float(not right and not anomalous),
        "tn": float(right and not anomalous),
        "fn": float(not right and anomalous),
    }
