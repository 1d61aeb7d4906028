"""Fetch a file over HTTP, continue where an earlier attempt stopped, and verify its checksum.

The standard library is enough: of the usual helpers (pooch, torchvision), none continues a partial file, and httpx is
not part of the core installation.
"""

from __future__ import annotations

import errno
import http.client
import re
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from lad_reasoner.support.errors import DataError, RunError, UsageError
from lad_reasoner.support.files import file_sha256, hidden_sibling, name_write_errors
from lad_reasoner.support.progress import report

__all__ = ["fetch"]

_CHUNK: Final = 1 << 20
_TIMEOUT: Final = 60.0
_PARTIAL_CONTENT: Final = 206
_RANGE_NOT_SATISFIABLE: Final = 416

#: Answers that do not change when the same address is asked again.
_REFUSED: Final = frozenset({400, 401, 403, 404, 405, 410, 451})

_PAGE: Final = "Compare the address with the dataset's own page; --url names another one"
_AGAIN: Final = "Run the same command again to continue"
_REACH: Final = (
    "Check the network and the proxy, then run the same command again; --url names a mirror. Or download the archive "
    "from the dataset's page on another machine and unpack it"
)


def fetch(url: str, target: Path, *, sha256: str | None) -> None:
    """Download an address to a file; a partial download of it is continued.

    Args:
        url: An http or https address.
        target: The file. It appears when it is complete and its checksum is right.
        sha256: The checksum; None accepts any content of the announced length.

    Raises:
        UsageError: The address is not http or https or names a user, or the checksum is none.
        RunError: The server cannot be reached, answers with an error, or stops early.
        DataError: The content does not have the checksum, or the disk is full.
    """
    if not url.isascii() or url.partition("://")[0].lower() not in {"http", "https"}:
        raise UsageError("not an http or https address (in ASCII)", where=url)
    if "@" in url.partition("://")[2].partition("/")[0]:
        raise UsageError("an address with a user name or password is not supported", where="--url")
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UsageError(f"{sha256[:80]!r} is not a SHA-256: 64 hexadecimal digits", where="--sha256")
    part = hidden_sibling(target, "part")
    with name_write_errors(target):
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            if not _is_complete(url, part):
                _append(url, part)
        except (URLError, http.client.HTTPException, OSError, ValueError) as error:  # ValueError: headers, host names
            if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS}:
                raise  # of the disk, not of the network
            reason = getattr(error, "reason", error)
            if isinstance(error, HTTPError) and error.code in _REFUSED:
                raise RunError(f"the server answers {error.code} ({reason})", where=url, remedy=_PAGE) from error
            if isinstance(error, URLError) and not isinstance(error, HTTPError) and (host := urlsplit(url).hostname):
                raise RunError(f"{host} cannot be reached ({reason})", where=url, remedy=_REACH) from error
            raise RunError(f"the download stopped ({reason})", where=url, remedy=_AGAIN) from error
        if sha256 is not None and (found := file_sha256(part)) != sha256.lower():
            part.unlink()
            problem = f"the SHA-256 of the downloaded file is {found}, not {sha256}; the file is removed"
            raise DataError(problem, where=url, remedy="Download it again, or compare with the dataset's own page")
        part.replace(target)


def _append(url: str, part: Path) -> None:
    """Ask for the bytes that are missing and append them; start again where the server cannot continue."""
    have = _size(part)
    with _open(url, have) as reply:
        if reply.status != _PARTIAL_CONTENT or not reply.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0
        length = int(reply.headers.get("Content-Length") or 0)  # absent or 0: unknown
        total = have + length
        with part.open("ab" if have else "wb") as file:
            while chunk := reply.read(_CHUNK):
                file.write(chunk)
                have += len(chunk)
                report("megabytes", have >> 20, max(total, have) >> 20)
    if length and have < total:
        raise http.client.IncompleteRead(b"", total - have)


def _is_complete(url: str, part: Path) -> bool:
    """Return whether nothing is missing; a part that the server cannot continue is removed."""
    if not (have := _size(part)):
        return False
    try:
        _open(url, have).close()
    except HTTPError as error:
        error.close()
        if error.code != _RANGE_NOT_SATISFIABLE:
            raise
        if error.headers.get("Content-Range", "").endswith(f"/{have}"):
            return True
        part.unlink()
    return False


def _open(url: str, start: int) -> Any:
    headers = {"User-Agent": "lad-reasoner"} | ({"Range": f"bytes={start}-"} if start else {})
    return urlopen(Request(url, headers=headers), timeout=_TIMEOUT)  # noqa: S310 - the scheme was checked


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
