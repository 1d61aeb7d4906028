"""What `lad build` and `lad check` do, as functions. `import lad_datasets` offers them; paths may be str or Path."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_datasets.builders.options import Options
from lad_reasoner.support.progress import ProgressCallback, listen

if TYPE_CHECKING:
    from lad_datasets.builders.loco import Subset
    from lad_datasets.checks.check import CheckOptions, CheckReport

__all__ = ["Build", "build_grpo", "build_loco", "build_mmad", "build_sft", "check"]

StrPath = str | os.PathLike[str]

_DEFAULTS = Options()


@dataclass(frozen=True, slots=True)
class Build:
    """A finished build.

    Attributes:
        out: The file or folder that was written.
        rows: Pairs, or for SFT questions, in it.
        findings: Repaired, skipped and missing things, counted by kind.
        manifest: Everything that was recorded, as in the manifest next to the output.
    """

    out: Path
    rows: int
    findings: Mapping[str, int]
    manifest: Mapping[str, Any]


def build_grpo(
    out: StrPath,
    *,
    mvtec: StrPath | None = None,
    visa: StrPath | None = None,
    folder: StrPath | None = None,
    recipe: str | None = None,
    balance: bool = False,
    val_fraction: float = 0.0,
    normal: Sequence[str] = (),
    defect: Sequence[str] = (),
    limit: int | None = None,
    loco: StrPath | None = None,
    options: Options = _DEFAULTS,
    progress: ProgressCallback | None = None,
) -> Build:
    """Pair test images with normal references, for GRPO.

    Args:
        out: Parquet to write; a folder if ``options.shard_mb`` is set.
        mvtec: MVTec AD tree.
        visa: VisA tree, raw or converted.
        folder: Your own images: ``<category>/{train/good,test/{good,<defect>}}``.
        recipe: Name or YAML file. Default: "paper"; "all" if only ``folder`` is given.
        balance: Use as many normal as anomalous queries in each category.
        val_fraction: Share of the images of each category to write to ``<out>_val`` instead.
        normal: Folder names that mean normal images, besides good, ok, normal and the like.
        defect: Folder names that mean a defect, if in doubt.
        limit: Use at most this many queries, sampled by the seed.
        loco: MVTec LOCO AD tree; none of its test images may be among the images.
        options: How pairs are made.
        progress: Called with a description, how many are done, and how many there are.

    Raises:
        UsageError: No tree is given, the recipe is unknown, or the output cannot be made.
        DataError: A tree, the recipe or an image is not as expected, or nothing is left.
    """
    from lad_datasets.builders.grpo import build_grpo
    from lad_datasets.sources.folder_names import FolderNames

    given = {"mvtec_ad": mvtec, "visa": visa, "folder": folder}
    roots = {layout: Path(root) for layout, root in given.items() if root is not None}
    chosen = recipe or ("all" if set(roots) == {"folder"} else "paper")
    with listen(progress):
        manifest = build_grpo(
            roots,
            Path(out),
            options,
            recipe=chosen,
            limit=limit,
            loco=_path(loco),
            names=FolderNames(normal, defect),
            val_fraction=val_fraction,
            balance=balance,
        )
    return _build(out, manifest)


def build_loco(
    root: StrPath,
    out: StrPath,
    *,
    subset: Subset = "logical",
    limit: int | None = None,
    options: Options = _DEFAULTS,
    progress: ProgressCallback | None = None,
) -> Build:
    """Pair MVTec LOCO AD's test images with normal references, for evaluation.

    Args:
        root: MVTec LOCO AD tree.
        out: Parquet to write; a folder if ``options.shard_mb`` is set.
        subset: "logical" leaves structural anomalies out, as the paper does; "all" includes them.
        limit: Use at most this many queries, sampled by the seed.
        options: How pairs are made.
        progress: Called with a description, how many are done, and how many there are.

    Raises:
        UsageError: The output cannot be made.
        DataError: The tree or an image is not as expected, or nothing is left.
    """
    from lad_datasets.builders.loco import build_loco

    with listen(progress):
        return _build(out, build_loco(Path(root), Path(out), options, subset=subset, limit=limit))


def build_mmad(
    root: StrPath,
    out: StrPath,
    *,
    limit: int | None = None,
    options: Options = Options(embed=False),  # noqa: B008 - frozen
    progress: ProgressCallback | None = None,
) -> Build:
    """Pair MMAD's multiple-choice questions with the normal images that MMAD names, for evaluation.

    Args:
        root: MMAD's folder: ``mmad.json`` and the datasets.
        out: Parquet to write; a folder if ``options.shard_mb`` is set.
        limit: Use at most this many images with all their questions, sampled by the seed.
        options: How pairs are made. Images are stored as paths by default: each has about five questions.
        progress: Called with a description, how many are done, and how many there are.

    Raises:
        UsageError: The output cannot be made, or the reference policy is not one of MMAD's.
        DataError: There is no question, or an image cannot be read.
    """
    from lad_datasets.builders.mmad import build_mmad

    with listen(progress):
        return _build(out, build_mmad(Path(root), Path(out), options, limit=limit))


def build_sft(
    annotations: StrPath,
    out: StrPath,
    *,
    rows: int | None = 2731,
    kinds: Sequence[str] = (),
    val_fraction: float = 0.0,
    seed: int = 0,
    loco: StrPath | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: ProgressCallback | None = None,
) -> Build:
    """Turn annotations into a LLaMA-Factory dataset folder.

    Args:
        annotations: ``annotations.jsonl``, or its folder.
        out: Folder to make: LLaMA-Factory's ``dataset_dir``.
        rows: Rows of MVTec AD and VisA to keep, sampled by the seed; the paper's number by default, None for all.
        kinds: Keep anomalous images of these kinds only; the paper's focus is "appearance".
        val_fraction: Fraction of the images to hold out for validation.
        seed: Seed for choosing rows and held-out images.
        loco: MVTec LOCO AD tree; none of its test images may be among the images.
        skip_bad: Skip annotations whose image cannot be read, instead of failing.
        overwrite: Replace an earlier build.
        progress: Called with a description, how many are done, and how many there are.

    Raises:
        UsageError: ``out`` exists, or an option is out of range.
        DataError: An annotation does not fit, or an image cannot be read.
    """
    from lad_datasets.builders.sft import build_sft

    with listen(progress):
        manifest = build_sft(
            Path(annotations),
            Path(out),
            rows=rows,
            kinds=kinds,
            val_fraction=val_fraction,
            seed=seed,
            loco=_path(loco),
            skip_bad=skip_bad,
            overwrite=overwrite,
        )
    return _build(out, manifest)


def check(path: StrPath, options: CheckOptions | None = None, progress: ProgressCallback | None = None) -> CheckReport:
    """Check a finished file: pair parquet, annotations, SFT folder, EasyR1 or LLaMA-Factory config, model folder.

    Args:
        path: The file or folder.
        options: Bounds and tokenizer. Default: the Qwen2.5-VL processor's bounds.
        progress: Called with a description, how many are done, and how many there are.

    Raises:
        UsageError: The file is absent or of no known kind.
        DataError: The file cannot be read as its kind.
    """
    from lad_datasets.checks.check import CheckOptions, check_file

    with listen(progress):
        return check_file(Path(path), options or CheckOptions())


def _build(out: StrPath, manifest: Mapping[str, Any]) -> Build:
    rows = sum(count["rows"] for count in manifest["counts"])
    return Build(Path(out), rows, manifest["findings"], manifest)


def _path(path: StrPath | None) -> Path | None:
    return None if path is None else Path(path)
