"""Options that several commands share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from lad_datasets.builders.options import Options

__all__ = ["CORES", "Defect", "LocoGuard", "Mvtec", "Normal", "Visa", "pair_options", "takes_pair_options"]

CORES: Final = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)

Mvtec = Annotated[Path | None, typer.Option(help="MVTec AD tree.")]
Visa = Annotated[Path | None, typer.Option(help="VisA tree, raw or converted.")]
Normal = Annotated[
    list[str] | None,
    typer.Option(
        "--normal", help="Folder name that means normal images, in addition to good, ok, normal and similar names."
    ),
]
Defect = Annotated[list[str] | None, typer.Option("--defect", help="Folder name that means a defect, if in doubt.")]

LocoGuard = Annotated[
    Path | None,
    typer.Option("--loco", help="MVTec LOCO AD tree: reject its test images by content and appearance too."),
]


def pair_options(
    *,
    reference: Annotated[
        Literal["random", "fixed", "nearest"],
        typer.Option(
            help="Normal training image to compare with: sampled with the seed, first by name, or most similar."
        ),
    ] = "random",
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    images: Annotated[
        Literal["embed", "path"], typer.Option(help="Store image files, or their absolute paths.")
    ] = "embed",
    max_pixels: Annotated[
        int | None,
        typer.Option(min=784, help="Shrink larger images to this area, at the size Qwen2.5-VL would choose."),
    ] = None,
    image_format: Annotated[
        Literal["png", "jpeg", "webp"],
        typer.Option("--format", help="Format of images that are shrunk or repaired."),
    ] = "png",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of JPEG and WebP.")] = 95,
    answers: Annotated[
        Literal["yes-no", "classes"],
        typer.Option(help="yes-no, as the paper; classes: normal, structural, or the violated rule."),
    ] = "yes-no",
    boxes: Annotated[
        Path | None, typer.Option(help="Root of the dataset with its masks: ask for a box around each anomaly.")
    ] = None,
    shard_mb: Annotated[
        int | None, typer.Option(min=1, help="Write a folder of files of about this many megabytes.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads; the output does not depend on it.")] = CORES,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Skip pairs with an unreadable image instead of failing.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier build.")] = False,
) -> Options:
    """Return the options of pairing that the command line gives."""
    from lad_datasets.builders.options import Options
    from lad_datasets.files.images import Encoding
    from lad_reasoner.support.errors import UsageError

    if boxes is not None and answers == "classes":
        raise UsageError("it cannot be combined with --answers classes", where="--boxes")
    if boxes is not None and not boxes.is_dir():
        raise UsageError(f"there is no folder {boxes}", where="--boxes", remedy="Give the dataset's root")
    return Options(
        reference=reference,
        seed=seed,
        embed=images == "embed",
        encoding=Encoding(max_pixels, image_format, quality),
        answers=answers,
        masks=boxes,
        shard_mb=shard_mb,
        workers=workers,
        skip_bad=skip_bad,
        overwrite=overwrite,
    )


def takes_pair_options(command: Callable[..., None], **defaults: Any) -> Callable[..., None]:
    """Give a command the parameters of ``pair_options`` in place of its own parameter ``options``.

    Args:
        command: Its parameters are keyword-only and annotated as typer wants them; ``options`` gets an ``Options``.
        defaults: Of shared parameters for which this command has another default.
    """
    shared = [p.replace(default=defaults.get(p.name, p.default)) for p in _parameters(pair_options)]
    names = {parameter.name for parameter in shared}
    own = _parameters(command, skip="options")

    def mounted(**given: Any) -> None:
        options = pair_options(**{name: given.pop(name) for name in names})
        command(options=options, **given)

    mounted.__name__, mounted.__doc__ = command.__name__, command.__doc__
    vars(mounted)["__signature__"] = inspect.Signature([*own, *shared])  # what inspect, and so typer, goes by
    return mounted


def _parameters(function: Callable[..., Any], *, skip: str = "") -> list[inspect.Parameter]:
    """Return a function's parameters, their annotations evaluated."""
    hints = get_type_hints(function, localns={"Options": object}, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    return [p.replace(annotation=hints[p.name]) for p in parameters if p.name != skip]
