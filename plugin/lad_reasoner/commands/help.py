"""One help style for `lad` and `easyr1`: grouped options, whole summaries, and examples that can be copied."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = ["HelpCommand", "HelpGroup", "Words", "use_help_style"]

#: The arguments of every `easyr1` command that reads a config.
Words = Annotated[
    list[str],
    typer.Argument(
        metavar="KEY=VALUE",
        help="EasyR1's syntax: config=FILE overrides EasyR1's defaults, the other arguments override FILE.",
        show_default=False,
    ),
]

#: Opens each example in a command's docstring.
_EXAMPLE: Final = "Example: "


class HelpCommand(TyperCommand):
    """A command whose options are grouped by ``rich_help_panel`` and whose examples are not wrapped."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse ``inf`` and ``nan``, which no option of a command means."""
        rest = super().parse_args(ctx, args)
        params: list[Any] = self.get_params(ctx)
        for param in params:
            if isinstance(value := ctx.params.get(param.name), float) and not math.isfinite(value):
                raise typer.BadParameter(f"{value} is not a finite number", ctx=ctx, param=param)
        return rest

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's signature
        """Write the description, then one line for each example."""
        _write_description(self.help or "", formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write one section for each group of options."""
        _write_options(self.get_params(ctx), ctx, formatter)


class HelpGroup(TyperGroup):
    """A group of commands that lists whole summaries, in the order of `ORDER`, then of registration."""

    #: Names of the commands that come first.
    ORDER: tuple[str, ...] = ()

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands in their order."""
        names = super().list_commands(ctx)
        return [*(name for name in self.ORDER if name in names), *(name for name in names if name not in self.ORDER)]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002 - click's signature
        """Write the description, then one line for each example."""
        _write_description(self.help or "", formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, then the commands with their summaries."""
        _write_options(self.get_params(ctx), ctx, formatter)
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, _summary(command.help or "")) for name, command in commands if command and not command.hidden]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def use_help_style(app: typer.Typer) -> None:
    """Give every command of an application, at any depth, this module's help pages."""
    for command in app.registered_commands:
        command.cls = HelpCommand
    for group in app.registered_groups:
        group.cls = HelpGroup
        if group.typer_instance is not None:
            use_help_style(group.typer_instance)


def _summary(text: str) -> str:
    """Return the first sentence of a description."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"(?<=\.) (?=[A-Z])", paragraph, maxsplit=1)[0]


def _write_description(text: str, formatter: Any) -> None:
    paragraphs = text.strip().split("\n\n")
    examples = [line for part in paragraphs if part.startswith(_EXAMPLE) for line in _commands(part)]
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text("\n\n".join(part for part in paragraphs if not part.startswith(_EXAMPLE)))
    if examples:
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in examples))


def _commands(paragraph: str) -> list[str]:
    """Return the commands of a paragraph of examples, each as one line."""
    parts = re.split(rf"^{_EXAMPLE}", paragraph, flags=re.MULTILINE)
    return [" ".join(part.split()) for part in parts if part.strip()]


def _write_options(params: Sequence[Any], ctx: Any, formatter: Any) -> None:
    sections: dict[str, list[tuple[str, str]]] = {}
    for param in params:
        if (record := param.get_help_record(ctx)) is not None:
            kind = "Arguments" if param.param_type_name == "argument" else "Options"
            sections.setdefault(getattr(param, "rich_help_panel", None) or kind, []).append(record)
    for name, records in sorted(sections.items(), key=lambda section: section[0] == "Options"):
        with formatter.section(name):
            formatter.write_dl(records)
