"""The request with which EasyR1 passes an adapter; EasyR1's subclass adds the tensors."""

import msgspec

__all__ = ["LoRARequest"]


class LoRARequest(msgspec.Struct):
    """An adapter: its name, its number, at least 1, and the file that vLLM would read."""

    lora_name: str
    lora_int_id: int
    lora_path: str = ""
