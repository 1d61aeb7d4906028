"""What every command of the package shares: exit codes, one-line errors, light imports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import typer

from lad_reasoner.commands.lad import build_app, run_app, run_words
from lad_reasoner.support.errors import DataError, RunError, UsageError
from lad_rehearsal.demo import run

HEAVY = ("torch", "transformers", "pyarrow", "pandas", "ray", "verl", "sklearn", "matplotlib", "numpy")


def failing(error: BaseException):
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("-1 is below 0", where="--seed"), 2),
        (DataError("no rows", where="a.parquet"), 1),
        (RunError("exit code 3", where="verl"), 1),
        (KeyboardInterrupt(), 130),
        (SystemExit(2), 2),
        (SystemExit(None), 0),
        (SystemExit("message"), 1),
        (BrokenPipeError(), 1),
        (NotADirectoryError(20, "Not a directory", "afile/sub"), 1),
        (OSError(28, "No space left on device"), 1),
        (KeyError("x"), 1),
        (RecursionError(), 1),
        (MemoryError(), 1),
    ],
)
def test_exit_codes(error, code, capfd, monkeypatch) -> None:
    monkeypatch.setattr(sys.stderr, "close", lambda: None)
    assert run_app(failing(error), debug=False) == code
    assert "Traceback" not in capfd.readouterr().err


def test_an_error_is_one_line(capsys) -> None:
    error = DataError("there are no\nrows", where="a\nb.parquet", remedy="Widen the recipe")
    assert run_app(failing(error), debug=False) == 1
    assert capsys.readouterr().err == "error: a b.parquet: there are no rows. Widen the recipe.\n"


def test_the_demo_names_the_extra_of_a_missing_package_before_it_starts(capsys, monkeypatch, tmp_path) -> None:
    installed = run.installed_version
    monkeypatch.setattr(run, "installed_version", lambda name: None if name == "llamafactory" else installed(name))
    assert run_app(lambda: build_app()(["demo", "--out", str(tmp_path / "demo")]), debug=False) == 2
    assert "llamafactory" in (said := capsys.readouterr().err)
    assert said.endswith("In the checkout, run: pip install '.[cpu]'.\n")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize("command", ["lad", "easyr1"])
def test_a_help_page_is_not_cut_and_its_examples_can_be_copied(command) -> None:
    from importlib import import_module

    from typer.main import get_command

    root = get_command(import_module(f"lad_reasoner.commands.{command}").build_app())
    assert "..." not in _page(root, command).partition("Commands:")[2]
    for name, verb in root.commands.items():
        examples = _page(verb, f"{command} {name}").partition("Examples:\n")[2].partition("\n\n")[0].splitlines()
        assert hasattr(verb, "commands") or examples
        assert all(re.match(rf"  ([A-Z0-9_]+=\S+ )?{command} ", line) for line in examples), examples


def _page(command, name: str) -> str:
    import typer

    return command.get_help(typer.Context(command, info_name=name, terminal_width=60))


def test_an_unexpected_exception_is_one_line_that_asks_for_debug(capsys) -> None:
    assert run_app(failing(KeyError("a\nb")), debug=False) == 1
    said = capsys.readouterr().err
    assert said.startswith("internal error: KeyError: ")
    assert said.endswith("Run again with --debug for the traceback.\n")
    assert said.count("\n") == 1


def test_debug_lets_the_traceback_through() -> None:
    with pytest.raises(DataError):
        run_app(failing(DataError("b", where="a")), debug=True)


def test_sigterm_is_an_interrupt_and_only_while_the_command_runs() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def run() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    assert run_app(run, debug=False) == 130
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "command",
    [["lad_reasoner.commands.lad"], ["lad_reasoner.commands.lad", "build"], ["lad_reasoner.commands.easyr1"]],
)
def test_help_imports_nothing_heavy(command) -> None:
    words = [sys.executable, "-X", "importtime", "-m", *command, "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    imported = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "lad_reasoner" in imported
    assert not imported & set(HEAVY)


def test_every_verb_is_documented_and_has_an_example(repository) -> None:
    from typer.main import get_command

    from lad_reasoner.commands.lad import build_app

    pages = "\n".join(
        page.read_text(encoding="utf-8") for page in [repository / "README.md", *repository.glob("docs/*.md")]
    )
    root = get_command(build_app())
    verbs = {name: verb for name, verb in root.commands.items() if not hasattr(verb, "commands")}
    verbs |= {f"build {name}": verb for name, verb in root.commands["build"].commands.items()}
    assert len(verbs) >= 9
    for name, verb in verbs.items():
        assert f"lad {name}" in pages, f"`lad {name}` is in no page"
        assert "Example: lad" in (verb.help or ""), f"`lad {name} --help` shows no example"


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_stream_that_is_closed_is_no_fault(closed: str) -> None:
    look = "sys.exit(run_app(lambda: (sys.stdout.flush(), sys.stderr.isatty()), debug=False))"
    code = f"import sys; from lad_reasoner.commands.lad import run_app; {look}"
    command = f"{sys.executable} -c '{code}' {closed}>&-"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "--data", "x"], "interrupted; run the same command again to continue"),
        (["score", "x"], "interrupted"),
        (["config=x.yaml"], "interrupted; run the same command again to continue"),
    ],
)
def test_an_interrupt_is_answered_with_how_to_continue(words, said, capsys) -> None:
    def build() -> typer.Typer:
        app = typer.Typer()

        @app.command(context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
        def interrupted(words: list[str]) -> None:
            raise KeyboardInterrupt

        return app

    with pytest.raises(SystemExit) as stop:
        run_words(build, words)
    assert stop.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == said


def _float_options(app: typer.Typer) -> list[list[str]]:
    """Return for each option that is a float the words that set it, but for its value, with all that is required."""
    waiting: list[tuple[list[str], Any]] = [([], typer.main.get_command(app))]
    found = []
    while waiting:
        words, command = waiting.pop()
        waiting += [([*words, name], sub) for name, sub in getattr(command, "commands", {}).items()]
        needed = [param for param in command.params if param.required]
        rest = [
            word for param in needed for word in ([param.opts[0]] if param.opts[0].startswith("-") else []) + ["1"]
        ]
        floats = [param for param in command.params if param.type_descriptor.annotation in {float, float | None}]
        found += [[*words, *rest, param.opts[0]] for param in floats]
    return sorted(found)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e999"])
def test_no_option_is_infinite(value, capsys) -> None:
    options = _float_options(build_app())
    assert {"--temperature", "--budget", "--val-fraction", "--min-share"} <= {words[-1] for words in options}
    for words in options:
        with pytest.raises(SystemExit) as stopped:
            run_words(build_app, [*words, value])
        assert stopped.value.code == 2, words
        assert f"Invalid value for '{words[-1]}'" in capsys.readouterr().err, words
