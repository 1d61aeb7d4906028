"""Unpack an archive that anyone may have made: no path leads out, no link or device is made, the size is bounded."""

from __future__ import annotations

import errno
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from pathlib import Path, PurePosixPath
from typing import IO, Final

from lad_reasoner.support.errors import DataError

__all__ = ["MAX_FILES", "MAX_RATIO", "copy_bounded", "move_root", "unpack"]

#: Bounds of what an archive may hold. Our choice: MMAD, the largest, has about 40,000 files; photos hardly shrink.
MAX_FILES: Final = 200_000
MAX_RATIO: Final = 20

_REMEDY: Final = "Download the archive again from the dataset's own page"
_BROKEN: Final = (tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, RuntimeError, ValueError)

#: What the system reports about two entries of one name, a file above a file, and a name too long.
_BAD_NAMES: Final = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or (compressed) tar archive into an empty folder.

    Raises:
        DataError: The archive is broken, would write outside the folder, holds a link or device, or unpacks to more
            than ``MAX_FILES`` files or ``MAX_RATIO`` times its size.
        OSError: The disk is full, or the like: no fault of the archive.
    """
    folder.mkdir(parents=True)
    left = MAX_RATIO * max(archive.stat().st_size, 1 << 20)
    try:
        for number, (name, source) in enumerate(_iter_files(archive), start=1):
            if number > MAX_FILES:
                raise DataError(f"it holds more than {MAX_FILES:,} files", where=archive, remedy=_REMEDY)
            target = folder / _safe(name, archive)
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                left -= copy_bounded(source, file, left, archive)
    except (*_BROKEN, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _BAD_NAMES:
            raise
        raise DataError(f"a broken archive ({str(error)[:200]})", where=archive, remedy=_REMEDY) from error


def _iter_files(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of each regular file, in order; a tar is read once from start to end."""
    if not tarfile.is_tarfile(archive):  # a tar that ends with a zip file passes for a zip
        with zipfile.ZipFile(archive) as pack:
            for info in pack.infolist():
                if info.is_dir():
                    continue
                if (info.external_attr >> 28) not in {0, 8}:  # the file type of Unix; 8 is a regular file
                    raise DataError(f"it holds a link or device ({info.filename})", where=archive, remedy=_REMEDY)
                with pack.open(info) as content:
                    yield info.filename, content
        return
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            if member.isdir():
                continue
            extracted = tar.extractfile(member) if member.isreg() else None
            if extracted is None:
                raise DataError(f"it holds a link or device ({member.name})", where=archive, remedy=_REMEDY)
            yield member.name, extracted


def _safe(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.parts:
        raise DataError(f"an entry would be written outside the folder ({name})", where=archive, remedy=_REMEDY)
    return path


def copy_bounded(source: IO[bytes], target: IO[bytes], left: int, archive: Path) -> int:
    """Copy an entry and return its size; it may have at most ``left`` bytes."""
    written = 0
    while chunk := source.read(1 << 20):
        written += len(chunk)
        if written > left:
            problem = f"it unpacks to more than {MAX_RATIO} times its size, possibly a decompression bomb"
            raise DataError(problem, where=archive, remedy=_REMEDY)
        target.write(chunk)
    return written


def move_root(folder: Path, layout: str, out: Path) -> None:
    """Move the folder that holds the layout's path to its final place.

    Raises:
        DataError: The layout is nowhere.
    """
    depth = len(PurePosixPath(layout).parts)
    for path in sorted(folder.rglob(PurePosixPath(layout).name), key=lambda path: len(path.parts)):
        root = path.parents[depth - 1]
        if root.is_relative_to(folder) and (root / layout).exists():
            root.replace(out)
            shutil.rmtree(folder, ignore_errors=True)
            return
    raise DataError(f"the archive has no {layout}", where=folder, remedy=_REMEDY)
