"""Output files: whole or absent, one writer at a time, no leftovers, errors that name the file."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lad_reasoner.support.errors import DataError, RunError
from lad_reasoner.support.files import hidden_sibling, locked, replace_when_done, write_json, write_text

#: Starts a draft of argv[1] under its lock, prints "ready" and waits to be killed.
HOLDER = """
import sys, time
from pathlib import Path
from lad_reasoner.support.files import locked, replace_when_done
path = Path(sys.argv[1])
with locked(path), replace_when_done(path) as draft:
    draft.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Yield a process that is in the middle of writing ``tmp_path / "out.json"``."""
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path / "out.json"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
        process.kill()


def test_the_second_writer_is_refused_with_the_first_one_s_process(tmp_path, holder) -> None:
    with (
        pytest.raises(RunError, match=f"process {holder.pid} on .* is writing this output"),
        locked(tmp_path / "out.json"),
    ):
        pytest.fail("two writers at once")
    assert not (tmp_path / "out.json").exists()


def test_what_a_killed_writer_leaves_is_gone_after_the_next_one(tmp_path, holder) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert len(list(tmp_path.iterdir())) == 2  # its draft and its lock
    with locked(tmp_path / "out.json"):
        write_json(tmp_path / "out.json", {"whole": True})
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_draft_that_is_being_written_is_left_alone(tmp_path, holder) -> None:
    write_text(tmp_path / "out.json", "mine")
    assert holder.poll() is None
    assert len(list(tmp_path.glob(".lad-*.tmp"))) == 1
    assert (tmp_path / "out.json").read_text() == "mine"


def test_a_failed_block_leaves_the_earlier_file_and_nothing_else(tmp_path) -> None:
    path = tmp_path / "out.json"
    write_text(path, "earlier")
    with pytest.raises(ZeroDivisionError), replace_when_done(path) as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "words"), [(errno.ENOSPC, "no space left"), (errno.EACCES, "permission denied")])
def test_a_refused_write_names_the_file_and_leaves_nothing(tmp_path, number, words) -> None:
    path = tmp_path / "out.json"
    with pytest.raises(DataError, match=f"cannot write {path}: {words}"), replace_when_done(path):
        raise OSError(number, os.strerror(number))
    assert not list(tmp_path.iterdir())


def test_an_error_about_another_file_keeps_its_own_name(tmp_path) -> None:
    with pytest.raises(PermissionError, match="elsewhere"), replace_when_done(tmp_path / "out.json"):
        raise OSError(errno.EACCES, "denied", "elsewhere/image.png")


def test_a_path_below_a_file_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="a part of the path is a file"):
        write_text(tmp_path / "file" / "out.json", "x")


@pytest.mark.parametrize("name", ["n" * 255, "ß" * 127, "n" * 240 + ".parquet"])
def test_names_up_to_the_limit_can_be_written_and_locked(tmp_path, name) -> None:
    with locked(tmp_path / name):
        write_text(tmp_path / name, "whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(os.fsencode(hidden_sibling(tmp_path / name, "partial").name)) <= 255


def test_the_mode_of_a_new_file_follows_the_umask(tmp_path) -> None:
    write_text(tmp_path / "out.json", "x")
    (tmp_path / "usual").touch()
    assert (tmp_path / "out.json").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_many_small_writers_of_one_file_leave_one_whole_file(tmp_path) -> None:
    code = (
        "import sys; from pathlib import Path; from lad_reasoner.support.files import write_text\n"
        "for i in range(200): write_text(Path(sys.argv[1]), sys.argv[2] * 5000)"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "out", letter]) for letter in "ab"]
    while any(process.poll() is None for process in started):
        if (tmp_path / "out").exists():
            assert (tmp_path / "out").read_text() in {"a" * 5000, "b" * 5000}
        time.sleep(0.001)
    assert [process.returncode for process in started] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", [".", "..", "a/..", "/"])
def test_a_folder_without_a_name_of_its_own_can_be_locked(tmp_path, monkeypatch, name) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a" if name == "." else tmp_path)
    sibling = hidden_sibling(Path(name), "lock")
    whole = Path(name).resolve()
    assert (sibling.parent, sibling.name) == (whole.parent, f".{whole.name}.lock")
