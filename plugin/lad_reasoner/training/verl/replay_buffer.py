"""verl's replay buffer, with two changes: it reports the parts of the reward, and it polls for samples often.

verl logs the mean reward of a training step but none of its parts, and validates by data source without counts. The
buffer is where every scored batch passes exactly once, so the parts are summed here: the means join verl's own metrics
as ``reward/<key>``, and the sums are appended to a file that `lad_reasoner.training.metrics` reads.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import transfer_queue as tq
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from lad_reasoner.training.reward_keys import group_keys

__all__ = ["RewardReplayBuffer", "add_group_keys"]

#: Seconds between two looks at the queue. verl's own 2 s are a good part of a short step.
POLL_INTERVAL: Final = 0.1


class RewardReplayBuffer(ReplayBuffer):  # type: ignore[misc]  # verl is untyped
    """Samples as verl's synchronous buffer does; ``sampler_kwargs.reward_log``, if given, is the file of sums."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"poll_interval": POLL_INTERVAL, **kwargs})
        path = self.sampler_kwargs.get("reward_log")
        self._reward_log = Path(path) if path else None

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Return verl's batch, and its metrics with the mean of every key that the reward function gave."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"])
        scores = [dict(fields.get("reward_extra_info", {})) for fields in data["extra_fields"]]
        if partition_id != "val":
            add_group_keys(batch.keys, scores)
        sums, counts = sum_by_key(scores)
        if self._reward_log is not None:
            row = {"step": global_steps, "split": partition_id, "rows": len(scores), "sums": sums, "counts": counts}
            with self._reward_log.open("a", encoding="utf-8") as log:
                log.write(json.dumps(row) + "\n")
        return batch, {**metrics, **{f"reward/{key}": total / counts[key] for key, total in sums.items()}}


def add_group_keys(names: Sequence[str], scores: Sequence[dict[str, float]]) -> None:
    """Add `group_keys` to each score; verl names a sample ``<prompt's id>_<session>_<index>``."""
    groups: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
    for name, score in zip(names, scores, strict=True):
        groups[name.partition("_")[0]].append(score)
    for group in groups.values():
        if len(group) > 1 and all("overall" in score for score in group):
            keys = group_keys(group)
            for score in group:
                score.update(keys)


def sum_by_key(scores: Iterable[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, int]]:
    """Return, for each key, the sum of its values and the number of rows that have it."""
    sums: defaultdict[str, float] = defaultdict(float)
    counts: defaultdict[str, int] = defaultdict(int)
    for row in scores:
        for key, value in row.items():
            sums[key] += value
            counts[key] += 1
    return dict(sums), dict(counts)
