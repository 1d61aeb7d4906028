"""`lad score`: accuracy, F1 and more of one or several runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from lad_reasoner.commands import systems as shared
from lad_reasoner.support.console import print_all, print_json
from lad_reasoner.support.errors import UsageError, install_hint

if TYPE_CHECKING:
    from lad_reasoner.evaluation.boxes import BoxScore
    from lad_reasoner.evaluation.classes import ClassScore
    from lad_reasoner.evaluation.judge import JudgeScore
    from lad_reasoner.evaluation.outcomes import System
    from lad_reasoner.evaluation.rationales import RationaleScore
    from lad_reasoner.evaluation.score import RunScore

__all__ = ["score_command"]

Score = TypeVar("Score")


def score_command(
    predictions: shared.Predictions = None,
    *,
    external: shared.External = None,
    threshold: shared.Threshold = None,
    data: shared.Data = None,
    protocol: Annotated[
        Literal["paper", "all", "mmad"],
        typer.Option(
            help="paper: normal queries and logical anomalies, as in Table 1; all: structural anomalies too; "
            "mmad: the questions of `lad build mmad`."
        ),
    ] = "paper",
    by: Annotated[
        Literal["kind", "defect"] | None, typer.Option(help="Also print right answers by kind or by defect.")
    ] = None,
    details: Annotated[
        bool, typer.Option("--details", help="Also print every category of every run and every metric.")
    ] = False,
    rationales: Annotated[
        bool, typer.Option("--rationales", help="Also score the reasoning: violations named, invented, consistent.")
    ] = False,
    again: Annotated[
        list[Path] | None,
        typer.Option(help="With --rationales: file of `lad predict --without-images` for each run, in their order."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="With --rationales: address of an OpenAI-compatible server whose model judges the words too."
        ),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="Name of the judge on the server.")] = None,
    judge_limit: Annotated[int, typer.Option(min=1, help="Replies of each run that are judged.")] = 200,
    masks: Annotated[
        Path | None, typer.Option(help="Root of the dataset with its masks: score points and places too.")
    ] = None,
    paper: Annotated[bool, typer.Option(help="Print the paper's rows if the data is MVTec LOCO AD.")] = True,
    resamples: shared.Resamples = 10_000,
    seed: shared.Seed = 0,
    as_json: shared.AsJson = False,
) -> None:
    """Score predictions: the result in two sentences and one table with 95% intervals.

    Example: lad score base.jsonl sft.jsonl grpo.jsonl --by defect
    """
    if protocol == "mmad":
        if external or by or not predictions:
            raise UsageError("--protocol mmad scores files of predictions, without --external and --by")
        _score_choices(predictions, data, resamples=resamples, seed=seed, as_json=as_json)
        return

    from lad_reasoner.evaluation.boxes import score_boxes
    from lad_reasoner.evaluation.classes import score_classes
    from lad_reasoner.evaluation.rationales import score_rationales
    from lad_reasoner.evaluation.score import score_system
    from lad_reasoner.pairs.masks import report_absent
    from lad_reasoner.task.task import ANOMALOUS

    if (again or judge) and not rationales:
        raise UsageError(f"{'--again' if again else '--judge'} needs --rationales")
    if judge and not judge_model:
        raise UsageError("--judge needs --judge-model, the judge's name on the server")
    shared.require_masks(masks)
    systems = shared.read_systems(predictions or [], external or [], data, protocol, threshold or [])
    systems = _add_again(systems, predictions or [], again or [])
    if not systems:
        raise UsageError("there is nothing to score; give predictions, or --external NAME=FILE.csv")
    if masks:
        truths = {row.truth for system in systems for row in system.rows}
        report_absent(masks, {truth.query_path for truth in truths if truth.label == ANOMALOUS})
    runs = [score_system(system, protocol, resamples=resamples, seed=seed) for system in systems]
    constants = _score_constants(systems, protocol)
    paper = paper and protocol == "paper" and _is_loco(systems)
    reasoned = systems if rationales else []
    reasons = _score_each(score_rationales, reasoned, masks=masks, resamples=resamples, seed=seed)
    classes = _score_each(score_classes, systems, resamples=resamples, seed=seed)
    boxes = _score_each(score_boxes, systems, masks=masks, resamples=resamples, seed=seed)
    judges = _ask_judge(reasoned, judge, judge_model, judge_limit, seed=seed)
    if as_json:
        items: dict[str, Sequence[RunScore | RationaleScore | ClassScore | BoxScore | JudgeScore]]
        items = {"runs": runs, "constants": constants, "rationales": reasons, "classes": classes, "boxes": boxes}
        items["judges"] = judges
        printed = {name: [asdict(item) for item in group] for name, group in items.items()}
        print_json({"protocol": protocol, **printed, "paper": _paper_rows() if paper else []})
        return
    _print_result(systems, runs, constants, paper=paper, resamples=resamples, seed=seed)
    _print_details(runs, constants, by, details=details, paper=paper)
    _print_further(classes, boxes, reasons, judges)


def _score_constants(systems: Sequence[System], protocol: Literal["paper", "all"]) -> list[RunScore]:
    """Return the scores of always yes and always no on every pair that any system answered."""
    from lad_reasoner.evaluation.outcomes import constant
    from lad_reasoner.evaluation.score import score_system
    from lad_reasoner.task.task import LABELS

    truths = {row.truth.pair_id: row.truth for system in systems for row in system.rows}
    return [score_system(constant(label, list(truths.values())), protocol, resamples=0) for label in LABELS]


def _score_each(score: Callable[..., Score | None], systems: Sequence[System], **options: Any) -> list[Score]:
    """Return the scores of the systems that have any."""
    scores = (score(system, **options) for system in systems)
    return [result for result in scores if result is not None]


def _add_again(systems: list[System], predictions: Sequence[Path], again: Sequence[Path]) -> list[System]:
    """Return the systems with the answers asked again; the first of them are the files of predictions."""
    from lad_reasoner.evaluation.outcomes import add_again

    if again and len(again) != len(predictions):
        problem = f"{len(again)} files for {len(predictions)} runs"
        raise UsageError(problem, where="--again", remedy="Give one for each file of predictions")
    return [*map(add_again, systems, predictions, again), *systems[len(again) :]]


def _ask_judge(
    systems: Sequence[System], url: str | None, model: str | None, limit: int, *, seed: int
) -> list[JudgeScore]:
    if not (url and model):
        return []
    try:
        from lad_reasoner.evaluation.judge import judge
    except ModuleNotFoundError as error:
        raise UsageError(f"--judge needs the package {error.name}", remedy=install_hint("annotate")) from error

    return [judge(system, url=url, model=model, limit=limit, seed=seed) for system in systems]


def _print_further(
    classes: Sequence[ClassScore],
    boxes: Sequence[BoxScore],
    reasons: Sequence[RationaleScore],
    judges: Sequence[JudgeScore],
) -> None:
    from lad_reasoner.evaluation.table import box_table, class_tables, judge_table, rationale_tables

    print_all(
        [
            *(class_tables(classes) if classes else ()),
            *([box_table(boxes)] if boxes else ()),
            *(rationale_tables(reasons) if reasons else ()),
            *([judge_table(judges)] if judges else ()),
        ]
    )


def _is_loco(systems: Sequence[System]) -> bool:
    return {row.truth.dataset for system in systems for row in system.rows} == {"mvtec_loco"}


def _print_result(
    systems: Sequence[System],
    runs: Sequence[RunScore],
    constants: Sequence[RunScore],
    *,
    paper: bool,
    resamples: int,
    seed: int,
) -> None:
    from lad_reasoner.evaluation.compare import compare_systems
    from lad_reasoner.evaluation.headline import describe_ties, read_headline
    from lad_reasoner.evaluation.table import LEGEND, result_table

    shared.print_warnings(runs)
    comparisons = compare_systems(systems, resamples=resamples, seed=seed) if len(systems) > 1 else []
    sentences = " ".join(read_headline(runs, comparisons).sentences())
    ties = [sentence for run in runs if (sentence := describe_ties(run))]
    print_all([sentences, "", result_table(runs, constants, paper=paper), LEGEND, *ties])


def _print_details(
    runs: Sequence[RunScore],
    constants: Sequence[RunScore],
    by: Literal["kind", "defect"] | None,
    *,
    details: bool,
    paper: bool,
) -> None:
    from lad_reasoner.evaluation.table import overview_table, run_table, share_table

    if details:
        every = [score for run in runs for score in (run, run.vote) if score is not None]
        print_all([overview_table(runs, constants, paper=paper), *map(run_table, every)])
    if by:
        print_all([share_table(runs, by)])


def _score_choices(
    predictions: Sequence[Path], data: Path | None, *, resamples: int, seed: int, as_json: bool
) -> None:
    from lad_reasoner.evaluation.mmad import score_choices
    from lad_reasoner.evaluation.table import choice_table

    runs = [score_choices(path, data, resamples=resamples, seed=seed) for path in predictions]
    for run in runs:
        shared.note_ids(run.name, run.missing, "questions without a reply; not scored")
    if as_json:
        print_json({"protocol": "mmad", "runs": [run.to_dict() for run in runs]})
        return
    print_all([choice_table(run) for run in runs])


def _paper_rows() -> list[dict[str, object]]:
    from lad_reasoner.evaluation.paper import TABLE_1

    return [asdict(row) for row in TABLE_1]
