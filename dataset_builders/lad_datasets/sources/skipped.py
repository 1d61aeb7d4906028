"""Reports of the files in a dataset folder that are not used: none is left out silently."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from lad_datasets.sources.samples import IMAGE_SUFFIXES, iter_folders

__all__ = ["note_dead_links", "note_skipped"]

#: What file managers leave behind: of no interest to anyone.
_STRAY: Final = frozenset({"thumbs.db", "desktop.ini"})

#: Names in one line; the rest is counted.
_NAMES: Final = 20

_DEAD_LINK: Final = "links to nothing"
_OUTSIDE: Final = "images outside the layout"
_OTHER_FORMAT: Final = f"no image by its ending ({', '.join(sorted(IMAGE_SUFFIXES))})"


def note_dead_links(folder: Path) -> list[str]:
    """Return a line on the links in a folder that lead nowhere, or nothing."""
    names = sorted(path.name for path in folder.iterdir() if path.is_symlink() and not path.exists())
    return [_line(folder, _DEAD_LINK, names)] if names else []


def note_skipped(category: Path, taken: Collection[Path], *, aside: Collection[str] = ()) -> list[str]:
    """Report what of a category is not used.

    Args:
        category: Its folder. Files directly in it that are not images (a licence, a table) are ignored.
        taken: The images that are used.
        aside: Names of folders in it that the layout has for another purpose.

    Returns:
        One line for each folder and reason. It gives names and, where they are many, their number; hidden files and
        those of file managers are not reported.
    """
    images = {os.fspath(path) for path in taken}
    notes: list[str] = []
    for folder, files in _iter_tree(category, aside):
        reasons: defaultdict[str, list[str]] = defaultdict(list)
        for name in files:
            reason = _reason(folder / name, images)
            if reason and not (reason == _OTHER_FORMAT and folder == category):
                reasons[reason].append(name)
        notes += [_line(folder, reason, names) for reason, names in reasons.items()]
        if not files and folder != category and not any(iter_folders(folder)):
            notes.append(f"{folder}: skipped: an empty folder")
    return notes


def _iter_tree(category: Path, aside: Collection[str]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each visible folder with its visible files, links to folders followed once."""
    seen: set[str] = set()
    for name, folders, files in os.walk(category, followlinks=True):
        folder = Path(name)
        if (real := os.path.realpath(name)) in seen:
            folders.clear()
            continue
        seen.add(real)
        kept = sorted(f for f in folders if not f.startswith(".") and not (folder == category and f in aside))
        folders[:] = kept
        yield folder, sorted(f for f in files if not f.startswith(".") and f.lower() not in _STRAY)


def _reason(path: Path, taken: Collection[str]) -> str | None:
    if os.fspath(path) in taken:
        return None
    if path.is_symlink() and not path.exists():
        return _DEAD_LINK
    return _OUTSIDE if path.suffix.lower() in IMAGE_SUFFIXES else _OTHER_FORMAT


def _line(folder: Path, reason: str, names: list[str]) -> str:
    more = f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    return f"{folder}: skipped {len(names)}, {reason}: {', '.join(names[:_NAMES])}{more}"
