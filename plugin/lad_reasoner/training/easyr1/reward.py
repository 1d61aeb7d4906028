"""The reward file that EasyR1 loads: ``worker.reward.reward_function: .../training/easyr1/reward.py:compute_score``.

Scored: the template (structure) and the answer (accuracy), weighted 0.5 and 0.5 as in arXiv 2504.12749; see
`lad_reasoner.task.rewards`. EasyR1 averages every key over the rows that have it and logs it as ``reward/<key>`` while
training and as ``val/<key>_reward`` in validation, so a key of one category is that category's mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from lad_reasoner.training.reward_keys import group_keys, score_response

__all__ = ["compute_score"]

#: Read by EasyR1 when it loads this file.
REWARD_NAME: Final = "rlad"
REWARD_TYPE: Final = "batch"


def compute_score(
    reward_inputs: Sequence[Mapping[str, Any]], *, group_size: int = 1, **options: Any
) -> list[dict[str, float]]:
    """Score a batch.

    Args:
        reward_inputs: EasyR1's rows: ``response``, ``response_length`` (tokens), ``ground_truth`` (the gold answer).
        group_size: ``worker.rollout.n``. Consecutive rows of one gold answer then also get the keys of
            `lad_reasoner.training.reward_keys.group_keys`.
        options: ``worker.reward.reward_function_kwargs``; see `lad_reasoner.training.reward_keys.score_response`.

    Returns:
        One dict of plain floats a row; ``overall`` is the reward.

    Example:
        >>> row = {"response": "<answer> no </answer>", "response_length": 9, "ground_truth": '{"label": "no"}'}
        >>> compute_score([row])[0]["overall"]
        0.5
    """
    scores = [
        score_response(row["response"], row["ground_truth"], response_length=row["response_length"], **options)
        for row in reward_inputs
    ]
    if group_size < 2 or len(scores) % group_size:
        return scores
    for start in range(0, len(scores), group_size):
        group = slice(start, start + group_size)
        # Validation batches hold single responses, which are no groups.
        if len({row["ground_truth"] for row in reward_inputs[group]}) == 1:
            keys = group_keys(scores[group])
            for score in scores[group]:
                score.update(keys)
    return scores
