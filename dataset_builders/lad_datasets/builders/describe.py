"""After a build: what the finished files hold, as a manifest, a card and findings. All is read back from the files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_datasets.files.manifest import card_text, count_rows, digest_sources, nest_counts, versions
from lad_datasets.sources import EVALUATION_DATASETS
from lad_datasets.sources.samples import Licence
from lad_reasoner.pairs.reader import iter_rows
from lad_reasoner.pairs.schema import PROVENANCE_COLUMNS
from lad_reasoner.support.files import replace_when_done
from lad_reasoner.support.findings import Findings
from lad_reasoner.task.task import ANOMALOUS, NORMAL
from lad_reasoner.training.preflight.data import CONSTANT_SHARE

if TYPE_CHECKING:
    from lad_datasets.builders.options import Options

__all__ = ["About", "describe_build", "description_files", "find_duplicates", "find_single_labels", "iter_provenance"]


@dataclass(frozen=True, slots=True)
class About:
    """What only the builder knows of a build.

    Attributes:
        verb: Such as ``lad build grpo``.
        title: The card's heading.
        text: What the data is, in Markdown.
        split: The Hub's name of the split: "train" or "test".
        recorded: The recipe or subset, for the manifest.
        licences: By dataset.
    """

    verb: str
    title: str
    text: str
    split: str
    recorded: Mapping[str, Any]
    licences: Mapping[str, Licence]


def describe_build(
    files: Sequence[Path], out: Path, *, about: About, options: Options, findings: Findings
) -> dict[str, Any]:
    """Write ``<name>.manifest.json`` and ``<name>.card.md`` next to the output, and return the manifest.

    They stand next to a folder of shards, not in it: EasyR1 takes the type of a folder's first file for all of it.
    They appear before the output, and an earlier output goes just before they do: a build that is killed in between
    leaves no output, and the same command makes it. ``files`` are the data's drafts, which take their final names
    next. ``findings`` gets duplicates and single labels; their counts are recorded.
    """
    find_duplicates(iter_provenance(files), findings)
    counts = count_rows(iter_provenance(files))
    find_single_labels(counts, findings)
    used = {key[0] for key in counts}
    licences = {name: terms for name, terms in about.licences.items() if name in used}
    manifest = {
        "builder": about.verb,
        "rows": counts.total(),
        "files": [out.name] if options.shard_mb is None else [f"{out.name}/{path.name}" for path in files],
        **about.recorded,
        "options": options.recorded(),
        "counts": nest_counts(counts),
        "findings": dict(sorted(findings.counts.items())),
        "sources": _digest_by_dataset(iter_provenance(files)),
        "licences": {name: terms.name for name, terms in sorted(licences.items())},
        "versions": versions(),
    }
    card = card_text(
        title=about.title,
        text=about.text,
        files={about.split: out.name if options.shard_mb is None else f"{out.name}/*.parquet"},
        counts=counts,
        licences=licences,
        made_by=about.verb,
    )
    description, readme = description_files(out)
    with replace_when_done(description) as first, replace_when_done(readme) as second:
        first.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        second.write_text(card, encoding="utf-8")
        shutil.rmtree(out) if out.is_dir() else out.unlink(missing_ok=True)
    return manifest


def description_files(out: Path) -> tuple[Path, Path]:
    """Return where the manifest and the card of an output stand."""
    stem = out.name.removesuffix(".parquet")
    return out.with_name(f"{stem}.manifest.json"), out.with_name(f"{stem}.card.md")


def iter_provenance(files: Sequence[Path]) -> Iterator[dict[str, str]]:
    """Yield the text columns of each pair; no image is read."""
    for file in files:
        yield from iter_rows(file, PROVENANCE_COLUMNS, batch_rows=4096)


def find_duplicates(rows: Iterable[Mapping[str, str]], findings: Findings) -> None:
    """Report images that are in question twice, and images that are called both normal and anomalous."""
    labels: dict[str, tuple[str, str]] = {}
    references: dict[str, str] = {}
    for row in rows:
        digest, path = row["query_sha256"], f"{row['dataset']}/{row['query_path']}"
        known_path, known_label = labels.setdefault(digest, (path, row["label"]))
        if known_label != row["label"]:
            findings.add(
                "conflicting label", f"{path} is {row['label']}, the same image {known_path} is {known_label}"
            )
        elif known_path != path:
            findings.add("duplicate", f"{path} is the same image as {known_path}")
        for digest, path in _iter_references(row):
            references.setdefault(digest, f"{row['dataset']}/{path}")
    for digest, path in references.items():
        anomalous, label = labels.get(digest, ("", NORMAL))
        if label == ANOMALOUS:
            findings.add("conflicting label", f"the reference {path} is the same image as the anomalous {anomalous}")


def find_single_labels(counts: Mapping[tuple[str, ...], int], findings: Findings) -> None:
    """Report where one answer is always right, from ``count_rows``: in the whole file, else in each category."""
    labels: dict[str, set[str]] = {}
    for dataset, category, _, label in counts:
        labels.setdefault(f"{dataset}/{category}", set()).add(label)
    totals: Counter[str] = Counter()
    for (*_, label), rows in counts.items():
        totals[label] += rows
    for where, found in ({"the whole file": set(totals)} if len(totals) == 1 else labels).items():
        if len(found) == 1:
            (answer,) = found
            findings.add("one label", f"{where}: every answer is {answer!r}, so always answering {answer!r} is right")
    label, most = totals.most_common(1)[0] if totals else ("", 0)
    if len(totals) > 1 and most > CONSTANT_SHARE * totals.total():
        share = most / totals.total()
        line = f"always answering {label!r} is right for {share:.1%} of the pairs"
        if not {dataset for dataset, *_ in counts} <= EVALUATION_DATASETS:
            line += " and earns that share of the accuracy reward; `lad build grpo --balance` evens out the labels"
        findings.add("constant answer", line)


def _iter_references(row: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yield digest and path of each reference."""
    yield from zip(row["reference_sha256"].split("\n"), row["reference_path"].split("\n"), strict=True)


def _digest_by_dataset(rows: Iterable[Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    """Return for each dataset how many images were used and one digest of them all."""
    sources: dict[str, dict[str, str]] = {}
    for row in rows:
        own = sources.setdefault(row["dataset"], {})
        own[row["query_path"]] = row["query_sha256"]
        own.update((path, digest) for digest, path in _iter_references(row))
    return {name: {"images": len(own), "sha256": digest_sources(own)} for name, own in sorted(sources.items())}
