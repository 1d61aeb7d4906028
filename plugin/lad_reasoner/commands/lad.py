"""The `lad` command: every verb of the package, and what other packages mount on it.

A verb imports what it needs when it runs, so that `lad --help` costs no heavy import. Data goes to stdout, notes and
progress to stderr. Exit codes: 0 done, 1 the data or the run failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import typer

from lad_reasoner import __version__
from lad_reasoner.support.errors import LadError

__all__ = ["build_app", "main", "run_app"]

#: Modules of this import package whose ``register(app)`` adds verbs.
VERB_MODULES = (
    "lad_reasoner.commands.predict",
    "lad_reasoner.commands.ask",
    "lad_reasoner.commands.serve",
    "lad_reasoner.commands.score",
    "lad_reasoner.commands.report",
    "lad_reasoner.commands.plot",
)

#: Other import packages name their ``register(app)`` under this entry point group.
ENTRY_POINT_GROUP = "lad_reasoner.commands"


def _version(value: bool) -> None:
    if value:
        typer.echo(f"lad-reasoner {__version__}")
        raise typer.Exit


def build_app() -> typer.Typer:
    """Return the `lad` application with every verb on it."""
    app = typer.Typer(
        name="lad",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        help="Reasoning logical anomaly detection: build data, predict, score and report. Training: `easyr1 --help`.",
    )

    @app.callback()
    def root(
        debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
        version: bool = typer.Option(
            False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
        ),
    ) -> None:
        """Reasoning logical anomaly detection: build data, predict, score and report. Training: `easyr1 --help`."""

    for module in VERB_MODULES:
        import_module(module).register(app)
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        entry.load()(app)
    return app


def run_app(run: Callable[[], object], *, debug: bool) -> int:
    """Run a command line and return its exit code; a user's mistake becomes one line on stderr, never a traceback.

    Args:
        run: The command line. Its own exit code is read from the SystemExit it raises.
        debug: Let tracebacks through.
    """
    # Python has no stream where the caller closed it (`2>&-`), and nothing below looks before it speaks.
    sys.stdout, sys.stderr = (stream or Path(os.devnull).open("w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    # A polite request to end is an interrupt, so that whatever was started is ended too.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except LadError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe left: say nothing more
        return 1
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        remedy = "check the path and its permissions" if where else "check the disk; --debug tells where"
        print(f"error: {where}{error.strerror or error}; {remedy}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `lad` and exit."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(run_app(lambda: build_app()(words), debug="--debug" in words))


if __name__ == "__main__":
    main()
