"""How many rows the SFT set has: the paper's 2,731, or a stated reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lad_datasets.files.annotations import Annotation
from lad_datasets.files.manifest import read_object

__all__ = ["PAPER_DATASETS", "PAPER_ROWS", "Target", "draw_rows", "explain", "read_counts"]

#: arXiv 2504.12749, section 4: 2,731 QA pairs on the test images of MVTec AD and VisA. It does not list them.
PAPER_ROWS: Final = 2731
PAPER_DATASETS: Final = frozenset({"mvtec_ad", "visa"})

#: What of an annotation run takes rows away, in words.
_LOSSES: Final = {
    "refused": "images that the model refused",
    "invalid": "images without a fit reply",
    "unasked": "images not asked about",
    "unreadable": "images that are unreadable",
}


@dataclass(frozen=True, slots=True)
class Target:
    """The count aimed at, and what came of it.

    Attributes:
        wanted: Rows of MVTec AD and VisA aimed at.
        available: Rows of theirs that could be taken.
        kept: Rows of theirs that were taken.
        reason: Why these differ; empty if the target was met.
    """

    wanted: int
    available: int
    kept: int
    reason: str


def draw_rows(annotations: Sequence[Annotation], *, rows: int, seed: int) -> set[str]:
    """Return the ids of the annotations to keep, chosen by a hash, so that their order does not matter.

    ``rows`` counts those of MVTec AD and VisA; those of other datasets, to which the paper's number does not apply,
    are all kept.
    """
    counted = sorted(
        (a.id for a in annotations if a.dataset in PAPER_DATASETS),
        key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest(),
    )
    return set(counted[:rows]) | {a.id for a in annotations if a.dataset not in PAPER_DATASETS}


def explain(
    annotations: Sequence[Annotation], *, rows: int, findings: Mapping[str, int], summary: Path
) -> Target | None:
    """Explain whether the target can be met, and if not, why; None where no annotation is of MVTec AD or VisA.

    ``findings`` counts those about annotations and images; ``summary``, of `lad annotate`, may be missing.
    """
    available = sum(annotation.dataset in PAPER_DATASETS for annotation in annotations)
    if not available:
        return None
    reasons = []
    if available < rows:
        reasons = [f"{findings[kind]} annotations {kind}" for kind in ("rejected", "left out") if findings.get(kind)]
        counts = read_counts(summary)
        reasons += [f"{counts[name]} {words}" for name, words in _LOSSES.items() if counts.get(name)]
        reasons = reasons or [f"only {available} were written"]
    return Target(rows, available, min(rows, available), ", ".join(reasons))


def read_counts(summary: Path) -> Mapping[str, Any]:
    """Return the counts of the summary that `lad annotate` wrote; empty when there is none."""
    counts = read_object(summary).get("counts")
    return counts if isinstance(counts, dict) else {}
