"""verl's reward manager for EasyR1 reward files: it hands over what EasyR1 hands over, token count included."""

from __future__ import annotations

import asyncio
from typing import Any

from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

from lad_reasoner.training.easyr1.reward_file import load_reward

__all__ = ["EasyR1RewardManager"]


class EasyR1RewardManager(RewardManagerBase):  # type: ignore[misc]  # verl is untyped
    """Scores each finished response with the EasyR1 reward file named in the reward_kwargs of verl's config.

    ``overall`` becomes the reward; every key becomes a metric (see `replay_buffer`). A batch function is given a batch
    of one, because verl scores each response the moment it is finished.
    """

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any, **_: Any) -> None:
        super().__init__(config, tokenizer, compute_score)
        options = config.reward.custom_reward_function.reward_kwargs
        self.reward = load_reward(options.reward_function)
        self.kwargs = dict(options.reward_function_kwargs)
        self.skip_special_tokens = bool(options.skip_special_tokens)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """Score the last sequence of a trajectory; verl calls this for each."""
        item = data[-1]
        responses = item.batch["responses"]
        length = int(item.batch["attention_mask"][-len(responses) :].sum())
        row = {
            "response": self.tokenizer.decode(responses[:length], skip_special_tokens=self.skip_special_tokens),
            "response_length": length,
            "ground_truth": item.non_tensor_batch["reward_model"]["ground_truth"],
        }
        # In a thread, because a user's reward may wait for a server.
        (scores,) = await asyncio.to_thread(self.reward.score, [row], **self.kwargs)
        return {"reward_score": scores["overall"], "reward_extra_info": scores}
