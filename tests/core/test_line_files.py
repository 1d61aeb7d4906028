"""Append-only files of lines: whole lines, one writer, no write into a file without a name."""

import errno
import os
from pathlib import Path

import pytest

from lad_reasoner.support.errors import RunError
from lad_reasoner.support.jsonl import LineFile


def test_lines_are_appended_to_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "lines.jsonl"
    for line in (b"1\n", b"2\n"):
        with LineFile(path) as file:
            file.append(line)
    assert path.read_bytes() == b"1\n2\n"


@pytest.mark.parametrize("accepted", [0, 3])
def test_a_full_disk_leaves_no_part_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: int) -> None:
    write, left = os.write, [accepted, 0]

    def write_a_part(file: int, data: bytes) -> int:
        if not (room := left.pop(0)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[:room])

    with LineFile(tmp_path / "lines.jsonl") as file:
        file.append(b"first\n")
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(os, "write", write_a_part)
            file.append(b"second\n")
        file.append(b"third\n")
    assert (tmp_path / "lines.jsonl").read_bytes() == b"first\nthird\n"


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    with LineFile(path), pytest.raises(RunError, match="another process is writing to this file"):
        LineFile(path)
    LineFile(path).close()


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_that_lost_its_name_gets_no_line(tmp_path: Path, replace: bool) -> None:
    path = tmp_path / "lines.jsonl"
    with LineFile(path) as file:
        path.unlink()
        if replace:
            path.touch()
        with pytest.raises(RunError, match="removed or replaced"):
            file.append(b"lost\n")


def test_every_line_is_on_the_disk_unless_a_pause_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for pause, expected in ((0.0, 3), (3600.0, 0)):
        synced.clear()
        with LineFile(tmp_path / "lines.jsonl", sync_seconds=pause) as file:
            for _ in range(3):
                file.append(b"line\n")
            assert len(synced) == expected
