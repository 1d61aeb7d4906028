"""`easyr1 check` of every shipped profile: no false alarm, and the GPUs that it names are enough."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.trainers.conftest import FORMS, in_form, pair, write_pairs
from tests.trainers.preflight.kit import (
    KEYS,
    alarms,
)

from lad_reasoner.pairs.schema import pair_schema
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.installed import Trainer
from lad_reasoner.training.preflight import machine
from lad_reasoner.training.preflight.context import Known

PROFILES = sorted(Path(__file__).resolve().parents[3].glob("examples/grpo/qwen*"))


#: Sizes of MVTec LOCO AD and MVTec AD, in pixels.
SIZES = ((1600, 1280), (800, 1600), (1700, 1000), (1600, 1100), (1700, 850), (1024, 1024))


@pytest.fixture(scope="session")
def paper_data(tmp_path_factory):
    """Training and validation files with as many pairs as the paper's, of images as large."""
    folder = tmp_path_factory.mktemp("paper")
    pairs = [pair(index, size=size) for index, size in enumerate(SIZES)]
    images = [[{"bytes": image.data, "path": image.path} for image in (*one.references, one.query)] for one in pairs]
    parts = [(f"{name}{end}", count, form) for name, form in FORMS.items() for end, count in (("", 886), ("_val", 98))]
    for name, count, form in parts:
        rows = [
            {**in_form(pair(index, size=(8, 8)).to_row(), form, index), "images": images[index % len(images)]}
            for index in range(count)
        ]
        table = pa.Table.from_pylist(rows, schema=pair_schema())
        pq.write_table(table, folder / f"{name}.parquet", row_group_size=100)
    return folder


def profile_words(path, data, *more):
    name = next((name for name in FORMS if name.removeprefix("grpo_") in path.stem), "grpo")
    files = [f"data.train_files={data}/{name}.parquet", f"data.val_files={data}/{name}_val.parquet"]
    return [f"config={path}", *files, f"trainer.save_checkpoint_path={data}/run", *more]


@pytest.mark.parametrize("trainer", ["easyr1", "verl"])
@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_no_false_alarm_on_a_shipped_profile(path, trainer, paper_data, monkeypatch, repository):
    monkeypatch.chdir(repository)
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    merged = ["worker.actor.model.model_path=Qwen/Qwen2.5-VL-3B-Instruct"] if "sft" in path.stem else []
    assert alarms(profile_words(path, paper_data, *merged), trainer=Trainer(trainer, "", Path()), gpu=True) == []


def test_no_false_alarm_on_the_demonstrations_config(workshop, tmp_path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    files = [
        f"data.train_files={write_pairs(tmp_path / 'train.parquet', 320)}",
        f"data.val_files={workshop}/val.parquet",
    ]
    model = f"worker.actor.model.model_path={workshop}/model"
    words = ["config=examples/demo/grpo.yaml", *files, model, f"trainer.save_checkpoint_path={workshop}/run"]
    assert alarms(words, trainer=Trainer("verl", "", Path())) == []


#: GPU memory that a profile's name or header promises to be enough, in GiB.
PROMISED = {"24gb": 24, "48gb": 40, "40gb": 40, "80gb": 80, "": 80}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_fits_the_gpus_that_it_names(path, paper_data, monkeypatch, repository):
    monkeypatch.chdir(repository)
    size = next(size for name, size in PROMISED.items() if name in path.stem)
    monkeypatch.setattr(machine, "gpu_memory", lambda: size * 2**30)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=256 * 2**30))
    config = load_config(profile_words(path, paper_data), KEYS)
    known = Known(config=config, trainer=None, gpu=True)
    (said,) = machine.check_memory(known)
    assert said.severity == "note"
    header = path.read_text(encoding="utf-8").split("\n\n")[0]
    update = re.search(r"an update takes about ([\d.]+) GiB", header)
    assert update, "the header does not say what an update takes"
    assert f"an update takes about {update[1]} GiB per GPU" in str(said)


def test_every_profile_is_listed_and_has_a_whole_header(repository):
    table = (repository / "examples" / "grpo" / "README.md").read_text(encoding="utf-8")
    for path in PROFILES:
        header = path.read_text(encoding="utf-8").split("\n\n")[0]
        assert f"| `{path.name}` |" in table
        if path.suffix == ".sh":
            assert len(path.read_text(encoding="utf-8").splitlines()) < 35, "a profile states what differs"
            assert os.access(path, os.X_OK)
        for word in (
            "Needs:",
            "Hardware:",
            "Memory:",
            "Time:",
            "(estimated)",
            f"easyr1 config=examples/grpo/{path.name}",
        ):
            assert word in header, f"{path.name} lacks {word}"


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_validates_on_held_out_training_pairs(path, monkeypatch, repository):
    monkeypatch.chdir(repository)
    config = load_config([f"config={path}"], KEYS)
    assert config["data.val_files"] == config["data.train_files"].replace(".parquet", "_val.parquet")


@pytest.fixture
def _in_repository(monkeypatch, repository):
    monkeypatch.chdir(repository)


@pytest.mark.parametrize(
    ("profile", "changed", "told"),
    [
        ("classes", "data.format_prompt=plugin/lad_reasoner/task/prompts/rlad.jinja", "need classes.jinja"),
        ("loco", "data.format_prompt=plugin/lad_reasoner/task/prompts/boxes.jinja", "need rlad.jinja"),
        ("mmad", "data.format_prompt=plugin/lad_reasoner/task/prompts/choice.jinja", "need letters.jinja"),
        ("boxes", "data.max_pixels=802816", ""),
        ("boxes", "worker.reward.reward_function_kwargs.box_largest=802816", "read in another frame"),
        ("boxes", "worker.reward.reward_function_kwargs.box_scale=1000", "state boxes in pixels"),
        ("loco", "worker.reward.reward_function_kwargs.box_weight=0.5", "have no boxes"),
    ],
)
@pytest.mark.usefixtures("_in_repository")
def test_a_prompt_or_frame_that_does_not_fit_the_data_is_an_error(profile, changed, told, paper_data, repository):
    path = repository / "examples" / "grpo" / f"qwen2_5_vl_3b_{profile}.{'yaml' if profile == 'loco' else 'sh'}"
    found = alarms(profile_words(path, paper_data, changed), trainer=Trainer("easyr1", "", Path()), gpu=True)
    assert any(told in str(finding) for finding in found) if told else not any("frame" in str(f) for f in found)
