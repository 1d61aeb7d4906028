"""The task, in one place: Reasoning Logical Anomaly Detection (RLAD), arXiv 2504.12749, sections 1 and 3.

A model sees a normal reference image and a query image, decides whether the query is anomalous, and explains why. This
module holds everything that training and evaluation must share: question, answer template, labels, categories.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, Literal, get_args

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = [
    "ANOMALOUS",
    "IMAGE_MARKER",
    "KINDS",
    "LABELS",
    "LOCO_CATEGORIES",
    "MULTIPLE_CHOICE",
    "NORMAL",
    "PROMPTS",
    "QUESTION",
    "Label",
    "abbreviate",
    "name_prompt",
    "problem_text",
    "prompt_text",
    "read_prompt_template",
]

Label = Literal["yes", "no"]
LABELS: Final[tuple[Label, ...]] = get_args(Label)
ANOMALOUS: Final[Label] = "yes"
NORMAL: Final[Label] = "no"

#: The paper's words; "anomaly", deliberately not "logical anomaly".
QUESTION: Final = "Can you find any anomaly in the query image compared to the reference?"

#: EasyR1, verl and LLaMA-Factory replace it by an image.
IMAGE_MARKER: Final = "<image>"

#: MVTec LOCO AD's categories with the abbreviations of the paper's Table 1, in its column order.
LOCO_CATEGORIES: Final[dict[str, str]] = {
    "juice_bottle": "JB",
    "breakfast_box": "BB",
    "screw_bag": "SB",
    "splicing_connectors": "SC",
    "pushpins": "PP",
}

#: Dataset id of multiple-choice questions (`lad build mmad`), which are asked and scored differently.
MULTIPLE_CHOICE: Final = "mmad"

#: The shipped format prompts: the paper's, answers by class, boxes, and two for multiple-choice questions: in training
#: with reasoning, in evaluation without, as MMAD asks.
PROMPTS: Final = ("rlad", "classes", "boxes", "letters", "choice")

#: Kinds of queries. The first three are MVTec LOCO AD's, the next five the paper's for the GRPO set; "own" is an
#: anomaly of a user's own data.
KINDS: Final = ("good", "logical", "structural", "number", "color", "existence", "functional", "appearance", "own")

#: What a format prompt may use: text, the content, conditions, slices, and filters that do not make text longer.
_TEMPLATE_NODES: Final = re.compile(
    "Template|TemplateData|Output|Name|Const|Filter|If|CondExpr|Test|Compare|Operand|And|Or|Not|Getitem|Slice|List|Keyword"
)
_TEMPLATE_FILTERS: Final = re.compile("trim|upper|lower|capitalize|title|default|d|string|first|last|length")


def abbreviate(category: str) -> str:
    """Return the paper's abbreviation of a category, or the category itself.

    Example:
        >>> abbreviate("screw_bag"), abbreviate("my_product")
        ('SB', 'my_product')
    """
    return LOCO_CATEGORIES.get(category, category)


def problem_text(references: int = 1, question: str = QUESTION) -> str:
    """Return a question with its image markers: references first, the query last.

    Args:
        references: How many reference images come before the query, at least 1.
        question: The question; the paper's by default.

    Example:
        >>> print(problem_text())
        Reference: <image>
        Query: <image>
        Can you find any anomaly in the query image compared to the reference?
    """
    if references < 1:
        raise ValueError(f"references is {references}; a pair needs at least one")
    names = ["Reference"] if references == 1 else [f"Reference {i}" for i in range(1, references + 1)]
    lines = [f"{name}: {IMAGE_MARKER}" for name in [*names, "Query"]]
    return "\n".join([*lines, question])


@cache
def read_prompt_template(name: str = "rlad") -> str:
    """Return the jinja source of a shipped format prompt (EasyR1's ``data.format_prompt``)."""
    return (files(__package__) / "prompts" / f"{name}.jinja").read_text(encoding="utf-8")


def name_prompt(source: str) -> str | None:
    """Return the name of the shipped format prompt with this source; None for another one."""
    return next((name for name in PROMPTS if read_prompt_template(name).strip() == source.strip()), None)


def prompt_text(problem: str, template: str | None = None) -> str:
    """Render the user's turn as the trainers do: the problem inside the format prompt.

    Args:
        problem: Text with image markers, as in the column ``problem``.
        template: Jinja source with ``{{ content }}``; the shipped ``rlad`` prompt by default.
    """
    source = (read_prompt_template() if template is None else template).strip()
    return _compile_template(source).render(content=problem)


@cache
def _compile_template(source: str) -> Template:
    """Compile a format prompt once: compiling takes a millisecond, rendering a few microseconds.

    Loops, calls, arithmetic and filters that make text longer could hang or fill the memory, and are refused.
    """
    from jinja2 import TemplateAssertionError, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Plain text for a model, not HTML: escaping would change what it reads.
    environment = ImmutableSandboxedEnvironment(autoescape=False)
    for node in environment.parse(source).find_all(nodes.Node):
        if not _TEMPLATE_NODES.fullmatch(name := type(node).__name__):
            raise TemplateAssertionError(f"a format prompt cannot use `{name.lower()}`", lineno=node.lineno)
        if isinstance(node, nodes.Filter) and not _TEMPLATE_FILTERS.fullmatch(node.name):
            raise TemplateAssertionError(f"a format prompt cannot use the filter {node.name}", lineno=node.lineno)
    return environment.from_string(source)
