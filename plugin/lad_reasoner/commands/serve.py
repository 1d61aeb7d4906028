"""`lad serve`: a local page on which a model judges pairs of images."""

from __future__ import annotations

from typing import Annotated

import typer

from lad_reasoner.commands import model_options
from lad_reasoner.support.console import echo

__all__ = ["serve_command"]


def serve_command(
    *,
    model: model_options.Model,
    backend: model_options.BackendOption = "transformers",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 opens the page to the network.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    max_megabytes: Annotated[int, typer.Option(min=1, max=200, help="Largest image file, in MB.")] = 20,
    max_new_tokens: model_options.MaxNewTokens = 512,
    min_pixels: model_options.MinPixels = None,
    max_pixels: model_options.MaxPixels = None,
    device: model_options.Device = None,
    dtype: model_options.Dtype = None,
) -> None:
    """Open a local page that compares two images and shows the verdict.

    Example: lad serve --model Qwen/Qwen2.5-VL-3B-Instruct --max-pixels 401408
    """
    import threading

    from lad_reasoner.inference.protocol import BackendOptions
    from lad_reasoner.inference.serve import require_gradio, serve

    require_gradio()  # before a model is loaded

    options = BackendOptions(
        model=model,
        max_new_tokens=max_new_tokens,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        batch_size=1,
        device=device,
        dtype=dtype,
    )
    with serve(
        model_options.load_model(backend, options), host=host, port=port, max_megabytes=max_megabytes
    ) as address:
        if host not in {"127.0.0.1", "localhost", "::1"}:
            echo(f"Anyone who reaches {host} can use this page: it has no password.", err=True)
        echo(address)
        echo("Ctrl-C stops the page.", err=True)
        threading.Event().wait()  # until Ctrl-C
