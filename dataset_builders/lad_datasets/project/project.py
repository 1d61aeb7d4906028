"""`lad init`: from a folder of photos to a project: split trees, configs for SFT and GRPO, and a plan of commands.

<out>/train/         links to the photos that train: read by `lad build grpo --folder` and `lad annotate --folder`
<out>/evaluation/    links to the photos that judge: no test image of it is in train/
<out>/sft.yaml       for `llamafactory-cli train`
<out>/grpo.sh        for `easyr1`
<out>/plan.md        the commands, in order
"""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

import yaml

from lad_datasets.builders.build import order_queries
from lad_datasets.builders.grpo import choose_queries, split_queries
from lad_datasets.builders.options import Options
from lad_datasets.pairing.assemble import Query
from lad_datasets.recipes.recipe import ALL, read_recipe
from lad_datasets.sources import folder
from lad_datasets.sources.folder_names import COMMON, FolderNames
from lad_datasets.sources.samples import Sample, Tree
from lad_reasoner.pairs.images import decode, read_image_bytes
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.files import hidden_sibling, locked, name_write_errors, require_absent
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.progress import track
from lad_reasoner.task.task import LABELS, Label
from lad_reasoner.training.easyr1.config import resolve_path

__all__ = ["MAX_PIXELS", "VAL_FRACTION", "Project", "create_project"]

#: Image area of every command of the plan: 512 tokens an image, as in the shipped configs.
MAX_PIXELS: Final = 401408

#: Share of the training photos that GRPO validates on. Our choice, as in the shipped profiles.
VAL_FRACTION: Final = 0.1

#: Our choice: about as often as the shipped config shows each pair.
_EPOCHS: Final = 4
_LARGEST_BATCH: Final = 64

#: SFT steps per epoch, at least, where there are as many questions as photos. Our choice.
_SFT_STEPS: Final = 4

_SFT: Final = "examples/sft/qwen2_5_vl_3b_1x24gb_lora.yaml"
#: Files of a project, as the templates name them with "_" for each "/", "." and "-".
_FILES: Final = (
    "train evaluation qa sft sft.yaml grpo.sh runs/sft runs/grpo model report train.parquet train_val.parquet "
    "evaluation.parquet base.jsonl trained.jsonl sft-model"
)
_PARTS: Final = ("train", "evaluation")


@dataclass(frozen=True, slots=True)
class Project:
    """What was made: the file with the commands, and the test images by part ("train", "evaluation") and label."""

    plan: Path
    products: tuple[str, ...]
    counts: dict[str, dict[Label, int]]


def create_project(
    photos: Path,
    out: Path,
    *,
    evaluation: float = 0.5,
    seed: int = 0,
    names: FolderNames = COMMON,
) -> Project:
    """Split a folder of photos into a training and an evaluation part, and write configs and a plan for them.

    Args:
        photos: The folder of the products, each with ``train/good`` and ``test/{good,<defect>}``.
        out: The project's folder; it must not exist.
        evaluation: Share of the test images of each product and label, above 0 and below 1, to evaluate on.
        seed: Random seed of the split.
        names: Which folder names mean normal.

    Raises:
        UsageError: ``out`` exists, lies inside the photos or has a name that configs cannot hold, or ``evaluation`` is
            out of range.
        DataError: The folder is not laid out as above or has too few images, or a photo needs a package or a higher
            limit.
        RunError: Another process makes the project.
    """
    if not 0 < evaluation < 1:
        raise UsageError(f"{evaluation} is not above 0 and below 1", where="--evaluation")
    require_absent(out)
    if out.resolve().is_relative_to(photos.resolve()):
        raise UsageError("it lies inside the photos", where=f"--out {out}", remedy="Choose another place")
    if not str(out).isprintable():  # it becomes a part of commands and of configs in UTF-8
        raise UsageError("the name has control characters or is not UTF-8", where=f"--out {out}", remedy="Rename it")
    if not _is_plain(str(out / "x")):
        raise UsageError(
            "EasyR1 reads this name as YAML, a variable or a split", where=f"--out {out}", remedy="Rename it"
        )
    findings = Findings()
    tree = _leave_out_unreadable(folder.scan(photos, names), findings)
    parts = _split(tree, findings, evaluation=evaluation, seed=seed)
    counts = {part: _count(queries) for part, queries in parts.items()}
    for part, own in counts.items():
        if not all(own.values()):
            problem = f"the {part} part would have {own['no']} normal and {own['yes']} anomalous test images"
            remedy = "Put at least two images into test/good and two per defect; identical copies count as one"
            raise DataError(problem, where=photos, remedy=remedy)
    values = {f"{part}_{label}": str(count) for part, own in counts.items() for label, count in own.items()}
    values |= _schedule(parts["train"]) | _paths(out) | _folder_options(names)
    draft = hidden_sibling(out, "draft")
    with locked(out), name_write_errors(out):
        require_absent(out)  # another process may have made it meanwhile
        shutil.rmtree(draft, ignore_errors=True)  # of a killed process
        for part, queries in parts.items():
            _link(tree, queries, draft / part)
        for name in ("plan.md", "grpo.sh"):
            (draft / name).write_text(_fill(name, values), encoding="utf-8")
        (draft / "sft.yaml").write_text(_sft_config(out, len(parts["train"])), encoding="utf-8")
        draft.replace(out)
    return Project(out / "plan.md", tuple(tree.categories), counts)


def _is_plain(path: str) -> bool:
    """Return whether a path stands for itself in EasyR1's ``key=value`` words."""
    try:
        return not set("$@") & set(path) and bool(yaml.safe_load(path) == path)
    except yaml.YAMLError:
        return False


def _leave_out_unreadable(tree: Tree, findings: Findings) -> Tree:
    """Return the tree without photos that no command of the plan can read, and report each.

    Raises:
        DataError: A photo is sound, but a package or a higher limit is needed to read it.
    """

    def fault(sample: Sample) -> DataError | None:
        try:
            decode(read_image_bytes(tree.file(sample)), tree.file(sample))
        except DataError as error:
            return error
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        faults = list(track(pool.map(fault, tree.samples), total=len(tree.samples), description="photos"))
    for error in filter(None, faults):
        if error.remedy:
            raise error
        findings.add("left out", str(error))
    kept = (sample for sample, error in zip(tree.samples, faults, strict=True) if error is None)
    return replace(tree, samples=tuple(kept))


def _split(tree: Tree, findings: Findings, *, evaluation: float, seed: int) -> dict[str, list[Query]]:
    """Return the queries of each part, and report what is remarkable about the tree."""
    for note in tree.notes:
        findings.add("note", note)
    chosen = choose_queries([tree], read_recipe(ALL), seed=seed, findings=findings)
    planned = order_queries([tree], chosen, Options(reference="fixed"), findings)
    return dict(zip(_PARTS, split_queries(planned, val_fraction=evaluation, seed=seed), strict=True))


def _count(queries: Sequence[Query]) -> dict[Label, int]:
    return {label: sum(query.sample.label == label for query in queries) for label in LABELS}


def _link(tree: Tree, queries: Sequence[Query], target: Path) -> None:
    """Link the queries, every reference and the folders of masks, under the same relative paths."""
    references = (sample.path for sample in tree.samples if sample.split == "train")
    masks = (f"{category}/ground_truth" for category in tree.categories)
    for path in (*references, *(query.sample.path for query in queries), *masks):
        if (source := tree.root / path).exists():
            link = target / path
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(source.resolve())


def _schedule(training: Sequence[Query]) -> dict[str, str]:
    """Return steps and prompts per step of GRPO: a power of two, so that it divides by the number of GPUs."""
    pairs = len(split_queries(training, val_fraction=VAL_FRACTION, seed=0)[0])
    batch = 2 ** int(math.log2(min(pairs, _LARGEST_BATCH)))
    steps = max(1, _EPOCHS * pairs // batch)
    return {"steps": str(steps), "batch": str(batch), "pairs": str(pairs), "freq": str(min(10, steps))}


def _paths(out: Path) -> dict[str, str]:
    """Return the project's files as words of a shell command."""
    words = {re.sub(r"[/.-]", "_", name): shlex.quote(str(out / name)) for name in _FILES.split()}
    return words | {"title": out.name, "max_pixels": str(MAX_PIXELS), "val_fraction": str(VAL_FRACTION)}


def _folder_options(names: FolderNames) -> dict[str, str]:
    """Return the options that declare folder names, for the commands that read the split trees."""
    given: tuple[tuple[str, Sequence[str]], ...] = (("--normal", names.normal), ("--defect", names.defect))
    words = [word for option, values in given for value in values for word in (option, value)]
    return {"names": "".join(f" {shlex.quote(word)}" for word in words)}


def _fill(name: str, values: Mapping[str, str]) -> str:
    source = files("lad_datasets.project").joinpath(f"{name}.template").read_text(encoding="utf-8")
    return Template(source).substitute(values)


def _sft_config(out: Path, photos: int) -> str:
    """Return the shipped LoRA config for one GPU of 24 GB, on this project's data."""
    config = yaml.safe_load(resolve_path(_SFT).read_text(encoding="utf-8"))
    config |= {"dataset_dir": str(out / "sft"), "output_dir": str(out / "runs/sft")}
    batch = min(config["gradient_accumulation_steps"], 2 ** int(math.log2(max(photos / _SFT_STEPS, 1))))
    config["gradient_accumulation_steps"] = batch
    head = (
        "# SFT of Qwen2.5-VL-3B by LoRA on your own photos; one GPU of 24 GB (about 14 GB, estimated).\n"
        f"# Batch of {batch}: at most 16; {_SFT_STEPS} steps per epoch or more with one question per photo.\n"
        "# Check: lad check FILE    Train: llamafactory-cli train FILE    The commands before and after it: plan.md\n"
    )
    return head + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
