"""A function that EasyR1 imports for adapters on disk, which it never uses."""

from lad_reasoner.support.errors import RunError

__all__ = ["get_adapter_absolute_path"]


def get_adapter_absolute_path(lora_path: str) -> str:
    """Fail: adapters come from the trainer.

    Raises:
        RunError: Always.
    """
    raise RunError("a rehearsal cannot read an adapter from disk", where=lora_path)
