"""The `lad` command: the verbs of this package, and those that other packages add through entry points.

A verb imports what it needs when it runs, so that `lad --help` stays fast. Data goes to stdout, notes and progress to
stderr. Exit codes: 0 success, 1 bad data or a failed run, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, NoReturn

import typer

from lad_reasoner import __version__
from lad_reasoner.commands.help import HelpGroup, use_help_style
from lad_reasoner.support.errors import LadError
from lad_reasoner.support.progress import show_progress
from lad_reasoner.support.visible import visible

__all__ = ["build_app", "command_line", "main", "new_app", "run_app", "run_words"]

#: The verbs of this package; the function ``<verb>_command`` of the module named after a verb runs it.
VERBS = ("predict", "ask", "serve", "score", "compare", "report", "plot")

#: The entry point group under which other packages name their ``register(app)``.
ENTRY_POINT_GROUP = "lad_reasoner.commands"

HELP = "Reasoning logical anomaly detection: build data, predict, score and report. Training: `easyr1 --help`."


class _LadGroup(HelpGroup):
    """Lists the verbs in the order of the work."""

    ORDER = (
        *("download", "init", "build", "annotate", "review", "check", "predict", "ask", "serve", "filter"),
        *("score", "compare", "plot", "report", "demo"),
    )


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lad-reasoner {__version__}")
        raise typer.Exit


_DEBUG = typer.Option(False, "--debug", help="Show the traceback of an error.")
_VERSION = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit.")


class _PlainHandler(logging.Handler):
    """Prints messages on stderr without level and time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(visible(record.getMessage()), file=sys.stderr)


def show_messages() -> None:
    """Print what the library logs, from now on."""
    logger = logging.getLogger("lad_reasoner")
    if not any(isinstance(handler, _PlainHandler) for handler in logger.handlers):
        logger.addHandler(_PlainHandler())


#: The exit code after Ctrl-C or SIGTERM: 128 and the number of SIGINT.
INTERRUPTED: Final = 130

#: Verbs of `lad` and `easyr1` that continue where they stopped. Bare `easyr1 config=FILE` trains too.
RESUMABLE: Final = frozenset({"annotate", "demo", "download", "predict", "train"})


def new_app(name: str, group: type[HelpGroup], text: str, *, no_args_is_help: bool = False) -> typer.Typer:
    """Return an application without commands, with the options that `lad` and `easyr1` share; messages are printed."""
    show_messages()
    app = typer.Typer(
        name=name,
        cls=group,
        no_args_is_help=no_args_is_help,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    @app.callback(help=text)
    def root(debug: bool = _DEBUG, version: bool = _VERSION) -> None: ...

    return app


def build_app() -> typer.Typer:
    """Return the `lad` application with every verb on it."""
    app = new_app("lad", _LadGroup, HELP, no_args_is_help=True)
    for verb in VERBS:
        app.command(verb)(getattr(import_module(f"lad_reasoner.commands.{verb}"), f"{verb}_command"))
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        entry.load()(app)
    use_help_style(app)
    return app


def run_app(run: Callable[[], object], *, debug: bool, resume: str = "interrupted") -> int:
    """Run a command line and return its exit code; every error becomes one line on stderr, never a traceback.

    The exit code is that of the SystemExit which the command line raises. ``debug`` lets exceptions through, and
    ``resume`` is printed after an interrupt.
    """
    # Python has no stream object where the caller closed the stream (`2>&-`), and the code below expects one.
    sys.stdout, sys.stderr = (stream or Path(os.devnull).open("w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    # SIGTERM interrupts like Ctrl-C, so that every process that was started is ended too.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with show_progress():
            run()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if code == INTERRUPTED:  # typer turns KeyboardInterrupt into this exit code
            print(resume, file=sys.stderr)
        return code
    except KeyboardInterrupt:
        print(resume, file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # the reader of the pipe is gone, so nobody would read a message
        return 1
    except Exception as error:
        if debug:
            raise
        print(visible(_describe(error)), file=sys.stderr)
        return error.exit_code if isinstance(error, LadError) else 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _describe(error: Exception) -> str:
    """Return an exception as one line."""
    if isinstance(error, LadError):
        return f"error: {error}"
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename is not None else ""
        remedy = "Check the path and its permissions" if where else "Check the disk; --debug shows where it happened"
        return f"error: {where}{error.strerror or error}. {remedy}."
    what = " ".join(f"{type(error).__name__}: {error}".split())[:500].rstrip(": ")
    return f"internal error: {what}. Run again with --debug for the traceback."


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `lad` and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    run_words(build_app, words)


@cache
def command_line(build: Callable[[], typer.Typer]) -> Callable[[Sequence[str]], object]:
    """Return an application as a command line, built once for each process."""
    return typer.main.get_command(build())


def run_words(build: Callable[[], typer.Typer], words: Sequence[str]) -> NoReturn:
    """Run an application with these words and exit; ``--debug`` may stand anywhere among them."""
    os.environ["MPLBACKEND"] = "agg"  # a notebook's own, which a shell command inherits, need not be installed here
    rest = [word for word in words if word != "--debug"]
    again = bool(RESUMABLE & set(rest)) or any(word.startswith("config=") for word in rest[:1])
    resume = "interrupted; run the same command again to continue" if again else "interrupted"
    sys.exit(run_app(lambda: command_line(build)(rest), debug=len(rest) < len(words), resume=resume))


if __name__ == "__main__":
    main()
