"""`lad annotate`: write questions and answers about test images."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lad_datasets.commands.pair_options import Defect, Mvtec, Normal, Visa
from lad_reasoner.support.console import echo, print_json
from lad_reasoner.support.visible import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lad_datasets.annotate.costs import Prices
    from lad_datasets.annotate.options import ModelOptions
    from lad_datasets.annotate.subjects import Subject

__all__ = ["annotate"]

#: The paper's: Gemini-2.0-Pro-Exp, through Google's OpenAI-compatible address.
PAPER_URL = "https://generativelanguage.googleapis.com/v1beta/openai/"
PAPER_MODEL = "gemini-2.0-pro-exp"


def annotate(
    *,
    out: Annotated[
        Path, typer.Option(help="Folder for annotations.jsonl and what belongs to it.", show_default=False)
    ],
    mvtec: Mvtec = None,
    visa: Visa = None,
    folder: Annotated[
        Path | None, typer.Option(help="Your own images: <category>/{train/good,test/{good,<defect>}}.")
    ] = None,
    normal: Normal = None,
    defect: Defect = None,
    mmad: Annotated[Path | None, typer.Option(help="MMAD's folder: statements that serve as priors.")] = None,
    writer: Annotated[
        Literal["template", "model"] | None,
        typer.Option(
            help="template: from the annotations alone, offline; the default. "
            "model: by a vision-language model; the default with --model or --base-url."
        ),
    ] = None,
    base_url: Annotated[str | None, typer.Option(help=f"OpenAI-compatible endpoint [default: {PAPER_URL}]")] = None,
    model: Annotated[str | None, typer.Option(help=f"Model name at the endpoint [default: {PAPER_MODEL}]")] = None,
    key_variable: Annotated[
        str, typer.Option(help="Environment variable with the API key; a server on this machine needs none.")
    ] = "LAD_API_KEY",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of images, spread over products and defects.")
    ] = None,
    max_pixels: Annotated[
        int, typer.Option(min=3136, help="Larger images are shrunk before they are sent.")
    ] = 1003520,
    max_tokens: Annotated[int, typer.Option(min=16, help="Maximum tokens per reply.")] = 1500,
    attempts: Annotated[int, typer.Option(min=1, help="Maximum replies per image until one is valid.")] = 2,
    concurrency: Annotated[int, typer.Option(min=1, help="Maximum requests in flight.")] = 4,
    per_minute: Annotated[float | None, typer.Option(min=0.1, help="Maximum requests per minute.")] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds per request.")] = 120.0,
    tries: Annotated[
        int, typer.Option(min=1, help="Maximum tries per request while errors may be temporary (408, 409, 429, 5xx).")
    ] = 6,
    backoff: Annotated[
        float, typer.Option(min=0.0, help="Upper bound of the first wait, in seconds; it doubles.")
    ] = 2.0,
    structured: Annotated[
        Literal["json_schema", "json_object", "none"],
        typer.Option(help="How the endpoint is asked for valid JSON; every reply is checked in any case."),
    ] = "json_schema",
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="Sampling temperature. Default: the endpoint's own.")
    ] = None,
    price_in: Annotated[float | None, typer.Option(min=0.0, help="USD per million prompt tokens.")] = None,
    price_out: Annotated[float | None, typer.Option(min=0.0, help="USD per million reply tokens.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0.0, help="USD: stop before it is exceeded. Needs prices.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace annotations of other images or by another writer.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print images, tokens and cost; send nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Write questions and answers about test images, for SFT. If interrupted, run the same command again to continue.

    Example: lad annotate --mvtec mvtec_ad --visa visa --mmad MMAD --out qa --model gemini-2.5-pro
    """
    from lad_datasets.annotate.annotate import annotate_with_model, annotate_with_templates
    from lad_datasets.annotate.options import ModelOptions
    from lad_datasets.annotate.subjects import find_subjects
    from lad_datasets.sources.folder_names import FolderNames
    from lad_reasoner.support.findings import Findings

    findings = Findings()
    prices = _prices(price_in, price_out, budget)
    given = {"mvtec_ad": mvtec, "visa": visa, "folder": folder}
    trees = {layout: root for layout, root in given.items() if root is not None}
    names = FolderNames(normal or (), defect or ())
    subjects = find_subjects(trees, mmad_root=mmad, findings=findings, limit=limit, names=names)
    options = ModelOptions(
        base_url=base_url or PAPER_URL,
        model=model or PAPER_MODEL,
        key_variable=key_variable,
        max_pixels=max_pixels,
        max_tokens=max_tokens,
        attempts=attempts,
        concurrency=concurrency,
        per_minute=per_minute,
        timeout=timeout,
        tries=tries,
        structured=structured,
        temperature=temperature,
        backoff=backoff,
        prices=prices,
        budget=budget,
    )
    if dry_run:
        _print_estimate(subjects, options, as_json=as_json)
        return
    if (writer or ("model" if model or base_url else "template")) == "template":
        summary = annotate_with_templates(subjects, out, findings, overwrite=overwrite)
    else:
        summary = annotate_with_model(subjects, out, options, findings, overwrite=overwrite)
    _print_summary(summary, out, as_json=as_json)


def _prices(price_in: float | None, price_out: float | None, budget: float | None) -> Prices | None:
    from lad_datasets.annotate.costs import Prices
    from lad_reasoner.support.errors import UsageError

    if price_in is not None and price_out is not None:
        return Prices(price_in, price_out)
    if budget is not None or price_in is not None or price_out is not None:
        option = "--budget" if budget is not None else "--price-in"
        raise UsageError("a price is missing", where=option, remedy="Give both --price-in and --price-out")
    return None


def _print_estimate(subjects: Sequence[Subject], options: ModelOptions, *, as_json: bool) -> None:
    from dataclasses import asdict

    from lad_datasets.annotate.costs import estimate
    from lad_reasoner.support.progress import track

    counted = track(subjects, total=len(subjects), description="tokens")
    result = estimate(counted, prices=options.prices, max_tokens=options.max_tokens, max_pixels=options.max_pixels)
    if as_json:
        print_json(asdict(result))
        return
    echo(f"images\t{result.requests}")
    echo(f"prompt tokens (estimate)\t{result.prompt_tokens}")
    echo(f"reply tokens (estimate)\t{result.completion_tokens}")
    if result.cost is None or result.cost_bound is None:
        echo("cost: give --price-in and --price-out, in USD per million tokens", err=True)
        return
    echo(f"cost in USD (estimate)\t{result.cost:.2f}")
    echo(f"cost in USD (bound, one attempt per image)\t{result.cost_bound:.2f}")


def _print_summary(summary: dict[str, Any], out: Path, *, as_json: bool) -> None:
    from lad_datasets.files.annotations import ANNOTATIONS

    if as_json:
        print_json(summary)
        return
    for name, count in summary["counts"].items():
        echo(f"{name}\t{count}")
    if summary.get("cost_usd"):
        echo(f"cost in USD\t{summary['cost_usd']:.4f}")
    folder = shlex.quote(str(out))
    print(f"{visible(str(out / ANNOTATIONS))}: next, judge them with: lad review {visible(folder)}", file=sys.stderr)
    sft = shlex.quote(str(out.parent / "sft"))
    print(f"Then: lad build sft --annotations {visible(folder)} --out {visible(sft)}", file=sys.stderr)
