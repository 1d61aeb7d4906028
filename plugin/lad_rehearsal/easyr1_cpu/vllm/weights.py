"""Receive the trainer's weights: full weights with their hub names, or an adapter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch

from lad_reasoner.support.errors import RunError

__all__ = ["Weights"]

#: Prefix of module names in peft.
_PEFT: Final = "base_model.model."


class Weights:
    """A model's weights by name.

    Args:
        model: The sampling model, of transformers.
    """

    def __init__(self, model: Any) -> None:
        self._weights: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self._renames = list(getattr(model, "_checkpoint_conversion_mapping", {}).items())
        self._base: dict[str, torch.Tensor] = {}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Copy the trainer's weights, which have hub names, into the model.

        Raises:
            RunError: A weight is missing, unknown or has another shape, so the rollout would use a different model.
        """
        fresh = set()
        for given, tensor in weights:
            name = self._own_name(given)
            weight = self._weights.get(name)
            if weight is None or weight.shape != tensor.shape:
                has = "has no such weight" if weight is None else f"has shape {tuple(weight.shape)}"
                raise RunError(f"the trainer sent {given} of shape {tuple(tensor.shape)}, but the model {has}")
            weight.copy_(tensor)
            fresh.add(weight.data_ptr())  # a tied weight has several names
        if stale := [name for name, weight in self._weights.items() if weight.data_ptr() not in fresh]:
            raise RunError(f"the trainer did not send {len(stale)} weights of the model, such as {stale[0]}")

    def keep_base(self) -> None:
        """Keep a copy of the weights, so that each adapter is added to these and not to the previous adapter."""
        self._base = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def add_adapter(self, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        """Replace the adapter.

        Args:
            tensors: ``base_model.model.<module>.lora_A.weight`` (rank, in) and ``lora_B.weight`` (out, rank).
            config: Config of peft: ``r``, ``lora_alpha``, ``use_rslora``.

        Raises:
            RunError: The adapter is empty, or the model lacks its module.
        """
        rank, rslora = int(config["r"]), bool(config.get("use_rslora"))
        scaling = float(config["lora_alpha"]) / (rank**0.5 if rslora else rank)
        ups = {name: tensor for name, tensor in tensors.items() if name.endswith(".lora_B.weight")}
        if not ups:
            raise RunError("the trainer sent an adapter without weights")
        for name, weight in self._weights.items():
            weight.copy_(self._base[name])
        for name, up in ups.items():
            module = name.removesuffix(".lora_B.weight")
            target = self._own_name(f"{module.removeprefix(_PEFT)}.weight")
            if target not in self._weights:
                raise RunError(f"the trainer sent an adapter for {module}, which the model does not have")
            down = tensors[f"{module}.lora_A.weight"]
            self._weights[target].add_(scaling * (up.float() @ down.float()))

    def _own_name(self, name: str) -> str:
        """Return the name of a weight in the model of transformers."""
        for pattern, replacement in self._renames:
            renamed, count = re.subn(pattern, replacement, name)
            if count:
                return renamed
        return name
