"""`lad review`: a static page on which people judge annotations, and the rates of what they decided.

The page needs no server and no network: one HTML file with its own style and script, and a folder of pictures. What
models wrote is put on it as text, never as markup.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from lad_datasets.annotate.annotate import SUBJECTS
from lad_datasets.files.annotations import ANNOTATIONS, DECISIONS, Annotation, Decision, read_lines
from lad_reasoner.pairs.images import decode, mask_overlay, read_image_bytes
from lad_reasoner.pairs.masks import read_mask
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.files import write_bytes, write_text
from lad_reasoner.support.progress import track
from lad_reasoner.support.web import source_hash
from lad_reasoner.task.task import IMAGE_MARKER

__all__ = ["PAGE", "compare", "rate", "read_rates", "read_subjects", "write_page"]

#: Beside the annotations.
PAGE: Final = Path("review", "index.html")

#: Longer side of a picture on the page, in pixels.
_SIDE: Final = 960

_MASK_COLOUR: Final = (255, 45, 85)


def write_page(folder: Path, *, sample: int | None = None, seed: int = 0) -> tuple[Path, int]:
    """Write the page for a folder of annotations.

    Args:
        folder: Folder of ``annotations.jsonl``; decisions in it are shown as made.
        sample: Show this many pairs; all by default.
        seed: Random seed of the sample.

    Returns:
        The page, and how many pairs it shows.

    Raises:
        DataError: The annotations are absent or broken, or a picture is unreadable.
    """
    annotations = list(read_lines(folder / ANNOTATIONS, Annotation))
    if sample is not None and sample < len(annotations):
        chosen = set(random.Random(seed).sample(range(len(annotations)), sample))
        annotations = [annotation for index, annotation in enumerate(annotations) if index in chosen]
    subjects = read_subjects(folder / SUBJECTS)
    page = folder / PAGE
    pictures = _write_pictures(page.parent, folder, annotations, subjects)
    items = [_item(annotation, subjects.get(_subject_of(annotation), {}), pictures) for annotation in annotations]
    decisions = read_lines(folder / DECISIONS, Decision) if (folder / DECISIONS).is_file() else ()
    made = {decision.id: decision.model_dump() for decision in decisions}
    write_text(page, _render(items, made, title=folder.resolve().name))
    return page, len(items)


def rate(annotations: Sequence[Annotation], decisions: Mapping[str, Decision]) -> list[dict[str, Any]]:
    """Return what was decided, for each category and for all: counts and the share rejected of what was decided.

    A share is None where nothing was decided.
    """
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for annotation in annotations:
        decision = decisions.get(annotation.id)
        for name in (f"{annotation.dataset}/{annotation.category}", "all"):
            counts[name][decision.decision if decision else "undecided"] += 1
    rows = []
    for name in sorted(counts, key=lambda name: (name == "all", name)):
        count = counts[name]
        decided = count["accept"] + count["edit"] + count["reject"]
        shares = {"agreement": count["accept"] / decided, "rejection": count["reject"] / decided} if decided else {}
        kinds = {kind: count[kind] for kind in ("accept", "edit", "reject", "undecided")}
        rows.append({"category": name, **kinds, "agreement": None, "rejection": None, **shares})
    return rows


def compare(first: Mapping[str, Decision], second: Mapping[str, Decision]) -> dict[str, Any]:
    """Return how far two reviewers agree on what both decided: the plain share and Cohen's kappa.

    Kappa is None where it is undefined: nothing in common, or only one decision ever made.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        return {"common": 0, "agreement": None, "kappa": None}
    pairs = [(first[name].decision, second[name].decision) for name in common]
    agreed = sum(a == b for a, b in pairs) / len(pairs)
    kappa = None
    if len({decision for pair in pairs for decision in pair}) > 1:
        from sklearn.metrics import cohen_kappa_score

        kappa = float(cohen_kappa_score(*zip(*pairs, strict=True)))
    return {"common": len(pairs), "agreement": agreed, "kappa": kappa}


def read_rates(folder: Path, reviews: Sequence[Path]) -> dict[str, Any]:
    """Return the rates of each reviewer's decisions, and how far each two reviewers agree.

    Returns:
        ``reviewers``: `rate` by file; ``agreement``: `compare` for each two files; ``unknown``: by file, the ids of
        decisions about pairs that the annotations do not have.

    Raises:
        DataError: A file is absent or broken.
    """
    annotations = list(read_lines(folder / ANNOTATIONS, Annotation))
    known = {annotation.id for annotation in annotations}
    read = {str(file): {d.id: d for d in read_lines(file, Decision)} for file in reviews}
    return {
        "reviewers": {file: rate(annotations, made) for file, made in read.items()},
        "agreement": [{"reviewers": [a, b], **compare(read[a], read[b])} for a, b in combinations(read, 2)],
        "unknown": {file: unknown for file, made in read.items() if (unknown := sorted(made.keys() - known))},
    }


def read_subjects(path: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of each image, by its id; nothing for annotations that were not written by us."""
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8") as lines:
            return {subject["id"]: subject for subject in map(json.loads, lines)}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"a line is broken ({error})", where=path, remedy="Run `lad annotate` again") from error


def _subject_of(annotation: Annotation) -> str:
    return annotation.id.rpartition("#")[0]


def _item(annotation: Annotation, subject: Mapping[str, Any], pictures: Mapping[str, str]) -> dict[str, Any]:
    """Return a pair as the page's script reads it; image markers are not for people."""
    question = annotation.question
    markers = question[: len(question) - len(question.lstrip().removeprefix(IMAGE_MARKER).lstrip())]
    markers = markers if IMAGE_MARKER in markers else ""
    statements = [f"{said['question']} {said['answer']}" for said in subject.get("statements", ())]
    priors = [text for text in (*statements, subject.get("caption"), subject.get("knowledge")) if text]
    mask = subject.get("mask")
    return {
        "id": annotation.id,
        "images": [pictures[name] for name in annotation.images],
        "mask": pictures[mask] if mask else None,
        "markers": markers,
        "question": question[len(markers) :],
        "answer": annotation.answer,
        "category": f"{annotation.dataset}/{annotation.category}",
        "defect": annotation.defect,
        "writer": annotation.writer,
        "priors": priors,
    }


def _write_pictures(
    page: Path, folder: Path, annotations: Sequence[Annotation], subjects: Mapping[str, Mapping[str, Any]]
) -> dict[str, str]:
    """Write each image and mask once, small; return their paths relative to the page, by the name in the data."""
    target = page / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    images = {name: folder / name for annotation in annotations for name in annotation.images}
    known = (subjects.get(_subject_of(annotation), {}) for annotation in annotations)
    masks = {subject["mask"]: Path(subject["image"]) for subject in known if subject.get("mask")}
    jobs = [*((name, path, None) for name, path in images.items()), *((n, Path(n), p) for n, p in masks.items())]
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        written = pool.map(lambda job: (job[0], _write_picture(target, job[1], photo=job[2])), jobs)
        return dict(track(written, total=len(jobs), description="pictures"))


def _write_picture(target: Path, path: Path, *, photo: Path | None) -> str:
    """Write an image, or the mask of a photo, small; a mask whose rotation is not known is blank."""
    try:
        stat = path.stat()
        name = hashlib.sha256(f"{path.resolve()}|{stat.st_size}|{stat.st_mtime_ns}|{_SIDE}".encode()).hexdigest()[:20]
        file = target / f"{name}.{'png' if photo else 'jpg'}"
        if not file.exists():
            written = BytesIO()
            if photo:
                import numpy as np

                mask = read_mask(path, photo)
                shown = np.zeros((1, 1), dtype=np.uint8) if mask is None else mask
                mask_overlay([shown], _SIDE, color=_MASK_COLOUR).save(written, "PNG", optimize=True)
            else:
                picture = decode(read_image_bytes(path), path)
                picture.thumbnail((_SIDE, _SIDE))
                picture.save(written, "JPEG", quality=88)
            write_bytes(file, written.getvalue(), durable=False)
    except OSError as error:
        raise DataError(f"the image cannot be read ({error})", where=path) from error
    return f"pictures/{file.name}"


def _render(items: Sequence[Mapping[str, Any]], made: Mapping[str, Any], *, title: str) -> str:
    page = files(__package__) / "page"
    style, script = ((page / name).read_text(encoding="utf-8") for name in ("review.css", "review.js"))
    digest = hashlib.sha256(json.dumps([item["id"] for item in items]).encode()).hexdigest()
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string((page / "review.html.jinja").read_text(encoding="utf-8")).render(
        title=title,
        data={"store": f"lad-review-{digest[:16]}", "items": items, "made": made},
        style=style,
        script=script,
        policy="default-src 'none'; img-src 'self' file:; "
        f"style-src {source_hash(style)}; script-src {source_hash(script)}",
    )
