"""What EasyR1 hands an adapter over in; it derives a request of its own that carries the tensors."""

import msgspec

__all__ = ["LoRARequest"]


class LoRARequest(msgspec.Struct):
    """An adapter by name.

    Attributes:
        lora_name: Its name.
        lora_int_id: Its number, at least 1.
        lora_path: Where vLLM would read it.
    """

    lora_name: str
    lora_int_id: int
    lora_path: str = ""
