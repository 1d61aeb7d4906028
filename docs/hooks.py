"""Pages that MkDocs generates: README.md as the start page, the help of every command, and the public API."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"lad_reasoner": "plugin", "lad_datasets": "dataset_builders"}

#: A link to a file of the repository that is not a page of the site.
_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!docs/)([^)#]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages."""
    pages = {"index.md": start_page(), "api.md": api_page()}
    pages |= {f"help/{name}.md": help_page(name, command) for name, command in applications().items()}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Name files outside the site by their path in the repository."""
    return _OUTSIDE.sub(r"\1 (`\2`)", markdown)


def start_page() -> str:
    """Return README.md with links that work from the site's root."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(\]\(|src=\")docs/", r"\1", text)
    return re.sub(r"\]\((?=[A-Z]|examples/)", "](../", text)


def api_page() -> str:
    """Return a page with every public name of both packages."""
    lines = ["# API", "", "How to use it: [python.md](python.md). Other modules may change without notice.", ""]
    for package, folder in PACKAGES.items():
        lines += [f"## {package}", ""]
        for name in public_names(ROOT / folder / package / "__init__.py"):
            if not name.startswith("__"):
                lines += [f"::: {package}.{name}", ""]
    return "\n".join(lines)


def public_names(file: Path) -> list[str]:
    """Return ``__all__`` of a module without importing it."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return list(ast.literal_eval(node.value))
    raise ValueError(f"{file}: there is no __all__")


def applications() -> dict[str, Any]:
    """Return the command lines by name."""
    from lad_reasoner.commands import easyr1, lad

    return {name: typer.main.get_command(app.build_app()) for name, app in (("lad", lad), ("easyr1", easyr1))}


def iter_commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Yield a command and, at any depth, its subcommands, each with its full name."""
    yield name, command
    if hasattr(command, "commands"):
        for child in command.list_commands(command.context_class(command, info_name=name)):
            if not command.commands[child].hidden:
                yield from iter_commands(f"{name} {child}", command.commands[child])


def help_page(name: str, application: Any) -> str:
    """Return the help of a command line and of each of its commands."""
    lines = [f"# `{name}`", ""]
    for title, command in iter_commands(name, application):
        context = command.context_class(command, info_name=title, terminal_width=100, max_content_width=100)
        level = "" if title == name else f"## `{title}`\n\n"
        lines.append(f"{level}```text\n{command.get_help(context).strip()}\n```\n")
    return "\n".join(lines)
