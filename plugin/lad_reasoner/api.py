"""What the commands do, as functions. `import lad_reasoner` offers them; each takes paths as str or Path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.progress import ProgressCallback, listen
from lad_reasoner.task.classes import read_response
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.response import Response
from lad_reasoner.task.rewards import ACCURACY_WEIGHT, STRUCTURE_WEIGHT, rlad_reward

if TYPE_CHECKING:
    from lad_reasoner.evaluation.compare import Comparison
    from lad_reasoner.evaluation.protocols import Protocol
    from lad_reasoner.evaluation.score import RunScore
    from lad_reasoner.inference.ask import Verdict
    from lad_reasoner.inference.predict import PredictSummary
    from lad_reasoner.inference.protocol import Backend, BackendName, BackendOptions
    from lad_reasoner.pairs.reader import Truth
    from lad_reasoner.pairs.schema import Image
    from lad_reasoner.support.findings import Finding

__all__ = [
    "Report",
    "ResponseScore",
    "StrPath",
    "ask",
    "check_config",
    "compare",
    "load_backend",
    "predict",
    "score",
    "score_response",
    "score_responses",
    "write_report",
]

StrPath = str | os.PathLike[str]

#: Bootstrap samples of every interval.
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class ResponseScore:
    """The rewards of one response (arXiv 2504.12749, eq. 7).

    Attributes:
        response: The parsed response.
        structure: 1.0 if the response keeps to the template, else 0.0.
        accuracy: 1.0 if the answer is the label, else 0.0.
        reward: The weighted sum of both.
    """

    response: Response
    structure: float
    accuracy: float
    reward: float


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written.

    Attributes:
        page: The page to open.
        notes: One line for each figure that was not drawn, with the reason.
    """

    page: Path
    notes: tuple[str, ...]


def score_response(
    text: str,
    gold: str | Mapping[str, Any],
    *,
    structure_weight: float = STRUCTURE_WEIGHT,
    accuracy_weight: float = ACCURACY_WEIGHT,
) -> ResponseScore:
    """Return the rewards of one response, as training computes them.

    Args:
        text: The response, without special tokens.
        gold: "yes" or "no", or the object of the column ``answer``, as JSON or read.
        structure_weight: Weight of the structure reward.
        accuracy_weight: Weight of the accuracy reward.

    Raises:
        ValueError: The gold answer cannot be read.

    Example:
        >>> from lad_reasoner import score_response
        >>> score_response("<think> a pin is missing </think><answer> yes </answer>", "yes").reward
        1.0
    """
    response = read_response(text, read_gold(gold))
    scores = rlad_reward(text, gold, structure_weight=structure_weight, accuracy_weight=accuracy_weight)
    return ResponseScore(response, scores["structure"], scores["accuracy"], scores["overall"])


def load_backend(model: str | BackendOptions, backend: BackendName = "transformers") -> Backend:
    """Load a model that answers questions about pairs.

    Args:
        model: Folder or name of the model, or all its options.
        backend: What runs the model.

    Raises:
        UsageError: The backend lacks an option, or a package is not installed.
        DataError: The model cannot be loaded.
    """
    from lad_reasoner.inference.backends import load
    from lad_reasoner.inference.protocol import BackendOptions

    return load.load_backend(backend, BackendOptions(model=model) if isinstance(model, str) else model)


def ask(backend: Backend, reference: StrPath | Image | Sequence[StrPath | Image], query: StrPath | Image) -> Verdict:
    """Ask a model about one pair.

    Args:
        backend: A loaded model.
        reference: A normal image, or several.
        query: The image in question.

    Raises:
        DataError: An image cannot be read.
        RunError: The model gave no answer.
    """
    from lad_reasoner.inference.ask import ask, read_image_file
    from lad_reasoner.pairs.schema import Image

    def read(image: StrPath | Image) -> Image:
        return image if isinstance(image, Image) else read_image_file(Path(image))

    _require_backend(backend)
    several = [reference] if isinstance(reference, str | os.PathLike | Image) else reference
    return ask(backend, [read(image) for image in several], read(query))


def predict(
    data: StrPath,
    backend: Backend,
    out: StrPath,
    *,
    template: str | None = None,
    samples: int = 1,
    limit: int | None = None,
    progress: ProgressCallback | None = None,
) -> PredictSummary:
    """Write a response to every pair that has none yet.

    Args:
        data: Pair parquet, or a folder of its shards.
        backend: A loaded model.
        out: JSON lines file; predictions of the same run in it are kept.
        template: Jinja source of the format prompt. Default: the one of training.
        samples: Responses per pair; several need a temperature above 0.
        limit: Only the first pairs of the file.
        progress: Called with "responses", how many there are, and how many are wanted.

    Raises:
        DataError: The data or the predictions in ``out`` cannot be read.
        UsageError: ``out`` holds predictions of another run.
        RunError: Another process writes to ``out``, or the model fails.
    """
    from lad_reasoner.inference.predict import predict

    _require_backend(backend)
    with listen(progress):
        return predict(Path(data), backend, Path(out), template=template, samples=samples, limit=limit)


def score(
    predictions: StrPath,
    data: StrPath | None = None,
    *,
    protocol: Protocol = "paper",
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> RunScore:
    """Score a file of predictions.

    Args:
        predictions: JSON lines of `predict`.
        data: The pair parquet. Default: the one that the run card names.
        protocol: "paper" leaves structural anomalies out, "all" scores every pair.
        resamples: Bootstrap samples of every interval.
        seed: Seed of the bootstrap.

    Raises:
        DataError: A file cannot be read, the data is not what was predicted on, or no pair is left to score.
    """
    from lad_reasoner.evaluation.score import score_run

    return score_run(Path(predictions), _path(data), protocol, resamples=resamples, seed=seed)


def score_responses(
    responses: Iterable[tuple[Truth, str]],
    *,
    name: str = "responses",
    protocol: Protocol = "paper",
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> RunScore:
    """Score responses that another program collected, as `score` does.

    Args:
        responses: The ground truth of each pair (see `read_truths`), and the response to it; several responses to
            one pair are its samples.
        name: Name of the system in tables.
        protocol: "paper" leaves structural anomalies out, "all" scores every pair.
        resamples: Bootstrap samples of every interval.
        seed: Seed of the bootstrap.

    Raises:
        DataError: No pair is left to score.
    """
    from lad_reasoner.evaluation.outcomes import JudgedPair, ScoredReply, System
    from lad_reasoner.evaluation.protocols import select
    from lad_reasoner.evaluation.score import score_system

    def judge(truth: Truth, text: str) -> ScoredReply:
        said = read_response(text, truth.gold)
        return ScoredReply(said.answer, said.well_formed, reasoning=said.reasoning)

    replies: dict[Truth, list[ScoredReply]] = {}
    for truth, text in responses:
        replies.setdefault(truth, []).append(judge(truth, text))
    scored = select(list(replies), protocol)
    system = System(name, tuple(JudgedPair(truth, tuple(replies[truth])) for truth in scored))
    return score_system(system, protocol, resamples=resamples, seed=seed)


def compare(
    predictions: Sequence[StrPath],
    data: StrPath | None = None,
    *,
    protocol: Protocol = "paper",
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare every two files of predictions on the pairs that both answered.

    Args:
        predictions: At least two files of `predict`, made on one data file.
        data: The pair parquet. Default: the one that the run cards name.
        protocol: "paper" leaves structural anomalies out, "all" scores every pair.
        resamples: Bootstrap samples of every interval.
        seed: Seed of the bootstrap.

    Raises:
        UsageError: Fewer than two files, or one of them twice.
        DataError: A file cannot be read, or two files share no pair.
    """
    from lad_reasoner.evaluation.compare import compare_systems
    from lad_reasoner.evaluation.outcomes import run_names
    from lad_reasoner.evaluation.score import read_system

    files = _files(predictions)
    named = zip(files, run_names(files), strict=True)
    systems = [read_system(path, _path(data), protocol, name=name) for path, name in named]
    return tuple(compare_systems(systems, resamples=resamples, seed=seed))


def write_report(
    predictions: Sequence[StrPath],
    out: StrPath,
    *,
    data: StrPath | None = None,
    protocol: Protocol = "paper",
    masks: StrPath | None = None,
    training: Mapping[str, StrPath] | None = None,
    pair_id: str | None = None,
    sft: StrPath | None = None,
    before_after: tuple[str, str] | None = None,
    title: str = "Logical anomaly detection",
    limit: int | None = None,
    single_file: bool = False,
    picture_edge: int = 448,
    image_root: StrPath | None = None,
    resamples: int = _RESAMPLES,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Report:
    """Write a report that opens from disk: scores, curves, every pair with its reasoning, figures.

    Args:
        predictions: Files of `predict`, all made on one data file.
        out: Folder to write; an earlier report in it is replaced.
        data: The pair parquet. Default: the one that the run card names.
        protocol: "paper" leaves structural anomalies out, "all" scores every pair.
        masks: Root of the dataset, to show where anomalies are.
        training: Checkpoint folder of GRPO runs by label, for figure 5.
        pair_id: The pair of figures 3 and 7. Default: one on which the models disagree.
        sft: Folder of `lad build sft`, for figure 2.
        before_after: Names of the runs before and after SFT, for figure 3.
        title: Heading of the page.
        limit: Show only this many pairs, the first run's worst; scores use all.
        single_file: Put everything into one HTML file.
        picture_edge: Longest edge of a picture in pixels.
        image_root: Where relative image paths start. Default: the folder of the data.
        resamples: Bootstrap samples of every interval.
        seed: Seed of the bootstrap.
        progress: Called with "pictures", how many pairs have theirs, and how many pairs there are.

    Raises:
        UsageError: The folder holds something else, or an option is wrong.
        DataError: A file or image cannot be read, or there is nothing to score.
    """
    from lad_reasoner.evaluation.score import data_of
    from lad_reasoner.pairs.reader import parquet_files
    from lad_reasoner.report import page
    from lad_reasoner.report.content import read_content
    from lad_reasoner.report.figures import write_figures
    from lad_reasoner.support.files import locked, unchanged

    folder = Path(out)
    files = _files(predictions)
    options = page.ReportOptions(
        title=title, edge=picture_edge, image_root=_path(image_root), masks=_path(masks), single_file=single_file
    )
    runs = [(label, Path(run)) for label, run in (training or {}).items()]
    source = _path(data) or data_of(files[0])
    with listen(progress), locked(folder), unchanged(lambda: parquet_files(source)):
        content = read_content(
            files, source, protocol, limit=limit, masks=_path(masks), resamples=resamples, seed=seed
        )
        notes: list[str] = []

        def plot(pictures: page.ReportPictures) -> tuple[list[page.PlottedFigure], list[str]]:
            plotted, left_out = write_figures(
                content,
                pictures,
                folder / "figures",
                training=runs,
                pair_id=pair_id,
                sft=_path(sft),
                before_after=before_after,
            )
            notes.extend(left_out)
            return plotted, left_out

        page.write_report(content, folder, options, plot)
    return Report(folder / "index.html", tuple(notes))


def check_config(config: StrPath, *overrides: str) -> tuple[Finding, ...]:
    """Check a GRPO run before it starts, as `easyr1 check` does.

    Args:
        config: EasyR1 config.
        overrides: EasyR1's ``key=value`` words.

    Returns:
        Errors, warnings, then notes.

    Raises:
        UsageError: A key is unknown or has a wrong type.
        DataError: The config cannot be read.
    """
    from lad_reasoner.training.easyr1.config import load_config, read_keys
    from lad_reasoner.training.installed import find_trainer
    from lad_reasoner.training.preflight import run_checks

    trainer = find_trainer()
    return tuple(run_checks(load_config([f"config={os.fspath(config)}", *overrides], read_keys(trainer)), trainer))


def _files(predictions: Sequence[StrPath]) -> list[Path]:
    """Return the files of predictions; a single path is no list of them.

    Raises:
        TypeError: It is a path.
        UsageError: The list is empty.
    """
    if isinstance(predictions, str | os.PathLike):
        raise TypeError(f"predictions must be a list of files; give [{os.fspath(predictions)!r}]")
    files = [Path(path) for path in predictions]
    if not files:
        raise UsageError("the list of files of predictions is empty")
    return files


def _require_backend(backend: object) -> None:
    if not hasattr(backend, "answer"):
        raise TypeError(f"the backend is of type {type(backend).__name__}; load one with load_backend")


def _path(path: StrPath | None) -> Path | None:
    return None if path is None else Path(path)
