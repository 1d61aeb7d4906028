"""The boxes in the reasoning against the dataset's: overlap, hits, and the point in the mask."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lad_reasoner.evaluation.outcomes import Query, System, query_of
from lad_reasoner.evaluation.statistics import RESAMPLES, Bootstrap, Estimate
from lad_reasoner.pairs.frames import Frame
from lad_reasoner.pairs.masks import query_area
from lad_reasoner.support.confusion import Floats
from lad_reasoner.task.boxes import Box, match_boxes, read_boxes, scale_boxes
from lad_reasoner.task.gold import Gold
from lad_reasoner.task.response import parse

__all__ = ["BOX_FIGURES", "BoxScore", "score_boxes", "stated_boxes"]

#: Figures by name, with the headings of tables.
BOX_FIGURES: Final = {
    "mean_iou": "mean IoU",
    "hit_rate": "IoU of at least 0.5",
    "point_in_mask": "point in the mask",
    "boxed_normal": "box on a normal query",
}

#: From here on a box is a hit, as usual in detection.
_HIT: Final = 0.5


@dataclass(frozen=True, slots=True)
class BoxScore:
    """The boxes of one system.

    Attributes:
        replies: Replies to anomalous queries with boxes; the first three figures count them all.
        figures: By the names of `BOX_FIGURES`. ``point_in_mask``: share whose first box has its centre in the mask;
            not defined without masks.
    """

    name: str
    replies: int
    figures: dict[str, Estimate]


def stated_boxes(response: str, gold: Gold, frame: Frame) -> tuple[Box, ...]:
    """Return the boxes in a response's reasoning as shares of the query; none if the gold answer asks for none."""
    if gold.boxes is None:
        return ()
    return scale_boxes(read_boxes(parse(response).reasoning), frame.size(*gold.size))


def score_boxes(
    system: System, *, masks: Path | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> BoxScore | None:
    """Score the boxes of a system; None if its data does not ask for boxes. The bootstrap resamples queries.

    ``masks`` is the root of the dataset with its masks.

    Raises:
        DataError: A mask cannot be read.
    """
    sums: dict[Query, dict[str, Floats]] = defaultdict(lambda: {name: np.zeros(2) for name in BOX_FIGURES})
    replies = 0
    for row in system.rows:
        gold = row.truth.gold
        if gold.boxes is None:
            continue
        area = query_area(masks, row.truth.query_path) if masks and gold.boxes else None
        own = sums[query_of(row.truth)]
        for reply in row.replies:
            boxes = stated_boxes(reply.response, gold, system.frame)
            if not gold.boxes:
                own["boxed_normal"] += float(bool(boxes)), 1
                continue
            replies += 1
            overlap = match_boxes(boxes, gold.boxes)
            own["mean_iou"] += overlap, 1
            own["hit_rate"] += float(overlap >= _HIT), 1
            if area is not None:
                own["point_in_mask"] += float(bool(boxes) and _is_inside(boxes[0], area)), 1
    if not sums:
        return None
    bootstrap = Bootstrap(resamples, seed)
    figures = {
        name: bootstrap.proportion(np.array([counts[name] for counts in sums.values()])) for name in BOX_FIGURES
    }
    return BoxScore(system.name, replies, figures)


def _is_inside(box: Box, area: NDArray[np.bool_]) -> bool:
    """Return whether a box's centre lies on a marked pixel."""
    height, width = area.shape
    column, row = (box[0] + box[2]) / 2 * width, (box[1] + box[3]) / 2 * height
    return 0 <= column < width and 0 <= row < height and bool(area[int(row), int(column)])
