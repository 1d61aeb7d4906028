"""EasyR1's ``freeze_vision_tower`` for verl, whose own field of that name is read by no code.

verl imports this module (``actor_rollout_ref.model.external_lib``) in each process that builds a model. It replaces
the registered FSDP engines by subclasses that freeze the tower before the optimizer is built.
"""

from __future__ import annotations

from typing import Any

from verl.utils.device import get_device_name
from verl.workers.engine.base import EngineRegistry
from verl.workers.engine.fsdp import transformer_impl  # noqa: F401 - registers verl's own engines

__all__ = ["freeze_vision_tower"]


def freeze_vision_tower(model: Any) -> Any:
    """Exclude the vision tower of a model, with or without a LoRA adapter, from training, and return the model.

    Raises:
        ValueError: The model has no vision tower.
    """
    towers = [part for name, part in model.named_modules() if name.rpartition(".")[2] == "visual"]
    if not towers:
        raise ValueError(f"freeze_vision_tower: {type(model).__name__} has no vision tower")
    for tower in towers:
        tower.requires_grad_(requires_grad=False)
    return model


def _freezing(engine: type) -> type:
    class FrozenVisionEngine(engine):  # type: ignore[misc]
        def _build_module(self) -> Any:
            return freeze_vision_tower(super()._build_module())

        def _build_lora_module(self, module: Any) -> Any:
            return freeze_vision_tower(super()._build_lora_module(module))

    return FrozenVisionEngine


_ENGINES = EngineRegistry._engines["language_model"]  # noqa: SLF001 - `register` refuses a second engine
for _backend in ("fsdp", "fsdp2"):
    if (_device := get_device_name()) in _ENGINES[_backend]:
        _ENGINES[_backend][_device] = _freezing(_ENGINES[_backend][_device])
