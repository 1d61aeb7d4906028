"""`lad ask` and `lad serve`: a model asked about one pair, in the terminal or on a local page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from lad_reasoner.inference.ask import Verdict
    from lad_reasoner.inference.protocol import Backend

__all__ = ["register"]

Model = Annotated[str, typer.Option(help="Folder or name of the model.")]
BackendOption = Annotated[
    Literal["transformers", "vllm", "openai"],
    typer.Option(help="What runs the model; openai: the server at OPENAI_BASE_URL, with the key OPENAI_API_KEY."),
]
MaxNewTokens = Annotated[int, typer.Option(min=1, help="Longest response, in tokens.")]
MinPixels = Annotated[int | None, typer.Option(min=1, help="Enlarge smaller images to this. Default: the model's.")]
MaxPixels = Annotated[int | None, typer.Option(min=1, help="Shrink larger images to this. Default: the model's.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1. Default: a GPU if there is one.")]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="Default: float32 on a CPU, else bfloat16.")
]


def register(app: typer.Typer) -> None:
    """Add `ask` and `serve` to `lad`."""
    app.command("ask")(ask_command)
    app.command("serve")(serve_command)


def ask_command(
    *,
    reference: Annotated[list[Path], typer.Option(help="A normal image; may be given again.")],
    query: Annotated[Path, typer.Option(help="The image in question.")],
    model: Model,
    backend: BackendOption = "transformers",
    max_new_tokens: MaxNewTokens = 512,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Ask a model about one pair: reasoning, verdict, score.

    Example: lad ask --reference good.png --query part.png --model Qwen/Qwen2.5-VL-3B-Instruct --max-pixels 401408
    """
    import json

    from lad_reasoner.inference.ask import ask, read_image_file

    # Before the model is loaded, which takes long.
    references, questioned = [read_image_file(path) for path in reference], read_image_file(query)
    engine = _load(
        backend,
        model,
        max_new_tokens=max_new_tokens,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        device=device,
        dtype=dtype,
    )
    verdict = ask(engine, references, questioned)
    if as_json:
        typer.echo(json.dumps(verdict.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print_verdict(verdict)


def serve_command(
    *,
    model: Model,
    backend: BackendOption = "transformers",
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets the network in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    max_megabytes: Annotated[int, typer.Option(min=1, max=200, help="Larger images are refused.")] = 20,
    max_new_tokens: MaxNewTokens = 512,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Open a local page where one drops two images and reads the verdict.

    Example: lad serve --model Qwen/Qwen2.5-VL-3B-Instruct --max-pixels 401408
    """
    import threading

    from lad_reasoner.inference.serve import serve

    engine = _load(
        backend,
        model,
        max_new_tokens=max_new_tokens,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        device=device,
        dtype=dtype,
    )
    with serve(engine, host=host, port=port, max_megabytes=max_megabytes) as address:
        if host not in {"127.0.0.1", "localhost", "::1"}:
            typer.echo(f"anyone who reaches {host} can use this page; it has no password", err=True)
        typer.echo(address)
        threading.Event().wait()  # until Ctrl-C


def _load(
    backend: Literal["transformers", "vllm", "openai"],
    model: str,
    *,
    max_new_tokens: int,
    min_pixels: int | None,
    max_pixels: int | None,
    device: str | None,
    dtype: str | None,
) -> Backend:
    from lad_reasoner.inference.backends.load import load_backend
    from lad_reasoner.inference.protocol import BackendOptions

    options = BackendOptions(
        model=model,
        max_new_tokens=max_new_tokens,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        batch_size=1,
        device=device,
        dtype=dtype,
    )
    return load_backend(backend, options)


def _print_verdict(verdict: Verdict) -> None:
    """Print reasoning, verdict and score; in colours on a terminal, which rich finds out."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    # Text, not markup: a model's brackets are not ours to obey. Control characters would move the cursor.
    shown = verdict.reasoning or verdict.response
    console.print(Text("".join(mark for mark in shown if mark.isprintable() or mark in "\n\t")))
    words, style = {
        "yes": ("anomalous (yes)", "bold red"),
        "no": ("normal (no)", "bold green"),
        None: ("no readable answer", "bold yellow"),
    }[verdict.answer]
    score = "" if verdict.score is None else f", P(yes) {verdict.score:.2f}"
    console.print(Text("verdict: ").append(words, style).append(score))
