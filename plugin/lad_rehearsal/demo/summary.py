"""The results of the demonstration: ``summary.json``, and a table of it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

import psutil
from rich import box
from rich.table import Table

from lad_reasoner.evaluation.compare import compare_systems
from lad_reasoner.evaluation.outcomes import System
from lad_reasoner.evaluation.rationales import FIGURES, score_rationales
from lad_reasoner.evaluation.score import RunScore, read_system, score_run, score_system
from lad_reasoner.evaluation.statistics import Estimate
from lad_reasoner.evaluation.table import with_interval
from lad_reasoner.support.packages import installed_version
from lad_reasoner.support.percent import percent
from lad_reasoner.training.metrics import read_metrics
from lad_rehearsal.demo.chain import VARIANTS, Chain
from lad_rehearsal.demo.stages import StageRecord

__all__ = ["reasoning_table", "results_table", "summarize"]

#: Packages whose versions affect the results.
PACKAGES: Final = (
    "lad-reasoner",
    "torch",
    "transformers",
    "verl",
    "llamafactory",
    "ray",
    "numpy",
    "pillow",
    "pyarrow",
)

#: Pairs of variants whose difference is tested.
COMPARED: Final = (("base", "grpo"), ("sft", "sft-grpo"), ("grpo", "sft-grpo"), ("base", "sft-grpo"))


def summarize(chain: Chain, records: Sequence[StageRecord]) -> dict[str, Any]:
    """Return all measurements as plain JSON values."""
    seconds = {record.name: record.seconds for record in records}
    systems = {name: read_system(chain.predictions(name), chain.loco, "paper") for name in VARIANTS}
    return {
        "variants": {name: _variant(chain, name, systems[name]) for name in VARIANTS},
        "differences": [_difference(systems, first, second) for first, second in COMPARED],
        "grpo": {name: _grpo(chain, name) for name in ("grpo", "sft-grpo")},
        "stages": [
            {
                "name": record.name,
                "title": record.title,
                "seconds": record.seconds,
                "peak_pss_bytes": record.peak_bytes,
            }
            for record in records
        ],
        "seconds": sum(max(seconds[stage.name] for stage in group) for group in chain.stages()),
        "peak_pss_bytes": max(record.peak_bytes for record in records),
        "seed": chain.seed,
        "versions": {"python": platform.python_version(), **{name: installed_version(name) for name in PACKAGES}},
        "machine": {
            "platform": sys.platform,
            "processor": platform.machine(),
            "cores": psutil.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
        },
    }


def _variant(chain: Chain, name: str, system: System) -> dict[str, Any]:
    greedy = score_system(system, "paper")
    reasoning = score_rationales(system)
    sampled = score_run(chain.predictions(name, sampled=True), chain.loco, name=VARIANTS[name])
    return {
        "name": VARIANTS[name],
        "greedy": _scores(greedy),
        "sampled": _scores(sampled) | {"samples": sampled.samples},
        "reasoning": {figure: _estimate(reasoning.figures[figure]) for figure in FIGURES},
        "baselines": [asdict(baseline) for baseline in reasoning.baselines],
        "categories": {category: _scores_of(score.metrics) for category, score in greedy.categories.items()},
    }


def _scores(run: RunScore) -> dict[str, Any]:
    pooled = run.pooled
    return {
        "n": pooled.pairs,
        **_scores_of(pooled.metrics),
        "template_rate": pooled.template_rate,
        "unparsed": pooled.unparsed,
    }


def _scores_of(metrics: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: _estimate(metrics[name]) for name in ("accuracy", "f1")}


def _estimate(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _difference(systems: Mapping[str, System], first: str, second: str) -> dict[str, Any]:
    """Return the difference in greedy accuracy between the second and the first variant on the same pairs."""
    (comparison,) = compare_systems([systems[second], systems[first]])
    return {
        "from": first,
        "to": second,
        "n": comparison.pairs,
        "accuracy": _estimate(comparison.accuracy),
        "mcnemar_p": comparison.p_value,
    }


def _grpo(chain: Chain, name: str) -> dict[str, Any]:
    rows = [row for row in read_metrics(chain.run_dir(name)) if "reward" in row]
    return {
        "start": "base" if name == "grpo" else "sft",
        "steps": rows,
        "first_five": _mean(rows[:5]),
        "last_five": _mean(rows[-5:]),
    }


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = ("reward", "structure", "accuracy", "response_length")
    return {name: sum(row[name] for row in rows) / len(rows) for name in names} if rows else {}


def results_table(summary: Mapping[str, Any]) -> Table:
    """Return a table of the four variants in percent: greedy answers, and the accuracy of sampled answers."""
    table = _table(
        "Answers about the synthetic LOCO set: percent [95% interval]",
        "accuracy, F1, template: greedy answers; sampled: accuracy of answers at temperature 1",
        ("variant", "n", "accuracy", "F1", "template", "sampled"),
    )
    for variant in summary["variants"].values():
        greedy, sampled = variant["greedy"], variant["sampled"]
        table.add_row(
            variant["name"],
            str(greedy["n"]),
            with_interval(Estimate(**greedy["accuracy"])),
            percent(greedy["f1"]["value"]),
            percent(greedy["template_rate"]),
            with_interval(Estimate(**sampled["accuracy"])),
        )
    return table


def reasoning_table(summary: Mapping[str, Any]) -> Table:
    """Return a table of the reasoning in greedy answers, with the baselines that do not look at the images."""
    figures = {"named": "violation_recall", "right": "violation_precision", "invented": "hallucinated"}
    table = _table(
        "Their reasoning: percent [95% interval]",
        "named: violations that are named; right: named ones that are right; invented: on normal products",
        ("variant", *figures),
    )
    for variant in summary["variants"].values():
        cells = (with_interval(Estimate(**variant["reasoning"][figure])) for figure in figures.values())
        table.add_row(variant["name"], *cells)
    for baseline in summary["variants"]["sft-grpo"]["baselines"]:
        table.add_row(baseline["name"], percent(baseline["recall"]), percent(baseline["precision"]), "")
    return table


def _table(title: str, caption: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left", box=box.SIMPLE)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "variant" else "right")
    return table
