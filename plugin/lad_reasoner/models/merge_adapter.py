"""A LoRA adapter added to the weights that it adapts; an adapter that cannot be added is refused, never left out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from lad_reasoner.support.errors import DataError

if TYPE_CHECKING:
    import torch

__all__ = ["fold_adapter"]

#: Where EasyR1 (peft's own file) and verl (the few numbers of its save) describe the adapter.
_DESCRIPTIONS: Final = ("lora_adapter/adapter_config.json", "lora_train_meta.json")
_Tree: Final = TypeAdapter(dict[str, Any])
_REMEDY: Final = "Load it with peft, and save what merge_and_unload() returns"


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


def fold_adapter(state: Mapping[str, torch.Tensor], actor: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the model's weights, each adapted one with its adapter's product added, W + scale B A.

    Args:
        state: Whole weights, as peft names them, or without any adapter. Each is asked for once.
        actor: The checkpoint's ``actor`` folder, which describes the adapter.

    Raises:
        DataError: The adapter has no description, is of a kind that is more than this product, or stands alone.
    """
    adapted = {name for name in state if ".lora_" in name}
    if not adapted:
        yield from state.items()
        return
    adapter = _describe(actor)
    pairs = {name: pair for name in state if (pair := _pair_of(name)) and adapted.issuperset(pair)}
    if lost := sorted(adapted.difference(*pairs.values())):
        problem = f"{len(lost)} weights of the adapter belong to no linear layer of the model ({lost[0]})"
        raise DataError(problem, where=actor, remedy=_REMEDY)
    for name in state:
        if name in adapted:
            continue
        value = state[name]
        if name in pairs:
            down, up = (state[part] for part in pairs[name])
            if down.shape[0] != adapter.r:
                problem = f"the adapter has rank {down.shape[0]}, and its description {adapter.r}"
                raise DataError(problem, where=actor)
            value = (value.float() + up.float() @ down.float() * adapter.scale).to(value.dtype)
        yield name.removeprefix("base_model.model.").replace(".base_layer.", "."), value


def _pair_of(name: str) -> tuple[str, str] | None:
    """Return the names of the adapter of a weight, if the weight is of a layer that peft has wrapped."""
    stem = name.removesuffix(".base_layer.weight")
    return None if stem == name else (f"{stem}.lora_A.default.weight", f"{stem}.lora_B.default.weight")


def _describe(actor: Path) -> _Adapter:
    """Read the adapter's description."""
    file = next((actor / name for name in _DESCRIPTIONS if (actor / name).is_file()), None)
    if file is None:
        raise DataError(f"a LoRA adapter without a description: no {' or '.join(_DESCRIPTIONS)}", where=actor)
    try:
        tree = _Tree.validate_json(file.read_bytes())
        # peft writes null for what was not asked for.
        adapter = _Adapter.model_validate({key: value for key, value in tree.items() if value is not None})
    except ValidationError as fault:
        first = fault.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{place or 'the file'}: {first['msg']}", where=file) from None
    for name in ("use_dora", "lora_bias", "fan_in_fan_out", "rank_pattern", "alpha_pattern"):
        if getattr(adapter, name):
            raise DataError(f"{name} is set, so this is not a plain LoRA adapter", where=file, remedy=_REMEDY)
    return adapter
