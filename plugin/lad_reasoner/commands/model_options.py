"""The options that `lad predict`, `lad ask` and `lad serve` share: which model answers, and on what."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lad_reasoner.support.console import waiting

if TYPE_CHECKING:
    from lad_reasoner.inference.protocol import Backend, BackendName, BackendOptions

__all__ = [
    "BackendOption",
    "Device",
    "Dtype",
    "MaxNewTokens",
    "MaxPixels",
    "MinPixels",
    "Model",
    "load_model",
]

Model = Annotated[str, typer.Option(help="Folder or name of the model.")]
BackendOption = Annotated[
    Literal["transformers", "vllm", "openai"],
    typer.Option(help="What runs the model. openai: the server at OPENAI_BASE_URL, with the key in OPENAI_API_KEY."),
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Maximum tokens per response.")]
MinPixels = Annotated[int | None, typer.Option(min=1, help="Enlarge smaller images to this. Default: the model's.")]
MaxPixels = Annotated[int | None, typer.Option(min=1, help="Shrink larger images to this. Default: the model's.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1. Default: a GPU if there is one.")]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="Default: float32 on a CPU, else bfloat16.")
]


def load_model(backend: BackendName, options: BackendOptions) -> Backend:
    """Load a model, and show its name meanwhile if that fills this machine's memory: it takes seconds to minutes.

    Raises:
        LadError: The model cannot be loaded.
    """
    with nullcontext() if backend == "openai" else waiting(f"loading {options.model}"):
        from lad_reasoner.inference.backends.load import load_backend

        return load_backend(backend, options)
