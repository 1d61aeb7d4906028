"""verl's reward function, for a verl run of one's own.

    reward.custom_reward_function.path=pkg://lad_reasoner.training.verl.reward

The `easyr1` command does not need it: there `reward_manager` calls the EasyR1 reward file of the config.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lad_reasoner.training.reward_keys import score_response

__all__ = ["compute_score"]


def compute_score(
    data_source: str,  # noqa: ARG001 - verl calls with these names
    solution_str: str,
    ground_truth: str,
    extra_info: Mapping[str, Any] | None = None,  # noqa: ARG001
    **options: Any,
) -> dict[str, float]:
    """Score one response for verl: ``score`` is the reward, the rest are its parts.

    Example:
        >>> compute_score("mvtec_loco/pushpins", "<answer> no </answer>", '{"label": "no"}')["score"]
        0.5
    """
    scores = score_response(solution_str, ground_truth, **options)
    scores["score"] = scores.pop("overall")
    return scores
