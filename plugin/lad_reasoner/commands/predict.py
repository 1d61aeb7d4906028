"""`lad predict`: ask a model about every pair of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lad_reasoner.commands.model_options import BackendOption, Device, Dtype, MaxPixels, MinPixels, Model, load_model
from lad_reasoner.support.console import echo
from lad_reasoner.support.errors import RunError

__all__ = ["predict_command"]


def predict_command(
    *,
    data: Annotated[Path, typer.Option(help="Pair parquet, or a folder of its shards.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="JSON lines file; a file of the same run is resumed.")],
    backend: BackendOption = "transformers",
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pairs asked and saved at once (transformers, vllm); requests in flight (openai). "
            "Default: 16; 4 for a model of over 1B parameters on a CPU.",
        ),
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Maximum tokens per response. Default: 512, or 2048 with --structured."),
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 is greedy. Default: 0, or 1 with several --samples.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Responses per pair; several need a temperature above 0.")] = 1,
    seed: Annotated[int, typer.Option(help="Seed of sampled responses.")] = 0,
    min_pixels: MinPixels = None,
    max_pixels: MaxPixels = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Ask only about this many pairs, the first ones.")] = None,
    format_prompt: Annotated[
        Path | None,
        typer.Option(help="Jinja file of the format prompt. Default: training's; for `lad build mmad`, its own."),
    ] = None,
    without_images: Annotated[
        Path | None,
        typer.Option(
            help="Earlier predictions: ask for each reply again with its own reasoning and grey images; "
            "`lad score --again` reads the result."
        ),
    ] = None,
    structured: Annotated[
        bool, typer.Option("--structured", help="Restrict decoding to the answer template.")
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    tensor_parallel: Annotated[
        int, typer.Option(min=1, help="GPUs of one copy of the model (vllm); the others hold further copies.")
    ] = 1,
    base_url: Annotated[
        str | None, typer.Option(help="Server of --backend openai. Default: OPENAI_BASE_URL; the key: OPENAI_API_KEY.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1.0, help="Maximum seconds per request to a server.")] = 300.0,
    scores: Annotated[bool, typer.Option(help="Ask a server for log-probabilities, for a continuous score.")] = True,
    image_root: Annotated[
        Path | None, typer.Option(help="Where relative image paths start. Default: the folder of --data.")
    ] = None,
) -> None:
    """Ask a model about every pair and keep its responses; run it again to resume.

    Example: lad predict --data loco.parquet --model Qwen/Qwen2.5-VL-3B-Instruct --max-pixels 401408 --out base.jsonl
    """
    if temperature is None:
        temperature = 1.0 if samples > 1 else 0.0

    from lad_reasoner.inference.backends.structured import default_tokens
    from lad_reasoner.inference.predict import default_template, predict, read_format_prompt, require_samples
    from lad_reasoner.inference.predictions import failures_path, refuse_special_file
    from lad_reasoner.inference.protocol import BackendOptions
    from lad_reasoner.pairs.reader import parquet_files, read_truths

    # Faults of options and files are reported before a model is loaded.
    require_samples(samples, temperature)
    refuse_special_file(out)
    template = None if format_prompt is None else read_format_prompt(format_prompt)
    template = template or default_template(read_truths(data), structured=structured)
    engine = load_model(
        backend,
        BackendOptions(
            model=model,
            temperature=temperature,
            max_new_tokens=max_new_tokens or default_tokens(structured=structured),
            seed=seed,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            structured=structured,
            batch_size=batch_size,
            device=device,
            dtype=dtype,
            tensor_parallel=tensor_parallel,
            base_url=base_url,
            timeout=timeout,
            scores=scores,
            image_root=image_root or parquet_files(data)[0].parent,
        ),
    )
    summary = predict(data, engine, out, template=template, samples=samples, limit=limit, reasoning=without_images)
    if summary.repaired:
        echo(summary.repaired, err=True)
    echo(f"{out}: {summary.written} responses written, {summary.resumed} were there", err=True)
    if summary.failed:
        problem = f"{summary.failed} of {summary.wanted} responses failed; the reasons are in {failures_path(out)}"
        raise RunError(problem, remedy="Run the same command again to ask for them again")
