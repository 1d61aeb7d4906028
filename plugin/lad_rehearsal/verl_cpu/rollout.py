"""The rollout of a step as one batch, instead of verl's agent loops (``rollout.agent.agent_loop_manager_class``).

verl's agent loop processes each of the n samples of a prompt separately: it prepares the images three times per sample
and calls the server, the reward worker and the store once per sample. Here each prompt is prepared once, and a step
makes one call to sample and one to store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import ray
import torch
import transfer_queue as tq
from tensordict import NonTensorData, TensorDict
from verl.protocol import DataProto
from verl.trainer.ppo.reward import load_reward_manager
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.ray_utils import get_event_loop
from verl.utils.tensordict_utils import list_of_dict_to_tensordict

from lad_reasoner.support.errors import UsageError
from lad_rehearsal.verl_cpu.decoding import RolloutSampling, SampledResponse
from lad_rehearsal.verl_cpu.encoding import EncodedPrompts, encode_prompts
from lad_rehearsal.verl_cpu.replica import HfReplica, sample

if TYPE_CHECKING:
    from omegaconf import DictConfig

__all__ = ["BatchRollout"]

#: Columns of a row that verl's trainer reads from each sample. Values that are not tensors are slow to read.
_STORED: Final = ("uid", "data_source", "reward_model")


@dataclass(frozen=True)
class _PromptSample:
    """One response to one prompt."""

    prompt: int
    key: str
    response: SampledResponse
    version: int


class BatchRollout:
    """Samples responses, scores them and puts them into verl's TransferQueue.

    Args:
        config: verl's whole config.
        workers: The trainer processes, which share the prompts.

    Raises:
        UsageError: The config enables a reward model.
    """

    def __init__(self, config: DictConfig, workers: Sequence[Any]) -> None:
        if config.reward.reward_model.enable:
            where = "reward.reward_model.enable"
            raise UsageError("a reward model needs a GPU", where=where, remedy="Set it to false")
        self._config = config.actor_rollout_ref.rollout
        self._workers = workers
        model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
        self._processor = model.processor
        self._loop = get_event_loop()
        self._reward = load_reward_manager(config, model.tokenizer)

    @classmethod
    def create(cls, *, config: DictConfig, **_unused: Any) -> BatchRollout:
        """Create a rollout on all trainer processes; called by verl."""
        return cls(config, HfReplica.processes)

    def generate_sequences(self, batch: TensorDict) -> None:
        """Sample, score and store n responses for each prompt of the batch."""
        validate = bool(batch["validate"]) if "validate" in batch else False  # pop() would leave the value wrapped
        batch.pop("validate", None)
        rows = _rows(batch)
        sampling = self._sampling(validate=validate)
        prompts = encode_prompts(self._processor, [row.pop("raw_prompt") for row in rows])
        samples = self._sample_all(prompts, sampling, [row["uid"] for row in rows])
        scores = self._loop.run_until_complete(self._score(samples, rows))
        images = [_image_inputs(some) for some in prompts.images()]
        fields = [
            {
                **{name: rows[sample.prompt][name] for name in _STORED},
                **_field(sample, prompts, score),
                "multi_modal_inputs": images[sample.prompt],
            }
            for sample, score in zip(samples, scores, strict=True)
        ]
        partition = "val" if validate else "train"
        tags = [
            _tag(field, sample.version, rows[sample.prompt]["global_steps"])
            for field, sample in zip(fields, samples, strict=True)
        ]
        tq.kv_batch_put(
            keys=[sample.key for sample in samples],
            partition_id=partition,
            fields=list_of_dict_to_tensordict(fields),
            tags=tags,
        )
        done = [{"status": "finished"}] * len(rows)
        tq.kv_batch_put(keys=[row["uid"] for row in rows], partition_id=partition, tags=done)

    def _sampling(self, *, validate: bool) -> RolloutSampling:
        config = self._config.val_kwargs if validate else self._config
        return RolloutSampling(
            samples=config.n,
            max_new_tokens=self._config.response_length,
            temperature=config.temperature,
            top_p=config.top_p,
            top_k=config.top_k,
        )

    def _sample_all(
        self, prompts: EncodedPrompts, sampling: RolloutSampling, uids: Sequence[str]
    ) -> list[_PromptSample]:
        share = -(-len(prompts) // len(self._workers))
        starts = range(0, len(prompts), share)
        asked = [
            worker.__ray_call__.remote(sample, prompts.select(slice(start, start + share)), sampling)
            for worker, start in zip(self._workers, starts, strict=False)
        ]
        answers = [(response, version) for version, some in ray.get(asked) for response in some]
        places = [divmod(i, sampling.samples) for i in range(len(answers))]
        return [
            _PromptSample(prompt, f"{uids[prompt]}_{number}_0", *answer)
            for (prompt, number), answer in zip(places, answers, strict=True)
        ]

    async def _score(self, samples: Sequence[_PromptSample], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        inputs = [_reward_input(sample.response.tokens, rows[sample.prompt]) for sample in samples]
        scores: list[dict[str, Any]] = await asyncio.gather(*map(self._reward.run_single, inputs))
        return scores


def _image_inputs(images: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a prompt's images in the format of verl's trainer, with the number of patches of each frame."""
    if not images:
        return {}
    grids = images["image_grid_thw"]
    return images | {"images_seqlens": torch.repeat_interleave(grids[:, 1] * grids[:, 2], grids[:, 0])}


def _field(sample: _PromptSample, prompts: EncodedPrompts, score: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a sample that verl's trainer reads."""
    prompt, response = prompts.prompt_ids(sample.prompt), torch.tensor(sample.response.tokens)
    mask = torch.ones_like(response)
    scores = torch.zeros(len(response))
    scores[-1] = score["reward_score"]
    return {
        "prompts": prompt,
        "responses": response,
        "response_mask": mask,
        "loss_mask": mask,
        "input_ids": torch.cat([prompt, response]),
        "position_ids": torch.arange(len(prompt) + len(response)),
        "rollout_log_probs": torch.tensor(sample.response.log_probs),
        "rm_scores": scores,
        "num_turns": 2,
        "extra_fields": {"reward_extra_info": score["reward_extra_info"]},
    }


def _rows(batch: TensorDict) -> list[dict[str, Any]]:
    """Return the batch as one dict per prompt; values of the whole batch are repeated in each."""
    columns = {
        key: [value.data] * len(batch)
        if isinstance(value, NonTensorData)
        else list(value if isinstance(value, torch.Tensor) else value.tolist())
        for key, value in batch.items()
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _reward_input(tokens: Sequence[int], row: dict[str, Any]) -> DataProto:
    """Return a response in the format of verl's reward managers."""
    responses = torch.tensor([tokens])
    return DataProto(
        batch=TensorDict({"responses": responses, "attention_mask": torch.ones_like(responses)}, batch_size=1),
        non_tensor_batch={key: _column(value) for key, value in row.items()},
    )


def _column(value: object) -> np.ndarray:
    column = np.empty(1, dtype=object)
    column[0] = value
    return column


def _tag(field: dict[str, Any], version: int, global_steps: int) -> dict[str, Any]:
    """Return the fields of a sample that verl's replay buffer and load balancing read."""
    prompt, response = len(field["prompts"]), len(field["responses"])
    return {
        "status": "success",
        "prompt_len": prompt,
        "response_len": response,
        "seq_len": prompt + response,
        "global_steps": global_steps,
        "min_global_steps": version,
        "max_global_steps": version,
    }
