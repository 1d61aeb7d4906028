"""Code blocks of Markdown pages, and the shell commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Fenced, or indented by four spaces after an empty line.
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?<=\n\n)((?:    .*\n)+)")
_COMMENT = re.compile(r"\s+#\s.*$")


@dataclass(frozen=True)
class Block:
    """A code block: the line on which its text begins, its language (often empty) and its text."""

    page: Path
    line: int
    language: str
    text: str


def iter_blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks, then the indented ones."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCED.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2])
    for match in _INDENTED.finditer(_FENCED.sub(lambda fenced: "\n" * fenced[0].count("\n"), text)):
        yield Block(page, 0, "", re.sub(r"^ {4}", "", match[1], flags=re.MULTILINE))


def iter_commands(block: Block) -> Iterator[str]:
    """Yield the shell commands of a block, each on one line, without comments and prompts."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command = _COMMENT.sub("", line).strip().removeprefix("$ ")
        if command and not command.startswith("#"):
            yield " ".join(command.split())
