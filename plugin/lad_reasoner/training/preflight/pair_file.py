"""The content of a run's parquet, read in a second or two: all rows of the text columns, a sample of the images."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.pairs.images import image_size, read_image_bytes
from lad_reasoner.pairs.reader import open_parquet, query_digests
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.classes import right_answer
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.optional_rewards import can_be_named
from lad_reasoner.task.task import ANOMALOUS, IMAGE_MARKER
from lad_reasoner.training.easyr1.config import EasyR1Config

if TYPE_CHECKING:
    import pyarrow.parquet as pq

__all__ = ["PairFile", "SampledPair"]

#: Pairs whose images are read, spread over the file, in addition to at least one per category. The text columns are
#: read in full.
SAMPLED_PAIRS: Final = 64

#: Rows whose images are in memory at the same time.
_BATCH: Final = 32

#: Most row groups that are read for their categories, because images outside the disk's cache are slow. Our choice.
MOST_PLACES: Final = 64


@dataclass(frozen=True, slots=True)
class SampledPair:
    """A pair whose images were read.

    Attributes:
        category: Its category, or "?".
        text: The problem, without the format prompt.
        sizes: Width and height of each image, in pixels.
    """

    category: str
    text: str
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class PairFile:
    """A readable parquet file.

    Attributes:
        path: The file.
        rows: Number of pairs.
        columns: Names of the columns.
        problem: Why it could not be read; empty if it could. Everything below is then empty.
        markers: Number of image markers in a prompt, and how many rows have so many.
        images: Number of images of a row, and how many rows have so many.
        mismatched: Rows whose markers and images differ in number.
        labels: Right answer (the label, unless the rows ask for another form), and how many rows have it.
        datasets: Dataset, and how many rows are from it.
        boxless: Rows whose gold answer has no boxes.
        first_gold: The first row's gold answer.
        bad_gold: The first unreadable gold answer, or empty.
        anomalous: Rows of anomalous queries.
        nameless: Rows of anomalous queries whose gold answer tells neither kind nor defect.
        samples: Pairs whose images were looked at.
        bad_image: The first image that could not be read, or empty.
        hollow: Whether an image of the samples is a struct of a path without bytes.
        features: The Hugging Face feature types that the file asks to be read with, such as "Image"; often none.
        queries: Digests of the query images, if the file records them.
    """

    path: Path
    rows: int = 0
    columns: tuple[str, ...] = ()
    problem: str = ""
    markers: Mapping[int, int] = field(default_factory=dict)
    images: Mapping[int, int] = field(default_factory=dict)
    mismatched: int = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    datasets: Mapping[str, int] = field(default_factory=dict)
    anomalous: int = 0
    boxless: int = 0
    first_gold: str = ""
    bad_gold: str = ""
    nameless: int = 0
    samples: tuple[SampledPair, ...] = ()
    bad_image: str = ""
    hollow: bool = False
    features: frozenset[str] = frozenset()
    queries: frozenset[str] = frozenset()

    @classmethod
    def read(cls, path: Path, config: EasyR1Config) -> PairFile:
        """Look at a parquet file with the column names of a config."""
        try:
            with open_parquet(path, memory_map=True) as file:
                return cls._read(path, file, config)
        except DataError as error:
            return cls(path, problem=error.problem)
        except TypeError as error:  # values of other types than the columns' usual ones
            return cls(path, problem=f"the file is not a pair parquet ({error})")

    @classmethod
    def _read(cls, path: Path, file: pq.ParquetFile, config: EasyR1Config) -> PairFile:
        columns = tuple(file.schema_arrow.names)
        prompt, answer, image = (config[f"data.{name}_key"] for name in ("prompt", "answer", "image"))
        wanted = [name for name in (prompt, answer, "dataset", "query_sha256") if name in columns]
        rows = file.read(columns=wanted).to_pydict()
        markers = [str(text).count(IMAGE_MARKER) for text in rows.get(prompt, [])]
        counts = _image_counts(file, image) if image in columns else []
        place = Path(config["data.image_dir"] or "")
        # A prompt that is too long ends the run where none is filtered, so every row is read then.
        places = _places(file) if config["data.filter_overlong_prompts"] else _everywhere(file)
        found = _sample(file, places, image, prompt, place) if image in columns else ((), "", False)
        samples, bad_image, hollow = found
        return cls(
            path,
            rows=file.metadata.num_rows,
            columns=columns,
            markers=Counter(markers),
            images=Counter(counts),
            mismatched=sum(a != b for a, b in zip(markers, counts, strict=False)),
            datasets=Counter(rows.get("dataset", [])),
            first_gold=str(next(iter(rows.get(answer, [])), "")),
            **_read_golds(rows.get(answer, [])),
            samples=samples,
            bad_image=bad_image,
            hollow=hollow,
            features=_features(file),
            queries=query_digests(rows.get("query_sha256", [])),
        )


def _read_golds(golds: list[Any]) -> dict[str, Any]:
    """Return what the gold answers hold, by the names of `PairFile`."""
    labels: Counter[str] = Counter()
    anomalous, nameless, boxless, bad = 0, 0, 0, ""
    for gold in golds:
        try:
            truth = read_gold(gold)
        except ValueError as error:
            bad = bad or str(error)
            continue
        labels[right_answer(truth)] += 1
        anomalous += truth.label == ANOMALOUS
        nameless += truth.label == ANOMALOUS and not can_be_named(truth)
        boxless += truth.boxes is None
    return {"labels": labels, "anomalous": anomalous, "nameless": nameless, "boxless": boxless, "bad_gold": bad}


def _image_counts(file: pq.ParquetFile, column: str) -> list[int]:
    """Return the number of images of each row, without reading the images if a smaller member tells it."""
    members = (file.schema.column(i).path for i in range(len(file.schema)))
    leaves = [path for path in members if path.split(".")[0] == column]
    small = next((path for path in leaves if path.endswith(".path")), leaves[0])
    values = file.read(columns=[small]).column(column).to_pylist()
    return [len(value) if value is not None else 0 for value in values]


def _sample(
    file: pq.ParquetFile, places: Mapping[int, int], image: str, prompt: str, root: Path
) -> tuple[tuple[SampledPair, ...], str, bool]:
    """Read the headers of the images in the first rows of row groups; ``places`` has their numbers.

    Returns:
        The samples, the first unreadable image, and whether an image is a struct without bytes.
    """
    columns = [name for name in (image, prompt, "category") if name in file.schema_arrow.names]
    samples: list[SampledPair] = []
    bad, hollow = "", False
    for group, count in places.items():
        for row in _iter_first(file, group, columns, count):
            sizes = []
            for index, value in enumerate(row[image] or []):
                hollow |= isinstance(value, dict) and not value.get("bytes")
                try:
                    sizes.append(_size(value, root))
                except DataError as error:
                    bad = bad or f"image {index + 1} of a pair of {row.get('category', '?')}: {error}"
            samples.append(SampledPair(str(row.get("category", "?")), str(row.get(prompt, "")), tuple(sizes)))
    return tuple(samples), bad, hollow


def _places(file: pq.ParquetFile) -> dict[int, int]:
    """Return how many first rows to read of which row groups: some of the whole file, and one per category."""
    last = file.num_row_groups - 1
    spread = sorted({0, last // 2, last} & set(range(file.num_row_groups)))
    counts = {group: SAMPLED_PAIRS // len(spread) for group in spread}
    if "category" not in file.schema_arrow.names:
        return counts
    categories = file.read(columns=["category"]).column(0).to_pylist()
    nearest: dict[str, tuple[int, int]] = {}
    start = 0
    for group in range(file.num_row_groups):
        end = start + file.metadata.row_group(group).num_rows
        for offset, category in enumerate(categories[start:end]):
            nearest[category] = min((offset, group), nearest.get(category, (offset, group)))
        start = end
    for offset, group in list(nearest.values())[:MOST_PLACES]:
        counts[group] = max(counts.get(group, 0), offset + 1)
    return dict(sorted(counts.items()))


def _everywhere(file: pq.ParquetFile) -> dict[int, int]:
    return {group: file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)}


def _features(file: pq.ParquetFile) -> frozenset[str]:
    """Return the names of Hugging Face feature types in the file's metadata."""
    stored = (file.schema_arrow.metadata or {}).get(b"huggingface", b"")
    return frozenset(re.findall(r'"_type":\s*"(\w+)"', stored.decode("utf-8", "replace")))


def _iter_first(file: pq.ParquetFile, group: int, columns: list[str], limit: int) -> Iterator[dict[str, Any]]:
    """Yield the first rows of a row group."""
    for batch in file.iter_batches(batch_size=min(limit, _BATCH), row_groups=[group], columns=columns):
        rows = batch.to_pylist()[:limit]
        yield from rows
        limit -= len(rows)
        if limit <= 0:
            return


def _size(value: Any, root: Path) -> tuple[int, int]:
    """Return width and height of an image, from its header alone."""
    data, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, value)
    return image_size(data or read_image_bytes(root / str(path)), str(path))
