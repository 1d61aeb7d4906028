"""The blocks of docs/python.md run, one after the other, on small data; the library prints nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.markdown import iter_blocks

pytestmark = [pytest.mark.slow, pytest.mark.frameworks]

PAGE = Path(__file__).parents[2] / "docs/python.md"


def test_every_block_runs_in_order(workplace, base_model, monkeypatch, capfd) -> None:
    blocks = [block for block in iter_blocks(PAGE) if block.language == "python"]
    assert len(blocks) == len(list(iter_blocks(PAGE))) > 8
    monkeypatch.chdir(workplace)
    names: dict[str, object] = {"print": lambda *_: None}
    for block in blocks:
        source = block.text.replace("Qwen/Qwen2.5-VL-3B-Instruct", str(base_model))
        exec(compile("\n" * (block.line - 1) + source, PAGE, "exec"), names)  # noqa: S102 - the page is ours
    assert (workplace / "report/index.html").is_file()
    assert capfd.readouterr().out == ""
