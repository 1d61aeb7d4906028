"""Two writers with one output, and killed writers: never a corrupt file, never exit code 0 for the loser.

    python -m tests.bench.bench_locks --pairs 200 --kills 200
    python -m tests.bench.bench_locks --pairs 0 --kills 60 --verbs demo score report predict annotate-model

Each writer is a child process that was forked after the imports, so that a build takes tens of milliseconds and a
delay or a kill may hit every moment of it.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet  # noqa: F401 - before the forks
from PIL import Image
from rich.console import Console
from tests.annotate.conftest import Server, Trees
from tests.datasets.test_mmad import draw_mmad

from lad_datasets.annotate.annotate import annotate_with_model, annotate_with_templates
from lad_datasets.annotate.options import ModelOptions
from lad_datasets.annotate.subjects import find_subjects
from lad_datasets.builders.grpo import build_grpo
from lad_datasets.builders.loco import build_loco
from lad_datasets.builders.mmad import build_mmad
from lad_datasets.builders.options import Options
from lad_datasets.builders.sft import build_sft
from lad_datasets.files.images import Encoding
from lad_reasoner import api
from lad_reasoner.commands.lad import main
from lad_reasoner.inference.backends.load import load_backend
from lad_reasoner.inference.predict import predict
from lad_reasoner.inference.predictions import read_predictions
from lad_reasoner.inference.protocol import BackendOptions
from lad_reasoner.support.errors import LadError
from lad_reasoner.support.files import locked, write_text
from lad_reasoner.support.findings import Findings
from lad_reasoner.support.processes import die_with_parent
from lad_rehearsal.demo.progress import Progress
from lad_rehearsal.demo.stages import Stage, run_stages
from lad_rehearsal.synthetic.trees import Sizes, draw_trees


def draw_tree(root: Path) -> Path:
    """Draw 2 x 16 images in a user's layout, and annotations of them."""
    noise = np.random.default_rng(0)
    for category in ("gear", "nut"):
        for place, count in (("train/good", 4), ("test/good", 6), ("test/dent", 6)):
            for number in range(count):
                path = root / "own" / category / place / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise.integers(0, 256, (120, 160, 3), dtype=np.uint8)).save(path)
    rows = [
        {
            "id": str(number),
            "images": [str(path)],
            "question": "<image>\nIs it sound?",
            "answer": "It is.",
            "dataset": "own",
            "category": "gear",
        }
        for number, path in enumerate(sorted((root / "own").glob("*/test/*/*.png")))
    ]
    (root / "annotations.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


@dataclass(frozen=True, slots=True)
class Verb:
    """What writes an output.

    Attributes:
        name: Of the output.
        write: Writes it; takes the output and a seed, 1 or 2.
        replaces: Whether the verb replaces or continues an earlier output by design, so that two writers may both
            succeed, one after the other.
        contents: Returns what must be the same in every run.
    """

    name: str
    write: Callable[[Path, int], object]
    replaces: bool = False
    contents: Callable[[Path], dict[str, Any]] = lambda folder: contents(folder)  # noqa: PLW0108 - defined below


def writers(root: Path, names: Sequence[str]) -> Mapping[str, Verb]:
    """Return what writes an output, by verb; all verbs where none is named."""
    found = {**builders(root), "annotate-model": model_writer(root), "demo": demo(root)}
    if not names or {"report", "score", "predict"} & set(names):
        found |= evaluators(root)
    return {name: verb for name, verb in found.items() if not names or name in names}


def builders(root: Path) -> dict[str, Verb]:
    """Return the builders of training and evaluation files."""
    trees = {"folder": root / "own"}
    draw_trees(root / "synthetic", sizes=Sizes(train=2, test=4, loco_test=4, sft=4, pixels=28))
    loco, mmad = root / "synthetic" / "mvtec_loco", draw_mmad(root / "MMAD")
    Trees(root / "real")
    small = Encoding(max_pixels=9000)

    def annotate(out: Path, seed: int) -> None:
        own = {"mvtec_ad": root / "real" / "mvtec"} if seed == 1 else {"visa": root / "real" / "visa"}
        subjects = find_subjects(own, mmad_root=None, findings=Findings(quiet=True))
        annotate_with_templates(subjects, out, Findings(quiet=True))

    def build_own(out: Path, seed: int, **options: Any) -> None:
        build_grpo(trees, out, Options(seed=seed, **options), recipe="all")

    return {
        "folder": Verb("o.parquet", build_own),
        "shrunk": Verb("s.parquet", partial(build_own, encoding=small)),
        "shards": Verb("shards", partial(build_own, shard_mb=1)),
        "sft": Verb("sft", lambda out, seed: build_sft(root / "annotations.jsonl", out, val_fraction=0.3, seed=seed)),
        "annotate": Verb("qa", annotate),
        "loco": Verb(
            "l.parquet", lambda out, seed: build_loco(loco, out, Options(seed=seed), subset="all", limit=None)
        ),
        "mmad": Verb("m.parquet", lambda out, seed: build_mmad(mmad, out, Options(seed=seed), limit=None)),
    }


def evaluators(root: Path) -> dict[str, Verb]:
    """Return what uses a model: predictions of a tiny one, and the reports and scores of two files of predictions."""
    import torch  # here, because it takes seconds

    from lad_rehearsal.demo.tiny import build_model, build_processor, save_tiny

    data, model = root / "pairs.parquet", root / "tiny"
    build_grpo({"folder": root / "own"}, data, Options(), recipe="all")
    processor = build_processor(["ok extra missing <think> ok </think><answer> yes </answer> no"])
    save_tiny(model, model=build_model(processor.tokenizer, seed=3), processor=processor)

    def ask(out: Path, seed: int, limit: int = 8) -> None:
        torch.set_num_threads(1)
        options = BackendOptions(model=str(model), max_new_tokens=8, seed=seed, batch_size=2, temperature=1.0)
        predict(data, load_backend("transformers", options), out, limit=limit)

    def report(out: Path, seed: int) -> None:
        api.write_report([root / f"run-{seed}.jsonl"], out, data=data, protocol="all", resamples=20)

    def score(out: Path, seed: int) -> None:
        printed = io.StringIO()
        with redirect_stdout(printed), suppress(SystemExit):
            main(["score", str(root / f"run-{seed}.jsonl"), "--protocol", "all", "--json", "--resamples", "200"])
        write_text(out, printed.getvalue())

    def lines(folder: Path) -> dict[str, Any]:
        kept = {line.pair_id: (line.response, line.score) for line in read_predictions(folder / "p.jsonl")}
        return {"lines": kept, "files": sorted(path.name for path in folder.iterdir() if path.suffix != ".broken")}

    for seed in (1, 2):
        assert os.waitpid(start(ask, root / f"run-{seed}.jsonl", seed), 0)[1] == 0
    return {
        "report": Verb("report", report, replaces=True),
        "score": Verb("score.json", score, replaces=True),
        "predict": Verb("p.jsonl", ask, replaces=True, contents=lines),
    }


def model_writer(root: Path) -> Verb:
    """Return annotations by a model behind an endpoint that always replies as it should."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    receive, send = os.pipe()
    if os.fork() == 0:  # a server's threads must not be forked
        die_with_parent()
        server = Server()
        os.write(send, server.url.encode())
        signal.pause()
    url = os.read(receive, 200).decode()
    options = ModelOptions(
        base_url=url,
        model="m",
        key_variable="LAD_NO_KEY",
        max_pixels=9000,
        max_tokens=500,
        attempts=2,
        concurrency=4,
        per_minute=None,
        timeout=30.0,
        tries=3,
        backoff=0.1,
        structured="json_schema",
        temperature=None,
        prices=None,
        budget=None,
    )

    def annotate(out: Path, seed: int) -> None:
        trees = {"mvtec_ad": root / "real" / "mvtec"} if seed == 1 else {"visa": root / "real" / "visa"}
        subjects = find_subjects(trees, mmad_root=None, findings=Findings(quiet=True))
        annotate_with_model(subjects, out, options, Findings(quiet=True))

    def written(folder: Path) -> dict[str, Any]:
        found = contents(folder)
        summary = json.loads(found.pop("qa/annotate.json"))
        answered = [json.loads(line) for line in found.pop("qa/records.jsonl").splitlines()]
        replies = sorted({row["id"]: row["text"] for row in answered if row["event"] == "answered"}.items())
        return {**found, "counts": summary["counts"], "replies": replies}

    return Verb("qa", annotate, contents=written)


def demo(root: Path) -> Verb:
    """Return the demonstration's own runner of stages over three cheap ones; its output is a folder."""
    lad = (sys.executable, "-m", "lad_reasoner.commands.lad")

    def run_demo(out: Path, seed: int) -> None:
        text = f"from pathlib import Path; [(Path({str(out)!r}) / f'{{n}}').write_text('x' * n) for n in range(300)]"
        own, pairs = ("--folder", str(root / "own")), out / "grpo.parquet"
        build = (*lad, "build", "grpo", *own, "--out", str(pairs), "--seed", str(seed), "--overwrite")
        qa = ("--annotations", str(root / "annotations.jsonl"), "--out", str(out / "sft"), "--seed", str(seed))
        one = (Progress("stages", 1, lambda: 0), 1)
        copy = ("cp", str(pairs), str(out / "copy"))
        stages = [
            Stage("draw", "draw", [(sys.executable, "-c", text)], out / "299", *one),
            Stage("build", "build", [build, (*lad, "build", "sft", *qa, "--overwrite")], out / "sft", *one),
            Stage("copy", "copy", [copy], out / "copy", *one, starts_without=out / "copy"),
        ]
        out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            run_stages([[stage] for stage in stages], out, Console(file=io.StringIO()))

    def finished(folder: Path) -> dict[str, Any]:
        found = {name: data for name, data in contents(folder).items() if not name.endswith(".log")}
        for name in [name for name in found if name.startswith("d/stages/")]:
            found[name] = [word for word in json.loads(found[name])["commands"][0] if "/" not in word]
        return found

    return Verb("d", run_demo, replaces=True, contents=finished)


def start(write: Callable[[Path, int], object], out: Path, seed: int, delay: float = 0.0) -> int:
    """Run a writer in a child process; its exit code is that of the command line."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    try:
        time.sleep(delay)
        write(out, seed)
    except LadError as error:
        os._exit(error.exit_code)
    except BaseException:
        os._exit(99)
    os._exit(0)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, hidden ones included; absolute paths of outputs are not in them."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(pairs: int, kills: int, root: Path, names: Sequence[str] = (), seed: int = 0) -> Counter[str]:
    """Race and kill writers.

    Raises:
        AssertionError: A file is corrupt, a loser has exit code 0, or something is left behind.
    """
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    verbs = writers(draw_tree(root), names)
    expected, seconds = {}, {}
    for name, verb in verbs.items():
        for own in (1, 2):
            folder = root / f"expected-{name}-{own}" / "out"
            begun = time.monotonic()
            code = os.waitstatus_to_exitcode(os.waitpid(start(verb.write, folder / verb.name, own), 0)[1])
            assert code == 0, (name, code)
            seconds[name] = time.monotonic() - begun
            expected[name, own] = verb.contents(folder)
    raced = [name for name in verbs if name not in {"demo", "score"}]
    for number in range(pairs):
        name = raced[number % len(raced)]
        verb, folder = verbs[name], root / f"pair-{number}" / "out"
        out, delay = folder / verb.name, rng.uniform(0, seconds[name])
        children = [start(verb.write, out, 1), start(verb.write, out, 2, delay)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        counts[f"{name}: exit codes {sorted(codes)}"] += 1
        assert 99 not in codes, (name, codes)
        assert codes.count(0) == 1 or (verb.replaces and codes == [0, 0]), (name, codes)
        found = verb.contents(folder)
        assert found in [expected[name, own] for own in (1, 2) if codes[own - 1] == 0], (name, codes, list(found))
        shutil.rmtree(folder.parent)
    for number in range(kills):
        name = list(verbs)[number % len(verbs)]
        verb, folder = verbs[name], root / f"kill-{number}" / "out"
        killed, again = kill_once(verb, folder, rng.uniform(0, 1.2 * seconds[name]))
        counts[f"{name}: {'killed' if killed else 'ended before the kill'}"] += 1
        assert verb.contents(folder) == expected[name, 1], (name, killed, again, sorted(contents(folder)))
        assert again in {0, 2}, (name, killed, again)
        shutil.rmtree(folder.parent)
    return counts


def kill_once(verb: Verb, folder: Path, after: float) -> tuple[bool, int]:
    """Kill a writer, run it again, and return whether the kill hit it, and the second exit code."""
    child = start(verb.write, folder / verb.name, 1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    return killed, os.waitstatus_to_exitcode(os.waitpid(start(verb.write, folder / verb.name, 1), 0)[1])


def main_bench() -> None:
    """Print how often each outcome occurred."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="*", default=())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for outcome, count in sorted(
            run(options.pairs, options.kills, Path(folder), options.verbs, options.seed).items()
        ):
            print(f"{count:4d}  {outcome}")


if __name__ == "__main__":
    main_bench()
