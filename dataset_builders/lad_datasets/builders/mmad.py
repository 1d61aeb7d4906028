"""MMAD's multiple-choice questions as pairs: a row a question, each with the normal image that MMAD names for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lad_datasets.builders.describe import About
from lad_datasets.builders.grpo import build_split, claim_outputs, draw_limit
from lad_datasets.builders.options import Options
from lad_datasets.leakage.guard import Guard, is_test_image
from lad_datasets.pairing.assemble import Query
from lad_datasets.recipes.recipe import kind_of
from lad_datasets.sources import mmad, mvtec_loco
from lad_datasets.sources.samples import CC_BY_NC_SA_4, GOOD, Sample, Tree
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.findings import Findings
from lad_reasoner.task.gold import YES_NO
from lad_reasoner.task.task import MULTIPLE_CHOICE

__all__ = ["QUESTIONS", "TRAINING_SET", "build_mmad"]

#: In the whole of MMAD (its README).
QUESTIONS: Final = 39_672

#: Dataset id of questions for training.
TRAINING_SET: Final = "mmad_train"

#: MMAD's names of the datasets on which the paper trains.
_TRAINED_ON: Final = frozenset({"DS-MVTec", "VisA"})

_TEXT: Final = """
Each row is a multiple-choice question of MMAD (https://github.com/jam-cc/MMAD) about a test image, with {shots} that
MMAD names as template. The right letter is in the column `answer`; `label` says whether the image is anomalous. For
evaluation alone: these are test images, never to be trained on. Ask with `lad predict`, score with
`lad score --protocol mmad`.
"""


_TRAINING_TEXT: Final = """
Each row is a multiple-choice question of MMAD (https://github.com/jam-cc/MMAD) about a test image of MVTec AD or
VisA, with {shots} that MMAD names as template, for reinforcement learning: the reward is paid for the right letter.
Images of MVTec LOCO AD and GoodsAD are left out, so that both still test the trained model. MVTec AD and VisA do not.
"""


def _kind(image: mmad.Asked) -> str:
    dataset, _, category = image.category.partition("/")
    layout, _ = mmad.DATASETS.get(dataset, ("", ""))
    return mvtec_loco.KINDS.get(image.defect) or kind_of(layout, Sample(image.key, category, "test", image.defect))


def _is_held_out(image: mmad.Asked) -> bool:
    """Return whether no model may be trained on an image."""
    return image.key.partition("/")[0] not in _TRAINED_ON or is_test_image(TRAINING_SET, image.key)


@dataclass(frozen=True, slots=True)
class _Templates:
    """References as MMAD names them, by the query's path."""

    paths: Mapping[str, Sequence[str]]

    def iter_candidates(self, query: Sample) -> Iterator[Sample]:
        """Yield the templates of a query in MMAD's order."""
        for path in self.paths[query.path]:
            yield Sample(path, query.category, "train", GOOD)

    def looks_same(self, query: Sample, candidate: Sample) -> bool:  # noqa: ARG002
        """Return False: no perceptual hash is computed, the templates are used as they are named."""
        return False


def build_mmad(
    root: Path,
    out: Path,
    options: Options,
    *,
    limit: int | None,
    training: bool = False,
    val_fraction: float = 0.0,
    loco: Path | None = None,
) -> dict[str, Any]:
    """Build the questions and return the manifest; `lad_datasets.build_mmad` describes the other arguments.

    ``options.reference`` is "random" or "nearest": MMAD's random or similar templates. A ``training`` file has only
    questions about MVTec AD and VisA, which the paper trains on, and none of the test images of ``loco``; the share
    ``val_fraction`` of its images goes to ``<out>_val`` instead.
    """
    if options.reference == "fixed":
        problem = "MMAD names the templates of each image, so they cannot be fixed"
        raise UsageError(problem, where="--reference", remedy="Use random or nearest")
    if options.answers != YES_NO or options.masks:
        raise UsageError("MMAD's questions are answered by a letter; leave --answers and --boxes out")
    if not training and (val_fraction or loco):
        raise UsageError("--val-fraction and --loco go with --training")
    with claim_outputs(out, options, val_fraction=val_fraction):
        findings = Findings()
        queries = _plan(root, options, limit, findings, training=training)
        count = sum(len(query.choices) for query in queries)
        if limit is None and not training and count != QUESTIONS:
            findings.add("note", f"{root}: {count} of MMAD's {QUESTIONS} questions")
        about = About(
            verb="lad build mmad",
            title=f"MMAD's multiple-choice questions for {'training' if training else 'evaluation'}",
            text=(_TRAINING_TEXT if training else _TEXT).format(shots=options.shots_in_words),
            split="train" if training else "test",
            recorded={"limit": limit, "training": training},
            licences={queries[0].tree.dataset: CC_BY_NC_SA_4},
        )
        guard = Guard(loco, workers=options.workers) if loco else None
        return build_split(queries, out, options, findings, about=about, guard=guard, val_fraction=val_fraction)


def _plan(
    root: Path, options: Options, limit: int | None, findings: Findings, *, training: bool = False
) -> list[Query]:
    """Return a query for each image, in MMAD's order; an image with too few templates is named and left out."""
    kept: dict[str, mmad.Asked] = {}
    templates: dict[str, Sequence[str]] = {}
    most = 0
    for image in mmad.read_questions(root, findings):
        if training and _is_held_out(image):
            findings.add("left out", f"{image.key}: for evaluation alone")
            continue
        named = image.similar if options.reference == "nearest" else image.random
        most = max(most, len(named))
        if len(named) < options.shots:
            findings.add("left out", f"{image.key}: {len(named)} templates, but --shots is {options.shots}")
            continue
        kept[image.key], templates[image.key] = image, named
    samples = tuple(Sample(key, image.category, "test", image.defect, _kind(image)) for key, image in kept.items())
    if not samples:
        if not most:
            remedy = "Use an mmad.json with similar_templates and random_templates: a pair needs a normal image"
            raise DataError("no image names a template, as in MMAD's zero-shot index", where=root, remedy=remedy)
        raise DataError(f"no image names {options.shots} templates", where=root, remedy=f"Use --shots {most} or fewer")
    dataset = TRAINING_SET if training else MULTIPLE_CHOICE
    tree = Tree(dataset, "mmad", root, CC_BY_NC_SA_4, samples)
    drawn = draw_limit([(tree, sample) for sample in samples], limit, options.seed)
    order = _Templates(templates)
    return [Query(tree, sample, order, kept[sample.path].choices) for _, sample in drawn]
