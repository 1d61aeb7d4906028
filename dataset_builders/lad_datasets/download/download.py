"""`lad download`: a dataset from its publisher to a folder that the builders read."""

from __future__ import annotations

import shutil
from pathlib import Path

from lad_datasets.download.datasets import Published
from lad_datasets.download.fetch import fetch
from lad_datasets.download.unpack import move_root, unpack
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.files import hidden_sibling, locked, name_write_errors, require_absent

__all__ = ["download"]


def download(dataset: Published, out: Path, *, url: str | None = None, sha256: str | None = None) -> None:
    """Fetch, verify and unpack a dataset; the archive is removed afterwards.

    Args:
        dataset: What is published.
        out: The dataset's root; it must not exist. It appears when it is complete.
        url: Another address of the same archive, such as a mirror.
        sha256: Checksum of the archive; the published one by default.

    Raises:
        UsageError: ``out`` exists.
        RunError: The download stopped, or another process makes ``out``.
        DataError: Checksum, archive or layout is wrong, or the disk is full. A sound archive is kept.
    """
    require_absent(out)
    archive, contents = hidden_sibling(out, "archive"), hidden_sibling(out, "unpacked")
    with locked(out), name_write_errors(contents):
        require_absent(out)  # another process may have made it meanwhile
        if not archive.exists():
            if url is None:
                _refuse_small_disk(dataset, out)
            fetch(url or dataset.url, archive, sha256=sha256 or dataset.sha256)
        shutil.rmtree(contents, ignore_errors=True)  # of a killed process
        try:
            unpack(archive, contents)
            move_root(contents, dataset.layout, out)
        except DataError:
            archive.unlink()
            raise
        finally:
            shutil.rmtree(contents, ignore_errors=True)
        archive.unlink()


def _refuse_small_disk(dataset: Published, out: Path) -> None:
    needed, free = 2 * dataset.gigabytes, shutil.disk_usage(out.parent).free / 1e9
    if free < needed:
        problem = f"{free:.1f} GB are free; archive and contents need about {needed:.0f} GB"
        raise DataError(problem, where=out.parent, remedy="Free some space, or name another folder")
