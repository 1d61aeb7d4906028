"""The images to annotate: every test image of MVTec AD and VisA with everything known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final

from lad_datasets.leakage.guard import refuse_test_image
from lad_datasets.recipes.recipe import kind_of
from lad_datasets.sources import folder, mmad, mvtec_ad, visa
from lad_datasets.sources.folder_names import COMMON, FolderNames
from lad_datasets.sources.samples import GOOD, Sample, Tree
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.files import file_sha256
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.progress import track

__all__ = ["Subject", "find_subjects"]

_SCANS: Final = {"mvtec_ad": mvtec_ad.scan, "visa": visa.scan, "folder": folder.scan}


@dataclass(frozen=True, slots=True)
class Subject:
    """One image to be asked about.

    Attributes:
        id: ``<dataset>/<path in its tree>``; unique and stable.
        dataset: Recorded id, such as ``mvtec_ad``.
        kind: One of ``task.KINDS``.
        defect: The dataset's own name(s), ``+``-joined; "good" for a normal image.
        mask: The defect's mask; like the image's, its path is absolute.
        statements: MMAD's questions about this image, each with its right option.
        knowledge: MMAD's expert text about this defect of this product; may be empty.
        caption: MMAD's caption; may be empty.
    """

    id: str
    dataset: str
    category: str
    kind: str
    defect: str
    image: Path
    mask: Path | None
    statements: tuple[mmad.Statement, ...] = ()
    knowledge: str = ""
    caption: str = ""

    @property
    def is_anomalous(self) -> bool:
        """Whether there is a defect."""
        return self.defect != GOOD

    @property
    def priors(self) -> tuple[str, ...]:
        """All texts of MMAD about the image, in a fixed order."""
        said = [f"{s.question} {s.answer}" for s in self.statements]
        return tuple(text for text in (*said, self.caption, self.knowledge) if text)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON for the review page."""
        return {**asdict(self), "image": str(self.image), "mask": str(self.mask) if self.mask else None}


def find_subjects(
    trees: Mapping[str, Path],
    *,
    mmad_root: Path | None,
    findings: Findings,
    limit: int | None = None,
    names: FolderNames = COMMON,
) -> list[Subject]:
    """List the images to annotate, in the order of their ids.

    Args:
        trees: Root by layout: ``mvtec_ad``, ``visa``, ``folder``.
        mmad_root: MMAD's folder; without it, only the datasets' own annotations are used.
        findings: Collects duplicates, contradictions and images missing from MMAD.
        limit: Keep this many, spread evenly over products and defects.
        names: Which folder names mean normal.
    """
    if not trees:
        raise UsageError("give at least one of --mvtec, --visa and --folder", where="lad annotate")
    priors = mmad.read(mmad_root, findings) if mmad_root else mmad.Mmad()
    scanned = [_SCANS[layout](root, names) for layout, root in trees.items()]
    for note in (note for tree in scanned for note in tree.notes):
        findings.add("note", note)
    joined = _Joiner(priors, findings)
    subjects = sorted((joined.join(tree, s) for tree in scanned for s in tree.queries()), key=lambda s: s.id)
    joined.tell_unused(len(subjects), asked=mmad_root is not None)
    distinct = _drop_duplicates(subjects, findings)
    return distinct if limit is None else _spread(distinct, limit)


class _Joiner:
    """Joins samples with their MMAD entries, and counts those without a match."""

    def __init__(self, priors: mmad.Mmad, findings: Findings) -> None:
        self._priors, self._findings = priors, findings
        self._used: set[mmad.ImageKey] = set()

    def join(self, tree: Tree, sample: Sample) -> Subject:
        """Return a sample with everything known about it."""
        refuse_test_image(tree.dataset, [sample.path], where=sample.path, root=tree.root)
        # VisA's converted layout, which MMAD follows, has two folders: good and bad.
        subset = sample.defect if tree.layout == "mvtec_ad" or sample.defect == GOOD else "bad"
        key = (tree.layout, sample.category, subset, Path(sample.path).stem)
        entry = self._priors.entries.get(key)
        if entry is not None:
            self._used.add(key)
            entry = self._trust(entry, sample)
        return Subject(
            id=f"{tree.dataset}/{sample.path}",
            dataset=tree.dataset,
            category=sample.category,
            kind=kind_of(tree.layout, sample),
            defect=sample.defect,
            image=tree.file(sample).resolve(),
            mask=_find_mask(tree, sample, entry),
            statements=entry.statements if entry else (),
            knowledge=self._priors.knowledge_of(tree.layout, sample.category, subset),
            caption=self._read_caption(entry) if entry else "",
        )

    def _read_caption(self, entry: mmad.Entry) -> str:
        try:
            return entry.read_caption()
        except DataError as error:
            self._findings.add("refused", str(error))
            return ""

    def _trust(self, entry: mmad.Entry, sample: Sample) -> mmad.Entry | None:
        """Return the entry unless it contradicts the dataset's label."""
        if entry.says_anomalous is None or entry.says_anomalous == (sample.defect != GOOD):
            return entry
        said = "a defect" if entry.says_anomalous else "no defect"
        line = f"MMAD entry {entry.key!r} says {said}, the dataset says {sample.defect}; MMAD's not used"
        self._findings.add("contradiction", line)
        return None

    def tell_unused(self, subjects: int, *, asked: bool) -> None:
        """Report how many images and entries have no match."""
        without, unused = subjects - len(self._used), len(self._priors.entries) - len(self._used)
        if asked and without:
            self._findings.add("note", f"{without} of {subjects} images have no entry in MMAD")
        if unused:
            self._findings.add("note", f"{unused} entries of MMAD are about images that the trees given lack")


def _find_mask(tree: Tree, sample: Sample, entry: mmad.Entry | None) -> Path | None:
    if sample.defect == GOOD:
        return None
    path = Path(sample.path)
    folder = tree.root / path.parents[2]
    candidates = [
        folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png",
        folder / "ground_truth" / path.parent.name / f"{path.stem}.png",
        folder / "Masks" / path.parent.name / f"{path.stem}.png",
        *([entry.mask] if entry and entry.mask else []),
    ]
    return next((mask.resolve() for mask in candidates if mask.is_file()), None)


def _drop_duplicates(subjects: Sequence[Subject], findings: Findings) -> list[Subject]:
    """Drop images whose file occurs under another id too: all of them if they are said to show different things."""
    by_digest: dict[str, list[Subject]] = {}
    for subject in track(subjects, total=len(subjects), description="duplicates"):
        by_digest.setdefault(_digest(subject.image), []).append(subject)
    kept: list[Subject] = []
    for first, *others in by_digest.values():
        agree = all((other.category, other.defect) == (first.category, first.defect) for other in others)
        kept += [first] if agree else []
        for other in others if agree else [first, *others]:
            reason = f"the same file as {first.id}" if agree else "one file under several names that contradict"
            findings.add("duplicate", f"{other.id}: {reason}; left out")
    return kept


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise DataError(f"the image cannot be read ({error.strerror})", where=path) from error


def _spread(subjects: list[Subject], limit: int) -> list[Subject]:
    """Take some of each product and defect: the first of each, then the second of each, and so on."""
    groups: dict[tuple[str, str, str], list[Subject]] = {}
    for subject in subjects:
        groups.setdefault((subject.dataset, subject.category, subject.defect), []).append(subject)
    taken = [subject for turn in zip_longest(*groups.values()) for subject in turn if subject][:limit]
    return sorted(taken, key=lambda subject: subject.id)
