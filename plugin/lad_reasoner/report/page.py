"""From content to files: the page, its data, its pictures and its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from lad_reasoner import __version__
from lad_reasoner.evaluation.boxes import BOX_FIGURES
from lad_reasoner.evaluation.headline import read_headline, warn_of_replies
from lad_reasoner.evaluation.paper import TABLE_1, pooled_matrix
from lad_reasoner.evaluation.rationales import FIGURES
from lad_reasoner.report.charts import draw_charts
from lad_reasoner.report.content import Content, RunContent
from lad_reasoner.report.gallery import gallery_data, script_json
from lad_reasoner.report.pictures import FolderStore, MemoryStore, PairPictures, draw_pictures
from lad_reasoner.report.plotting import darken
from lad_reasoner.support.confusion import mcc
from lad_reasoner.support.errors import UsageError
from lad_reasoner.support.files import write_text
from lad_reasoner.support.percent import percent, points
from lad_reasoner.support.web import data_uri, source_hash
from lad_reasoner.task.task import ANOMALOUS, LABELS, LOCO_CATEGORIES, abbreviate

__all__ = ["SINGLE_FILE_PAIRS", "FigurePlotter", "PlottedFigure", "ReportOptions", "ReportPictures", "write_report"]

#: More pairs than this make a single file that browsers and mail servers refuse: about 20 MB.
SINGLE_FILE_PAIRS: Final = 300

_MARK: Final = '<meta name="generator" content="lad report'

#: Stands in a new folder until the report is written, so that a run after a killed one knows the folder.
_UNFINISHED: Final = f"""<!doctype html><meta charset="utf-8">{_MARK}"><title>Unfinished report</title>
<p>This report was not finished. Run the same command again.</p>
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """How a report is written.

    Attributes:
        edge: Longest edge of a picture in pixels.
        image_root: Where relative image paths start; the data's folder by default.
        masks: Root of the dataset with its ``ground_truth`` folders; none by default.
        single_file: Whether everything goes into index.html.
    """

    title: str = "Logical anomaly detection"
    edge: int = 448
    image_root: Path | None = None
    masks: Path | None = None
    single_file: bool = False


@dataclass(frozen=True, slots=True)
class ReportPictures:
    """The pictures of a report: their names by pair_id, and how to read one by its name."""

    by_pair: Mapping[str, PairPictures]
    read: Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class PlottedFigure:
    """A figure of the report: its name without suffix, what it shows, and its folder."""

    name: str
    caption: str
    folder: Path


#: Plots figures from the report's pictures, before the page that shows them is written. Returns them, and a line for
#: each that is left out.
FigurePlotter = Callable[[ReportPictures], tuple[Sequence[PlottedFigure], Sequence[str]]]


def write_report(
    content: Content, out: Path, options: ReportOptions, plot: FigurePlotter | None = None
) -> ReportPictures:
    """Write ``index.html`` and what it shows into a folder: an empty or absent one, or that of an earlier report.

    ``plot`` plots the figures into a folder of ``out``; the page shows them.

    Raises:
        UsageError: The folder holds something else, or the single file would be too large.
        DataError: An image cannot be read.
    """
    _require_own_folder(out)
    if options.single_file and len(content.truths) > SINGLE_FILE_PAIRS:
        remedy = f"Add --limit {SINGLE_FILE_PAIRS}, which shows the worst, or leave --single-file out"
        problem = f"{len(content.truths)} pairs are too many for a single file of at most {SINGLE_FILE_PAIRS}"
        raise UsageError(problem, where="--single-file", remedy=remedy)
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "index.html").exists():
        write_text(out / "index.html", _UNFINISHED)
    store = MemoryStore() if options.single_file else FolderStore(out / "images")
    drawn = draw_pictures(
        content.data,
        {truth.pair_id for truth in content.truths},
        store,
        edge=options.edge,
        image_root=options.image_root or (content.data if content.data.is_dir() else content.data.parent),
        masks=options.masks,
    )
    gallery = gallery_data(content, drawn)
    pictures = ReportPictures(drawn, store.read)
    plotted, left_out = plot(pictures) if plot else ((), ())
    figures = [_figure_values(figure, store) for figure in plotted]
    context = _context(content, options, drawn) | {"figures": figures, "left_out": left_out}
    if isinstance(store, MemoryStore):
        gallery["images"] = {
            name: data_uri(data, f"image/{name.rpartition('.')[2]}") for name, data in store.pictures.items()
        }
        write_text(out / "index.html", _render(context, inline=_data_script(gallery)))
        return pictures
    store.keep_only(drawn.values())
    write_text(out / "data.js", _data_script(gallery))
    for name in ("report.css", "report.js"):
        write_text(out / name, _asset(name))
    write_text(out / "index.html", _render(context, inline=None))
    return pictures


def _figure_values(figure: PlottedFigure, store: FolderStore | MemoryStore) -> dict[str, str]:
    """Return what the template shows of a figure: within a single file the picture itself, without links."""
    svg, png = (figure.folder / f"{figure.name}.{suffix}" for suffix in ("svg", "png"))
    dark = darken(svg.read_text(encoding="utf-8")).encode()
    if isinstance(store, MemoryStore):
        uris = {"source": data_uri(png.read_bytes(), "image/png"), "dark": data_uri(dark, "image/svg+xml")}
        return {"caption": figure.caption, **uris}
    name = f"{figure.name}-dark.svg"
    store.write(name, dark)
    out = store.folder.parent
    links = {"svg": svg.relative_to(out).as_posix(), "png": png.relative_to(out).as_posix()}
    shown = {"source": links["svg"], "dark": (store.folder / name).relative_to(out).as_posix()}
    return {"caption": figure.caption, **shown, **links}


def _require_own_folder(out: Path) -> None:
    index = out / "index.html"
    if index.is_file() and _MARK in index.read_text(encoding="utf-8", errors="replace")[:2000]:
        return
    if out.exists() and (not out.is_dir() or any(not path.name.startswith(".lad-") for path in out.iterdir())):
        problem = "the folder is not empty and does not contain a report"
        raise UsageError(problem, where=out, remedy="Name another --out")


def _context(content: Content, options: ReportOptions, drawn: Mapping[str, PairPictures]) -> dict[str, Any]:
    """Return what the template reads."""
    categories = list(dict.fromkeys(name for run in content.runs for name in run.score.categories))
    datasets = sorted({truth.dataset for truth in content.truths})
    paper = content.protocol == "paper" and datasets == ["mvtec_loco"] and set(categories) <= set(LOCO_CATEGORIES)
    return {
        "version": __version__,
        "title": options.title,
        "content": content,
        "headline": read_headline([run.score for run in content.runs], content.comparisons),
        "categories": categories,
        "datasets": datasets,
        "paper": TABLE_1 if paper else (),
        "paper_metrics": {row.model: _paper_metrics(row.model) for row in TABLE_1} if paper else {},
        "scores": [score for run in content.runs for score in (run.score, run.score.vote) if score],
        "constants": list(content.constants),
        "ties": sum(run.score.vote.pooled.ties for run in content.runs if run.score.vote),
        "warnings": [line for run in content.runs for line in warn_of_replies(run.score)],
        "matrices": [_matrices(run, categories) for run in content.runs],
        "charts": draw_charts(content.runs),
        "rationales": [run.rationale for run in content.runs if run.rationale],
        "rationale_figures": FIGURES,
        "boxes": [run.boxes for run in content.runs if run.boxes],
        "box_figures": BOX_FIGURES,
        "classes": [run.classes for run in content.runs if run.classes],
        "defects": _defect_rows(content.runs),
        "cards": _card_rows(content.runs),
        "prompts": _prompts(content.runs),
        "masks": sum(pictures.mask is not None for pictures in drawn.values()),
        "mask_root": options.masks,
        "kinds": sorted({truth.kind for truth in content.truths}),
        "defect_names": sorted({truth.defect for truth in content.truths}),
        "labels": LABELS,
    }


def _paper_metrics(model: str) -> tuple[float, float]:
    """Return Matthews' correlation and the share of yes of a row's recovered matrix."""
    matrix = pooled_matrix(model)
    return float(mcc(matrix.counts())), (matrix.tp + matrix.fp) / matrix.total


def _matrices(run: RunContent, categories: Sequence[str]) -> list[dict[str, Any]]:
    """Return the run's confusion matrices, pooled first: rows are the truth, columns yes, no and unparsed."""
    matrices = []
    for category in (None, *categories):
        answers = run.answers(category)
        rows = []
        for label in LABELS:
            total = max(sum(answers[label, said] for said in (*LABELS, None)), 1)
            cells = [
                {
                    "said": said or "unparsed",
                    "count": answers[label, said],
                    "right": said == label,
                    "level": round(4 * answers[label, said] / total),
                }
                for said in (*LABELS, None)
            ]
            rows.append({"label": label, "name": "anomalous" if label == ANOMALOUS else "normal", "cells": cells})
        matrices.append({"category": category, "rows": rows})
    return matrices


def _defect_rows(runs: Sequence[RunContent]) -> list[dict[str, Any]]:
    """Return a row per defect: category, name, pairs, and the share of right answers per run (None: no reply)."""
    shares = [{share.name: share for share in run.shown.defects} for run in runs]
    rows = []
    for name in sorted({name for found in shares for name in found}):
        category, _, defect = name.partition("/")
        own = [found.get(name) for found in shares]
        pairs = max(share.pairs for share in own if share)
        rows.append({"category": category, "defect": defect, "pairs": pairs, "shares": own})
    return rows


def _card_rows(runs: Sequence[RunContent]) -> list[tuple[str, list[str]]]:
    """Return the run cards as rows: what, and each run's value; unknown values are "not recorded"."""
    fields: list[tuple[str, Callable[[Mapping[str, Any]], object]]] = [
        ("model", lambda card: card.get("model")),
        ("model digest", lambda card: _short(card.get("model_digest"))),
        ("backend", lambda card: " ".join(str(card[key]) for key in ("backend", "dtype") if card.get(key))),
        ("hardware", lambda card: card.get("hardware")),
        ("sampling", _sampling),
        ("pixels", _pixels),
        ("samples a pair", lambda card: card.get("samples")),
        ("prompt hash", lambda card: _short(card["prompt_sha256"])),
        ("data", lambda card: card.get("data")),
        ("data hash", lambda card: _short(card["data_sha256"])),
        ("versions", lambda card: ", ".join(f"{name} {value}" for name, value in card.get("versions", {}).items())),
        ("started", lambda card: card.get("started")),
        ("predictions", lambda card: card.get("file")),
    ]
    return [(name, [str(read(run.card) or "not recorded") for run in runs]) for name, read in fields]


def _short(digest: str | None) -> str | None:
    return digest[:16] if digest else None


def _sampling(card: Mapping[str, Any]) -> str:
    sampling = card["sampling"]
    temperature = sampling["temperature"]
    drawn = "greedy" if temperature == 0 else f"temperature {temperature:g}, seed {sampling['seed']}"
    held = ", held to the template" if sampling["structured"] else ""
    return f"{drawn}, at most {sampling['max_new_tokens']} tokens{held}"


def _pixels(card: Mapping[str, Any]) -> str:
    low, high = card["sampling"]["min_pixels"], card["sampling"]["max_pixels"]
    return "as the server decides" if low is None and high is None else f"{low:,} to {high:,} an image"


def _prompts(runs: Sequence[RunContent]) -> list[str]:
    """Return the distinct prompt templates."""
    return list(dict.fromkeys(text for run in runs if isinstance(text := run.card.get("prompt_template"), str)))


def _render(context: Mapping[str, Any], *, inline: str | None) -> str:
    """Render the page; ``inline`` is the data script of a single file."""
    environment = Environment(
        loader=PackageLoader("lad_reasoner.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": percent,
        "points": lambda value: _typeset(points(value)),
        "abbreviate": abbreviate,
        "correlation": lambda value: "n/a" if value is None else _typeset(f"{value:.2f}"),
    }
    style = scripts = None
    if inline is not None:
        style, scripts = _asset("report.css"), [inline, _asset("report.js")]
    policy = _policy(style, scripts)
    return environment.get_template("index.html.jinja").render(context, style=style, scripts=scripts, policy=policy)


def _typeset(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")


def _policy(style: str | None, scripts: Sequence[str] | None) -> str:
    """Return the page's content security policy: nothing from the network, no script or style but its own."""
    own = "'self' file:"  # a page opened from disk has no origin of its own in some browsers
    styles = own if style is None else source_hash(style)
    allowed = own if scripts is None else " ".join(map(source_hash, scripts))
    return (
        f"default-src 'none'; img-src {own} data:; style-src {styles}; script-src {allowed}; "
        "base-uri 'none'; form-action 'none'"
    )


def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _data_script(gallery: Mapping[str, Any]) -> str:
    return f"globalThis.ladReport = {script_json(gallery)};\n"
