"""The prompt for annotating an image: arXiv 2504.12749's structured prompt, in our words.

The paper names the product, gives MMAD's information as semantic priors and asks the model to go beyond them, at the
level of appearance. Its own wording is not published.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from io import BytesIO
from typing import Any, Final

from jinja2 import Environment, StrictUndefined, Template

from lad_datasets.annotate.reply import Topic, reply_schema, topics_of
from lad_datasets.annotate.subjects import Subject
from lad_datasets.files.images import Encoding, load
from lad_datasets.recipes.recipe import spell
from lad_datasets.sources import visa
from lad_reasoner.support.web import data_uri

__all__ = ["JPEG_QUALITY", "build_messages", "defect_phrase", "product_phrase", "prompt_digest", "prompt_text"]

#: JPEG quality of images that are shrunk before they are sent.
JPEG_QUALITY: Final = 92

#: VisA's categories that differ from another by their number alone. A number in an own product's name is part of it.
_NUMBERED: Final = frozenset({"macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4"})

#: Categories whose images show several products.
_SEVERAL: Final = frozenset({"capsules"})

#: Names that state only that there is a defect.
_NAMELESS: Final = frozenset({"bad", "defective", visa.UNNAMED})

_TASKS: Final[dict[Topic, str]] = {
    "detection": 'whether there is a defect; the answer begins with "Yes" or "No"',
    "description": "what the product, or the defect if there is one, looks like",
    "localization": "where on the product the defect is",
    "analysis": "what is wrong compared with a sound product, and what may have caused it or follow from it",
}


def product_phrase(category: str) -> str:
    """Return a category in words, as a singular and without a number of VisA.

    Example:
        >>> product_phrase("metal_nut"), product_phrase("pcb1"), product_phrase("bolt_M8"), product_phrase("capsules")
        ('metal nut', 'pcb', 'bolt M8', 'group of capsules')
    """
    words = category[:-1] if category in _NUMBERED else category.replace("_", " ")
    return f"group of {words}" if category in _SEVERAL else words


def defect_phrase(subject: Subject) -> str:
    """Return the defect in words, its letters as they are; empty if there is none or its name is generic.

    Example: ``broken_large`` becomes "broken large", ``Bolzen_fehlt`` "Bolzen fehlt", ``bad`` "".
    """
    names = [name.replace("_", " ") for name in subject.defect.split("+") if spell(name) not in _NAMELESS]
    return ", ".join(names) if subject.is_anomalous else ""


def prompt_text(subject: Subject) -> str:
    """Return the text that goes with the image."""
    return _template().render(
        product=product_phrase(subject.category),
        anomalous=subject.is_anomalous,
        defect=defect_phrase(subject),
        statements=subject.statements,
        caption=subject.caption,
        knowledge=subject.knowledge,
        topics=[(topic, _TASKS[topic]) for topic in topics_of(subject)],
    )


def prompt_digest() -> str:
    """Return the digest of everything of the prompt that is the same for every image."""
    fixed = json.dumps([_source(), _TASKS, reply_schema()], sort_keys=True)
    return hashlib.sha256(fixed.encode()).hexdigest()


def build_messages(subject: Subject, *, max_pixels: int) -> list[dict[str, Any]]:
    """Return the request's messages: the image, shrunk if it is larger than ``max_pixels``, and the text.

    Raises:
        DataError: The image is unreadable.
    """
    from PIL import Image

    data = load(subject.image, Encoding(max_pixels, "jpeg", JPEG_QUALITY)).data
    with Image.open(BytesIO(data)) as image:
        url = data_uri(data, image.get_format_mimetype() or "image/png")
    content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt_text(subject)}]
    return [{"role": "user", "content": content}]


@cache
def _source() -> str:
    return (files(__package__) / "prompt.jinja").read_text(encoding="utf-8")


@cache
def _template() -> Template:
    # Plain text for a model, not HTML: escaping would change what it reads.
    return Environment(autoescape=False, undefined=StrictUndefined).from_string(_source())  # noqa: S701
