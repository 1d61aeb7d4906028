"""The paper's sizes on one GPU: asking, an SFT step and a GRPO update, each against the estimate of `easyr1 check`.

Run: python -m tests.bench.gpu [--json FILE] [--seconds 480] [--shape tiny --device cpu]

It needs torch, transformers and this package, no network and no weights: the model has the shape of Qwen2.5-VL-3B and
random weights. Random weights never end a response, so every response has its full length, and every sequence fills
its limit. Attention is PyTorch's (sdpa). Rollouts are not measured: they are the engine's. Figures are printed as they
come; a part that fails is named and the others still run. Without a GPU nothing runs.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np

from lad_reasoner.training.preflight.model_size import GIB, Memory

CONFIG: Final = Path(__file__).parents[2] / "examples" / "grpo" / "qwen2_5_vl_3b_loco.yaml"

#: The published config.json of Qwen2.5-VL-3B-Instruct, where it differs from the defaults of transformers.
TEXT: Final = {
    "vocab_size": 151_936,
    "hidden_size": 2_048,
    "intermediate_size": 11_008,
    "num_hidden_layers": 36,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128_000,
    "max_window_layers": 70,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
}
VISION: Final = {
    "depth": 32,
    "hidden_size": 1_280,
    "intermediate_size": 3_420,
    "num_heads": 16,
    "out_hidden_size": 2_048,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
    "tokens_per_second": 2,
}


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        picture: Width and height of a training image; 896 x 448 are 401,408 pixels, 512 tokens.
        photo: Width and height of an image that `lad predict` reads from a file.
        prompt: Tokens of a GRPO prompt, two images included.
        response: Tokens of a response.
        sft: Tokens of an SFT row, two images included.
        new_tokens: Tokens of each answer of `lad predict`.
        batches: Batch sizes of `lad predict`, with the number of batches of each.
        steps: Micro steps of the GRPO update that are measured; the others are scaled.
    """

    picture: tuple[int, int]
    photo: tuple[int, int]
    prompt: int
    response: int
    sft: int
    new_tokens: int
    batches: tuple[tuple[int, int], ...]
    steps: int


SIZES: Final = {
    "3b": Sizes((896, 448), (1600, 1280), 1280, 1024, 1536, 256, ((16, 4), (64, 2)), 24),
    "tiny": Sizes((112, 56), (160, 128), 160, 32, 192, 8, ((2, 2),), 2),
}
SFT_BATCH: Final = 16
MAX_PIXELS: Final = 401_408


@dataclass(frozen=True)
class Figure:
    """One line of the table; ``estimated`` is None where `easyr1 check` has no such estimate."""

    name: str
    measured: float | None
    unit: str
    estimated: float | None = None
    note: str = ""

    def __str__(self) -> str:
        def show(value: float | None, missing: str) -> str:
            return missing if value is None else f"{value:.2f}"

        ratio = self.measured / self.estimated if self.measured is not None and self.estimated else None
        columns = f"{show(self.measured, 'not measured'):>12} {show(self.estimated, '-'):>9} {show(ratio, '-'):>6}"
        return f"{self.name:<34} {columns}  {self.unit:<7} {self.note}".rstrip()


@dataclass
class Bench:
    """What the parts share, and what they found."""

    sizes: Sizes
    shape: str
    device: str
    folder: Path
    end: float
    figures: list[Figure] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def add(self, *figure: Any) -> None:
        """Print a figure and keep it."""
        self.figures.append(Figure(*figure))
        print(self.figures[-1], flush=True)

    def run(self, name: str, part: Callable[[Bench], None]) -> None:
        """Run a part; what it raises is kept, because the other parts are still wanted."""
        start = time.monotonic()
        if start > self.end:
            self.failed[name] = "no time was left"
            return
        try:
            part(self)
        except Exception as error:  # any fault, out of memory above all
            self.failed[name] = f"{type(error).__name__}: {error}"
            print(f"{name}: failed: {self.failed[name][:500]}", flush=True)
        _free(self.device)
        print(f"({name}: {time.monotonic() - start:.0f} s)", flush=True)

    def times(self, count: int, work: Callable[[], object]) -> int:
        """Work ``count`` times, fewer when the time is over, at least once; return how often."""
        done = 0
        while done < count and not (done and time.monotonic() > self.end):
            work()
            done += 1
        return done


@dataclass
class Measured:
    """Seconds, and the largest memory that PyTorch allocated and reserved, in GiB; None on a CPU."""

    seconds: float = 0.0
    peak: float | None = None
    reserved: float | None = None

    @property
    def note(self) -> str:
        """What PyTorch reserved, in words."""
        return "" if self.reserved is None else f"{self.reserved:.1f} GiB reserved"


@contextmanager
def measure(device: str) -> Iterator[Measured]:
    """Measure what is done inside."""
    import torch

    gpu, found = device.startswith("cuda"), Measured()
    if gpu:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    yield found
    if gpu:
        torch.cuda.synchronize()
        found.peak = torch.cuda.max_memory_allocated() / GIB
        found.reserved = torch.cuda.max_memory_reserved() / GIB
    found.seconds = time.perf_counter() - start


def _free(device: str) -> None:
    import torch

    gc.collect()
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


def read_config(folder: Path, shape: str) -> Any:
    """Return the model's config: the shape of Qwen2.5-VL-3B over the folder's special tokens, or the folder's own."""
    from transformers import Qwen2_5_VLConfig

    own = Qwen2_5_VLConfig.from_pretrained(folder)
    if shape == "tiny":
        return own
    ids = {name: getattr(own.get_text_config(), name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    tokens = {name: value for name, value in own.to_dict().items() if name.startswith(("image_", "video_", "vision_"))}
    tokens.pop("vision_config", None)
    return Qwen2_5_VLConfig(text_config={**TEXT, **ids}, vision_config=VISION, tie_word_embeddings=True, **tokens)


def build_network(folder: Path, shape: str, device: str, dtype: Any) -> Any:
    """Return a network with random weights."""
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    with torch.device(device):
        return AutoModelForImageTextToText.from_config(read_config(folder, shape), dtype=dtype)


def write_model(bench: Bench) -> None:
    """Write the model's folder, with the tokenizer and the processor of the package's own base."""
    import torch

    from lad_rehearsal.rehearse.tiny_model import make_model

    make_model("qwen2_5_vl", bench.folder)
    (bench.folder / "model.safetensors").unlink()
    build_network(bench.folder, bench.shape, bench.device, torch.bfloat16).save_pretrained(bench.folder)


def estimate(folder: Path, *words: str) -> Memory:
    """Return what `easyr1 check` estimates for the paper's config on one GPU."""
    from lad_reasoner.training.easyr1.config import load_config, read_keys
    from lad_reasoner.training.preflight.context import Known
    from lad_reasoner.training.preflight.model_size import training_memory

    given = [f"config={CONFIG}", f"worker.actor.model.model_path={folder}", "trainer.n_gpus_per_node=1", *words]
    memory = training_memory(Known(config=load_config(given), trainer=None, keys=read_keys(), gpu=True))
    assert memory is not None
    return memory


def draw_picture(width: int, height: int, seed: int) -> Any:
    """Return an image of large blocks, which a PNG holds in as few bytes as a photo's flat background."""
    from PIL import Image

    blocks = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


def make_row(bench: Bench, length: int) -> dict[str, Any]:
    """Return the paper's question about two images and a random response, ``length`` tokens together."""
    import torch
    from transformers import AutoProcessor

    from lad_reasoner.task.task import problem_text, prompt_text

    processor = AutoProcessor.from_pretrained(bench.folder)
    text = f"<|im_start|>user\n{prompt_text(problem_text())}<|im_end|>\n<|im_start|>assistant\n"
    text = text.replace("<image>", "<|vision_start|><|image_pad|><|vision_end|>")
    pictures = [draw_picture(*bench.sizes.picture, seed) for seed in range(2)]
    row = dict(processor(text=[text], images=pictures, return_tensors="pt"))
    more = length - row["input_ids"].shape[1]
    assert more > 0, f"the prompt has {-more} tokens more than {length}"
    fill = {"input_ids": 0, "attention_mask": 1, "mm_token_type_ids": 0}
    for name in fill.keys() & row.keys():
        row[name] = torch.cat([row[name], torch.full((1, more), fill[name])], dim=1)
    row["input_ids"][0, -more:] = torch.randint(100, (more,), generator=torch.Generator().manual_seed(0))
    return {name: value.to(bench.device) for name, value in row.items()}


def prepare_training(bench: Bench) -> tuple[Any, Any]:
    """Return a network with fp32 weights that recomputes its activations, and its optimizer."""
    import torch

    network = build_network(bench.folder, bench.shape, bench.device, torch.float32).train()
    network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    fused = bench.device.startswith("cuda")
    return network, torch.optim.AdamW(network.parameters(), lr=1e-6, fused=fused)


def autocast(device: str, *, cached: bool) -> Any:
    """Compute in bf16 over fp32 weights, on a GPU.

    The Trainer of transformers keeps the weights' copies for a forward pass (``cached``); with FSDP's mixed precision
    a weight is in bf16 only while it is used.
    """
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu", cache_enabled=cached)


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

    network, optimizer = prepare_training(bench)
    row = make_row(bench, bench.sizes.sft)

    def step(times: int) -> None:
        for _ in range(times):
            with autocast(bench.device, cached=True):
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


def grpo(bench: Bench) -> None:
    """One update and the log-probabilities before it, scaled from some micro steps to the paper's batch."""
    import torch

    from lad_reasoner.training.easyr1.config import load_config

    sizes, config = bench.sizes, load_config([f"config={CONFIG}"])
    sequences = config["data.rollout_batch_size"] * config["worker.rollout.n"]
    micro = config["worker.actor.micro_batch_size_per_device_for_update"]
    passes = sequences // config["worker.actor.micro_batch_size_per_device_for_experience"]
    network, optimizer = prepare_training(bench)
    row = make_row(bench, sizes.prompt + sizes.response)
    update = _stack(row, micro)

    def micro_step() -> None:
        with autocast(bench.device, cached=False):
            new = log_probabilities(network, update, sizes.response)
            ratio = (new - new.detach()).exp()
            loss = -torch.min(ratio, ratio.clamp(0.8, 1.2)).mean()
        loss.backward()

    def optimizer_step() -> None:
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    micro_step()
    optimizer_step()  # the moments exist from here on
    with measure(bench.device) as took:
        done = bench.times(sizes.steps, micro_step)
    with measure(bench.device) as last:
        optimizer_step()
    each, steps = took.seconds / done, sequences // micro
    words = (f"data.max_prompt_length={sizes.prompt}", f"data.max_response_length={sizes.response}")
    expected = sum(estimate(bench.folder, *words).update.values()) / GIB
    bench.add("GRPO micro step", each, "s", None, f"mean of {done}, {micro} x {sizes.prompt + sizes.response} tokens")
    bench.add("GRPO optimizer step", last.seconds, "s")
    bench.add("GRPO update", each * steps + last.seconds, "s", None, f"scaled: {done} of {steps} micro steps measured")
    bench.add("GRPO update, peak memory", took.peak, "GiB", expected, took.note)
    _log_probability_pass(bench, network, _stack(row, sequences // passes), passes)


def _log_probability_pass(bench: Bench, network: Any, rows: dict[str, Any], passes: int) -> None:
    import torch

    with torch.no_grad(), autocast(bench.device, cached=False):
        log_probabilities(network, rows, bench.sizes.response)
        with measure(bench.device) as took:
            once = partial(log_probabilities, network, rows, bench.sizes.response)
            done = bench.times(max(bench.sizes.steps // 4, 1), once)
    note = f"scaled: {done} of {passes} passes measured; the reference model takes as many again"
    bench.add("GRPO log-probabilities", took.seconds / done * passes, "s", None, note)
    bench.add("GRPO log-probabilities, peak", took.peak, "GiB", None, took.note)


def _stack(row: dict[str, Any], count: int) -> dict[str, Any]:
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
    name, expected = f"lad predict, batch {batch}", estimate(bench.folder).engine / GIB
    bench.add(name, done / took.seconds, "pairs/s", None, f"{done} pairs, {tokens / done:.0f} tokens each")
    bench.add(f"{name}, peak memory", took.peak, "GiB", expected, f"the estimate is weights alone; {took.note}")


def draw_questions(photo: tuple[int, int], count: int) -> list[Any]:
    """Return questions with one fixed reference, as one-shot evaluation has them.

    They are not scored: random weights give no answer, and each would cost a second prefill.
    """
    from lad_reasoner.inference.protocol import Question
    from lad_reasoner.pairs.schema import Image
    from lad_reasoner.task.task import problem_text, prompt_text

    def draw(seed: int) -> Image:
        buffer = io.BytesIO()
        draw_picture(*photo, seed).save(buffer, "JPEG", quality=95)
        return Image(data=buffer.getvalue(), path=f"{seed}.jpg", sha256=f"{seed}")

    reference, prompt = draw(0), prompt_text(problem_text())
    return [Question(f"pair-{seed}", prompt, (reference, draw(seed)), scored=False) for seed in range(1, count + 1)]


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
        end = time.monotonic() + given.seconds - 20  # a part ends some seconds after its last step
        bench = Bench(SIZES[given.shape], given.shape, given.device, Path(folder) / "model", end)
        bench.run("model", write_model)
        bench.run("SFT", sft)
        bench.run("GRPO", grpo)
        for batch, batches in bench.sizes.batches:
            bench.run(f"predict {batch}", partial(predict, batch=batch, batches=batches))
    if given.json:
        report = {**about, "figures": [asdict(figure) for figure in bench.figures], "failed": bench.failed}
        given.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(f"failed: {', '.join(bench.failed)}" if bench.failed else "all parts ran", flush=True)
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
