"""A LoRA adapter folded into the weights that it adapts; what cannot be folded in is refused, never left out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lad_reasoner.support.errors import DataError

if TYPE_CHECKING:
    import torch

__all__ = ["fold_adapter"]

State = dict[str, "torch.Tensor"]

#: Where EasyR1 (peft's own file) and verl (the few numbers of its save) describe the adapter.
_DESCRIPTIONS: Final = ("lora_adapter/adapter_config.json", "lora_train_meta.json")
_Tree: Final = TypeAdapter(dict[str, Any])
_REMEDY: Final = "load it with peft, and save what merge_and_unload() returns"


class _Adapter(BaseModel):
    """What of an adapter's description its product depends on."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    r: int = Field(gt=0)
    lora_alpha: float
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    rank_pattern: dict[str, Any] = {}
    alpha_pattern: dict[str, Any] = {}

    @property
    def scale(self) -> float:
        """The factor of the product."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def fold_adapter(state: State, actor: Path) -> State:
    """Add each adapter's product to the weight that it adapts, W + scale B A, and name the weights as the model does.

    Args:
        state: Whole weights, as peft names them; returned as it is where there is no adapter among them.
        actor: The checkpoint's ``actor`` folder, which describes the adapter.

    Raises:
        DataError: The adapter has no description, is of a kind that is more than this product, or stands alone.
    """
    adapted = [name for name in state if ".lora_" in name]
    if not adapted:
        return state
    adapter = _describe(actor)
    folded: State = {}
    used: set[str] = set()
    for name, value in state.items():
        if name in adapted:
            continue
        stem = name.removesuffix(".base_layer.weight")
        pair = [f"{stem}.lora_{letter}.default.weight" for letter in "AB"]
        plain = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        if stem != name and all(part in state for part in pair):
            folded[plain] = _sum(value, state[pair[0]], state[pair[1]], adapter, actor)
            used.update(pair)
        else:
            folded[plain] = value
    if lost := sorted(set(adapted) - used):
        found = f"{len(lost)} weights of the adapter that no linear layer of the model takes ({lost[0]})"
        raise DataError(actor, found=found, expected="lora_A and lora_B beside the weight they adapt", remedy=_REMEDY)
    return folded


def _sum(weight: torch.Tensor, down: torch.Tensor, up: torch.Tensor, adapter: _Adapter, actor: Path) -> torch.Tensor:
    if down.shape[0] != adapter.r:
        raise DataError(actor, found=f"an adapter of rank {down.shape[0]}", expected=f"{adapter.r}, as described")
    return (weight.float() + up.float() @ down.float() * adapter.scale).to(weight.dtype)


def _describe(actor: Path) -> _Adapter:
    """Read the adapter's description."""
    file = next((actor / name for name in _DESCRIPTIONS if (actor / name).is_file()), None)
    if file is None:
        raise DataError(actor, found="a LoRA adapter without a description", expected=" or ".join(_DESCRIPTIONS))
    try:
        tree = _Tree.validate_json(file.read_bytes())
        # peft writes null for what was not asked for.
        adapter = _Adapter.model_validate({key: value for key, value in tree.items() if value is not None})
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(file, found=f"{place or 'the file'}: {first['msg']}", expected="r and lora_alpha") from None
    for name in ("use_dora", "lora_bias", "fan_in_fan_out", "rank_pattern", "alpha_pattern"):
        if getattr(adapter, name):
            raise DataError(file, found=name, expected="a plain LoRA adapter", remedy=_REMEDY)
    return adapter
