"""The evaluation set: MVTec LOCO AD's test images, each with normal training images as references."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal

from lad_datasets.builders.build import build_pairs, claim_output, order_queries
from lad_datasets.builders.describe import About
from lad_datasets.builders.grpo import draw_limit
from lad_datasets.builders.options import Options
from lad_datasets.sources import mvtec_loco
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.findings import Findings
from lad_reasoner.task.task import ANOMALOUS

__all__ = ["PAIRS", "SUBSETS", "Subset", "build_loco"]

Subset = Literal["logical", "all"]

#: Kinds of query by subset: "logical" is what the paper scores.
SUBSETS: Final[dict[Subset, frozenset[str]]] = {
    "logical": frozenset({"good", "logical"}),
    "all": frozenset({"good", "logical", "structural"}),
}

#: Queries in the full tree, by subset.
PAIRS: Final[dict[Subset, int]] = {"logical": 1136, "all": 1568}

_TEXT: Final = """
Each row is {shots} of an MVTec LOCO AD category, a test image of it and whether that is anomalous.
Subset `{subset}`. For evaluation alone: these are test images, never to be trained on.
"""


def build_loco(root: Path, out: Path, options: Options, *, subset: Subset, limit: int | None) -> dict[str, Any]:
    """Build the evaluation set and return the manifest; `lad_datasets.build_loco` describes the arguments."""
    findings = Findings()
    with claim_output(out, options):
        tree = mvtec_loco.scan(root, workers=options.workers)
        for note in tree.notes:
            findings.add("note", note)
        queries = [(tree, sample) for sample in tree.queries() if sample.kind in SUBSETS[subset]]
        if not queries:
            raise DataError(f"there is no test image of subset {subset}", where=root, remedy="Try --subset all")
        if not any(sample.label == ANOMALOUS for _, sample in queries):  # always answering no would be right
            problem = "there is no anomalous test image in <category>/test/logical_anomalies"
            raise DataError(problem, where=root, remedy="Name an MVTec LOCO AD tree")
        if tree.dataset == "mvtec_loco" and len(queries) != PAIRS[subset]:
            findings.add("note", f"{root}: {len(queries)} of {PAIRS[subset]} queries of subset {subset}")
        planned = order_queries([tree], draw_limit(queries, limit, options.seed), options, findings)
        about = About(
            verb="lad build loco",
            title=f"Reference/query pairs for evaluation: {tree.dataset}, subset {subset}",
            text=_TEXT.format(shots=options.shots_in_words, subset=subset),
            split="test",
            recorded={"subset": subset, "limit": limit},
            licences={tree.dataset: tree.licence},
        )
        return build_pairs(planned, out, options, findings, about=about)
