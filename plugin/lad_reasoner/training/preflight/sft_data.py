"""The data of a LLaMA-Factory run: it exists, is read as intended, and is not cut."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from lad_reasoner.pairs.families import FAMILIES
from lad_reasoner.pairs.images import image_size, read_image_bytes
from lad_reasoner.pairs.prompt_length import PromptRuler, round_up
from lad_reasoner.pairs.reader import iter_rows
from lad_reasoner.pairs.tokens import TrainerPixels
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.findings import Finding, error, warning
from lad_reasoner.task.task import IMAGE_MARKER

__all__ = ["MAX_ROWS", "check_data", "find_image", "iter_examples"]

#: Rows checked in each file: opening every image of a large set would take minutes.
MAX_ROWS: Final = 1000

_TAGS: Final = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


@dataclass(frozen=True, slots=True)
class _Dataset:
    """An entry of ``dataset_info.json`` with the file it names."""

    name: str
    file: Path
    messages: str
    images: str
    tags: Mapping[str, str]


@dataclass(slots=True)
class _Counts:
    """What a file contains."""

    rows: int = 0
    without_answer: int = 0
    mismatched: int = 0
    longest: int = 0
    over: int = 0
    images_over: int = 0


def check_data(config: Mapping[str, Any], *, max_rows: int | None = MAX_ROWS) -> Iterator[Finding]:
    """Every dataset is registered, present, whole, and short enough."""
    names, others = _names(config, "dataset"), _names(config, "eval_dataset")
    if not names:
        yield error("dataset", "no dataset is named", remedy="Name one of dataset_info.json, such as lad_sft")
        return
    folder = Path(str(config.get("dataset_dir", "data")))
    info_file = folder / "dataset_info.json"
    try:
        info = json.loads(info_file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as fault:
        yield error("dataset_dir", f"{info_file} is not readable ({fault})", remedy="Build it with `lad build sft`")
        return
    if not isinstance(info, dict):
        yield error(str(info_file), "it must be a JSON object", remedy="Build it with `lad build sft`")
        return
    for key in ("cutoff_len", "image_min_pixels", "image_max_pixels"):
        if type(config.get(key, 1)) is not int or config.get(key, 1) < 1:
            yield error(key, f"{config[key]!r} is not a whole number from 1, so the data was not checked")
            return
    for name in [*names, *others]:
        yield from _check_dataset(name, info, folder, config, max_rows)


def _names(config: Mapping[str, Any], key: str) -> list[str]:
    return [name.strip() for name in str(config.get(key) or "").split(",") if name.strip()]


def _check_dataset(
    name: str, info: Mapping[str, Any], folder: Path, config: Mapping[str, Any], max_rows: int | None
) -> Iterator[Finding]:
    if name not in info:
        yield error("dataset", f"dataset_info.json has no {name}", remedy=f"Use one of {', '.join(info)}")
        return
    entry = info[name]
    columns, tags = (entry.get(key, {}) if isinstance(entry, dict) else None for key in ("columns", "tags"))
    if not isinstance(columns, dict) or not isinstance(tags, dict):
        yield error(f"{name}: columns, tags", "each must be an object", remedy="Build it with `lad build sft`")
        return
    if entry.get("formatting") != "sharegpt":
        yield error(f"{name}: formatting", f"it is {entry.get('formatting')!r}", remedy="Set it to sharegpt")
        return
    missing = [tag for tag in _TAGS if tag not in tags]
    if missing:
        yield error(f"{name}: tags", f"{', '.join(missing)} must be given: the defaults differ")
        return
    dataset = _Dataset(
        name,
        folder / str(entry.get("file_name", "")),
        str(columns.get("messages", "conversations")),
        str(columns.get("images", "")),
        tags,
    )
    try:
        counts = _count(dataset, folder, config, max_rows)
    except DataError as fault:
        yield error(fault.where, fault.problem, remedy=fault.remedy)
        return
    yield from _judge(dataset, counts, config)


def _judge(dataset: _Dataset, counts: _Counts, config: Mapping[str, Any]) -> Iterator[Finding]:
    cutoff = config.get("cutoff_len", 2048)
    if not counts.rows:
        yield error(str(dataset.file), "it has no rows")
    if counts.without_answer:
        remedy = "LLaMA-Factory would skip them with a warning and go on"
        yield error(str(dataset.file), f"{counts.without_answer} rows have no assistant's turn", remedy=remedy)
    if counts.mismatched:
        problem = f"{counts.mismatched} rows have more or fewer {IMAGE_MARKER} than images"
        yield error(str(dataset.file), problem, remedy="Build it again with `lad build sft`")
    raised = f"Raise it to {round_up(counts.longest, 128)}"
    if counts.images_over:
        rows = f"{counts.images_over} rows (up to {counts.longest} tokens)"
        problem = f"{cutoff} is too small for the images alone of {rows}"
        yield error("cutoff_len", problem, remedy=f"{raised} or lower image_max_pixels")
    elif counts.over:
        problem = f"{cutoff} may cut the end of {counts.over} rows (up to about {counts.longest} tokens)"
        yield warning("cutoff_len", problem, remedy=raised)


def _count(dataset: _Dataset, folder: Path, config: Mapping[str, Any], max_rows: int | None) -> _Counts:
    """Count the faults of the first rows.

    Raises:
        DataError: The file or an image is unreadable, or a row lacks a column.
    """
    counts, ruler, cutoff = _Counts(), _ruler(config), config.get("cutoff_len", 2048)
    role, content = dataset.tags["role_tag"], dataset.tags["content_tag"]
    media = Path(str(config.get("media_dir") or folder))
    for row in islice(iter_examples(dataset.file), max_rows):
        counts.rows += 1
        try:
            messages = [(turn[role], str(turn[content])) for turn in row[dataset.messages]]
        except (KeyError, TypeError) as fault:
            problem = f"row {counts.rows} has no {fault}; {dataset.messages!r} must be a list of turns"
            raise DataError(problem, where=dataset.file) from fault
        images = (row.get(dataset.images) or []) if dataset.images else []
        if not isinstance(images, list):
            raise DataError(f"row {counts.rows}: {dataset.images!r} must be a list of images", where=dataset.file)
        text = "".join(words for _, words in messages)
        counts.without_answer += all(speaker != dataset.tags["assistant_tag"] for speaker, _ in messages)
        counts.mismatched += text.count(IMAGE_MARKER) != len(images)
        sizes = [_size(image, media) for image in images]
        pictures, total = ruler.measure_images(sizes), ruler.measure(text, sizes, turns=len(messages))
        counts.longest = max(counts.longest, total)
        counts.over += total > cutoff
        counts.images_over += pictures > cutoff
    return counts


def iter_examples(file: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a data file.

    Raises:
        DataError: It is absent, or neither JSON, JSON lines nor parquet.
    """
    if not file.is_file():
        raise DataError("no such file", where=file, remedy="Build it with `lad build sft`")
    try:
        if file.suffix == ".parquet":
            yield from iter_rows(file)
        elif file.suffix == ".jsonl":
            with file.open(encoding="utf-8") as lines:
                yield from (json.loads(line) for line in lines if line.strip())
        else:
            rows = json.loads(file.read_text(encoding="utf-8"))
            yield from rows if isinstance(rows, list) else [rows]
    except (OSError, ValueError, RecursionError) as fault:
        raise DataError(f"it cannot be read as json, jsonl or parquet ({fault})", where=file) from fault


def _ruler(config: Mapping[str, Any]) -> PromptRuler:
    """Return a ruler that scales images as LLaMA-Factory and then the processor do."""
    pixels = TrainerPixels(config.get("image_min_pixels", 32 * 32), config.get("image_max_pixels", 768 * 768))
    family = next((family for family in FAMILIES if config.get("template") in family.templates), FAMILIES[0])
    return PromptRuler(pixels, family.processor)


def _size(image: Any, media: Path) -> tuple[int, int]:
    """Return width and height of an image, from its header alone."""
    data = image.get("bytes") if isinstance(image, Mapping) else None
    name = image.get("path") if isinstance(image, Mapping) else image
    return image_size(data or read_image_bytes(find_image(str(name), media)), name or "an image")


def find_image(name: str, media: Path) -> Path:
    """Return an image's path: as it is, or from the media folder, in LLaMA-Factory's order."""
    places: Sequence[Path] = (media / name, Path(name))
    return next((path for path in places if path.is_file()), Path(name))
