"""Progress and messages: the library reports, the command line shows."""

from __future__ import annotations

import io
import logging
import sys
import time

import pytest

from lad_reasoner.support import progress
from lad_reasoner.support.console import waiting
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.progress import listen, report, show_progress, track


def test_a_callback_hears_of_every_item_and_only_inside_its_block() -> None:
    heard: list[tuple[str, int, int]] = []
    with listen(lambda *told: heard.append(told)):
        assert list(track("ab", total=2, description="letters")) == ["a", "b"]
    list(track("cd", total=2, description="letters"))
    assert heard == [("letters", 0, 2), ("letters", 1, 2), ("letters", 2, 2)]


def test_none_keeps_the_outer_callback() -> None:
    heard: list[str] = []
    with listen(lambda what, *_: heard.append(what)), listen(None):
        report("pairs", 1, 2)
    assert heard == ["pairs"]


class Terminal(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_bars_appear_on_a_terminal_and_stdout_stays_clean(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "stderr", screen := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    with show_progress():
        assert screen.getvalue() == ""  # nothing before the first report
        for _ in track(range(3), total=3, description="pictures"):
            print("data")
        done = screen.getvalue()
        print("more")
    assert "pictures" in done
    assert "3/3" in done
    assert capsys.readouterr().out == "data\n" * 3 + "more\n"


def test_short_work_shows_nothing_off_a_terminal(capsys) -> None:
    with show_progress():
        list(track("ab", total=2, description="letters"))
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_a_line_every_half_minute_off_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with show_progress():
        report("responses", 20, 100)  # resumed
        for done in range(20, 101):
            now[0] += 10
            report("responses", done, 100)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[:2] == [
        "responses: 22 of 100, about 20 min left",
        "responses: 25 of 100, about 15 min left",
    ]
    assert len(shown.err.splitlines()) == 26


def test_a_batch_counts_when_all_its_items_are_reported(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with show_progress():
        report("responses", 0, 48)
        for done in range(1, 49):
            now[0] += 100.0 if done % 16 == 1 else 0.001
            report("responses", done, 48)
    assert capsys.readouterr().err.splitlines() == [
        "responses: 16 of 48, about 3 min left",
        "responses: 32 of 48, about 2 min left",
    ]


def test_a_steady_stream_is_no_batch(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with show_progress():
        for done in range(1000):
            now[0] += 0.1
            report("responses", done, 1000)
    assert 2 <= len(capsys.readouterr().err.splitlines()) <= 3


def test_findings_are_logged_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    findings = Findings()
    with caplog.at_level(logging.WARNING, logger="lad_reasoner"):
        for _ in range(2):
            findings.add("repaired", "a.png: EXIF rotation")
        Findings(quiet=True).add("repaired", "b.png: EXIF rotation")
    assert [record.message for record in caplog.records] == ["repaired: a.png: EXIF rotation"]
    assert findings.summary() == "repaired 1"


def test_repairs_of_many_photos_do_not_bury_what_needs_action(caplog: pytest.LogCaptureFixture) -> None:
    findings = Findings()
    with caplog.at_level(logging.WARNING, logger="lad_reasoner"):
        for number in range(200):
            findings.add("repaired", f"{number}.jpg: EXIF rotation")
        findings.add("unreadable", "200.jpg: a truncated JPEG image")
    shown = [record.message for record in caplog.records]
    assert shown[:3] == [f"repaired: {number}.jpg: EXIF rotation" for number in range(3)]
    assert "your files are unchanged" in shown[3]
    assert shown[4:] == ["unreadable: 200.jpg: a truncated JPEG image"]
    assert len(findings.of("repaired")) == 200
    assert findings.summary() == "repaired 200, unreadable 1"


def test_waiting_shows_elapsed_time_on_a_terminal_and_one_line_elsewhere(monkeypatch, capsys) -> None:
    with waiting("loading a/b[bold]"), waiting("answering", line=False):
        pass
    assert capsys.readouterr().err == "loading a/b[bold]\n"
    monkeypatch.setenv("FORCE_COLOR", "1")
    with waiting("loading a/b[bold]"):
        time.sleep(0.3)
    text = capsys.readouterr().err
    assert "loading a/b[bold]" in text
    assert "0:00:00" in text
