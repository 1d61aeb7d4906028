"""`lad init`: split trees that share no test photo, and configs that both trainers accept."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from PIL import Image
from tests.datasets.conftest import tiny_png, write
from tests.trainers.preflight.kit import findings
from typer.testing import CliRunner

from lad_datasets.builders.grpo import build_grpo
from lad_datasets.builders.options import Options
from lad_datasets.project import project
from lad_datasets.project.project import create_project
from lad_datasets.sources import folder
from lad_datasets.sources.folder_names import FolderNames
from lad_reasoner.commands.lad import build_app, main
from lad_reasoner.pairs.reader import iter_pairs
from lad_reasoner.support.errors import DataError, UsageError
from lad_reasoner.support.files import locked

NORMAL = 9
DEFECTS = {"Kratzer quer": 6, "欠品": 5}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "my photos"
    for number in range(4):
        write(root / "Gehäuse 7/train/good" / f"{number}.png", tiny_png())
    for name, count in {"good": NORMAL, **DEFECTS}.items():
        for number in range(count):
            write(root / "Gehäuse 7/test" / name / f"{number}.png", tiny_png())
            write(root / "Gehäuse 7/ground_truth" / name / f"{number}_mask.png", tiny_png())
    return root


def queries_of(part: Path) -> set[Path]:
    return {path.resolve() for path in part.rglob("*.png") if "test" in path.relative_to(part).parts}


def test_the_parts_share_references_and_no_test_photo(photos: Path, tmp_path: Path) -> None:
    project = create_project(photos, tmp_path / "p", evaluation=0.4)
    train, evaluation = (folder.scan(tmp_path / "p" / part) for part in ("train", "evaluation"))
    assert len(train.references("Gehäuse 7")) == len(evaluation.references("Gehäuse 7")) == 4
    assert not queries_of(train.root) & queries_of(evaluation.root)
    assert queries_of(train.root) | queries_of(evaluation.root) == queries_of(photos)
    assert project.counts == {"train": {"yes": 7, "no": 5}, "evaluation": {"yes": 4, "no": 4}}
    assert len(evaluation.queries()) == 8
    again = create_project(photos, tmp_path / "again", evaluation=0.4)
    assert queries_of(tmp_path / "again/train") == queries_of(train.root)
    assert again.products == ("Gehäuse 7",)


def test_copies_of_a_photo_stay_on_one_side(photos: Path, tmp_path: Path) -> None:
    good = photos / "Gehäuse 7/test/good"
    copies = [(good / f"copy-{path.name}", path) for path in sorted(good.iterdir())]
    for copy, original in copies:
        copy.write_bytes(original.read_bytes())
    create_project(photos, tmp_path / "p")
    for copy, original in copies:
        sides = [part for part in ("train", "evaluation") if copy in queries_of(tmp_path / "p" / part)]
        assert len(sides) == 1
        assert original in queries_of(tmp_path / "p" / sides[0])


def test_the_plan_runs_despite_photos_that_cannot_be_read(photos, tmp_path, caplog) -> None:
    product = photos / "Gehäuse 7"
    broken = [product / name for name in ("train/good/a.jpg", "test/good/a.png", "test/欠品/a.webp")]
    for path, data in zip(broken, (b"no image", b"", tiny_png()[:40]), strict=True):
        path.write_bytes(data)
    create_project(photos, tmp_path / "p")
    for path in broken:
        assert not list((tmp_path / "p").rglob(path.relative_to(photos).as_posix()))
        assert f"left out: {path}: " in caplog.text
    for command in (
        "build grpo --folder p/train --out p/train.parquet",
        "build grpo --folder p/evaluation --out p/evaluation.parquet",
        "annotate --folder p/train --out p/qa",
        "review p/qa",
        "build sft --annotations p/qa --out p/sft",
    ):
        result = CliRunner().invoke(build_app(), command.replace("p/", f"{tmp_path / 'p'}/").split())
        assert result.exit_code == 0, result.output


def test_a_sound_photo_that_needs_a_higher_limit_is_not_left_out(photos, tmp_path, monkeypatch) -> None:
    Image.new("RGB", (1100, 1000)).save(photos / "Gehäuse 7/test/good/large.png")
    monkeypatch.setenv("LAD_MAX_MEGAPIXELS", "1")
    with pytest.raises(DataError, match="set LAD_MAX_MEGAPIXELS=2"):
        create_project(photos, tmp_path / "p")


def test_nothing_speaks_of_the_paper_or_of_another_licence(photos: Path, tmp_path: Path) -> None:
    create_project(photos, tmp_path / "p")
    manifest = build_grpo({"folder": tmp_path / "p/train"}, tmp_path / "p/train.parquet", Options(), recipe="all")
    assert {count["kind"] for count in manifest["counts"]} == {"good", "own"}
    for name in ("plan.md", "sft.yaml", "grpo.sh", "train.card.md"):
        text = (tmp_path / "p" / name).read_text(encoding="utf-8")
        for word in ("paper", "MVTec", "CC BY", "mvtec"):
            assert word not in text, (name, word)


def test_easyr1_check_accepts_the_config_and_the_batch_fits(photos, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = Path("my project")
    create_project(photos, out)
    build_grpo({"folder": out / "train"}, out / "train.parquet", Options(), recipe="all", val_fraction=0.1)
    lines = findings([f"config={out / 'grpo.sh'}"])
    assert not [line for line in lines if line.startswith("error")]
    assert any("all 8 rows were read" in line for line in lines)  # as many as there are prompts per step


@pytest.mark.parametrize(("count", "sft", "grpo"), [(2, 1, 2), (10, 2, 8), (70, 16, 32)])
def test_batches_suit_the_number_of_photos(tmp_path: Path, count: int, sft: int, grpo: int) -> None:
    for place, images in (("train/good", 1), ("test/good", count), ("test/dent", count)):
        for number in range(images):
            write(tmp_path / "photos/gear" / place / f"{number}.png", tiny_png())
    create_project(tmp_path / "photos", tmp_path / "p")
    assert yaml.safe_load((tmp_path / "p/sft.yaml").read_text())["gradient_accumulation_steps"] == sft
    assert f"# Batch of {sft}: " in (tmp_path / "p/sft.yaml").read_text()
    script = (tmp_path / "p/grpo.sh").read_text()
    assert f"# {grpo} of the " in script
    assert f"data.rollout_batch_size={grpo} " in script


def test_declared_folder_names_stay_declared_in_the_plan(photos: Path, tmp_path: Path) -> None:
    (photos / "Gehäuse 7/test/good").rename(photos / "Gehäuse 7/test/okparts")
    with pytest.raises(DataError, match="okparts"):
        create_project(photos, tmp_path / "p")
    names = FolderNames(("okparts",))
    project = create_project(photos, tmp_path / "p", names=names)
    plan = project.plan.read_text(encoding="utf-8")
    assert plan.count("--normal okparts") == 3
    assert len(folder.scan(tmp_path / "p/evaluation", names).queries()) == sum(project.counts["evaluation"].values())


@pytest.mark.parametrize("share", [0.0, 1.0, -1, 2])
def test_a_share_out_of_range_is_refused(photos: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(UsageError, match="--evaluation"):
        create_project(photos, tmp_path / "p", evaluation=share)


@pytest.mark.parametrize(
    ("name", "problem"),
    [("dangling", "it exists"), ("my photos/p", "inside the photos"), ("a\nb", "no"), ("\udcff", "no")]
    + [(name, "EasyR1 reads this name as") for name in ("$HOME", "me@home", "a: b", "a #1", "x${y}")],
)
def test_an_output_that_cannot_hold_a_project_is_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, name: str, problem: str
) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="control characters or is not UTF-8" if problem == "no" else problem):
        create_project(photos, tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


def test_too_few_photos_and_an_existing_project_are_refused(photos: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="it exists"):
        create_project(photos, tmp_path / "there")
    for path in sorted((photos / "Gehäuse 7/test/good").iterdir())[1:]:
        path.unlink()
    with pytest.raises(SystemExit) as stop:
        main(["init", str(photos), "--out", str(tmp_path / "p")])
    assert stop.value.code == 1
    assert "the evaluation part would have 0 normal" in capsys.readouterr().err
    (alone,) = (photos / "Gehäuse 7/test/good").iterdir()
    alone.with_stem("copy").write_bytes(alone.read_bytes())
    with pytest.raises(DataError, match="identical copies count as one"):
        create_project(photos, tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_a_second_process_never_replaces_the_project_of_the_first(photos: Path, tmp_path: Path, monkeypatch) -> None:
    """It waits for the lock after it has seen that there is no project yet."""

    @contextmanager
    def late(out: Path) -> Iterator[None]:
        with monkeypatch.context() as patch:
            patch.setattr(project, "locked", locked)
            create_project(photos, out)
        with locked(out):
            yield

    monkeypatch.setattr(project, "locked", late)
    with pytest.raises(UsageError, match="it exists"):
        create_project(photos, tmp_path / "p", seed=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my photos", "p"]


@pytest.mark.parametrize("kind", ["HEIF", "TIFF", "BMP", "WEBP"])
def test_photos_of_every_format_become_pairs_that_trainers_read(tmp_path: Path, kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    suffix = {"HEIF": "heic", "TIFF": "tif"}.get(kind, kind.lower())
    for number, part in enumerate(("train/good", "test/good", "test/good", "test/dent", "test/dent")):
        path = tmp_path / "photos/part" / part / f"{number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64 + number, 48), (40 * number, 90, 30)).save(path, kind)
    create_project(tmp_path / "photos", tmp_path / "p")
    build_grpo({"folder": tmp_path / "p/evaluation"}, tmp_path / "e.parquet", Options(), recipe="all")
    formats = {
        Image.open(io.BytesIO(image.data)).format
        for pair in iter_pairs(tmp_path / "e.parquet")
        for image in pair.images
    }
    assert formats == {"PNG" if kind == "HEIF" else kind}


def test_annotate_prints_where_the_file_is_and_what_comes_next(photos: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "my qa"
    with pytest.raises(SystemExit) as stop:
        main(["annotate", "--folder", str(photos), "--out", str(out)])
    assert stop.value.code == 0
    printed = capsys.readouterr().err
    assert f"{out}/annotations.jsonl: next, judge them with: lad review '{out}'\n" in printed
    assert f"lad build sft --annotations '{out}' --out {tmp_path}/sft\n" in printed


READ = """
import sys, yaml
from llamafactory.hparams import get_train_args
config = yaml.safe_load(open(sys.argv[1]))
arguments = get_train_args(config | {"use_cpu": True, "bf16": False, "model_name_or_path": sys.argv[2]})
print(arguments[1].dataset_dir, arguments[2].output_dir, arguments[3].finetuning_type)
"""


@pytest.mark.slow
@pytest.mark.frameworks
def test_llama_factory_accepts_the_config(photos: Path, tmp_path: Path, repository: Path) -> None:
    create_project(photos, tmp_path / "p")
    base = repository / "plugin/lad_rehearsal/demo/base"
    command = [sys.executable, "-c", READ, str(tmp_path / "p/sft.yaml"), str(base)]
    done = subprocess.run(
        command, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"{tmp_path / 'p/sft'} {tmp_path / 'p/runs/sft'} lora"
    assert yaml.safe_load((tmp_path / "p/sft.yaml").read_text())["finetuning_type"] == "lora"
