"""Code blocks of Markdown pages, and the shell commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"\s+#\s.*$")


@dataclass(frozen=True)
class Block:
    """A fenced block: the line of its first line of code, its language (often empty) and its text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def iter_blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        yield Block(page, text.count("\n", 0, match.start()) + 2, match[1], match[2])


def iter_commands(block: Block) -> Iterator[str]:
    """Yield the shell commands of a block, each on one line, without comments and prompts."""
    for line in block.text.replace("\\\n", " ").splitlines():
        command = _COMMENT.sub("", line).strip().removeprefix("$ ")
        if command and not command.startswith("#"):
            yield " ".join(command.split())
