"""`lad check`: what kind of file it is, and who checks it. A new kind is one row of ``CHECKERS``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from lad_datasets.files.annotations import ANNOTATIONS
from lad_datasets.files.sft_folder import is_sft_data
from lad_reasoner.pairs.reader import shared_queries
from lad_reasoner.pairs.tokens import QWEN2_5_VL
from lad_reasoner.support.errors import UsageError, as_sentences
from lad_reasoner.support.files import unchanged

if TYPE_CHECKING:
    from lad_reasoner.support.findings import Finding

__all__ = ["CheckOptions", "CheckReport", "Table", "add_finding", "check_file", "check_files", "count_table"]


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What a user can tell a check.

    Attributes:
        max_pixels: Largest area of an image in the trainer, in pixels.
        min_pixels: Smallest area of an image in the trainer, in pixels.
        easyr1: Images are scaled by EasyR1 before the processor; else the processor alone has these bounds.
        tokenizer: ``tokenizer.json`` or a model folder; without, text is bounded from above.
        max_prompt_length: Longer prompts are errors; None for no bound.
        fix: Repair what is known to be safe; only model folders can be repaired.
        model_pixels: What the user gave as ``max_pixels``, if anything: a model's processor should have it.
        loco: An MVTec LOCO AD tree whose test images must not be in a training file.
        workers: Threads.
    """

    max_pixels: int = QWEN2_5_VL.max_pixels
    min_pixels: int = QWEN2_5_VL.min_pixels
    easyr1: bool = False
    tokenizer: Path | None = None
    max_prompt_length: int | None = None
    loco: Path | None = None
    workers: int = 1
    fix: bool = False
    model_pixels: int | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A table to print: its heading, those of its columns, and a value for each column of each row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]


@dataclass(slots=True)
class CheckReport:
    """What a check found.

    Attributes:
        path: The file.
        kind: What it was taken for.
        errors: Faults that must be corrected, one line each.
        warnings: What should be known, a line each.
        fixed: What was repaired, a line each.
        tables: To print.
        facts: Figures by name, for programs.
        queries: Digests of the query images of a pair parquet.
    """

    path: Path
    kind: str
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    queries: frozenset[str] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "queries"} | {"path": str(self.path)}


def add_finding(report: CheckReport, finding: Finding, *, more: str = "") -> None:
    """Add a finding of another check to a report, with more words behind it."""
    line = str(finding).removeprefix(f"{finding.severity}: ") + more
    (report.errors if finding.is_error else report.warnings).append(line)


def count_table(title: str, columns: tuple[str, ...], counts: Counter[tuple[str, ...]]) -> Table:
    """Return a table of counts, in the order of their keys."""
    return Table(title, columns, tuple((*key, count) for key, count in sorted(counts.items())))


_PARQUET_MAGIC: Final = b"PAR1"

CheckFunction = Callable[[Path, CheckOptions], CheckReport]


def _is_pair_parquet(path: Path) -> bool:
    """Recognise a pair parquet by its name, or by the first bytes of a file that was renamed."""
    if is_sft_data(path):
        return False
    if path.is_dir():
        return any(path.glob("*.parquet"))
    if path.suffix == ".parquet":
        return True
    with path.open("rb") as file:
        return file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC


def _is_config(path: Path, *keys: str) -> bool:
    """Recognise a trainer's config by a key at its top level."""
    return path.suffix in {".yaml", ".yml"} and any(
        line.startswith(keys) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
    )


def _is_annotations(path: Path) -> bool:
    return path.suffix == ".jsonl" or (path / ANNOTATIONS).is_file()


def _is_model(path: Path) -> bool:
    from lad_reasoner.models.compatibility import is_model_folder

    return is_model_folder(path)


MODEL: Final = "model folder"

#: Each kind of file: its name, whether a path is of it, and ``module:function`` of its check. The first that fits
#: checks the file.
CHECKERS: Final[tuple[tuple[str, Callable[[Path], bool], str], ...]] = (
    ("pair parquet", _is_pair_parquet, "pairs:check_pairs"),
    ("SFT folder", is_sft_data, "sft:check_sft_folder"),
    (MODEL, _is_model, "model:check_model"),
    ("annotations", _is_annotations, "annotations:check_annotations"),
    ("EasyR1 config", lambda path: _is_config(path, "worker:"), "config:check_config"),
    ("LLaMA-Factory config", lambda path: _is_config(path, "stage:", "finetuning_type:"), "config:check_sft_config"),
)


def check_files(paths: Sequence[Path], options: CheckOptions) -> list[CheckReport]:
    """Check files, and that no two pair parquets have a query in common, as training and validation data might."""
    reports = [check_file(path, options) for path in paths]
    for index, report in enumerate(reports):
        for earlier in reports[:index]:
            if problem := shared_queries(report.queries, earlier.queries, other=earlier.path):
                report.errors.append(as_sentences(problem, "Do not train on what you evaluate"))
    return reports


def check_file(path: Path, options: CheckOptions) -> CheckReport:
    """Check one file.

    Raises:
        UsageError: It is absent, or of no known kind, or of a kind that cannot be repaired.
        DataError: It cannot even be read as what it is.
    """
    if not path.exists():
        raise UsageError("no such file", where=path)
    for kind, fits, check in CHECKERS:
        if fits(path):
            if options.fix and kind != MODEL:
                problem = f"{path} is a {kind}, and only a {MODEL} can be repaired"
                raise UsageError(problem, where="--fix", remedy="Leave it out")
            module, function = check.split(":")
            checked = cast(CheckFunction, getattr(import_module(f"lad_datasets.checks.{module}"), function))
            with unchanged(lambda: sorted(path.glob("*.parquet")) if path.is_dir() else [path]):
                return checked(path, options)
    kinds = ", ".join(kind for kind, _, _ in CHECKERS)
    raise UsageError("the kind of this file is unknown", where=path, remedy=f"Name one of: {kinds}")
