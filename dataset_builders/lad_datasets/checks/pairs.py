"""`lad check` of a pair parquet: every row, every image, every gold answer, the leakage guard and the token budget."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lad_datasets.builders.build import map_ahead
from lad_datasets.builders.describe import find_duplicates, find_single_labels
from lad_datasets.checks.check import CheckOptions, CheckReport, Table, count_table
from lad_datasets.files.images import load_bytes, sha256
from lad_datasets.files.manifest import count_rows
from lad_datasets.leakage.guard import Guard, is_test_image
from lad_datasets.sources import EVALUATION_DATASETS
from lad_reasoner.pairs.images import decode, read_image_bytes
from lad_reasoner.pairs.prompt_length import PromptRuler, round_up
from lad_reasoner.pairs.reader import (
    EASYR1_COLUMNS,
    complete_row,
    is_easyr1_only,
    iter_rows,
    open_parquet,
    parquet_files,
    query_digests,
)
from lad_reasoner.pairs.schema import COLUMNS, PROVENANCE_COLUMNS, pair_schema
from lad_reasoner.pairs.tokens import QWEN2_5_VL, ProcessorPixels, TrainerPixels
from lad_reasoner.support.errors import DataError, as_sentences
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.progress import track
from lad_reasoner.task.classes import right_answer
from lad_reasoner.task.control_text import find_control_token
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.rewards import rlad_reward
from lad_reasoner.task.task import IMAGE_MARKER, KINDS, LABELS, NORMAL, prompt_text

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_pairs"]

#: Columns named in one line; the rest is counted.
_NAMES: Final = 4


@dataclass(slots=True)
class _Row:
    """The result of a row: its faults, the text columns, and the length of its prompt."""

    faults: list[str] = field(default_factory=list)
    provenance: dict[str, str] = field(default_factory=dict)
    tokens: int | None = None


def check_pairs(path: Path, options: CheckOptions) -> CheckReport:
    """Check a pair parquet or a folder of shards.

    Raises:
        DataError: It is no parquet, or has other columns.
    """
    report = CheckReport(path, "pair parquet")
    files = parquet_files(path)
    opened = [_open(file) for file in files]
    if (total := sum(count for count, _ in opened)) == 0:
        raise DataError("the file has no rows", where=path, remedy="Widen the recipe")
    stored = chain.from_iterable(iter_rows(file, names) for file, (_, names) in zip(files, opened, strict=True))
    rows = list(track(_iter_checked(stored, options), total=total, description="pairs"))
    report.errors += [fault for row in rows for fault in row.faults]
    provenance = [row.provenance for row in rows if row.provenance]
    _check_whole(provenance, report)
    report.queries = query_digests(row["query_sha256"] for row in provenance)
    report.tables.append(
        count_table("pairs", ("dataset", "category", "kind", "label", "rows"), count_rows(provenance))
    )
    _add_token_budget(rows, report, options)
    return report


def _open(file: Path) -> tuple[int, Sequence[str]]:
    """Return how many rows a file has, and its columns, after checking its schema."""
    with open_parquet(file) as parquet:
        found, rows = parquet.schema_arrow, int(parquet.metadata.num_rows)
    expected = pair_schema()
    wanted = EASYR1_COLUMNS if is_easyr1_only(found.names) else COLUMNS
    missing = [name for name in wanted if name not in found.names]
    if missing:
        more = f" and {len(missing) - _NAMES} more" if len(missing) > _NAMES else ""
        problem = f"columns are missing: {', '.join(missing[:_NAMES])}{more}"
        raise DataError(problem, where=file, remedy="Build it with `lad build`")
    for name in wanted:
        types = {_spell(expected.field(name).type)} | ({"list<element: string>"} if name == "images" else set())
        if (spelt := _spell(found.field(name).type)) not in types:
            raise DataError(f"the type is {spelt}, not {' or '.join(sorted(types))}", where=f"{file}, column {name}")
    return rows, wanted


def _spell(kind: pa.DataType) -> str:
    """Return a type as text, the same for what arrow names in several ways.

    It calls a list's member ``item`` before and ``element`` after it was in a parquet; polars writes large types.
    """
    return str(kind).replace("<item: ", "<element: ").replace("large_", "")


def _iter_checked(rows: Iterable[dict[str, Any]], options: CheckOptions) -> Iterator[_Row]:
    """Yield the result of each row in order, a few at work at once."""
    bounds = options.min_pixels, options.max_pixels
    if options.easyr1:
        ruler = PromptRuler(trainer=TrainerPixels(*bounds), processor=QWEN2_5_VL, tokenizer=options.tokenizer)
    else:
        ruler = PromptRuler(processor=ProcessorPixels(QWEN2_5_VL.factor, *bounds), tokenizer=options.tokenizer)
    guard = Guard(options.loco, workers=options.workers) if options.loco else None
    check = partial(_check_row, ruler=ruler, guard=guard)
    return map_ahead(check, enumerate(rows), workers=options.workers, ahead=2 * options.workers)


def _check_row(numbered: tuple[int, dict[str, Any]], ruler: PromptRuler, guard: Guard | None) -> _Row:
    number, row = numbered
    if "pair_id" not in row:  # EasyR1's columns alone; verl's repeat what they state
        verl = {"prompt": [{"content": row["problem"] or ""}], "reward_model": {"ground_truth": row["answer"]}}
        try:
            row = dict.fromkeys(COLUMNS, "") | complete_row(row, number) | verl
        except ValueError as error:
            return _Row([f"row {number}, column answer: {error}"])
    where = f"pair {row['pair_id']}"
    if absent := [name for name in COLUMNS if row[name] is None]:
        return _Row([f"{where}: no value in {', '.join(absent)}"])
    if hollow := _hollow(row):
        return _Row([f"{where}: {hollow}"])
    result = _Row(provenance={name: row[name] for name in PROVENANCE_COLUMNS})
    result.faults += [f"{where}: {fault}" for fault in chain(_text_faults(row), _gold_faults(row))]
    sizes, digests = _check_images(row, where, guard, result.faults)
    if not row["query_sha256"] and digests:
        result.provenance |= {"reference_sha256": "\n".join(digests[:-1]), "query_sha256": digests[-1]}
    elif isinstance(row["images"][0] if row["images"] else None, str):
        recorded = [*row["reference_sha256"].split("\n"), row["query_sha256"]]
        if len(digests) == len(recorded) and digests != recorded:
            result.faults.append(f"{where}: an image file has changed since the build")
    if digests and digests[-1] in digests[:-1] and len(digests) == len(row["images"]):
        result.faults.append(f"{where}: the query is the same image as a reference")
    if len(sizes) == len(row["images"]):
        result.tokens = ruler.measure(prompt_text(row["problem"]), sizes)
    return result


def _hollow(row: dict[str, Any]) -> str:
    """Return which nested value is missing, or an empty text."""
    for number, image in enumerate(row["images"], start=1):
        if image is None or (isinstance(image, dict) and image["bytes"] is None and image["path"] is None):
            return f"column images: image {number} is null"
    if any(turn is None or turn["content"] is None for turn in row["prompt"]):
        return "column prompt: a turn without content"
    return "column reward_model: no ground_truth" if row["reward_model"]["ground_truth"] is None else ""


def _check_images(
    row: dict[str, Any], where: str, guard: Guard | None, faults: list[str]
) -> tuple[list[tuple[int, int]], list[str]]:
    """Return the sizes and digests of the images that can be decoded; add what is wrong to the faults."""
    sizes, digests = [], []
    evaluation = row["dataset"] in EVALUATION_DATASETS
    for number, image in enumerate(row["images"], start=1):
        try:
            data, name = _read(image)
            sizes.append(decode(data, f"{where}, image {number} ({name})").size)
            if repairs := load_bytes(data, name).repairs:
                faults.append(f"{where}, image {number}: trainers would misread it ({', '.join(repairs)})")
            if guard is not None and not evaluation:
                guard.check(data, f"{where}, image {number}")
            digests.append(sha256(data))
        except DataError as fault:
            faults.append(str(fault))
    return sizes, digests


def _read(image: dict[str, Any] | str) -> tuple[bytes, str]:
    """Return an image's bytes and its name, stored either way."""
    if isinstance(image, dict) and image["bytes"] is not None:
        return image["bytes"], str(image["path"])
    path = Path(image if isinstance(image, str) else str(image["path"]))
    return read_image_bytes(path), str(path)


def _text_faults(row: dict[str, Any]) -> Iterator[str]:
    markers = row["problem"].count(IMAGE_MARKER)
    if markers != len(row["images"]) or markers < 2:
        yield f"{markers} {IMAGE_MARKER} for {len(row['images'])} images, not one for each of two or more"
    turns = [turn["content"] for turn in row["prompt"]]
    if "".join(turns).count(IMAGE_MARKER) != markers:
        yield f"column prompt has other {IMAGE_MARKER} than column problem"
    if token := find_control_token(row["problem"].replace(IMAGE_MARKER, " ")):
        yield f"column problem: trainers read the token {token} as control"
    if row["label"] not in LABELS:
        yield f"label is {row['label']!r}, not {' or '.join(LABELS)}"
    if row["kind"] not in KINDS:
        yield f"kind is {row['kind']!r}, not one of {', '.join(KINDS)}"
    elif (row["kind"] == "good") != (row["label"] == NORMAL):
        yield f"label {row['label']!r} does not go with kind {row['kind']!r}"
    if row["query_sha256"] and row["query_sha256"] in row["reference_sha256"].split("\n"):
        yield "query_sha256 is also a reference's"


def _gold_faults(row: dict[str, Any]) -> Iterator[str]:
    """Check that both trainers' gold answers say what the columns say, and that the right response earns it all."""
    for column, gold in (("answer", row["answer"]), ("reward_model", row["reward_model"]["ground_truth"])):
        try:
            truth = read_gold(gold)
        except ValueError as error:
            yield f"column {column}: {error}"
            continue
        stated = {name: getattr(truth, name) for name in ("label", "category", "kind", "defect")}
        if differing := [name for name, value in stated.items() if value and value != row[name]]:
            yield f"column {column} differs from the columns {', '.join(differing)}"
        reward = rlad_reward(f"<think> compared </think><answer> {right_answer(truth)} </answer>", gold)["overall"]
        if reward != 1.0:
            yield f"column {column}: the right response earns {reward}, not 1.0"


def _check_whole(provenance: Sequence[dict[str, str]], report: CheckReport) -> None:
    """Check what only the whole file shows: ids, duplicates, and test images in a training file."""
    for name, times in Counter(row["pair_id"] for row in provenance).items():
        if times > 1:
            report.errors.append(f"pair_id {name} occurs {times} times")
    findings = Findings(quiet=True)
    find_duplicates(provenance, findings)
    find_single_labels(count_rows(provenance), findings)
    report.warnings += findings.lines
    datasets = {row["dataset"] for row in provenance}
    evaluation = datasets <= EVALUATION_DATASETS
    own = "training or evaluation" if datasets == {"folder"} else "training"
    report.facts["purpose"] = "evaluation" if evaluation else own
    for row in provenance if not evaluation else ():
        for path in (row["query_path"], *row["reference_path"].split("\n")):
            if is_test_image(row["dataset"], path):
                problem = f"{path} is a test image of MVTec LOCO AD in a training file"
                report.errors.append(f"pair {row['pair_id']}: {problem}")


def _add_token_budget(rows: Sequence[_Row], report: CheckReport, options: CheckOptions) -> None:
    """Add the lengths of prompts by category, and the max_prompt_length that loses nothing."""
    import numpy as np

    lengths: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        if row.tokens is not None:
            lengths[row.provenance["category"]].append(row.tokens)
    if not lengths:
        return
    everything = {**dict(sorted(lengths.items())), "all": [length for own in lengths.values() for length in own]}
    table = tuple(
        (name, len(own), min(own), *(int(np.percentile(own, q, method="higher")) for q in (50, 95)), max(own))
        for name, own in everything.items()
    )
    text = "exact" if options.tokenizer else "images exact, text at most"
    title = f"prompt tokens ({text}; max_pixels {options.max_pixels}, min_pixels {options.min_pixels})"
    report.tables.append(Table(title, ("category", "rows", "min", "median", "95%", "max"), table))
    longest = max(everything["all"])
    report.facts |= {"rows": len(rows), "longest_prompt": longest, "max_prompt_length": round_up(longest)}
    limit = options.max_prompt_length
    if limit and (over := sum(length > limit for length in everything["all"])):
        remedy = f"Set it to {round_up(longest)}, or lower max_pixels"
        problem = f"max_prompt_length {limit}: {over} prompts are longer, up to {longest}"
        report.errors.append(as_sentences(problem, remedy))
