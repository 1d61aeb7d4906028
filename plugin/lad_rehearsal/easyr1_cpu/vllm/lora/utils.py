"""A name that EasyR1 imports for adapters on disk, which it never has."""

from lad_reasoner.support.errors import RunError

__all__ = ["get_adapter_absolute_path"]


def get_adapter_absolute_path(lora_path: str) -> str:
    """Refuse: adapters come from the trainer.

    Raises:
        RunError: Always.
    """
    raise RunError(lora_path, found="an adapter on disk", expected="one in memory: the stand-in reads no other")
