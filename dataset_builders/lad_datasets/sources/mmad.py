"""MMAD: statements about the test images of four datasets, used as priors when SFT answers are written.

Licence: the dataset card says CC BY-NC-SA 4.0; the images are those of their datasets.
Reference: Jiang et al., "MMAD: A Comprehensive Benchmark for Multimodal Large Language Models in Industrial Anomaly
Detection", ICLR 2025; https://github.com/jam-cc/MMAD

    mmad.json               image key -> image, mask, templates and multiple-choice questions with their right option
    domain_knowledge.json   dataset -> class -> defect -> a text by experts
    <key>.txt               next to a normal image: a caption

Keys are ``DS-MVTec/<class>/image/<defect>/NNN.png``, ``VisA/<class>/test/{good,bad}/NNN.JPG``, ``MVTec-LOCO/...`` and
``GoodsAD/...``. Statements about MVTec LOCO AD are about its test images: they are never returned for training.
``read_questions`` gives all four datasets' questions, for evaluation alone. All paths come from a file that anyone may
have written, so each is refused unless it stays inside the folder.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lad_reasoner.pairs.schema import Choice
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.findings import Findings
from lad_reasoner.task.control_text import find_control_text

__all__ = [
    "DATASETS",
    "DETECTION",
    "Asked",
    "Entry",
    "ImageKey",
    "Mmad",
    "Statement",
    "read",
    "read_questions",
    "resolve_inside",
]

#: MMAD's name of a dataset: our id and MMAD's own name of it in ``domain_knowledge.json``.
DATASETS: Final = {"DS-MVTec": ("mvtec_ad", "MVTec"), "VisA": ("visa", "VisA")}

#: Test images of the evaluation set: refused.
REFUSED: Final = "MVTec-LOCO"

#: The type of the question whether there is a defect at all.
DETECTION: Final = "Anomaly Detection"

#: What an image is joined by: dataset id, class, defect folder, file stem.
ImageKey = tuple[str, str, str, str]

#: Those that MMAD reads answers by.
_LETTER: Final = re.compile(r"[A-E]")

_MASK_SPELLINGS: Final = (("rbg_mask", "rgb_mask"), ("rgb_mask", "rbg_mask"))


@dataclass(frozen=True, slots=True)
class Statement:
    """A question of MMAD, of its own type such as "Defect Localization", with the text of the right option."""

    type: str
    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What MMAD has of one image.

    Attributes:
        key: MMAD's key.
        statements: Its questions with their right options, in order.
        mask: Where the mask should lie, or None.
        caption: Where the caption should lie.
        templates: Normal images to compare with, those most alike first.
    """

    key: str
    statements: tuple[Statement, ...]
    mask: Path | None
    caption: Path
    templates: tuple[Path, ...]

    @property
    def says_anomalous(self) -> bool | None:
        """What the detection question's right option says; None if it is not asked."""
        answers = [statement.answer for statement in self.statements if statement.type == DETECTION]
        return None if not answers else answers[0].strip().lower().startswith("yes")

    def read_caption(self) -> str:
        """Return the caption, or an empty text.

        Raises:
            DataError: It is no UTF-8 text, or holds an image marker.
        """
        if not self.caption.is_file():
            return ""
        try:
            text = self.caption.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"it is not readable text ({error})", where=self.caption) from error
        return _without_marker(text, self.caption)


@dataclass(frozen=True, slots=True)
class Mmad:
    """The two files, read.

    Attributes:
        entries: By image.
        knowledge: dataset -> class -> defect -> text, dataset by MMAD's own name.
        skipped: Entries of MVTec LOCO AD, of other datasets and of broken ones, counted.
    """

    entries: dict[ImageKey, Entry] = field(default_factory=dict)
    knowledge: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    def knowledge_of(self, dataset: str, category: str, defect: str) -> str:
        """Return what experts say of a defect, or of the normal product; empty if nothing."""
        name = next((name for ours, name in DATASETS.values() if ours == dataset), dataset)
        return self.knowledge.get(name, {}).get(category, {}).get(defect, "").strip()


class _Question(BaseModel):
    model_config = ConfigDict(extra="ignore")

    question: str = Field(alias="Question", min_length=1)
    answer: str = Field(alias="Answer", min_length=1)
    options: dict[str, str] = Field(alias="Options")
    type: str = ""


class _Value(BaseModel):
    model_config = ConfigDict(extra="ignore")

    mask_path: str | None = None
    conversation: list[_Question] = Field(default_factory=list)
    similar_templates: list[str] = Field(default_factory=list)
    random_templates: list[str] = Field(default_factory=list)


def read(root: Path, findings: Findings) -> Mmad:
    """Read MMAD's statements about MVTec AD and VisA: ``mmad.json``, ``domain_knowledge.json`` or both.

    Raises:
        DataError: Neither file is there, or one is not JSON of this form.
    """
    found = Mmad(knowledge=_read_knowledge(root / "domain_knowledge.json"))
    if (root / "mmad.json").is_file():
        for key, value in _read_pairs(root / "mmad.json", findings):
            _take(found, root, key, value, findings)
    elif not found.knowledge:
        raise DataError("it has neither mmad.json nor domain_knowledge.json", where=root, remedy="Name MMAD's folder")
    for reason, count in sorted(found.skipped.items()):
        findings.add("MMAD", f"{root / 'mmad.json'}: {count} entries skipped: {reason}")
    return found


@dataclass(frozen=True, slots=True)
class Asked:
    """The questions about one image.

    Attributes:
        key: MMAD's key, which is the image's path.
        choices: In MMAD's order.
        similar: Paths of normal images, those most alike first.
        random: Paths of normal images, sampled by MMAD.
    """

    key: str
    choices: tuple[Choice, ...]
    similar: tuple[str, ...]
    random: tuple[str, ...]

    @property
    def category(self) -> str:
        """Dataset and class, such as ``MVTec-LOCO/screw_bag``."""
        return "/".join(PurePosixPath(self.key).parts[:2])

    @property
    def defect(self) -> str:
        """The folder of the image: ``good`` for a normal one."""
        return PurePosixPath(self.key).parts[3]


def read_questions(root: Path, findings: Findings) -> list[Asked]:
    """Read every image's multiple-choice questions, of all datasets: for evaluation alone.

    Raises:
        DataError: ``mmad.json`` is not there, is not JSON of this form, or holds no question.
    """
    if not (root / "mmad.json").is_file():
        raise DataError("it has no mmad.json", where=root, remedy="Name MMAD's folder")
    asked = []
    for key, value in _read_pairs(root / "mmad.json", findings):
        try:
            asked.append(_parse_asked(root, key, value))
        except (DataError, ValidationError) as error:
            _refuse(key, error, findings)
    if not any(image.choices for image in asked):
        raise DataError("it has no question", where=root / "mmad.json")
    return [image for image in asked if image.choices]


def _parse_asked(root: Path, key: str, value: Any) -> Asked:
    parsed = _Value.model_validate(value)
    similar = tuple(_inside_dataset(root, path) for path in parsed.similar_templates)
    drawn = tuple(_inside_dataset(root, path) for path in parsed.random_templates)
    key = _inside_dataset(root, key)
    _split_key(key)
    choices = tuple(_parse_choice(question, key) for question in parsed.conversation)
    return Asked(key, choices, similar, drawn)


def _parse_choice(question: _Question, key: str) -> Choice:
    letter = _right_letter(question, key)
    if any(_LETTER.fullmatch(name) is None for name in question.options):
        raise DataError(f"the options are {', '.join(question.options)}, not letters from A to E", where=key)
    options = {name: _without_marker(text, key).strip() for name, text in question.options.items()}
    return Choice(question.type, _without_marker(question.question, key).strip(), options, letter)


def _right_letter(question: _Question, key: str) -> str:
    letter = question.answer.strip().rstrip(".").upper()
    if letter not in question.options:
        raise DataError(f"the answer {question.answer!r} is none of {', '.join(question.options)}", where=key)
    return letter


def resolve_inside(root: Path, relative: str) -> Path:
    """Return the path of a file that a data file names, which must stay inside a folder.

    Raises:
        DataError: The path is absolute, climbs out, or follows a link out.
    """
    path = root / _refuse_outside(root, relative)
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{relative!r} is a link to outside this folder", where=root)
    return path


def _inside_dataset(root: Path, relative: str) -> str:
    """Return a path with forward slashes; it must stay in the folder of its dataset.

    MMAD's README lets that folder be a link to the dataset, which is the user's own. No link below it may lead out.
    """
    first, *rest = _refuse_outside(root, relative).parts
    resolve_inside(root / first, "/".join(rest) or ".")
    return "/".join((first, *rest))


def _refuse_outside(root: Path, relative: str) -> PurePosixPath:
    """Return a path that by its words stays inside a folder: it is not absolute and does not climb out."""
    pure = PurePosixPath(relative.replace("\\", "/"))
    absolute = pure.is_absolute() or (bool(pure.parts) and pure.parts[0].endswith(":"))
    if not pure.parts or absolute or ".." in pure.parts or "\0" in relative:
        raise DataError(f"{relative!r} is not a relative path that stays inside this folder", where=root)
    return pure


def _without_marker(text: str, where: object) -> str:
    """Return a text that may become part of training data: it has no image marker or other control text."""
    if problem := find_control_text(text):
        raise DataError(problem, where=where)
    return text


def _refuse(key: str, error: DataError | ValidationError, findings: Findings) -> None:
    reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    findings.add("refused", f"MMAD entry {key!r}: {reason}")


def _take(found: Mmad, root: Path, key: str, value: Any, findings: Findings) -> None:
    """Add one entry of ``mmad.json``, or count why not."""
    parts = PurePosixPath(key).parts
    if parts[:1] == (REFUSED,):
        found.skipped["test images of MVTec LOCO AD, which are for evaluation alone"] += 1
        return
    if parts[:1] and parts[0] not in DATASETS and ".." not in parts and not key.startswith("/"):
        found.skipped[f"images of {parts[0]}"] += 1
        return
    try:
        entry = _parse_entry(root, key, value)
        image = _image_key(key)
    except (DataError, ValidationError) as error:
        _refuse(key, error, findings)
        return
    if image in found.entries:
        findings.add("duplicate", f"MMAD entry {key!r}: the same image as {found.entries[image].key!r}; not used")
        return
    found.entries[image] = entry


def _parse_entry(root: Path, key: str, value: Any) -> Entry:
    image = resolve_inside(root, key)
    parsed = _Value.model_validate(value)
    statements = []
    for question in parsed.conversation:
        letter = _right_letter(question, key)
        asked, said = _without_marker(question.question, key), _without_marker(question.options[letter], key)
        statements.append(Statement(question.type, asked.strip(), said.strip()))
    product = "/".join(PurePosixPath(key).parts[:2])
    templates = [resolve_inside(root, path) for path in (*parsed.similar_templates, *parsed.random_templates)]
    mask = _find_mask(root, f"{product}/{parsed.mask_path}") if parsed.mask_path else None
    return Entry(key, tuple(statements), mask, image.with_suffix(".txt"), tuple(dict.fromkeys(templates)))


def _find_mask(root: Path, relative: str) -> Path:
    """Return the mask's path as it is spelled on disk: the folder is called rbg_mask or rgb_mask."""
    path = resolve_inside(root, relative)
    for wrong, right in _MASK_SPELLINGS:
        other = resolve_inside(root, relative.replace(wrong, right))
        if not path.is_file() and other.is_file():
            return other
    return path


def _image_key(key: str) -> ImageKey:
    dataset, category, _, defect, file = _split_key(key)
    return DATASETS[dataset][0], category, defect, PurePosixPath(file).stem


def _split_key(key: str) -> tuple[str, ...]:
    parts = PurePosixPath(key).parts
    if len(parts) != 5:
        raise DataError(f"the path has {len(parts)} parts, not <dataset>/<class>/<split>/<defect>/<file>", where=key)
    return parts


def _read_pairs(path: Path, findings: Findings) -> Iterator[tuple[str, Any]]:
    """Yield key and value of each entry; report a key that occurs twice, which JSON readers drop silently."""
    seen: set[str] = set()
    for raw, value in _read_json(path, object_pairs_hook=_Pairs):
        key = raw.replace("\\", "/")
        if key in seen:
            findings.add("duplicate", f"{path}: key {key!r} occurs twice; the first one is used")
        else:
            seen.add(key)
            yield key, _plain(value)


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with every one of its keys, doubles too."""


def _plain(value: Any) -> Any:
    """Return a JSON value with dicts for its objects."""
    if isinstance(value, _Pairs):
        return {key: _plain(item) for key, item in value}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _read_knowledge(path: Path) -> dict[str, dict[str, dict[str, str]]]:
    if not path.is_file():
        return {}
    value = _read_json(path)
    nested = isinstance(value, dict) and all(
        isinstance(classes, dict) and all(isinstance(defects, dict) for defects in classes.values())
        for classes in value.values()
    )
    if not nested:
        raise DataError("it does not have the form dataset -> class -> defect -> text", where=path)
    return {
        dataset: {name: {d: str(text) for d, text in defects.items()} for name, defects in classes.items()}
        for dataset, classes in value.items()
    }


def _read_json(path: Path, **options: Any) -> Any:
    try:
        value = json.loads(path.read_text(encoding="utf-8"), **options)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"it is not readable JSON ({error})", where=path) from error
    if not isinstance(value, dict | _Pairs):
        raise DataError(f"it holds a {type(value).__name__}, not a JSON object", where=path)
    return value
