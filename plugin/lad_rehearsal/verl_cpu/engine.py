"""verl's FSDP2 engine on a CPU: without offloading, and with each prompt computed once (see `grouping`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from tensordict import TensorDict
from torch.distributed.tensor import DTensor
from verl.utils import tensordict_utils as tu
from verl.utils.fsdp_utils import normalize_peft_param_name
from verl.utils.model import extract_multi_modal_inputs
from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead
from verl.workers.engine.utils import detach_tree

from lad_rehearsal.verl_cpu.encoding import prompt_positions
from lad_rehearsal.verl_cpu.grouping import Grouped, group_samples, rows_of

__all__ = ["CpuEngine"]


class CpuEngine(FSDPEngineWithLMHead):  # type: ignore[misc]
    """Reads the fields that `rollout.BatchRollout` and verl's own agent loop store."""

    def _build_fsdp_module(self, module: Any) -> Any:
        # verl wraps a forward-only (reference) model with an offload policy that pins memory, which needs a GPU.
        forward_only = self.engine_config.forward_only
        object.__setattr__(self.engine_config, "forward_only", False)
        try:
            return super()._build_fsdp_module(module)
        finally:
            object.__setattr__(self.engine_config, "forward_only", forward_only)

    def _merged_lora_per_tensor_param(self) -> Iterator[tuple[str, torch.Tensor]]:
        # verl's own version rounds to bfloat16 and omits adapters outside its FSDP blocks (the vision merger's).
        state = {
            name: (weight.full_tensor() if isinstance(weight, DTensor) else weight).detach()
            for name, weight in self.module.state_dict().items()
        }
        scaling = self.model_config.lora_alpha / self.model_config.lora_rank
        for name, weight in state.items():
            layer = name.removesuffix(".base_layer.weight")
            merged = weight
            if layer != name:
                up, down = state[f"{layer}.lora_B.default.weight"], state[f"{layer}.lora_A.default.weight"]
                merged = weight + scaling * up @ down
            yield from normalize_peft_param_name({name: merged}).items()

    def forward_step(
        self,
        micro_batch: TensorDict,
        loss_function: Callable[..., tuple[torch.Tensor, dict[str, Any]]] | None,
        forward_only: bool,  # noqa: ARG002
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return the loss to differentiate (1 without a loss function) and what verl keeps of the micro batch."""
        grouped = self.group_by_prompt(micro_batch)
        images = micro_batch["multi_modal_inputs"]
        output = self.module(
            input_ids=grouped.input_ids,
            attention_mask=grouped.attention_mask,
            position_ids=grouped.position_ids,
            use_cache=False,
            **extract_multi_modal_inputs([images[i] for i in grouped.first]),
        )
        model_output = _token_values(output.logits, grouped, micro_batch)
        loss, metrics = torch.tensor(1.0), dict[str, Any]()
        if loss_function is not None:
            group = self.get_data_parallel_group()
            loss, metrics = loss_function(model_output=model_output, data=micro_batch, dp_group=group)
        return loss, {"model_output": detach_tree(model_output), "loss": loss.item(), "metrics": metrics}

    def group_by_prompt(self, micro_batch: TensorDict) -> Grouped:
        """Lay the samples out by prompt.

        The vision positions of a prompt follow from its tokens and image grids. verl's own position ids are not read,
        because verl loses them when all samples of a micro batch have the same length (verl issue 7899).
        """
        sequences = micro_batch["input_ids"].unbind()
        lengths = micro_batch["prompts"].offsets().diff().tolist()
        rows = rows_of(list(micro_batch["uid"]))
        images = micro_batch["multi_modal_inputs"]
        positions = [
            prompt_positions(
                self.model_config.processor,
                sequences[i][: lengths[i]].unsqueeze(0),
                image_grid_thw=images[i].get("image_grid_thw"),
            )[:, 0]
            for i, *_ in rows
        ]
        return group_samples(sequences, rows, positions, prompt_lengths=lengths)


def _token_values(logits: torch.Tensor, grouped: Grouped, micro_batch: TensorDict) -> dict[str, torch.Tensor]:
    """Return log-probabilities and, if requested, entropies in verl's layout; prompts get 0, which is never read."""
    log_probs = (logits.flatten(0, 1)[grouped.predictors] / micro_batch["temperature"]).log_softmax(dim=-1)
    values = {"log_probs": log_probs.gather(1, grouped.labels.unsqueeze(1)).squeeze(1)}
    if tu.get_non_tensor_data(data=micro_batch, key="calculate_entropy", default=False):
        values["entropy"] = -(log_probs.exp() * log_probs).sum(dim=-1)
    offsets = micro_batch["input_ids"].offsets()
    return {
        name: torch.nested.nested_tensor_from_jagged(
            value.new_zeros(int(offsets[-1])).index_copy(0, grouped.targets, value), offsets
        )
        for name, value in values.items()
    }
