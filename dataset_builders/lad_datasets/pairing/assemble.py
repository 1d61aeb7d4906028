"""One query and its references, read and checked: the pairs they make, and what there is to tell of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Self

from lad_datasets.files.images import Encoding, ImageStore, Loaded, load, same_picture
from lad_datasets.leakage.guard import Guard
from lad_datasets.pairing.reference import CandidateOrder
from lad_datasets.sources.samples import Sample, Tree
from lad_reasoner.pairs.images import image_size
from lad_reasoner.pairs.masks import mask_boxes, mask_files, read_area
from lad_reasoner.pairs.schema import Choice, Image, Pair
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.boxes import Box
from lad_reasoner.task.classes import gold_classes
from lad_reasoner.task.gold import CLASSES, YES_NO
from lad_reasoner.task.task import NORMAL

__all__ = ["MISREAD", "UNREADABLE", "Assembler", "Outcome", "Query"]

#: Kinds of findings that stop a build unless the user says otherwise.
UNREADABLE = "unreadable"
MISREAD = "misread"

#: References held for the next query: a fixed reference is read once, not once a pair.
_HELD_IMAGES = 16


@dataclass(frozen=True, slots=True)
class Query:
    """A test image to be paired.

    Attributes:
        tree: Where it lies.
        sample: Which it is; its kind is known.
        order: Of its references.
        choices: Multiple-choice questions about it, a pair each; none asks the task's own question.
    """

    tree: Tree
    sample: Sample
    order: CandidateOrder
    choices: tuple[Choice, ...] = ()

    @property
    def pair_id(self) -> str:
        """Unique among queries."""
        return f"{self.tree.dataset}/{self.sample.path}"


@dataclass(slots=True)
class Outcome:
    """What became of a query: its pairs, none if something is wrong with it, and kind and line of each finding."""

    pairs: list[Pair] = field(default_factory=list)
    findings: list[tuple[str, str]] = field(default_factory=list)

    def leave_out(self, query: Query, reason: str) -> Self:
        """Drop the pairs, for a reason."""
        self.pairs = []
        self.findings.append(("left out", f"{query.pair_id}: {reason}"))
        return self


class Assembler:
    """Makes pairs of queries; one for all threads. The guard is for training files."""

    def __init__(
        self,
        *,
        encoding: Encoding,
        embed: bool,
        shots: int,
        votes: int,
        store: ImageStore,
        guard: Guard | None,
        answers: str = YES_NO,
        masks: Path | None = None,
    ) -> None:
        self._embed, self._shots, self._votes, self._guard = embed, shots, votes, guard
        self._answers, self._masks = answers, masks
        self._load = lambda path: load(path, encoding, store)
        self._load_reference = lru_cache(_HELD_IMAGES)(self._load)

    @property
    def images_a_query(self) -> int:
        """How many images the pairs of a query hold, itself among them."""
        return 1 + self._shots * self._votes

    def assemble(self, query: Query) -> Outcome:
        """Read a query and its references.

        Raises:
            DataError: One is a test image of MVTec LOCO AD, and this is a training file.
        """
        outcome = Outcome()
        if reason := self._unanswerable(query.sample):
            return outcome.leave_out(query, reason)
        loaded = self._read(query, query.sample, self._load, outcome)
        if loaded is None:
            return outcome.leave_out(query, "its image cannot be used")
        references = []
        wanted = self._shots * self._votes
        for sample, reference in self._iter_references(query, loaded, outcome):
            references.append(self._image(query, sample, reference))
            if len(references) == wanted:
                break
        else:
            return outcome.leave_out(query, f"only {len(references)} of {wanted} references are usable")
        image = self._image(query, query.sample, loaded)
        outcome.pairs = [
            self._pair(query, vote, references[vote * self._shots : (vote + 1) * self._shots], image)
            for vote in range(self._votes)
        ]
        if self._masks is not None:
            try:
                boxes = self._boxes(self._masks, query)
            except DataError as fault:
                return Outcome(findings=[*outcome.findings, (UNREADABLE, str(fault))])
            if isinstance(boxes, str):
                return outcome.leave_out(query, boxes)
            size = image_size(loaded.data, query.pair_id)
            outcome.pairs = [replace(pair, boxes=boxes, size=size) for pair in outcome.pairs]
        if query.choices:
            outcome.pairs = [
                replace(pair, pair_id=f"{pair.pair_id}#{number}", choice=choice)
                for pair in outcome.pairs
                for number, choice in enumerate(query.choices)
            ]
        return outcome

    def _unanswerable(self, sample: Sample) -> str:
        """Return why the gold answer that is asked for is not known; empty if it is."""
        if self._answers == CLASSES and not gold_classes(sample.label, sample.kind or "", sample.defect):
            return f"the defect {sample.defect!r} states no class"
        if self._masks is not None and sample.label != NORMAL and not mask_files(self._masks, sample.path):
            return f"it has no mask in {self._masks}"
        return ""

    @staticmethod
    def _boxes(masks: Path, query: Query) -> tuple[Box, ...] | str:
        """Return the right boxes of a query, or why they are not known: none at all would mean a normal query."""
        if query.sample.label == NORMAL:
            return ()
        area = read_area(mask_files(masks, query.sample.path), query.tree.file(query.sample))
        if area is None:
            return "a photo rotated by EXIF, whose mask may be rotated or not. Save the photo upright"
        return mask_boxes(area) or "its mask marks nothing"

    def _iter_references(self, query: Query, loaded: Loaded, outcome: Outcome) -> Iterator[tuple[Sample, Loaded]]:
        for sample in query.order.iter_candidates(query.sample):
            reference = self._read(query, sample, self._load_reference, outcome)
            if reference is None:
                continue
            if same := _sameness(query, sample, loaded, reference):
                outcome.findings.append(("identical reference", f"{query.pair_id}: skipped {sample.path}, {same}"))
                continue
            yield sample, reference

    def _read(self, query: Query, sample: Sample, load: Callable[[Path], Loaded], outcome: Outcome) -> Loaded | None:
        path = query.tree.file(sample)
        try:
            loaded = load(path)
        except DataError as fault:
            outcome.findings.append((UNREADABLE, str(fault)))
            return None
        if self._guard is not None:
            self._guard.check(loaded.data, path)
        if loaded.repairs:
            if not self._embed:
                line = f"{path}: trainers would misread it ({', '.join(loaded.repairs)}): embed the images"
                outcome.findings.append((MISREAD, line))
                return None
            outcome.findings.append(("repaired", f"{path}: {', '.join(loaded.repairs)}"))
        return loaded

    def _image(self, query: Query, sample: Sample, loaded: Loaded) -> Image:
        if self._embed:
            return Image(loaded.data, sample.path, loaded.sha256)
        return Image(None, str(Path(query.tree.file(sample)).resolve()), loaded.sha256)

    def _pair(self, query: Query, vote: int, references: list[Image], image: Image) -> Pair:
        sample = query.sample
        assert sample.kind is not None
        return Pair(
            pair_id=query.pair_id + (f"#{vote}" if self._votes > 1 else ""),
            dataset=query.tree.dataset,
            category=sample.category,
            label=sample.label,
            kind=sample.kind,
            defect=sample.defect,
            references=tuple(references),
            query=image,
            answers=self._answers,
        )


def _sameness(query: Query, sample: Sample, loaded: Loaded, reference: Loaded) -> str:
    """Return in what a reference is the query's own image, or an empty text.

    Pictures are compared only where both look the same, which is known where the nearest reference is sought: that is
    where a copy saved anew would always be chosen.
    """
    if reference.sha256 == loaded.sha256:
        return "the same file"
    if query.order.looks_same(query.sample, sample) and same_picture(reference.data, loaded.data):
        return "the same picture in another file"
    return ""
