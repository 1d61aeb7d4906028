"""The pair: reference images, query image and ground truth; and every column of the pair parquet.

One file serves EasyR1 (``problem``, ``images``, ``answer``), verl (``data_source``, ``prompt``, ``images``,
``reward_model``, ``extra_info``) and people (the rest). Images are ``[reference, ..., query]``, each ``{bytes, path}``
as in Hugging Face datasets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from lad_reasoner.task.boxes import Box
from lad_reasoner.task.gold import YES_NO, read_gold
from lad_reasoner.task.task import QUESTION, Label, problem_text, prompt_text, read_prompt_template

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["COLUMNS", "PROVENANCE_COLUMNS", "Choice", "Image", "Pair", "pair_schema"]

#: Read by people, evaluation and the leakage guard; each is a string.
PROVENANCE_COLUMNS: Final = (
    "pair_id",
    "dataset",
    "category",
    "label",
    "kind",
    "defect",
    "reference_path",
    "query_path",
    "reference_sha256",
    "query_sha256",
)

#: Every column, in file order.
COLUMNS: Final = (
    "problem",
    "images",
    "answer",
    "data_source",
    "prompt",
    "reward_model",
    "extra_info",
    *PROVENANCE_COLUMNS,
)


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a pair.

    Attributes:
        data: The encoded file (PNG, JPEG or WebP); None if only the path is stored.
        path: The path; relative to the dataset root when the bytes are stored, absolute otherwise.
        sha256: Hex digest of the ORIGINAL file, so that leakage is found after any resize.
    """

    data: bytes | None
    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A multiple-choice question about a pair, which replaces the task's question.

    Attributes:
        type: Its topic, such as "Defect Localization".
        options: Text by letter, in the order of the question.
        letter: The letter of the right option.
    """

    type: str
    question: str
    options: Mapping[str, str]
    letter: str

    @property
    def text(self) -> str:
        """The question with its options, one per line."""
        return "\n".join([self.question, *(f"{letter}. {text}" for letter, text in self.options.items())])


@dataclass(frozen=True, slots=True)
class Pair:
    """One reference/query pair, ready to write.

    Attributes:
        pair_id: Unique and stable: ``<dataset>/<query path>``, and ``#<k>`` where a query is used several times.
        dataset: Dataset id, such as ``mvtec_loco``.
        category: The product, such as ``screw_bag``.
        label: "yes" if the query is anomalous.
        kind: One of ``task.KINDS``.
        defect: The dataset's own defect name(s), ``+``-joined; ``good`` for a normal query.
        references: One image; k images for k-shot.
        choice: A multiple-choice question instead of the task's question.
        answers: The form of the answer: yes or no, or a class.
        boxes: Where the anomaly is, as `lad_reasoner.task.gold.Gold` has it; None if no box is asked for.
        size: Width and height of the query, where boxes are.
    """

    pair_id: str
    dataset: str
    category: str
    label: Label
    kind: str
    defect: str
    references: Sequence[Image]
    query: Image
    choice: Choice | None = None
    answers: str = YES_NO
    boxes: Sequence[Box] | None = None
    size: tuple[int, int] = (0, 0)

    @property
    def gold(self) -> str:
        """The column ``answer``; EasyR1 passes nothing else to its reward function."""
        gold: dict[str, Any] = {name: getattr(self, name) for name in ("label", "category", "kind", "defect")}
        if self.choice is not None:
            gold["choice"] = asdict(self.choice)
        if self.answers != YES_NO:
            gold["answers"] = self.answers
        if self.boxes is not None:
            gold |= {"boxes": self.boxes, "size": self.size}
        return json.dumps(gold, ensure_ascii=False)

    @property
    def prompt(self) -> str:
        """The name of the shipped format prompt that goes with the question."""
        return read_gold(self.gold).prompt

    def to_row(self) -> dict[str, Any]:
        """Return the pair as one row of the parquet, keyed by ``COLUMNS``."""
        problem = problem_text(len(self.references), QUESTION if self.choice is None else self.choice.text)
        return {
            "problem": problem,
            "images": [{"bytes": image.data, "path": image.path} for image in (*self.references, self.query)],
            "answer": self.gold,
            # verl reports validation metrics by data source: one per category.
            "data_source": f"{self.dataset}/{self.category}",
            "prompt": [{"role": "user", "content": prompt_text(problem, read_prompt_template(self.prompt))}],
            "reward_model": {"style": "rule", "ground_truth": self.gold},
            "extra_info": {"pair_id": self.pair_id, "category": self.category, "label": self.label, "kind": self.kind},
            "pair_id": self.pair_id,
            "dataset": self.dataset,
            "category": self.category,
            "label": self.label,
            "kind": self.kind,
            "defect": self.defect,
            "reference_path": "\n".join(image.path for image in self.references),
            "query_path": self.query.path,
            "reference_sha256": "\n".join(image.sha256 for image in self.references),
            "query_sha256": self.query.sha256,
        }


def pair_schema() -> pa.Schema:
    """Return the arrow schema of the pair parquet, columns in the order of ``COLUMNS``."""
    import pyarrow as pa

    text = pa.string()
    types = {
        "images": pa.list_(pa.struct([("bytes", pa.binary()), ("path", text)])),
        "prompt": pa.list_(pa.struct([("role", text), ("content", text)])),
        "reward_model": pa.struct([("style", text), ("ground_truth", text)]),
        "extra_info": pa.struct([("pair_id", text), ("category", text), ("label", text), ("kind", text)]),
    }
    return pa.schema([pa.field(name, types.get(name, text)) for name in COLUMNS])
