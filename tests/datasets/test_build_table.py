"""The counts that `lad build` prints at its end."""

from __future__ import annotations

import sys

import pytest

from lad_datasets.commands.build import print_counts

COUNTS = [
    {"dataset": "folder", "category": "gear", "kind": "own", "label": "yes", "rows": 12},
    {"dataset": "folder", "category": "a\x1b[2J", "kind": "good", "label": "no", "rows": 3},
]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_gets_an_aligned_table_and_a_pipe_gets_tabs(capsys, monkeypatch, terminal) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    print_counts(COUNTS)
    lines = capsys.readouterr().out.splitlines()
    assert "\x1b" not in "".join(lines)
    if terminal:
        assert lines[1].split() == ["dataset", "category", "kind", "label", "rows"]
        assert len(lines[1]) == len(lines[2]) == len(lines[3])
        assert lines[3].endswith("     3")
    else:
        assert lines[0] == "folder\tgear\town\tyes\t12"
