"""SFT data for LLaMA-Factory: annotations (QA about images) in, a dataset folder out.

In: JSON lines {"id", "images", "question", "answer", "dataset", "category", "kind", "defect", "writer"}, image paths
relative to the file's folder, one ``<image>`` in the question for each; and, if people reviewed them,
``decisions.jsonl`` next to it {"id", "decision": accept|reject|edit, "question", "answer"}.

Out: ``train.json`` and ``val.json`` (ShareGPT messages, images by absolute path), the same as ``.parquet`` with the
images inside, ``dataset_info.json`` that names all four for LLaMA-Factory, a card (``README.md``) and a manifest.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from lad_datasets.builders.sft_target import Target, draw_rows, explain
from lad_datasets.files.annotations import SUMMARY, Annotation, read_annotations
from lad_datasets.files.images import load, sha256
from lad_datasets.files.manifest import card_text, count_rows, digest_sources, nest_counts, versions
from lad_datasets.files.parquet import RowWriter
from lad_datasets.files.sft_folder import DATASET_INFO
from lad_datasets.leakage.guard import Guard, refuse_test_image
from lad_datasets.sources import licence_of
from lad_datasets.sources.samples import GOOD
from lad_reasoner.pairs.images import read_image_bytes
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.files import (
    hidden_sibling,
    locked,
    name_write_errors,
    replace_when_done,
    require_absent,
    write_bytes,
    write_json,
    write_text,
)
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.progress import track
from lad_reasoner.task.task import ANOMALOUS, KINDS, NORMAL

__all__ = ["Turn", "build_sft", "split_by_image"]

SUFFIXES: Final = ("json", "parquet")

#: How LLaMA-Factory reads both files.
_LAYOUT: Final = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {
        "role_tag": "role",
        "content_tag": "content",
        "user_tag": "user",
        "assistant_tag": "assistant",
        "system_tag": "system",
    },
}

_CARD_TEXT: Final = """
Each row is one question about one or more images and its answer, for supervised fine-tuning. LLaMA-Factory reads
this folder as `dataset_dir`; the datasets in it are {names}. The `.json` files name images by their path on the
machine that built them; the `.parquet` files hold the images themselves.
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """A QA that will be trained on, its images found sound.

    Attributes:
        annotation: The QA, as written or as edited in review.
        files: Its images' absolute paths.
        digests: Their sha256.
    """

    annotation: Annotation
    files: tuple[Path, ...]
    digests: tuple[str, ...]


def split_by_image(turns: Sequence[Turn], *, val_fraction: float, seed: int) -> tuple[list[Turn], list[Turn]]:
    """Return training and validation turns, each in the order given; no image in question is in both.

    The image in question is a turn's last one (a reference may be shared). Whole images are sampled, by a hash of
    their content and the seed, so that the order of the annotations does not matter. A ``val_fraction`` above 0
    holds out at least one image.
    """
    own = {turn.digests[-1] for turn in turns}
    images = sorted(own, key=lambda digest: hashlib.sha256(f"{seed}/{digest}".encode()).digest())
    wanted = max(1, round(val_fraction * len(images))) if val_fraction and len(images) > 1 else 0
    held_out = set(images[:wanted])
    train = [turn for turn in turns if turn.digests[-1] not in held_out]
    return train, [turn for turn in turns if turn.digests[-1] in held_out]


def build_sft(
    annotations: Path,
    out: Path,
    *,
    rows: int | None = None,
    kinds: Collection[str] = (),
    val_fraction: float = 0.0,
    seed: int = 0,
    overwrite: bool = False,
    skip_bad: bool = False,
    loco: Path | None = None,
) -> dict[str, Any]:
    """Build a dataset folder and return its manifest; `lad_datasets.build_sft` describes the arguments."""
    if not 0 <= val_fraction < 1:
        raise UsageError(f"{val_fraction} is not from 0 to below 1", where="--val-fraction")
    findings = Findings()
    with _staging(out, overwrite=overwrite) as staging:
        folder, kept = read_annotations(annotations, findings)
        kept = _keep_kinds(kept, kinds, findings)
        for annotation in kept:
            refuse_test_image(annotation.dataset, annotation.images, where=annotation.id, root=folder)
        checker = _Checker(folder, staging, findings, Guard(loco) if loco else None)
        turns = list(checker.iter_turns(kept))
        if not skip_bad:
            checker.refuse_bad()
        if not turns:
            raise DataError("there is no annotation to keep", where=annotations)
        turns, target = _keep(turns, rows, seed=seed, findings=findings, summary=folder / SUMMARY)
        train, val = split_by_image(turns, val_fraction=val_fraction, seed=seed)
        manifest = _write_folder(staging, {"train": train, "val": val}, findings, seed=seed, target=target)
        with name_write_errors(out):
            if out.exists():
                shutil.rmtree(out)
            staging.replace(out)
    return manifest


@contextmanager
def _staging(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Hold an output's lock and yield an empty folder for it, which is removed if it is still there at the end."""
    staging = hidden_sibling(out, "partial")
    with locked(out):
        _refuse_existing(out, overwrite=overwrite)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _keep_kinds(annotations: list[Annotation], kinds: Collection[str], findings: Findings) -> list[Annotation]:
    """Keep the annotations of normal images and of the kinds that are asked for."""
    if not kinds:
        return annotations
    if unknown := set(kinds) - set(KINDS):
        problem = f"no kind is called {', '.join(sorted(unknown))}"
        raise UsageError(problem, where="--kinds", remedy=f"Use {', '.join(KINDS)}")
    kept = [a for a in annotations if a.kind in kinds or GOOD in {a.kind, a.defect}]
    if not any(annotation.kind in kinds for annotation in kept):
        raise UsageError(f"no annotation is of kind {', '.join(kinds)}", where="--kinds")
    ids = {annotation.id for annotation in kept}
    for annotation in annotations:
        if annotation.id not in ids:
            findings.add("other kind", f"{annotation.id}: {annotation.kind or 'no kind'}")
    return kept


def _keep(
    turns: list[Turn], rows: int | None, *, seed: int, findings: Findings, summary: Path
) -> tuple[list[Turn], Target | None]:
    """Keep as many turns as aimed at."""
    if rows is None:
        return turns, None
    annotations = [turn.annotation for turn in turns]
    target = explain(annotations, rows=rows, findings=findings.counts, summary=summary)
    chosen = draw_rows(annotations, rows=rows, seed=seed)
    return [turn for turn in turns if turn.annotation.id in chosen], target


def _refuse_existing(out: Path, *, overwrite: bool) -> None:
    require_absent(out, overwrite=overwrite)
    if out.exists() and not (out / DATASET_INFO).is_file() and any(out.iterdir()):
        problem = f"the folder has no {DATASET_INFO}, so no build made it"
        raise UsageError(problem, where=f"--out {out}", remedy="Name another folder")


@dataclass(slots=True)
class _Checker:
    """Reads every image once, guards against leakage, and writes a repaired copy of what trainers would misread."""

    folder: Path
    staging: Path
    findings: Findings
    guard: Guard | None
    checked: dict[str, tuple[Path, str] | DataError] = field(default_factory=dict)

    def iter_turns(self, annotations: Sequence[Annotation]) -> Iterator[Turn]:
        """Yield the annotations whose images are sound; tell of the others."""
        for annotation in track(annotations, total=len(annotations), description="images"):
            results = [self._check(name) for name in annotation.images]
            sound = [result for result in results if not isinstance(result, DataError)]
            for fault in results:
                if isinstance(fault, DataError):
                    self.findings.add("left out", f"{annotation.id}: {fault}")
            if len(sound) == len(results):
                yield Turn(annotation, tuple(file for file, _ in sound), tuple(digest for _, digest in sound))

    def refuse_bad(self) -> None:
        """Raise if an image was unreadable."""
        bad = [result for result in self.checked.values() if isinstance(result, DataError)]
        if bad:
            remedy = "Fix them, or pass --skip-bad to leave their annotations out"
            problem = f"{bad[0].problem} (unreadable images: {len(bad)})"
            raise DataError(problem, where=bad[0].where, remedy=remedy)

    def _check(self, name: str) -> tuple[Path, str] | DataError:
        if name not in self.checked:
            self.checked[name] = self._read(self.folder / name)
        return self.checked[name]

    def _read(self, path: Path) -> tuple[Path, str] | DataError:
        try:
            loaded = load(path)
        except DataError as fault:
            return fault
        if self.guard is not None:
            self.guard.check(loaded.data, path)
        if not loaded.repairs:
            return path.resolve(), loaded.sha256
        self.findings.add("repaired", f"{path}: {', '.join(loaded.repairs)}")
        copy = self.staging / "images" / f"{loaded.sha256[:16]}.png"
        write_bytes(copy, loaded.data, durable=False)
        return copy, loaded.sha256


def _write_folder(
    staging: Path, splits: Mapping[str, Sequence[Turn]], findings: Findings, *, seed: int, target: Target | None
) -> dict[str, Any]:
    """Write the data files, ``dataset_info.json``, the card and the manifest."""
    splits = {name: turns for name, turns in splits.items() if turns}
    for name, turns in splits.items():
        rows = [_messages_row(turn, [_final_name(file, staging) for file in turn.files]) for turn in turns]
        write_json(staging / f"{name}.json", rows)
        _write_parquet(staging / f"{name}.parquet", turns)
    names = [(split, suffix) for split in splits for suffix in SUFFIXES]
    info = {_dataset_name(*name): {"file_name": ".".join(name), **_LAYOUT} for name in names}
    write_json(staging / DATASET_INFO, info)
    every = [turn for turns in splits.values() for turn in turns]
    counts = count_rows([_provenance(turn) for turn in every])
    licences = {name: licence_of(name) for name in sorted({turn.annotation.dataset for turn in every})}
    manifest = {
        "rows": {name: len(turns) for name, turns in splits.items()},
        "counts": nest_counts(counts),
        "findings": dict(sorted(findings.counts.items())),
        "writers": sorted({turn.annotation.writer for turn in every if turn.annotation.writer}),
        "target": asdict(target) if target else None,
        "seed": seed,
        "sources_sha256": digest_sources(
            {name: d for t in every for name, d in zip(t.annotation.images, t.digests, strict=True)}
        ),
        "licences": {name: terms.name for name, terms in licences.items()},
        "versions": versions(),
    }
    write_json(staging / "manifest.json", manifest)
    card = card_text(
        title="SFT data: questions and answers about images",
        text=_CARD_TEXT.format(names=", ".join(f"`{name}`" for name in info)),
        files={name: f"{name}.parquet" for name in splits},
        counts=counts,
        licences=licences,
        made_by="lad build sft",
    )
    write_text(staging / "README.md", card)
    return manifest


def _dataset_name(split: str, suffix: str) -> str:
    """Return LLaMA-Factory's name of a data file, such as ``lad_sft`` or ``lad_sft_val_parquet``."""
    return "lad_sft" + ("" if split == "train" else f"_{split}") + ("" if suffix == "json" else f"_{suffix}")


def _final_name(file: Path, staging: Path) -> str:
    """Return an image's path as LLaMA-Factory will find it: a repaired copy lies in the folder being made."""
    return file.relative_to(staging).as_posix() if file.is_relative_to(staging) else str(file)


def _messages_row(turn: Turn, images: Sequence[Any]) -> dict[str, Any]:
    annotation = turn.annotation
    return {
        "messages": [
            {"role": "user", "content": annotation.question},
            {"role": "assistant", "content": annotation.answer},
        ],
        "images": list(images),
        "id": annotation.id,
        **_provenance(turn),
    }


def _provenance(turn: Turn) -> dict[str, str]:
    annotation = turn.annotation
    label = NORMAL if GOOD in {annotation.defect, annotation.kind} else ANOMALOUS
    return {
        "dataset": annotation.dataset,
        "category": annotation.category,
        "kind": annotation.kind,
        "label": label,
        "defect": annotation.defect,
    }


def _read_again(file: Path, digest: str, *, staging: Path) -> bytes:
    """Return an image that was checked before, unless it was replaced since."""
    data = read_image_bytes(file)
    # A repaired copy in the staging folder differs from its source, whose digest this is.
    if sha256(data) != digest and not file.is_relative_to(staging):
        raise DataError("the image was replaced while the build ran", where=file, remedy="Build again")
    return data


def _write_parquet(path: Path, turns: Sequence[Turn]) -> None:
    import pyarrow as pa

    text = pa.string()
    schema = pa.schema(
        [
            ("messages", pa.list_(pa.struct([("role", text), ("content", text)]))),
            ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", text)]))),
            *((name, text) for name in ("id", "dataset", "category", "kind", "label", "defect")),
        ]
    )
    with replace_when_done(path) as temporary:
        writer = RowWriter(temporary, schema)
        for turn in track(turns, total=len(turns), description=path.name):
            images = [
                {"bytes": _read_again(file, digest, staging=path.parent), "path": name}
                for file, digest, name in zip(turn.files, turn.digests, turn.annotation.images, strict=True)
            ]
            writer.write(_messages_row(turn, images), image_bytes=sum(len(image["bytes"]) for image in images))
        writer.close()
