"""What the commands print: one line, a table, JSON. Names and file contents in it cannot move the cursor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from lad_reasoner.support.visible import visible

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

__all__ = ["echo", "make_console", "print_all", "print_json", "waiting"]


def echo(text: object, *, err: bool = False) -> None:
    """Print a text on stdout or stderr with control characters and invisible marks spelled out."""
    typer.echo(visible(str(text)), err=err)


def print_json(value: object) -> None:
    """Print JSON on stdout; if a string in it has invisible marks, everything beyond ASCII is escaped."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    typer.echo(text if visible(text) == text else json.dumps(value, indent=2, allow_nan=False))


def make_console(*, err: bool = False, soft_wrap: bool = False) -> Console:
    """Return a console that fits text to a terminal, elsewhere leaves it as wide as it needs, and obeys no markup."""
    from rich.console import Console
    from rich.segment import Segment
    from rich.text import Text

    class Visible(Console):
        """Spells out control characters and invisible marks in every string, where possible before it is measured."""

        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(visible(text), **options)

        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(visible(segment.text), segment.style)

    # A run may be called "[bold]" or ":bug:".
    console = Visible(stderr=err, soft_wrap=soft_wrap, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = 400
    return console


def print_all(parts: Sequence[RenderableType]) -> None:
    """Print texts and tables on stdout."""
    console = make_console()
    for part in parts:
        console.print(part)


@contextmanager
def waiting(text: str, *, line: bool = True) -> Iterator[None]:
    """Show on stderr that one piece of work goes on: on a terminal with its elapsed time, elsewhere as one line.

    Args:
        text: What goes on.
        line: Print the line where there is no terminal.
    """
    console = make_console(err=True)
    if not console.is_terminal:
        if line:
            echo(text, err=True)
        yield
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as progress:
        progress.add_task(text, total=None)
        yield
