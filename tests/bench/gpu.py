"""The paper's sizes on one GPU: asking, an SFT step and a GRPO update, each against the estimate of `easyr1 check`.

Run: python -m tests.bench.gpu [--json FILE] [--seconds 480] [--shape tiny --device cpu]

It needs torch, transformers and this package, no network and no weights: the model has the shape of Qwen2.5-VL-3B and
random weights. Random weights never end a response, so every response has its full length, and every sequence fills
its limit. Attention is PyTorch's (sdpa). Rollouts are not measured: they are the engine's. Figures are printed as they
come; a part that fails is named and the others still run. Without a GPU nothing runs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tests.bench.gpu_figures import SIZES, Bench, free, measure
from tests.bench.gpu_inputs import build_network, draw_questions, make_row, write_model

from lad_reasoner.training.preflight.model_size import GIB, Memory

CONFIG: Final = Path(__file__).parents[2] / "examples" / "grpo" / "qwen2_5_vl_3b_loco.yaml"

SFT_BATCH: Final = 16
MAX_PIXELS: Final = 401_408


def estimate(folder: Path, *words: str) -> Memory:
    """Return what `easyr1 check` estimates for the paper's config on one GPU."""
    from lad_reasoner.training.easyr1.config import load_config
    from lad_reasoner.training.preflight.context import Known
    from lad_reasoner.training.preflight.model_size import training_memory

    given = [f"config={CONFIG}", f"worker.actor.model.model_path={folder}", "trainer.n_gpus_per_node=1", *words]
    memory = training_memory(Known(config=load_config(given), trainer=None, gpu=True))
    assert memory is not None
    return memory


def prepare_network(bench: Bench) -> Any:
    """Return a network with fp32 weights that recomputes its activations."""
    import torch

    network = build_network(bench.folder, bench.shape, bench.device, torch.float32).train()
    network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return network


def prepare_optimizer(network: Any, device: str) -> Any:
    """Return the optimizer; fused, it needs no memory of its own beside the moments."""
    import torch

    return torch.optim.AdamW(network.parameters(), lr=1e-6, fused=device.startswith("cuda"))


def log_probabilities(network: Any, row: dict[str, Any], response: int) -> Any:
    """Return the log-probability of each token of the response, from logits of the whole sequence."""
    import torch

    logits = network(**row, use_cache=False).logits[:, :-1]
    labels = row["input_ids"][:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), reduction="none")
    return -losses.view_as(labels)[:, -response:]


def sft(bench: Bench) -> None:
    """One step: 16 micro batches of one row, as LLaMA-Factory trains in bf16 over fp32 weights."""
    import torch

    network, kind = prepare_network(bench), torch.device(bench.device).type
    optimizer = prepare_optimizer(network, bench.device)
    row = make_row(bench, bench.sizes.sft)

    def step(times: int) -> None:
        for _ in range(times):
            with torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu"):
                loss = network(**row, labels=row["input_ids"], use_cache=False).loss / SFT_BATCH
            loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step(2)  # the moments exist from here on
    with measure(bench.device) as took:
        step(SFT_BATCH)
    words = (f"data.max_prompt_length={bench.sizes.sft}", "data.max_response_length=0", "algorithm.disable_kl=true")
    expected = sum(estimate(bench.folder, *words).update.values()) / GIB
    bench.add("SFT step", took.seconds, "s", None, f"batch 16 = 1 x 16, {bench.sizes.sft} tokens")
    bench.add("SFT step, peak memory", took.peak, "GiB", expected, took.note)


@contextmanager
def sharded(network: Any, device: str, folder: Path) -> Iterator[Any]:
    """Give the network to FSDP with bf16 computation, as verl and EasyR1 do; on a CPU it stays as it is."""
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import FullyShardedDataParallel, MixedPrecision
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy
    from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling

    if not device.startswith("cuda"):
        yield network
        return
    layers = {modeling.Qwen2_5_VLDecoderLayer, modeling.Qwen2_5_VLVisionBlock}
    precision = MixedPrecision(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, buffer_dtype=torch.float32)
    dist.init_process_group("nccl", init_method=f"file://{folder / 'group'}", rank=0, world_size=1)
    try:
        yield FullyShardedDataParallel(
            network,
            auto_wrap_policy=partial(transformer_auto_wrap_policy, transformer_layer_cls=layers),
            mixed_precision=precision,
            device_id=torch.cuda.current_device(),
        )
    finally:
        dist.destroy_process_group()


def grpo(bench: Bench) -> None:
    """One update and the log-probabilities before it, scaled from some micro steps to the paper's batch."""
    network = prepare_network(bench)
    with sharded(network, bench.device, bench.folder.parent) as trained:
        _grpo(bench, trained)


def _grpo(bench: Bench, network: Any) -> None:
    import torch

    from lad_reasoner.training.easyr1.config import load_config

    sizes, config = bench.sizes, load_config([f"config={CONFIG}"])
    sequences = config["data.rollout_batch_size"] * config["worker.rollout.n"]
    micro = config["worker.actor.micro_batch_size_per_device_for_update"]
    optimizer, steps = prepare_optimizer(network, bench.device), sequences // micro

    def optimizer_step() -> None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    rows = stack(make_row(bench, sizes.prompt + sizes.response), micro)
    policy_step(network, rows, sizes.response)
    optimizer_step()  # the moments exist from here on
    with measure(bench.device) as took:
        done = bench.times(sizes.steps, partial(policy_step, network, rows, sizes.response))
    measure_activations(bench, network)
    with measure(bench.device) as last:
        optimizer_step()
    each = took.seconds / done
    expected = sum(estimate_grpo(bench, sizes.response, micro).update.values()) / GIB
    bench.add("GRPO micro step", each, "s", None, f"mean of {done}, {micro} x {sizes.prompt + sizes.response} tokens")
    bench.add("GRPO optimizer step", last.seconds, "s")
    bench.add("GRPO update", each * steps + last.seconds, "s", None, f"scaled: {done} of {steps} micro steps measured")
    bench.add("GRPO update, peak memory", took.peak, "GiB", expected, took.note)
    measure_log_probabilities(
        bench, network, sequences, config["worker.actor.micro_batch_size_per_device_for_experience"]
    )


def policy_step(network: Any, rows: dict[str, Any], response: int) -> None:
    """Add the gradients of a micro batch's clipped policy loss."""
    import torch

    new = log_probabilities(network, rows, response)
    ratio = (new - new.detach()).exp()
    (-torch.min(ratio, ratio.clamp(0.8, 1.2)).mean()).backward()


def estimate_grpo(bench: Bench, response: int, micro: int) -> Memory:
    """Return the estimate for responses and micro batches of a size."""
    return estimate(
        bench.folder,
        f"data.max_prompt_length={bench.sizes.prompt}",
        f"data.max_response_length={response}",
        f"worker.actor.micro_batch_size_per_device_for_update={micro}",
    )


def measure_activations(bench: Bench, network: Any) -> None:
    """Measure what a micro step needs beside weights, gradients and moments, for several sizes."""
    sizes = bench.sizes
    for response, micro in ((sizes.response, 1), (sizes.response, 2), (sizes.response // 8, 1)):
        rows = stack(make_row(bench, sizes.prompt + response), micro)
        free(bench.device)
        with measure(bench.device) as took:
            policy_step(network, rows, response)
        expected = estimate_grpo(bench, response, micro).update["activations"] / GIB
        bench.add(f"GRPO activations, {micro} x {sizes.prompt + response}", took.added, "GiB", expected)


def measure_log_probabilities(bench: Bench, network: Any, sequences: int, micro: int) -> None:
    """Measure the log-probabilities of the responses, which come before an update; no gradients."""
    import torch

    sizes, passes = bench.sizes, sequences // micro
    rows = stack(make_row(bench, sizes.prompt + sizes.response), micro)
    once = partial(log_probabilities, network, rows, sizes.response)
    with torch.no_grad():
        once()
        with measure(bench.device) as took:
            done = bench.times(max(sizes.steps // 4, 1), once)
    note = f"scaled: {done} of {passes} passes measured; the reference model takes as many again"
    bench.add("GRPO log-probabilities", took.seconds / done * passes, "s", None, note)
    bench.add("GRPO log-probabilities, peak", took.peak, "GiB", None, took.note)


def stack(row: dict[str, Any], count: int) -> dict[str, Any]:
    """Return a batch of ``count`` equal rows; the pixels of all images lie one after the other."""
    return {name: value.repeat(count, *[1] * (value.dim() - 1)) for name, value in row.items()}


def predict(bench: Bench, batch: int, batches: int) -> None:
    """Ask about pairs as `lad predict` does: decoding of files, prefill, greedy answers."""
    from lad_reasoner.inference.backends.load import load_backend
    from lad_reasoner.inference.protocol import BackendOptions

    options = BackendOptions(
        model=str(bench.folder),
        device=bench.device,
        batch_size=batch,
        max_new_tokens=bench.sizes.new_tokens,
        max_pixels=MAX_PIXELS,
    )
    backend = load_backend("transformers", options)
    questions = draw_questions(bench.sizes.photo, batch * (batches + 1))
    list(backend.answer(questions[:batch]))  # warm up
    rest, answers = iter(questions[batch:]), list[Any]()
    with measure(bench.device) as took:
        bench.times(batches, lambda: answers.extend(backend.answer(islice(rest, batch))))
    done, tokens = len(answers), sum(answer.response_tokens for answer in answers)
    name, weights = f"lad predict, batch {batch}", estimate(bench.folder).engine / GIB
    bench.add(name, done / took.seconds, "pairs/s", None, f"{done} pairs, {tokens / done:.0f} tokens each")
    bench.add(f"{name}, peak memory", took.peak, "GiB", None, f"{weights:.2f} GiB are weights; {took.note}")


def describe(device: str) -> dict[str, str]:
    """Return the card and the versions, without which a figure means little."""
    import torch
    import transformers

    card = torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"
    return {"device": card, "torch": torch.__version__, "transformers": transformers.__version__}


def main(words: list[str] | None = None) -> int:
    """Measure and print."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m tests.bench.gpu", description=__doc__)
    parser.add_argument("--shape", choices=SIZES, default="3b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(words)
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        print("not run: no GPU here")
        return 0
    about = describe(given.device)
    print(", ".join(about.values()), flush=True)
    print(f"{'':<34} {'measured':>12} {'estimated':>9} {'ratio':>6}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        end = time.monotonic() + given.seconds - 40  # a part ends some seconds after its last step
        bench = Bench(SIZES[given.shape], given.shape, given.device, Path(folder) / "model", end)
        bench.run("model", write_model)
        for batch, batches in bench.sizes.batches:
            bench.run(f"predict {batch}", partial(predict, batch=batch, batches=batches))
        bench.run("SFT", sft)
        bench.run("GRPO", grpo)  # the last: FSDP keeps its weights for as long as the process lives
    if given.json:
        report = {**about, "figures": [asdict(figure) for figure in bench.figures], "failed": bench.failed}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"failed: {', '.join(bench.failed)}" if bench.failed else "all parts ran", flush=True)
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
