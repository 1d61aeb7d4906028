"""Model replies as a folder for `lad review`: people judge blindly what the reasoning asserts."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lad_datasets.files.annotations import ANNOTATIONS, BLIND, to_line
from lad_reasoner.evaluation.score import data_of
from lad_reasoner.inference.predictions import read_predictions
from lad_reasoner.pairs.reader import data_sha256, iter_pairs, parquet_files, read_image
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.files import hidden_sibling, locked, write_bytes, write_text
from lad_reasoner.task.response import parse
from lad_reasoner.task.task import problem_text
from lad_reasoner.task.violations import asserts_anomaly

__all__ = ["EXTRACTOR", "write_blind"]

#: The extractor's own judgements, in the form of a reviewer's decisions.
EXTRACTOR: Final = "extractor.jsonl"

_IMAGES: Final = "images"
_QUESTION: Final = "Does this text state that something is wrong with the query? Accept: it does. Reject: it does not."


def write_blind(predictions: Sequence[Path], out: Path, *, data: Path | None, sample: int | None, seed: int) -> int:
    """Write the reasoning of replies, in random order and without the model's name, its answer and the truth.

    Args:
        predictions: Files of `lad predict`, all on one data file.
        out: An absent or empty folder.
        data: The pair parquet; the one that the first run card names by default.
        sample: So many replies, sampled by the seed; all by default.
        seed: Random seed of the sample and the order.

    Returns:
        The number of replies.
    """
    _require_empty(out)
    source = data or data_of(predictions[0])
    replies: list[tuple[str, str]] = []
    for path in predictions:
        lines = read_predictions(path)
        if lines[0].data_sha256 != data_sha256(source):
            raise DataError(f"the predictions were made on other data than {source}", where=path)
        found = ((line.pair_id, parse(line.response).reasoning) for line in lines)
        replies += [(pair_id, words) for pair_id, words in found if words]
    if not replies:
        raise DataError("no reply has reasoning", where=", ".join(map(str, predictions)))
    random.Random(seed).shuffle(replies)
    with locked(out / ANNOTATIONS):
        _require_empty(out)  # another process may have filled it meanwhile
        try:
            return _write(source, replies[:sample], out)
        except BaseException:
            shutil.rmtree(out / _IMAGES, ignore_errors=True)  # so that the same command can be run again
            (out / EXTRACTOR).unlink(missing_ok=True)
            raise


def _require_empty(out: Path) -> None:
    lock = hidden_sibling(out / ANNOTATIONS, "lock")
    if out.exists() and (not out.is_dir() or any(path != lock for path in out.iterdir())):
        raise UsageError("the folder is not empty", where=out, remedy="Name another one")


def _write(source: Path, replies: Sequence[tuple[str, str]], out: Path) -> int:
    images = _write_images(source, out, {pair_id for pair_id, _ in replies})
    rows, judged = [], []
    for number, (pair_id, words) in enumerate(replies):
        name, names = f"reply-{number:05d}", images[pair_id]
        row = {"id": name, "images": names, "question": problem_text(len(names) - 1, _QUESTION), "answer": words}
        rows.append(row | {"dataset": BLIND, "category": "all"})
        judged.append({"id": name, "decision": "accept" if asserts_anomaly(words) else "reject"})
    write_text(out / EXTRACTOR, "".join(map(to_line, judged)))
    write_text(out / ANNOTATIONS, "".join(map(to_line, rows)))
    return len(rows)


def _write_images(source: Path, out: Path, wanted: set[str]) -> dict[str, list[str]]:
    """Write the images of pairs under numbers, since paths tell the truth; return their names by pair."""
    root = parquet_files(source)[0].parent
    (out / _IMAGES).mkdir(parents=True, exist_ok=True)
    names: dict[str, list[str]] = {}
    for pair in iter_pairs(source):
        if pair.pair_id in wanted:
            names[pair.pair_id] = []
            for index, image in enumerate(pair.images):
                name = f"{_IMAGES}/{len(names):05d}_{index}.png"
                write_bytes(out / name, read_image(image, root), durable=False)
                names[pair.pair_id].append(name)
    if missing := wanted - set(names):
        raise DataError(f"there is no pair {min(missing)!r}", where=source)
    return names
