"""Names and file contents cannot move the cursor or turn the reading direction of what is printed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.findings import Findings, warning
from lad_reasoner.support.visible import visible

UNSEEN = ["\x1b[31m", "\r", "\x07", "\x9b2J", "\u202e", "\u2066", "\u200f", "\u2028", "\ufeff", "\ud800"]


@pytest.mark.parametrize("mark", UNSEEN)
def test_marks_are_spelled_out_everywhere(mark) -> None:
    name = f"a{mark}b"
    findings = Findings(quiet=True)
    findings.add("note", name)
    for text in (str(DataError(name)), str(UsageError("wrong", where=name, remedy=name)), *findings.lines):
        assert mark not in text
        text.encode()
    assert mark not in str(warning(name, name, remedy=name))


def test_a_finding_is_one_line() -> None:
    findings = Findings(quiet=True)
    findings.add("note", "a\nerror: b")
    assert findings.lines == ["note: a\\nerror: b"]
    assert "\n" not in str(warning("a\nb", "c\nd"))


@given(st.text())
def test_visible_text_prints_and_stays_as_it_is(text) -> None:
    shown = visible(text, one_line=True)
    shown.encode()
    assert visible(shown, one_line=True) == shown
    assert len(shown.splitlines()) <= 1


def test_usual_text_is_left_alone() -> None:
    for text in ("häkel ☃ 正常", "a\tb\nc", "C:\\data\\x.png", "é🎉"):
        assert visible(text) == text


def test_ids_from_a_file_move_no_cursor_on_the_terminal(capsys) -> None:
    from lad_reasoner.commands.systems import note_ids

    note_ids("own\x1b[2J", ["a\nb\u202e"], "pairs are unknown")
    assert capsys.readouterr().err == "own\\x1b[2J: 1 pairs are unknown: a\\nb\\u202e\n"
