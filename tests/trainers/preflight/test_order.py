"""How the findings of a run are printed before it starts."""

from __future__ import annotations

import pytest

from lad_reasoner.commands.findings import print_findings, refuse_errors
from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.findings import error, note, warning

FINDINGS = (note("a", "is new"), error("b", "is wrong"), warning("c", "is odd"), error("d", "is absent"))


def test_errors_stand_together_before_warnings_and_notes(capsys) -> None:
    with pytest.raises(UsageError, match=r"^2 errors in the config\. Correct them, or .* --no-check\.$"):
        refuse_errors(FINDINGS)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "error", "warning", "note"]


def test_warnings_and_notes_stop_nothing(capsys) -> None:
    refuse_errors([FINDINGS[0], FINDINGS[2]])
    assert capsys.readouterr().err == "warning: c: is odd\nnote: a: is new\n"


def test_one_is_singular(capsys) -> None:
    print_findings([FINDINGS[1], FINDINGS[2]], checks=57, as_json=False)
    assert capsys.readouterr().out.endswith("57 checks, 1 error, 1 warning\n")
