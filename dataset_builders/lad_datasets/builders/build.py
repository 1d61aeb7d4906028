"""From planned queries to a finished pair parquet, with its manifest and card.

Threads read, check and shrink images (Pillow and hashlib release the interpreter lock). Pairs are written in the order
of the plan, so that the output does not depend on the number of threads. The shrunk images and finished shards of a
killed build are in ``.<name>.partial`` next to the output, and the next build uses them.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from lad_datasets.builders.describe import About, describe_build, description_files
from lad_datasets.builders.options import Options
from lad_datasets.files.images import ImageStore
from lad_datasets.files.manifest import digest_sources, versions
from lad_datasets.files.parquet import PairWriter
from lad_datasets.leakage.guard import Guard
from lad_datasets.leakage.perceptual_hash import read_looks
from lad_datasets.pairing.assemble import MISREAD, UNREADABLE, Assembler, Outcome, Query
from lad_datasets.pairing.reference import ReferenceOrder
from lad_datasets.sources.samples import Sample, Tree
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.files import hidden_sibling, locked, replace_when_done, require_absent, write_json
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.progress import track

__all__ = ["Options", "build_pairs", "claim_output", "iter_outcomes", "map_ahead", "order_queries"]

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Longest name of a file on every common file system.
_NAME_BYTES: Final = 255

#: Queries read ahead in addition to those in work. Our choice: memory stays small on a machine with many cores.
_AHEAD: Final = 4

#: Images held in queries in work and ahead, so that many references per query do not fill the memory. Our choice: 48
#: of the largest of MVTec LOCO AD are 200 MB. On a machine with many cores, two per core.
_IMAGES_HELD: Final = 48


@contextmanager
def claim_output(out: Path, options: Options) -> Iterator[None]:
    """Hold an output's lock while it is built; before anything is read, make sure that it can be.

    Raises:
        UsageError: It exists, or its name does not fit one file or a folder of shards.
        RunError: Another process builds it.
    """
    _refuse_name(out, options)
    with locked(out):
        if out.exists() and not options.overwrite:  # a build that was killed just after its output took its name
            shutil.rmtree(_partial_folder(out), ignore_errors=True)
        _refuse_existing(out, options)
        yield


def _refuse_name(out: Path, options: Options) -> None:
    if out.name in {"", ".."}:
        raise UsageError("this is no name of a new folder", where=f"--out {out}", remedy="Give the folder a name")
    if options.shard_mb is None and out.suffix != ".parquet":
        raise UsageError("the name must end in .parquet, from which trainers infer the type", where=f"--out {out}")
    if options.shard_mb is not None and out.suffix == ".parquet":
        raise UsageError("--shard-mb makes several files", where=f"--out {out}", remedy="Name a folder")
    if options.encoding.max_pixels is not None and not options.embed:
        raise UsageError("--images path leaves files unchanged", where="--max-pixels", remedy="Pass --images embed")
    longest = max(len(os.fsencode(path.name)) for path in (out, *description_files(out)))
    if longest > _NAME_BYTES:
        problem = f"the name is {longest - _NAME_BYTES} bytes too long with its manifest and card"
        raise UsageError(problem, where=f"--out {out.name}", remedy="Choose a shorter one")


def _refuse_existing(out: Path, options: Options) -> None:
    require_absent(out, overwrite=options.overwrite)
    if out.is_dir() and any(not path.name.endswith(".parquet") for path in out.iterdir()):
        raise UsageError("the folder has files that no build made", where=f"--out {out}", remedy="Name another folder")


def order_queries(
    trees: Sequence[Tree], queries: Sequence[tuple[Tree, Sample]], options: Options, findings: Findings
) -> list[Query]:
    """Give each query the order of its references; leave out, by name, categories that have too few.

    Raises:
        DataError: Nothing is left.
    """
    orders = {id(tree): _reference_order(tree, queries, options, findings) for tree in trees}
    wanted = options.shots * options.votes
    planned: list[Query] = []
    lacking: list[Path] = []
    for tree, sample in queries:
        found = orders[id(tree)].count(sample.category)
        if found >= wanted:
            planned.append(Query(tree, sample, orders[id(tree)]))
        else:
            folder = tree.root / sample.category
            lacking.append(folder)
            reason = f"{folder} has {found} of {wanted} normal training images{_asked(options)}"
            findings.add("left out", f"{tree.dataset}/{sample.path}: {reason}")
    if not planned:
        raise _nothing_planned(lacking, trees, orders, options)
    return planned


def _asked(options: Options) -> str:
    """Return which options ask for more than one reference a query, as an aside."""
    several = {"--shots": options.shots, "--votes": options.votes}
    words = " x ".join(f"{name} {number}" for name, number in several.items() if number > 1)
    return f" ({words})" if words else ""


def _nothing_planned(
    lacking: Sequence[Path], trees: Sequence[Tree], orders: Mapping[int, ReferenceOrder], options: Options
) -> DataError:
    """Return why no query can be paired."""
    if not lacking:
        return DataError("there is no query", where=", ".join(str(tree.root) for tree in trees))
    most = max(orders[id(tree)].count(category) for tree in trees for category in tree.categories)
    wanted = options.shots * options.votes
    needed = f"a query needs at least {wanted} normal training images of its category{_asked(options)}"
    remedy = "Lower --shots or --votes" if most else "Put normal images into train/good"
    return DataError(f"{needed}, but there are {most or 'none'}", where=lacking[0], remedy=remedy)


def _reference_order(
    tree: Tree, queries: Sequence[tuple[Tree, Sample]], options: Options, findings: Findings
) -> ReferenceOrder:
    if options.reference != "nearest":
        return ReferenceOrder(tree, options.reference, seed=options.seed)
    own = [sample for other, sample in queries if other is tree]
    categories = {sample.category for sample in own}
    references = [s for s in tree.samples if s.split == "train" and s.category in categories]
    looks, faults = read_looks(tree, [*own, *references], workers=options.workers)
    for fault in faults:
        findings.add(UNREADABLE, str(fault))
    return ReferenceOrder(tree, "nearest", looks=looks)


def build_pairs(
    queries: Sequence[Query],
    out: Path,
    options: Options,
    findings: Findings,
    *,
    about: About,
    guard: Guard | None = None,
) -> dict[str, Any]:
    """Write the pairs of every query, with a manifest and a card.

    Args:
        queries: The queries, in the order of the output.
        out: The parquet, or the folder of shards.
        options: How to build.
        findings: Collects everything that was repaired, skipped or left out.
        about: Fields of the manifest that only the builder has.
        guard: Refuses test images of MVTec LOCO AD, for training files.

    Returns:
        The manifest.

    Raises:
        DataError: An image is unreadable and ``skip_bad`` is off, a test image of MVTec LOCO AD is among them, or no
            pair is left.
    """
    partial = _partial_folder(out)
    encoding = options.encoding
    store = ImageStore(partial / f"{encoding.format}-{encoding.quality}-{encoding.max_pixels}")
    assembler = Assembler(
        encoding=encoding,
        embed=options.embed,
        shots=options.shots,
        votes=options.votes,
        store=store,
        guard=guard,
        answers=options.answers,
        masks=options.masks,
    )
    if options.shard_mb is None:
        with replace_when_done(out) as temporary:
            writer = PairWriter(temporary, embed=options.embed)
            for outcome in iter_outcomes(queries, assembler, options.workers):
                _take(outcome, writer, findings)
            writer.close()
            _refuse_bad(findings, writer.rows, options)
            manifest = describe_build([temporary], out, about=about, options=options, findings=findings)
    else:
        staging = _build_shards(queries, out, options, findings, assembler)
        shards = sorted(staging.glob("*.parquet"))
        manifest = describe_build(shards, out, about=about, options=options, findings=findings)
        for note in staging.glob("*.json"):
            note.unlink()
        staging.replace(out)
    shutil.rmtree(partial, ignore_errors=True)
    return manifest


def iter_outcomes(queries: Sequence[Query], assembler: Assembler, workers: int) -> Iterator[Outcome]:
    """Yield the outcome of each query in order; no more than a few queries' images are held at once."""
    most = max(_IMAGES_HELD, 2 * workers) // assembler.images_a_query
    ahead = min(workers + _AHEAD, max(1, most - 1))  # one more is at work when the first is waited for
    tracked = track(queries, total=len(queries), description="pairs")
    return map_ahead(assembler.assemble, tracked, workers=workers, ahead=ahead)


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, ahead: int
) -> Iterator[Result]:
    """Yield the function's results in order, computed by threads; at most ``ahead`` wait behind the next one."""
    window: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                window.append(pool.submit(function, item))
                if len(window) > ahead:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _take(outcome: Outcome, writer: PairWriter, findings: Findings) -> None:
    for kind, line in outcome.findings:
        findings.add(kind, line)
    for pair in outcome.pairs:
        writer.write_pair(pair)


def _refuse_bad(findings: Findings, rows: int, options: Options) -> None:
    bad = [*findings.of(UNREADABLE), *findings.of(MISREAD)]
    if bad and not options.skip_bad:
        remedy = "Fix them, or pass --skip-bad to leave their pairs out"
        raise DataError(f"{bad[0]} (such images: {len(bad)})", remedy=remedy)
    if rows == 0:
        raise DataError(f"the build made no pair ({findings.summary()})")


def _build_shards(
    queries: Sequence[Query], out: Path, options: Options, findings: Findings, assembler: Assembler
) -> Path:
    """Write shards into the partial folder, each with a note of how far it reaches, and return the folder.

    A finished shard is kept if the plan, the options, the sources' sizes and times, and the versions are the same.
    """
    staging = _partial_folder(out) / f"shards-{_build_key(queries, options)}"
    staging.mkdir(parents=True, exist_ok=True)
    taken = rows = 0
    index = 0
    while (note := staging / f"{_shard_name(index)}.json").is_file():
        kept = json.loads(note.read_text(encoding="utf-8"))
        taken, rows, index = kept["queries"], rows + kept["rows"], index + 1
        for kind, line in kept["findings"]:
            findings.add(kind, line)
    outcomes = iter_outcomes(queries[taken:], assembler, options.workers)
    while taken < len(queries):
        seen = len(findings.lines)
        with replace_when_done(staging / _shard_name(index)) as temporary:
            taken, written = _write_shard(temporary, outcomes, taken, options=options, findings=findings)
        rows += written
        told = [line.split(": ", 1) for line in findings.lines[seen:]]
        write_json(staging / f"{_shard_name(index)}.json", {"queries": taken, "rows": written, "findings": told})
        index += 1
    _refuse_bad(findings, rows, options)
    return staging


def _partial_folder(out: Path) -> Path:
    """Return where a build keeps what a later one can take up."""
    return hidden_sibling(out, "partial")


def _shard_name(index: int) -> str:
    return f"part-{index:05d}.parquet"


def _write_shard(
    path: Path, outcomes: Iterator[Outcome], taken: int, *, options: Options, findings: Findings
) -> tuple[int, int]:
    """Write pairs until the shard is full or the plan ends; return how far the plan is done, and the rows written."""
    assert options.shard_mb is not None
    writer = PairWriter(path, embed=options.embed)
    for outcome in outcomes:
        _take(outcome, writer, findings)
        taken += 1
        if writer.bytes_taken >= options.shard_mb * 1_000_000:
            break
    writer.close()
    return taken, writer.rows


def _build_key(queries: Sequence[Query], options: Options) -> str:
    """Return what a finished shard depends on, as a short name."""
    facts = {json.dumps([options.recorded(), versions()], sort_keys=True): ""}
    for query in queries:
        stat = query.tree.file(query.sample).stat()
        facts[query.pair_id] = f"{query.sample.kind} {query.sample.defect} {stat.st_size} {stat.st_mtime_ns}"
        facts |= {f"{query.pair_id}#{i}": repr(choice) for i, choice in enumerate(query.choices)}
    return digest_sources(facts)[:16]
