"""Table 1 of arXiv 2504.12749 as reference data, and the recovery of its evaluation protocol from the printed figures.

The paper does not state which test images it scores. Its table shows it: a pair of printed percentages (accuracy, F1)
leaves few integer confusion matrices, and for the right counts of images exactly one. ``docs/protocol.md`` shows them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from lad_reasoner.evaluation.statistics import mcnemar
from lad_reasoner.support.confusion import Confusion

__all__ = [
    "LOCO_TEST_COUNTS",
    "TABLE_1",
    "Figures",
    "PaperRow",
    "mcnemar_bounds",
    "pooled_matrix",
    "recover",
    "recovered_rows",
]


@dataclass(frozen=True, slots=True)
class Figures:
    """A cell of the table: accuracy and F1 in percent, as printed; the number of printed digits matters."""

    accuracy: str
    f1: str


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A row of the table.

    Attributes:
        average: What its "Overall" is: ``pooled`` over all pairs or ``macro``, the mean of the categories. The paper
            does not state it; the recovered matrices show it.
    """

    model: str
    average: Literal["pooled", "macro"]
    overall: Figures
    categories: dict[str, Figures]


#: Test images of MVTec LOCO AD: good, logical, structural (its data sheet).
LOCO_TEST_COUNTS: Final[dict[str, tuple[int, int, int]]] = {
    "juice_bottle": (94, 142, 94),
    "breakfast_box": (102, 83, 90),
    "screw_bag": (122, 137, 82),
    "splicing_connectors": (119, 108, 85),
    "pushpins": (138, 91, 81),
}


def _read_row(line: str) -> PaperRow:
    model, average, *cells = (cell.strip() for cell in line.split("|"))
    figures = [Figures(*cell.split("/")) for cell in cells]
    categories = dict(zip(LOCO_TEST_COUNTS, figures[1:], strict=True))
    return PaperRow(model, "pooled" if average == "pooled" else "macro", figures[0], categories)


#: Overall, then the categories in the order JB, BB, SB, SC, PP; accuracy/F1.
TABLE_1: Final = tuple(
    _read_row(line)
    for line in """
    APRIL-GAN (score > 0.5) | macro | 52.4/47.1 | 50/55.3 | 64.3/35.3 | 52.9/50.4 | 59.5/45.9 | 35.4/48.6
    AnomalyGPT (its text) | macro | 42.6/57.3 | 50.4/65.9 | 39.5/56.3 | 39/51.2 | 46.3/59.6 | 38.0/53.3
    Qwen2.5-VL-3B | pooled | 58.8/54.8 | 60.2/67.1 | 74.1/63.6 | 47.5/39.8 | 52.9/61.1 | 63.8/29.1
    Qwen2.5-VL-72B | pooled | 62.1/59.6 | 64.4/66.7 | 74.6/73.7 | 54.8/60.6 | 57.3/59.1 | 62.9/14.1
    Qwen2.5-VL-3B-SFT | pooled | 46.3/43.5 | 49.2/56.5 | 29.2/15.5 | 44.0/52.8 | 44.5/46.6 | 61.6/17.0
    Qwen2.5-VL-3B-GRPO | pooled | 58.1/55.6 | 56.4/65.3 | 71.4/53.1 | 49.4/53.0 | 52.4/61.7 | 64.6/19.8
    LAD-Reasoner | pooled | 60.4/63.5 | 62.7/74.7 | 76.8/68.6 | 53.3/66.3 | 52.9/56.3 | 60.3/37.2
    """.strip().splitlines()
)


def recover(figures: Figures, *, normal: int, anomalous: int) -> list[Confusion]:
    """Return every integer confusion matrix that rounds to both printed figures.

    Args:
        figures: Accuracy and F1 as printed.
        normal: Number of normal queries (the negative class).
        anomalous: Number of anomalous queries (the positive class).

    Example:
        >>> recover(Figures("62.7", "74.7"), normal=94, anomalous=142)
        [Confusion(tp=130, fp=76, tn=18, fn=12)]
    """
    total = normal + anomalous
    return [
        Confusion(tp=tp, fp=normal - (right - tp), tn=right - tp, fn=anomalous - tp)
        for right in range(total + 1)
        if rounds_to(right, total, figures.accuracy)
        for tp in range(max(0, right - normal), min(anomalous, right) + 1)
        if rounds_to(2 * tp, 2 * tp + total - right, figures.f1)
    ]


def rounds_to(part: int, whole: int, printed: str) -> bool:
    """Return whether ``100 * part / whole`` is within half a unit of the printed tenth, in whole numbers.

    A figure printed without its tenth, such as ``50``, is read as ``50.0``: the table drops trailing zeros. Exactly
    half a unit off counts: which way a tie was rounded is not known.

    Example:
        >>> rounds_to(118, 236, "50"), rounds_to(119, 236, "50")
        (True, False)
    """
    tenths = int(Decimal(printed) * 10)
    return whole > 0 and abs(2000 * part - 2 * tenths * whole) <= whole


def recovered_rows(counts: Mapping[str, tuple[int, int]] | None = None) -> dict[str, dict[str, list[Confusion]]]:
    """Return the recovered matrices of every cell: by model, by category.

    Args:
        counts: By category, how many queries are normal and anomalous; the paper's protocol (test/good and
            test/logical_anomalies) by default.
    """
    used = counts or {category: (good, logical) for category, (good, logical, _) in LOCO_TEST_COUNTS.items()}
    return {
        row.model: {
            category: recover(figures, normal=used[category][0], anomalous=used[category][1])
            for category, figures in row.categories.items()
        }
        for row in TABLE_1
    }


def pooled_matrix(model: str) -> Confusion:
    """Return a row's recovered matrix over all 1,136 pairs."""
    cells = [found[0] for found in recovered_rows()[model].values()]
    return Confusion(*(sum(getattr(cell, name) for cell in cells) for name in ("tp", "fp", "tn", "fn")))


def mcnemar_bounds(first: str, second: str) -> tuple[float, float]:
    """Return the smallest and the largest p value of McNemar's test that any pairing of two rows allows.

    Of n queries of one category and label the models answer x and y correctly. Then x - y is the difference of the
    queries that only one of them answers correctly, and their sum lies between |x - y| and the most that fits.
    """
    rows = recovered_rows()
    difference = least = most = 0
    for category in rows[first]:
        one, other = rows[first][category][0], rows[second][category][0]
        for x, y, n in ((one.tp, other.tp, one.tp + one.fn), (one.tn, other.tn, one.tn + one.fp)):
            difference += x - y
            least += abs(x - y)
            most += min(x, n - y) + min(y, n - x)
    p_values = [mcnemar((both + difference) // 2, (both - difference) // 2) for both in range(least, most + 1, 2)]
    return min(p_values), max(p_values)
