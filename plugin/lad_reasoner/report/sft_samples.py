"""Samples of SFT data as `lad build sft` writes it, for the paper's figure 2."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import IMAGE_MARKER

__all__ = ["SftSample", "read_sft_samples"]

#: The data with images by path, which `lad build sft` names in dataset_info.json.
_FILE: Final = "train.json"


@dataclass(frozen=True, slots=True)
class SftSample:
    """A question about images, and its answer."""

    images: tuple[Path, ...]
    question: str
    answer: str


def read_sft_samples(folder: Path, number: int) -> list[SftSample]:
    """Return samples spread evenly over the file, so that they show different products and questions.

    Raises:
        DataError: The folder has no such file, or a row is not as `lad build sft` writes it.
    """
    file = folder / _FILE
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        count = min(number, len(rows))
        samples = [_read(rows[place * len(rows) // count], folder) for place in range(count)]
    except (OSError, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        problem = "no SFT data can be read"
        raise DataError(problem, where=file, remedy="Name the output folder of `lad build sft`") from error
    if not samples:
        raise DataError("the SFT data is empty", where=file)
    return samples


def _read(row: dict[str, list[dict[str, str]]], folder: Path) -> SftSample:
    question, answer = (str(message["content"]) for message in row["messages"][-2:])
    images = tuple(folder / str(image) for image in row["images"])
    shown = question.replace(IMAGE_MARKER, "" if len(images) == 1 else "[image]").strip()
    return SftSample(images, shown, answer)
