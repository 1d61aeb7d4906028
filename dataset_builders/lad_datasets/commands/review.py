"""`lad review`: a page on which people judge annotations, and the rates of what they decided."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from lad_reasoner.support.console import echo, print_json
from lad_reasoner.support.visible import visible

__all__ = ["review"]


def review(
    folder: Annotated[Path, typer.Argument(help="The output folder of `lad annotate`.", show_default=False)],
    *,
    sample: Annotated[int | None, typer.Option(min=1, help="Show this many pairs, sampled at random.")] = None,
    seed: Annotated[int, typer.Option(help="Random seed of the sample.")] = 0,
    decisions: Annotated[
        list[Path] | None,
        typer.Option(help="Decisions of a reviewer: print the rates. Give it twice to compare two reviewers."),
    ] = None,
    rationales: Annotated[
        list[Path] | None,
        typer.Option(
            help="Predictions: write their reasoning to FOLDER for blind judging, without model, answer and truth."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The pair parquet. Default: what the run card names.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Write a page for accepting, rejecting and editing annotations, or print the rates of the decisions.

    Example: lad review qa --sample 300

    Example: lad review qa --decisions qa/decisions.jsonl

    Example: lad review blind --rationales base.jsonl --rationales grpo.jsonl --sample 100
    """
    from lad_datasets.annotate.review import read_rates, write_page

    if decisions:
        rates = read_rates(folder, decisions)
        for file, unknown in rates["unknown"].items():
            pairs = "1 decision is" if len(unknown) == 1 else f"{len(unknown)} decisions are"
            echo(f"warning: {file}: {pairs} about pairs that {folder} does not have: {unknown[0]}", err=True)
        if as_json:
            print_json(rates)
        else:
            _print_rates(rates)
        return
    if rationales:
        from lad_datasets.annotate.blind import write_blind

        write_blind(rationales, folder, data=data, sample=sample, seed=seed)
    page, shown = write_page(folder, sample=sample, seed=seed)
    if as_json:
        print_json({"page": str(page), "pairs": shown})
    else:
        echo(page)
    echo(_blind_steps(folder, page, shown) if rationales else _next_steps(folder, page, shown), err=True)


def _next_steps(folder: Path, page: Path, shown: int) -> str:
    saved, quoted, sft = folder / "decisions.jsonl", shlex.quote(str(folder)), shlex.quote(str(folder.parent / "sft"))
    return (
        f"Next: open {page} in a browser, judge its {shown} pairs and press Export decisions.\n"
        f"Move the exported file to {saved}, then\n"
        f"  lad review {quoted} --decisions {shlex.quote(str(saved))}   # prints the rates\n"
        f"  lad build sft --annotations {quoted} --out {sft}   # applies the decisions"
    )


def _blind_steps(folder: Path, page: Path, shown: int) -> str:
    quoted = shlex.quote(str(folder))
    return (
        f"Next: two people open {page}, judge its {shown} texts each and press Export decisions. Then\n"
        f"  lad review {quoted} --decisions A.jsonl --decisions B.jsonl --decisions {quoted}/extractor.jsonl\n"
        "prints how far they agree with each other and with the extractor (Cohen's kappa)."
    )


def _print_rates(rates: dict[str, Any]) -> None:
    for file, rows in rates["reviewers"].items():
        echo(f"{file}\taccepted\tedited\trejected\tundecided\tagreement\trejection rate")
        for row in rows:
            shares = [_percent(row["agreement"]), _percent(row["rejection"])]
            counts = [str(row[kind]) for kind in ("accept", "edit", "reject", "undecided")]
            echo("\t".join([visible(row["category"], one_line=True), *counts, *shares]))
    for row in rates["agreement"]:
        kappa = "n/a" if row["kappa"] is None else f"{row['kappa']:.2f}"
        both = " and ".join(row["reviewers"])
        echo(f"{both}\tagree on {_percent(row['agreement'])} of {row['common']}\tkappa {kappa}")


def _percent(share: float | None) -> str:
    from lad_reasoner.support.percent import percent

    return "n/a" if share is None else f"{percent(share)}%"
