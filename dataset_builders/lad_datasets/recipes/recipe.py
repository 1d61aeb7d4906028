"""Recipes: which categories and defects make a GRPO set, each with its reason.

A recipe is YAML; ``docs/recipes.md`` describes it, ``recipes/`` holds the shipped ones.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from yaml.reader import ReaderError

from lad_datasets.sources.samples import GOOD, Sample
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.yaml_keys import refuse_repeated_keys
from lad_reasoner.task.task import KINDS

__all__ = ["ALL", "Recipe", "RecipeEntry", "defect_names", "kind_of", "read_recipe", "shipped_recipes", "spell"]

#: Stands for every category or every defect.
ALL: Final = "all"


def _anomalous_kind(kind: str) -> str:
    kinds = [known for known in KINDS if known != GOOD]
    if kind not in kinds:
        raise ValueError(f"{kind!r} is none of {', '.join(kinds)}")
    return kind


def spell(defect: str) -> str:
    """Return a defect's name as it is compared.

    Example:
        >>> spell("Cable_Swap")
        'cable swap'
    """
    return defect.lower().replace("_", " ")


def defect_names(sample: Sample) -> set[str]:
    """Return the names of a sample's defects, as they are compared."""
    return {spell(name) for name in sample.defect.split("+")}


class RecipeEntry(BaseModel):
    """Which anomalous test images to take.

    Attributes:
        dataset: Source module; a synthetic tree counts as the layout it is rendered in.
        category: Its name, or "all".
        defects: Names as the dataset spells them (case and underscores do not matter), or "all". An image with
            several defects matches if one of them does.
        kind: One of ``task.KINDS`` but good; None for what ``kind_of`` gives.
        reason: Why these are in the set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: Literal["mvtec_ad", "visa", "folder"]
    category: str = Field(min_length=1)
    defects: Literal["all"] | tuple[str, ...]
    kind: Annotated[str, AfterValidator(_anomalous_kind)] | None = None
    reason: str = Field(min_length=1)

    def matches(self, dataset: str, sample: Sample) -> bool:
        """Return whether the entry takes an anomalous sample of a dataset in this layout."""
        if dataset != self.dataset or self.category not in {ALL, sample.category}:
            return False
        return self.defects == ALL or bool(defect_names(sample) & {spell(defect) for defect in self.defects})


class Recipe(BaseModel):
    """A GRPO set, described.

    Attributes:
        name: One word.
        description: What it is, and where it comes from.
        normals: Normal test images of each category an entry names: "all", as many as anomalous ones ("balanced": a
            seeded sample), or "none".
        balance: Then reduce the more frequent label of each category to the less frequent one.
        entries: The first that matches an image decides its kind.
        expected: Queries by ``<dataset>/<category>`` in the full trees, if known; missing ones are reported.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    description: str = Field(min_length=1)
    normals: Literal["all", "balanced", "none"]
    balance: bool = False
    entries: tuple[RecipeEntry, ...] = Field(min_length=1)
    expected: dict[str, int] = Field(default_factory=dict)

    def kind_of(self, dataset: str, sample: Sample) -> str | None:
        """Return the kind of an anomalous sample, or None if the recipe leaves it out."""
        entry = next((entry for entry in self.entries if entry.matches(dataset, sample)), None)
        return (entry.kind or kind_of(dataset, sample)) if entry else None

    def takes_category(self, dataset: str, category: str) -> bool:
        """Return whether an entry names a category."""
        return any(entry.dataset == dataset and entry.category in {ALL, category} for entry in self.entries)


def shipped_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    folder = files(__package__)
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


@cache
def _kinds() -> Recipe:
    return read_recipe(ALL)


def kind_of(dataset: str, sample: Sample) -> str:
    """Return the kind of a sample, normal or anomalous.

    The recipe ``all`` lists the kinds of all defects, so that every command names a defect's kind alike.

    Args:
        dataset: Layout, such as ``mvtec_ad``.
        sample: With its category and defect.

    Example:
        >>> kind_of("mvtec_ad", Sample("x.png", "capsule", "test", "faulty_imprint"))
        'functional'
    """
    if sample.defect == GOOD:
        return GOOD
    return _kinds().kind_of(dataset, sample) or "appearance"


def read_recipe(name: str) -> Recipe:
    """Read a shipped recipe by its name, or a user's own by its path.

    Raises:
        UsageError: There is no such recipe.
        DataError: It is not as described above; the message names file and line.
    """
    if name in shipped_recipes():
        return _parse(f"recipe {name}", (files(__package__) / f"{name}.yaml").read_text(encoding="utf-8"))
    path = Path(name)
    if not path.is_file():
        remedy = f"Use one of {', '.join(shipped_recipes())}, or a YAML file"
        raise UsageError(f"there is no recipe {name}", where="--recipe", remedy=remedy)
    try:
        return _parse(str(path), path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 text ({error})", where=path, remedy="Write a recipe in YAML") from error


def _parse(where: str, text: str) -> Recipe:
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        refuse_repeated_keys(node, where)
        value = loader.construct_document(node) if node else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"it is not YAML ({error.problem})", where=f"{where}:{line}") from error
    except RecursionError as error:
        raise DataError("the YAML is nested too deeply", where=where) from error
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise DataError(f"YAML forbids the character U+{int(error.character):04X}", where=f"{where}:{line}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # a tag such as !!timestamp on other text
        raise DataError("a value does not fit its YAML tag", where=where, remedy="Remove the tag") from error
    try:
        return Recipe.model_validate(value)
    except ValidationError as error:
        # An unknown key first: it is often why a known one is missing.
        fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        key = ".".join(str(part) for part in fault["loc"]) or "the file"
        keys = "The keys are " + ", ".join(RecipeEntry.model_fields if len(fault["loc"]) > 1 else Recipe.model_fields)
        raise DataError(f"{key}: {fault['msg']}", where=f"{where}:{_line(node, fault['loc'])}", remedy=keys) from None


def _line(node: yaml.Node | None, location: tuple[int | str, ...]) -> int:
    """Return the line, from 1, of the deepest part of a location that the YAML holds."""
    line = 1
    for part in location:
        found = _child(node, part)
        if found is None:
            break
        line, node = found
    return line


def _child(node: yaml.Node | None, part: int | str) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == part:
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part].start_mark.line + 1, node.value[part]
    return None
