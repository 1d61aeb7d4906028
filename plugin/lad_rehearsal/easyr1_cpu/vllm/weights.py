"""The weights that sample, as the trainer sends them: whole ones by their hub names, or an adapter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import torch

from lad_reasoner.support.errors import RunError

__all__ = ["Weights"]

#: What peft puts before a module's name.
_PEFT: Final = "base_model.model."


class Weights:
    """A model's weights by name.

    Args:
        model: The model of transformers that samples.
    """

    def __init__(self, model: Any) -> None:
        self._weights: dict[str, torch.Tensor] = dict(model.named_parameters(remove_duplicate=False))
        self._renames = list(getattr(model, "_checkpoint_conversion_mapping", {}).items())
        self._base: dict[str, torch.Tensor] = {}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take the trainer's weights, named as the hub names them.

        Raises:
            RunError: A weight is missing, unknown or of another shape: the rollout would be another model.
        """
        fresh = set()
        for given, tensor in weights:
            name = self._own_name(given)
            weight = self._weights.get(name)
            if weight is None or weight.shape != tensor.shape:
                has = "none of that name" if weight is None else f"one of shape {tuple(weight.shape)}"
                raise RunError("weights", found=f"{given} of shape {tuple(tensor.shape)}", expected=has)
            weight.copy_(tensor)
            fresh.add(weight.data_ptr())  # a tied weight goes by several names
        if stale := [name for name, weight in self._weights.items() if weight.data_ptr() not in fresh]:
            raise RunError("weights", found=f"{len(stale)} missing, such as {stale[0]}", expected="all of the model")

    def keep_base(self) -> None:
        """Remember the weights, so that adapters are added to these and not to one another."""
        self._base = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def add_adapter(self, tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> None:
        """Replace the adapter.

        Args:
            tensors: ``base_model.model.<module>.lora_A.weight`` (rank, in) and ``lora_B.weight`` (out, rank).
            config: peft's: ``r``, ``lora_alpha``, ``use_rslora``.

        Raises:
            RunError: There is no adapter, or it is for a module that the model lacks.
        """
        rank, rslora = int(config["r"]), bool(config.get("use_rslora"))
        scaling = float(config["lora_alpha"]) / (rank**0.5 if rslora else rank)
        ups = {name: tensor for name, tensor in tensors.items() if name.endswith(".lora_B.weight")}
        if not ups:
            raise RunError("adapter", found="no weights", expected="lora_A and lora_B of the trained modules")
        for name, weight in self._weights.items():
            weight.copy_(self._base[name])
        for name, up in ups.items():
            module = name.removesuffix(".lora_B.weight")
            target = self._own_name(f"{module.removeprefix(_PEFT)}.weight")
            if target not in self._weights:
                raise RunError("adapter", found=f"one for {module}", expected="a module of the model")
            down = tensors[f"{module}.lora_A.weight"]
            self._weights[target].add_(scaling * (up.float() @ down.float()))

    def _own_name(self, name: str) -> str:
        """Return the name that transformers gives a weight in memory."""
        for pattern, replacement in self._renames:
            renamed, count = re.subn(pattern, replacement, name)
            if count:
                return renamed
        return name
