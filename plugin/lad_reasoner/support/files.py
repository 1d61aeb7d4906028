"""Output files: they appear whole or not at all, one process writes them at a time, and errors name the file.

with locked(out):                           # a second process gets a RunError
    with replace_when_done(out) as draft:   # `out` appears when the block ends without an error
        draft.write_bytes(...)
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from lad_reasoner.support.errors import DataError, RunError, UsageError

__all__ = [
    "file_sha256",
    "hidden_sibling",
    "is_still",
    "locked",
    "name_write_errors",
    "replace_when_done",
    "require_absent",
    "try_lock",
    "unchanged",
    "write_bytes",
    "write_json",
    "write_text",
]

#: Longest name of a file, in bytes, on every common file system.
_NAME_BYTES: Final = 255

_REMEDIES: Final = {
    errno.ENOSPC: "Free some space and run the same command again",
    errno.EDQUOT: "Free some space and run the same command again",
    errno.EFBIG: "Write to a file system that takes larger files, or write shards",
    errno.EIO: "Check the disk",
    errno.EACCES: "Change the permissions, or choose another output",
    errno.EPERM: "Change the permissions, or choose another output",
    errno.EROFS: "Choose an output on a file system that can be written to",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOTDIR: "Choose another output: a part of the path is a file",
    errno.EEXIST: "Choose another output: a part of the path is a file",
    errno.EISDIR: "Choose another output: this is a folder",
}


@contextmanager
def name_write_errors(path: Path) -> Iterator[None]:
    """Turn what the system reports about a write into an error that names the file.

    Errors about other files (an image that is read inside the block) pass unchanged.

    Raises:
        DataError: The disk is full, the folder cannot be written to, or the like.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES or not _is_about(error, path):
            raise
        problem, remedy = os.strerror(error.errno).lower(), _REMEDIES[error.errno]
        raise DataError(problem, where=f"cannot write {path}", remedy=remedy) from error


def _is_about(error: OSError, path: Path) -> bool:
    """Return whether an error is about a file, its draft or lock, or a folder above it."""
    if not isinstance(error.filename, str | bytes):
        return error.filename is None
    named = Path(os.fsdecode(error.filename))
    return path.is_relative_to(named) or (named.parent == path.parent and named.suffix in {".tmp", ".lock"})


def hidden_sibling(path: Path, suffix: str) -> Path:
    """Return ``.NAME.SUFFIX`` next to a path; a digest replaces a name that would be too long.

    Example:
        >>> hidden_sibling(Path("data/grpo.parquet"), "lock").name
        '.grpo.parquet.lock'
    """
    path = path.resolve() if path.name in {"", ".."} else path  # the working folder has no name of its own
    name = f".{path.name}.{suffix}"
    if len(os.fsencode(name)) > _NAME_BYTES:
        name = f".lad-{_digest(path)}.{suffix}"
    return path.parent / name


def file_sha256(path: Path) -> str:
    """Return the hex digest of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_absent(out: Path, *, overwrite: bool | None = None) -> None:
    """Raise a UsageError if a new output exists already; a link to nothing counts.

    Args:
        out: The output.
        overwrite: Whether the user allows replacing it; None where that cannot be allowed.
    """
    if os.path.lexists(out) and not overwrite:
        replace = "" if overwrite is None else " or pass --overwrite"
        raise UsageError("it exists", where=f"--out {out}", remedy=f"Choose another name{replace}")


@contextmanager
def unchanged(list_files: Callable[[], Iterable[Path]]) -> Iterator[Callable[[], None]]:
    """Read files that must not change meanwhile: they are compared when the block ends, however it ends.

    They are listed again for every comparison, since a folder may get a further one. Yields a function that compares
    at once.

    Raises:
        DataError: A file was replaced, edited, added or removed since the block began.
    """
    before = _states(list_files)

    def compare() -> None:
        now = _states(list_files)
        if changed := [path for path in before.keys() | now.keys() if before.get(path) != now.get(path)]:
            problem = "the file was changed or replaced while it was in use"
            raise DataError(problem, where=min(changed), remedy="Run the same command again when nothing writes to it")

    try:
        yield compare
    except Exception as error:  # what a reader makes of half a file
        try:
            compare()
        except DataError as changed:
            raise changed from error
        raise
    compare()


def _states(list_files: Callable[[], Iterable[Path]]) -> dict[Path, tuple[int, ...]]:
    """Return what changes with a file's content, by path; an absent file has no entry."""
    states: dict[Path, tuple[int, ...]] = {}
    with suppress(DataError):  # the folder has no file any more
        for path in list_files():
            with suppress(OSError):
                found = path.stat()
                states[path] = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    return states


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Hold the lock of an output, a file or a folder, for as long as the block runs.

    The lock ends with the process, however it ends. Its file is removed afterwards.

    Raises:
        RunError: Another process holds it.
        DataError: The folder cannot be written to.
    """
    lock = hidden_sibling(out, "lock")
    with name_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _take(lock, out)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _take(lock: Path, out: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        if not try_lock(descriptor):
            owner = os.read(descriptor, 200).decode("utf-8", "replace").strip()
            os.close(descriptor)
            problem = f"another process{f' ({owner})' if owner else ''} is writing this output"
            raise RunError(problem, where=out, remedy="Wait until it ends, or choose another output")
        if is_still(descriptor, lock):
            os.ftruncate(descriptor, 0)
            with suppress(OSError):  # on a full disk the lock holds without its owner's name
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return descriptor
        os.close(descriptor)  # its owner removed it between our opening and our locking it


def try_lock(descriptor: int) -> bool:
    """Lock an open file without waiting; where the file system has no locks, count it as locked.

    Returns:
        False if another process holds the lock.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_still(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has its name: it was neither removed nor replaced."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def replace_when_done(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a draft next to ``path``; it takes the name when the block ends, and is removed if the block fails.

    Drafts of killed processes for the same path are removed.

    Args:
        path: The file to write. Its folder is made.
        durable: Flush to the disk first. Without, nothing is flushed and no earlier draft is looked for, which suits
            many small files that can be made again.

    Raises:
        DataError: The disk is full, or the folder cannot be written to.
    """
    with name_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if durable:
            _remove_drafts(path)
        draft, descriptor = _open_draft(path)
        try:
            yield draft
            if durable:
                os.fsync(descriptor)
            draft.replace(path)
            if durable:
                _sync_folder(path.parent)
        finally:
            draft.unlink(missing_ok=True)
            os.close(descriptor)


def _open_draft(path: Path) -> tuple[Path, int]:
    """Open a new, locked file under a unique name; the lock shows that its process is alive."""
    while True:
        draft = path.with_name(f".lad-{_digest(path)}-{secrets.token_hex(6)}.tmp")
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        if try_lock(descriptor) and is_still(descriptor, draft):
            return draft, descriptor
        os.close(descriptor)


def _remove_drafts(path: Path) -> None:
    for draft in path.parent.glob(f".lad-{_digest(path)}-*.tmp"):
        with suppress(OSError):
            descriptor = os.open(draft, os.O_RDWR)
            if try_lock(descriptor):
                draft.unlink(missing_ok=True)
            os.close(descriptor)


def _digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file whole or not at all."""
    with replace_when_done(path, durable=durable) as draft:
        draft.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
