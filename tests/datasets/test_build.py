"""Builds: right counts, reproducible bytes, nothing half-written, nothing dropped without a word."""

from __future__ import annotations

import errno
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from threading import Lock

import pytest
from PIL import Image

from lad_datasets.builders.build import iter_outcomes
from lad_datasets.commands.pair_options import pair_options
from lad_datasets.files.images import sha256
from lad_datasets.pairing.assemble import Outcome
from lad_reasoner.commands.lad import build_app
from lad_reasoner.pairs.reader import iter_pairs, read_image
from lad_reasoner.pairs.schema import COLUMNS
from lad_reasoner.task.gold import read_gold
from lad_reasoner.task.task import IMAGE_MARKER, prompt_text


def grpo(lad, root: Path, out: Path, *words: object):
    return lad("build", "grpo", "--folder", root, "--recipe", "all", "--out", out, *words)


def photograph(path: Path, seed: int, size: tuple[int, int] = (300, 200)) -> None:
    """A picture that takes a moment to shrink and looks like no other."""
    import numpy as np

    coarse = np.random.default_rng(seed).integers(0, 256, (12, 18, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def photographs(tmp_path) -> Path:
    """A folder of one category: 4 references, 8 queries."""
    root = tmp_path / "photographs"
    names = [f"train/good/{i}.png" for i in range(4)] + [
        f"test/{d}/{i}.png" for d in ("good", "dent") for i in range(4)
    ]
    for seed, name in enumerate(names):
        photograph(root / "gear" / name, seed)
    return root


def test_rows_are_what_trainers_and_people_need(lad, small_tree, tmp_path, rows_of) -> None:
    done = grpo(lad, small_tree, tmp_path / "x.parquet")
    assert done.exit_code == 0, done.stderr
    rows = rows_of(tmp_path / "x.parquet")
    assert len(rows) == 10
    for row in rows:
        assert list(row) == list(COLUMNS)
        reference, query = row["images"]
        assert query["bytes"] == (small_tree / row["query_path"]).read_bytes()
        assert reference["bytes"] == (small_tree / row["reference_path"]).read_bytes()
        assert (reference["path"], query["path"]) == (row["reference_path"], row["query_path"])
        assert row["reference_path"].startswith(f"{row['category']}/train/good/")
        assert row["problem"].count(IMAGE_MARKER) == 2
        assert row["prompt"] == [{"role": "user", "content": prompt_text(row["problem"])}]
        assert read_gold(row["answer"]).label == row["label"] == ("no" if row["defect"] == "good" else "yes")
        assert row["reward_model"] == {"style": "rule", "ground_truth": row["answer"]}
        assert row["pair_id"] == f"folder/{row['query_path']}"
        assert row["data_source"] == f"folder/{row['category']}"
    assert "folder\tgear\town\tyes\t3" in done.stdout.splitlines()  # no known kind


@pytest.mark.parametrize(("recipe", "pairs"), [("paper", 984), ("all", 1725 + 2162)])
def test_grpo_at_full_size(lad, mvtec_tree, visa_tree, tmp_path, *, rows_of, recipe, pairs) -> None:
    words = ("--mvtec", mvtec_tree, "--visa", visa_tree, "--recipe", recipe, "--out", tmp_path / "g.parquet")
    done = lad("build", "grpo", *words)
    assert done.exit_code == 0, done.stderr
    rows = rows_of(tmp_path / "g.parquet", ["pair_id", "category", "dataset", "reference_path", "query_path"])
    assert len({row["pair_id"] for row in rows}) == len(rows) == pairs
    assert all("/train/good/" in row["reference_path"] for row in rows if row["dataset"] == "mvtec_ad")
    assert not {row["reference_path"] for row in rows} & {row["query_path"] for row in rows}
    assert "missing" not in done.stderr
    # 694 of the 984 are anomalous. Of all images, 1,258 and 1,200 of 3,887 are: no constant answer earns 0.65.
    constant = "always answering 'yes' is right for 70.5% of the pairs and earns that share of the accuracy reward"
    assert (constant in done.stderr) == (recipe == "paper")
    assert (constant in lad("check", tmp_path / "g.parquet").stderr) == (recipe == "paper")


@pytest.mark.parametrize(("subset", "pairs"), [("logical", 1136), ("all", 1568)])
def test_loco_at_full_size(lad, loco_tree, tmp_path, *, rows_of, subset, pairs) -> None:
    done = lad("build", "loco", "--root", loco_tree, "--subset", subset, "--out", tmp_path / "l.parquet")
    assert done.exit_code == 0, done.stderr
    rows = rows_of(tmp_path / "l.parquet", ["category", "kind", "label", "query_path", "reference_path"])
    assert len(rows) == pairs
    assert Counter(row["kind"] for row in rows)["good"] == 575
    assert all(row["reference_path"].startswith(f"{row['category']}/train/good/") for row in rows)
    assert "of 1136 queries" not in done.stderr


def test_several_shots_and_votes(lad, loco_tree, tmp_path, rows_of) -> None:
    words = ("--shots", 2, "--votes", 3, "--limit", 20, "--out", tmp_path / "l.parquet")
    assert lad("build", "loco", "--root", loco_tree, *words).exit_code == 0
    rows = rows_of(tmp_path / "l.parquet")
    assert len(rows) == 60
    assert all(len(row["images"]) == row["problem"].count(IMAGE_MARKER) == 3 for row in rows)
    by_query: dict[str, list[str]] = {}
    for row in rows:
        by_query.setdefault(row["query_path"], []).extend(row["reference_path"].split("\n"))
    assert all(len(paths) == len(set(paths)) == 6 for paths in by_query.values())
    assert {row["pair_id"].rsplit("#")[1] for row in rows} == {"0", "1", "2"}


def test_same_bytes_whatever_the_workers(lad, photographs, tmp_path) -> None:
    files = []
    for workers in (1, 2, 4):
        out = tmp_path / f"{workers}.parquet"
        assert grpo(lad, photographs, out, "--workers", workers, "--max-pixels", 20_000).exit_code == 0
        files.append(out.read_bytes())
    assert len(set(files)) == 1


def test_the_seed_changes_references_and_nothing_else(lad, photographs, tmp_path, rows_of) -> None:
    rows = {}
    for seed in (0, 1):
        assert grpo(lad, photographs, tmp_path / f"{seed}.parquet", "--seed", seed).exit_code == 0
        rows[seed] = rows_of(tmp_path / f"{seed}.parquet", ["query_path", "reference_path"])
    assert [r["query_path"] for r in rows[0]] == [r["query_path"] for r in rows[1]]
    assert [r["reference_path"] for r in rows[0]] != [r["reference_path"] for r in rows[1]]


@pytest.mark.parametrize("reference", ["fixed", "nearest"])
def test_policies(lad, photographs, tmp_path, rows_of, reference) -> None:
    photograph(photographs / "gear/train/good/twin.png", 6, (280, 190))  # looks like test/good/2.png
    assert grpo(lad, photographs, tmp_path / "x.parquet", "--reference", reference).exit_code == 0
    chosen = {row["query_path"]: row["reference_path"] for row in rows_of(tmp_path / "x.parquet")}
    if reference == "fixed":
        assert set(chosen.values()) == {"gear/train/good/0.png"}
    else:
        by_name = {path.removeprefix("gear/test/"): name for path, name in chosen.items()}
        assert by_name["good/2.png"] == "gear/train/good/twin.png"


@pytest.mark.parametrize("reference", ["random", "fixed", "nearest"])
def test_an_identical_image_is_never_the_reference(lad, photographs, tmp_path, rows_of, reference) -> None:
    query = photographs / "gear/test/good/0.png"
    for path in (photographs / "gear/train/good").iterdir():
        if path.name != "3.png":
            path.write_bytes(query.read_bytes())
    done = grpo(lad, photographs, tmp_path / "x.parquet", "--reference", reference)
    row = next(r for r in rows_of(tmp_path / "x.parquet") if r["query_path"] == "gear/test/good/0.png")
    assert row["reference_path"] == "gear/train/good/3.png"
    assert row["reference_sha256"] != row["query_sha256"]
    if reference == "fixed":
        assert "skipped gear/train/good/0.png, the same file" in done.stderr


def test_paths_instead_of_bytes(lad, small_tree, tmp_path, rows_of) -> None:
    assert grpo(lad, small_tree, tmp_path / "x.parquet", "--images", "path").exit_code == 0
    for row in rows_of(tmp_path / "x.parquet"):
        assert row["images"] == [row["reference_path"], row["query_path"]]
        assert all(Path(image).is_absolute() and Path(image).is_file() for image in row["images"])
    for pair in iter_pairs(tmp_path / "x.parquet"):
        assert [sha256(read_image(image, tmp_path)) for image in pair.images] == [
            image.sha256 for image in pair.images
        ]


def test_paths_to_images_that_trainers_would_misread_are_refused(lad, photographs, tmp_path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(photographs / "gear/test/dent/1.png").save(photographs / "gear/test/dent/1.png", exif=exif)
    done = grpo(lad, photographs, tmp_path / "x.parquet", "--images", "path")
    assert done.exit_code == 1
    assert "dent/1.png: trainers would misread it (EXIF rotation)" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "x.parquet").exists()


def test_shrunk_images(lad, photographs, tmp_path, rows_of) -> None:
    words = ("--max-pixels", 20_000, "--format", "webp", "--quality", 80)
    assert grpo(lad, photographs, tmp_path / "x.parquet", *words).exit_code == 0
    for row in rows_of(tmp_path / "x.parquet"):
        for image in row["images"]:
            read = Image.open(BytesIO(image["bytes"]))
            assert read.format == "WEBP"
            assert read.size == (168, 112)


def test_a_broken_image_stops_the_build_and_is_named(lad, photographs, tmp_path) -> None:
    (photographs / "gear/test/dent/0.png").write_bytes(b"")
    broken = photographs / "gear/test/good/3.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    done = grpo(lad, photographs, tmp_path / "x.parquet")
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert f"unreadable: {photographs}/gear/test/dent/0.png: a file of zero bytes" in lines
    assert any(line.startswith(f"unreadable: {broken}: a truncated PNG") for line in lines)
    assert "(such images: 2)" in lines[-1]
    assert "--skip-bad" in lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


def test_broken_images_are_left_out_on_request_and_counted(lad, photographs, tmp_path, rows_of) -> None:
    for name in ("test/dent/0.png", "train/good/0.png"):
        (photographs / "gear" / name).write_bytes(b"")
    out = tmp_path / "x.parquet"
    done = grpo(lad, photographs, out, "--skip-bad", "--reference", "fixed")
    assert done.exit_code == 0
    rows = rows_of(out)
    assert len(rows) == 7
    assert {row["reference_path"] for row in rows} == {"gear/train/good/1.png"}
    manifest = json.loads((tmp_path / "x.manifest.json").read_text())
    assert manifest["findings"] == {"left out": 1, "unreadable": 2}
    assert "findings: left out 1, unreadable 2" in done.stderr


@pytest.mark.parametrize(
    ("spared", "told"),
    [
        ((), "one label: the whole file: every answer is 'yes'"),
        (("gear",), "one label: folder/häkel ☃: every answer is 'yes'"),
    ],
)
def test_what_is_left_with_one_label_is_told(lad, small_tree, tmp_path, *, spared, told) -> None:
    for path in small_tree.glob("*/test/good/*"):
        if path.parts[-4] not in spared:
            path.write_bytes(b"")
    done = grpo(lad, small_tree, tmp_path / "x.parquet", "--skip-bad")
    assert done.exit_code == 0
    assert f"{told}, so always answering 'yes' is right" in done.stderr
    assert "one label 1" in done.stderr.splitlines()[-1]
    assert f"warning: {told}" in lad("check", tmp_path / "x.parquet").stderr


def test_an_image_that_the_processor_would_refuse_is_named(lad, small_tree, tmp_path) -> None:
    stripe = small_tree / "gear/test/dent/0.png"
    Image.new("L", (10, 2001)).save(stripe)
    done = grpo(lad, small_tree, tmp_path / "x.parquet")
    assert done.exit_code == 1
    line = f"unreadable: {stripe}: one side of 10x2001 pixels is more than 200 times the other"
    assert line in done.stderr.splitlines()
    Image.new("L", (10, 2000)).save(stripe)
    assert grpo(lad, small_tree, tmp_path / "x.parquet").exit_code == 0


def test_duplicates_and_conflicts_are_told(lad, photographs, tmp_path) -> None:
    gear = photographs / "gear/test"
    (gear / "good/copy.png").write_bytes((gear / "good/0.png").read_bytes())
    (gear / "dent/liar.png").write_bytes((gear / "good/1.png").read_bytes())
    (photographs / "gear/train/good/bad.png").write_bytes((gear / "dent/0.png").read_bytes())
    done = grpo(lad, photographs, tmp_path / "x.parquet", "--reference", "fixed")
    assert done.exit_code == 0
    assert "duplicate: folder/gear/test/good/copy.png is the same image as folder/gear/test/good/0.png" in done.stderr
    assert "conflicting label: folder/gear/test/good/1.png is no, the same image" in done.stderr
    nearest = grpo(lad, photographs, tmp_path / "y.parquet", "--seed", 5, "--limit", 9)
    assert nearest.exit_code == 0


def test_no_normal_image_is_named_for_each_query(lad, small_tree, tmp_path, rows_of) -> None:
    for path in (small_tree / "gear/train/good").iterdir():
        path.unlink()
    done = grpo(lad, small_tree, tmp_path / "x.parquet")
    assert done.exit_code == 0
    assert done.stderr.count("left out: folder/gear/test/") == 5
    assert len(rows_of(tmp_path / "x.parquet")) == 5
    for path in (small_tree / "häkel ☃/train/good").iterdir():
        path.unlink()
    done = grpo(lad, small_tree, tmp_path / "y.parquet")
    assert done.exit_code == 1
    assert "but there are none" in done.stderr.splitlines()[-1]


def test_too_few_references_for_the_shots_and_votes_say_so(lad, tmp_path) -> None:
    for number, name in enumerate(("train/good", "test/good", "test/logical_anomalies")):
        for index in range(2):
            photograph(tmp_path / f"loco/screw_bag/{name}/{index}.png", 10 * number + index, (30, 20))
    words = ("build", "loco", "--root", tmp_path / "loco", "--out", tmp_path / "x.parquet")
    done = lad(*words, "--shots", 3, "--votes", 2)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].endswith(
        "screw_bag: a query needs at least 6 normal training images of its category (--shots 3 x --votes 2), "
        "but there are 2. Lower --shots or --votes."
    )
    assert lad(*words, "--shots", 2).exit_code == 0


def test_a_tree_without_test_images_is_not_told_to_take_all(lad, tmp_path) -> None:
    photograph(tmp_path / "own/gear/train/good/0.png", 0)
    done = grpo(lad, tmp_path / "own", tmp_path / "x.parquet")
    assert done.exit_code == 1
    assert "there is no query for recipe all" in done.stderr.splitlines()[-1]
    assert done.stderr.endswith(". Put test images into <category>/test.\n")
    done = lad("build", "grpo", "--folder", tmp_path / "own", "--recipe", "paper", "--out", tmp_path / "x.parquet")
    assert done.stderr.endswith("mvtec_ad/transistor, visa/capsules. Try --recipe all.\n")


def test_both_builders_take_the_same_options() -> None:
    commands = build_app().registered_groups
    (build,) = [group.typer_instance for group in commands if group.name == "build"]
    shared = set(inspect.signature(pair_options).parameters)
    for command in build.registered_commands:
        if command.callback.__name__ in {"grpo", "loco"}:
            taken = inspect.signature(command.callback).parameters
            assert shared <= set(taken)
            assert "options" not in taken


def test_limit_draws_by_the_seed(lad, small_tree, tmp_path, rows_of) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert grpo(lad, small_tree, tmp_path / f"{name}.parquet", "--limit", 5, "--seed", seed).exit_code == 0
    a, b, c = ([r["pair_id"] for r in rows_of(tmp_path / f"{name}.parquet")] for name in "abc")
    assert len(a) == 5
    assert a == b != c


def test_what_exists_is_kept_unless_told(lad, small_tree, tmp_path) -> None:
    out = tmp_path / "x.parquet"
    out.write_bytes(b"dear")
    done = grpo(lad, small_tree, out)
    assert done.exit_code == 2
    assert "pass --overwrite" in done.stderr
    assert out.read_bytes() == b"dear"
    assert grpo(lad, small_tree, out, "--overwrite").exit_code == 0
    assert out.read_bytes()[:4] == b"PAR1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x.json"), "the name must end in .parquet"),
        (("--out", "x.parquet", "--shard-mb", "1"), "Name a folder"),
        (("--out", ".", "--shard-mb", "1"), "this is no name of a new folder"),
        (("--out", "/", "--shard-mb", "1"), "this is no name of a new folder"),
        (("--out", "a/..", "--shard-mb", "1"), "this is no name of a new folder"),
        (("--out", "x.parquet", "--images", "path", "--max-pixels", "1000"), "Pass --images embed"),
        (("--out", "x.parquet", "--recipe", "none"), "Use one of all, logical, paper"),
    ],
)
def test_options_that_do_not_go_together(lad, small_tree, tmp_path, *, monkeypatch, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    done = lad("build", "grpo", "--folder", small_tree, *words)
    assert done.exit_code == 2
    assert message in done.stderr


def test_no_tree_at_all(lad, tmp_path) -> None:
    done = lad("build", "grpo", "--out", tmp_path / "x.parquet")
    assert done.exit_code == 2
    assert "give at least one of --mvtec, --visa and --folder" in done.stderr


def test_shards_are_the_same_pairs_in_a_folder_of_parquet_alone(lad, photographs, tmp_path, rows_of) -> None:
    assert grpo(lad, photographs, tmp_path / "one.parquet").exit_code == 0
    for path in photographs.rglob("*.png"):  # so that a megabyte is reached
        Image.open(path).resize((900, 600)).save(path, compress_level=0)
    assert grpo(lad, photographs, tmp_path / "many", "--shard-mb", 4).exit_code == 0
    assert grpo(lad, photographs, tmp_path / "whole.parquet").exit_code == 0
    shards = sorted((tmp_path / "many").iterdir())
    assert [path.name for path in shards] == [f"part-{i:05d}.parquet" for i in range(len(shards))]
    assert len(shards) > 2
    assert [row for shard in shards for row in rows_of(shard)] == rows_of(tmp_path / "whole.parquet")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("many")) == [
        "many",
        "many.card.md",
        "many.manifest.json",
    ]
    assert not list(tmp_path.glob(".*"))


def test_manifest_and_card(lad, visa_tree, mvtec_tree, tmp_path) -> None:
    words = ("--mvtec", mvtec_tree, "--visa", visa_tree, "--limit", 50, "--out", tmp_path / "x.parquet")
    done = lad("build", "grpo", *words, "--json")
    manifest = json.loads(done.stdout)
    assert manifest == json.loads((tmp_path / "x.manifest.json").read_text())
    assert sum(count["rows"] for count in manifest["counts"]) == manifest["rows"] == 50
    assert manifest["recipe"]["name"] == "paper"
    assert manifest["licences"] == {"mvtec_ad": "CC BY-NC-SA 4.0", "visa": "CC BY 4.0"}
    assert set(manifest["versions"]) == {"lad-reasoner", "pyarrow", "pillow", "imagehash", "numpy"}
    assert all(len(source["sha256"]) == 64 for source in manifest["sources"].values())
    card = (tmp_path / "x.card.md").read_text()
    assert card.startswith("---\nlicense: cc-by-nc-sa-4.0\n")
    assert "  - split: train\n    path: x.parquet\n" in card
    assert "**NonCommercial**: mvtec_ad may not" in card
    lad("build", "grpo", "--visa", visa_tree, "--limit", 9, "--out", tmp_path / "v.parquet")
    assert (tmp_path / "v.card.md").read_text().startswith("---\nlicense: cc-by-4.0\n")
    assert "NonCommercial" not in (tmp_path / "v.card.md").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("words", [("--out", "x.parquet"), ("--out", "shards", "--shard-mb", "1")])
def test_a_killed_build_leaves_nothing_half_written_and_resumes_to_the_same_bytes(tmp_path, words) -> None:
    root = tmp_path / "tree"
    for i in range(8):
        photograph(root / f"gear/train/good/{i}.png", i, (720, 480))
        photograph(root / f"gear/test/dent/{i}.png", 100 + i, (720, 480))
    command = [
        sys.executable,
        "-m",
        "lad_reasoner.commands.lad",
        "build",
        "grpo",
        "--folder",
        str(root),
        "--recipe",
        "all",
    ]
    command += ["--max-pixels", "300000", "--workers", "1", *words]
    (tmp_path / "killed").mkdir()
    (tmp_path / "straight").mkdir()
    process = subprocess.Popen(command, cwd=tmp_path / "killed", start_new_session=True, stderr=subprocess.PIPE)
    name = words[1]
    partial = tmp_path / "killed" / f".{name}.partial"
    deadline = time.monotonic() + 60
    sign = "part-*.json" if "--shard-mb" in words else "png-*/*"
    while len([path for path in partial.rglob(sign) if path.suffix != ".tmp"]) < (1 if "json" in sign else 4):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "killed" / name).exists()
    for folder, workers in (("killed", "2"), ("straight", "1")):
        finish = [*command[: command.index("--workers") + 1], workers, *words]
        subprocess.run(finish, cwd=tmp_path / folder, check=True, capture_output=True)
    assert not partial.exists()
    for first in [tmp_path / "straight" / name, *(tmp_path / "straight" / name).glob("*")]:
        if first.is_file():
            second = tmp_path / "killed" / first.relative_to(tmp_path / "straight")
            assert first.read_bytes() == second.read_bytes()


class Slow:
    """Stands for an assembler: it counts what is held."""

    def __init__(self, images: int) -> None:
        self.images_a_query, self.taken, self.most = images, 0, 0
        self._lock, self._held = Lock(), 0

    def assemble(self, query: int) -> Outcome:
        with self._lock:
            self._held += self.images_a_query
            self.most = max(self.most, self._held)
        return Outcome(findings=[("query", str(query))])

    def let_go(self) -> None:
        with self._lock:
            self._held -= self.images_a_query


@pytest.mark.parametrize(
    ("images", "workers", "most"), [(2, 1, 12), (2, 2, 14), (2, 64, 138), (21, 2, 63), (21, 64, 126), (300, 8, 900)]
)
def test_images_held_do_not_grow_with_the_references(images, workers, most) -> None:
    """A pair for each worker and a few ahead; of queries with many references fewer, but never less than two."""
    assembler = Slow(images)
    for index, outcome in enumerate(iter_outcomes(list(range(300)), assembler, workers)):
        assert outcome.findings == [("query", str(index))]
        assembler.let_go()
    assert images < assembler.most <= most


@pytest.mark.parametrize("words", [("--out", "x.parquet"), ("--out", "shards", "--shard-mb", 1)])
def test_a_full_disk_is_not_a_finished_build(lad, photographs, tmp_path, *, monkeypatch, words) -> None:
    """What the kernel says once, while the rest is still being made, is not lost."""

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", refuse)
    monkeypatch.chdir(tmp_path)
    done = lad("build", "grpo", "--folder", photographs, "--recipe", "all", *words)
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1].endswith(
        "no space left on device. Free some space and run the same command again."
    )
    assert not (tmp_path / str(words[1])).exists()


LIMITED = """
import resource, sys
from lad_reasoner.commands.lad import main
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
main(sys.argv[1:])
"""


def test_a_file_that_cannot_grow_is_no_traceback(photographs, tmp_path) -> None:
    command = [sys.executable, "-c", LIMITED, "build", "grpo", "--folder", str(photographs), "--recipe", "all"]
    done = subprocess.run([*command, "--out", "x.parquet"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write x.parquet: file too large.")
    assert [path.name for path in tmp_path.iterdir()] == ["photographs"]


def test_an_own_folder_alone_is_taken_whole(lad, small_tree, tmp_path) -> None:
    done = lad("build", "grpo", "--folder", small_tree, "--out", tmp_path / "x.parquet", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["recipe"]["name"] == "all"
