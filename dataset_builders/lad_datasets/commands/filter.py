"""`lad filter`: keep the training pairs whose sampled answers are mixed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lad_reasoner.support.console import echo, print_json

__all__ = ["filter_command"]


def filter_command(
    predictions: Annotated[Path, typer.Argument(help="File of `lad predict --samples N` on the training file.")],
    *,
    out: Annotated[Path, typer.Option(help="Parquet to write.", show_default=False)],
    data: Annotated[
        Path | None, typer.Option(help="The training file. Default: the one that the run card names.")
    ] = None,
    min_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Smallest share of right answers. Default: one answer is right.")
    ] = None,
    max_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest share of right answers. Default: one is not right.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
) -> None:
    """Keep the training pairs that a model answers sometimes right and sometimes wrong.

    Example: lad filter samples.jsonl --data grpo.parquet --out grpo-mixed.parquet
    """
    from lad_datasets.builders.filter import filter_pairs

    manifest = filter_pairs(predictions, out, data=data, min_share=min_share, max_share=max_share, overwrite=overwrite)
    if as_json:
        print_json(manifest)
    else:
        _print(manifest, out)


def _print(manifest: dict[str, Any], out: Path) -> None:
    from lad_reasoner.support.percent import percent

    pairs, same = manifest["pairs"], manifest["all_right"] + manifest["none_right"]
    echo(
        f"{out}: {manifest['rows']} of {pairs} pairs; before, {percent(same / pairs)}% were unanimous "
        f"({manifest['all_right']} all right, {manifest['none_right']} none right of {manifest['samples']} samples)"
    )
    for name, heading in (("pass_at", "pass"), ("majority_at", "majority"), ("pass_at_kept", "pass, kept pairs")):
        shares = ", ".join(f"@{k} {percent(value)}" for k, value in manifest[name].items())
        echo(f"{heading}: {shares}")
