"""The request with which EasyR1 passes an adapter; EasyR1's subclass adds the tensors."""

import msgspec

__all__ = ["LoRARequest"]


class LoRARequest(msgspec.Struct):
    """An adapter by name.

    Attributes:
        lora_name: Its name.
        lora_int_id: Its number, at least 1.
        lora_path: The file that vLLM would read.
    """

    lora_name: str
    lora_int_id: int
    lora_path: str = ""
