"""`lad ask`: ask a model about one pair, in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lad_reasoner.commands.model_options import (
    BackendOption,
    Device,
    Dtype,
    MaxNewTokens,
    MaxPixels,
    MinPixels,
    Model,
    load_model,
)
from lad_reasoner.support.console import echo, make_console, print_json, waiting

if TYPE_CHECKING:
    from lad_reasoner.inference.ask import Verdict

__all__ = ["ask_command", "print_verdict"]


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
    from lad_reasoner.inference.ask import ask, read_image_file
    from lad_reasoner.inference.protocol import BackendOptions

    # Before the model is loaded, which takes long.
    references, questioned = [read_image_file(path) for path in reference], read_image_file(query)
    options = BackendOptions(
        model=model,
        max_new_tokens=max_new_tokens,
        min_pixels=min_pixels,
        max_pixels=max_pixels,
        batch_size=1,
        device=device,
        dtype=dtype,
    )
    loaded = load_model(backend, options)
    with waiting("answering", line=False):
        verdict = ask(loaded, references, questioned)
    if as_json:
        print_json(verdict.to_dict())
    else:
        print_verdict(verdict)
    if verdict.cut:
        limit = f"{max_new_tokens} tokens. Ask again with a larger --max-new-tokens."
        echo(f"warning: the response is cut off at {limit}", err=True)


def print_verdict(verdict: Verdict) -> None:
    """Print reasoning, verdict and score; in colours on a terminal, which rich finds out."""
    from rich.text import Text

    console = make_console(soft_wrap=True)
    shown = verdict.reasoning or verdict.response
    console.print(shown)
    words, style = {
        "yes": ("anomalous (yes)", "bold red"),
        "no": ("normal (no)", "bold green"),
        None: ("no readable answer", "bold yellow"),
    }[verdict.answer]
    score = "" if verdict.score is None else f", P(yes) {verdict.score:.2f}"
    console.print(Text("verdict: ").append(words, style).append(score))
