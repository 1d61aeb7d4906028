"""The report's pictures: each distinct image is decoded, shrunk and stored once."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Final

from lad_reasoner.pairs.images import decode, mask_overlay
from lad_reasoner.pairs.masks import mask_files, query_file, read_mask
from lad_reasoner.pairs.reader import iter_pairs, read_image
from lad_reasoner.pairs.schema import Image
from lad_reasoner.support.files import write_bytes
from lad_reasoner.support.progress import report

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

__all__ = ["FolderStore", "MemoryStore", "PairPictures", "PictureStore", "draw_pictures"]

_QUALITY: Final = 82

#: Colour of a mask: rare in the products and plain on light and dark.
_MASK_COLOUR: Final = (255, 45, 85)

#: Pairs whose pictures are in work at once; bounds memory.
_IN_FLIGHT: Final = 32


@dataclass(frozen=True, slots=True)
class PairPictures:
    """Names of a pair's pictures in the store; ``mask`` shows the anomaly's place, None where there is none."""

    references: tuple[str, ...]
    query: str
    mask: str | None


class FolderStore:
    """Pictures as files of a folder; those of an earlier report are reused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, name: str) -> bool:
        """Return whether the file is there."""
        return (self.folder / name).is_file()

    def read(self, name: str) -> bytes:
        """Return a picture."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """Write the file whole or not at all."""
        write_bytes(self.folder / name, data, durable=False)

    def keep_only(self, pairs: Iterable[PairPictures]) -> None:
        """Remove the pictures of an earlier report that no pair shows, and drafts of one that was killed."""
        names = {name for pair in pairs for name in (*pair.references, pair.query, pair.mask)}
        for file in self.folder.iterdir():
            if file.suffix in {".webp", ".png", ".tmp"} and file.name not in names:
                file.unlink()


class MemoryStore:
    """Pictures in memory by name, for a report of one file."""

    def __init__(self) -> None:
        self.pictures: dict[str, bytes] = {}

    def has(self, name: str) -> bool:
        """Return whether the picture is there."""
        return name in self.pictures

    def read(self, name: str) -> bytes:
        """Return a picture."""
        return self.pictures[name]

    def write(self, name: str, data: bytes) -> None:
        """Keep the picture."""
        self.pictures[name] = data


PictureStore = FolderStore | MemoryStore


def draw_pictures(
    data: Path, wanted: set[str], store: PictureStore, *, edge: int, image_root: Path, masks: Path | None = None
) -> dict[str, PairPictures]:
    """Store the pictures of the ``wanted`` pairs, and return their names by pair_id.

    Images with an edge above ``edge`` pixels are shrunk; ``masks`` is the root of the dataset with its
    ``ground_truth`` folders.

    Raises:
        DataError: An image or mask cannot be read.
    """
    drawn: dict[str, PairPictures] = {}
    studio = _Studio(store, edge=edge, image_root=image_root)
    # Threads: Pillow decodes, resizes and encodes without the interpreter's lock.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        waiting: deque[tuple[str, Future[PairPictures]]] = deque()
        for pair in iter_pairs(data):
            if pair.pair_id not in wanted:
                continue
            path = pair.truth.query_path
            files, photo = (mask_files(masks, path), query_file(masks, path)) if masks else ((), None)
            waiting.append((pair.pair_id, pool.submit(studio.draw, pair.images, files, photo)))
            _collect(waiting, drawn, leave=_IN_FLIGHT, total=len(wanted))
        _collect(waiting, drawn, leave=0, total=len(wanted))
    return drawn


def _collect(
    waiting: deque[tuple[str, Future[PairPictures]]], drawn: dict[str, PairPictures], *, leave: int, total: int
) -> None:
    """Wait for the oldest pictures until only ``leave`` pairs are in work."""
    while len(waiting) > leave:
        pair_id, future = waiting.popleft()
        drawn[pair_id] = future.result()
        report("pictures", len(drawn), total)


class _Studio:
    """Makes pictures small; called from several threads."""

    def __init__(self, store: PictureStore, *, edge: int, image_root: Path) -> None:
        self._store, self._edge, self._root = store, edge, image_root
        self._claimed: set[str] = set()
        self._lock = Lock()

    def draw(self, images: tuple[Image, ...], masks: tuple[Path, ...], photo: Path | None) -> PairPictures:
        """Store the pictures of one pair; ``photo`` is the query's own file."""
        names = [self._thumbnail(image) for image in images]
        return PairPictures(tuple(names[:-1]), names[-1], self._mask(masks, photo))

    def _thumbnail(self, image: Image) -> str:
        data = read_image(image, self._root)
        name = f"{hashlib.sha256(data).hexdigest()[:20]}-{self._edge}.webp"
        if self._claim(name):
            picture = decode(data, image.path)
            # Box-averaged by a whole factor first: three times as fast, and no difference to see at this size.
            picture.thumbnail((self._edge, self._edge), reducing_gap=1.0)
            self._store.write(name, _encode(picture, "WEBP", quality=_QUALITY, method=2))
        return name

    def _claim(self, name: str) -> bool:
        """Return whether the caller should make this picture: pairs share references, and one thread makes each."""
        with self._lock:
            if name in self._claimed or self._store.has(name):
                return False
            self._claimed.add(name)
            return True

    def _mask(self, files: tuple[Path, ...], photo: Path | None) -> str | None:
        masks = [mask for file in files if (mask := read_mask(file, photo)) is not None]
        if not masks:
            return None
        digest = hashlib.sha256(b"".join(repr(mask.shape).encode() + mask.tobytes() for mask in masks))
        name = f"{digest.hexdigest()[:20]}-{self._edge}.png"
        if self._claim(name):
            self._store.write(name, _encode(mask_overlay(masks, self._edge, color=_MASK_COLOUR), "PNG", optimize=True))
        return name


def _encode(picture: Picture, form: str, **options: int | bool) -> bytes:
    stream = BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()
