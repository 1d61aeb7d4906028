"""What the tests of `easyr1 check` share: findings as lines, and rows of broken configs with what they need."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image as Picture
from tests.trainers.conftest import pair, write_rows

from lad_reasoner.pairs.schema import pair_schema
from lad_reasoner.support.errors import LadError
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.easyr1.keys import read_snapshot
from lad_reasoner.training.installed import Trainer
from lad_reasoner.training.preflight import CHECKS
from lad_reasoner.training.preflight.context import Known

KEYS = read_snapshot()
EASYR1 = Trainer("easyr1", "0.3.3.dev0", Path())

#: Checks whose findings depend on the machine that runs the tests.
OF_MACHINE = {"check_trainer", "check_packages", "check_gpus", "check_cpus", "check_memory", "check_disk"}


def findings(
    words: list[str], *, trainer: Trainer | None = None, gpu: bool = False, of_machine: bool = False
) -> list[str]:
    """Return the findings about a config, as lines."""
    try:
        config = load_config(words, KEYS)
    except LadError as error:
        return [f"error: {error}"]
    known = Known(config=config, trainer=trainer, gpu=gpu)
    checks = [check for check in CHECKS if of_machine or check.__name__ not in OF_MACHINE]
    return [str(found) for check in checks for found in check(known)]


def alarms(words: list[str], **options) -> list[str]:
    """Return the errors and warnings; a note is no fault."""
    return [line for line in findings(words, **options) if not line.startswith("note: ")]


@dataclass(frozen=True)
class Broken:
    """A broken config.

    Attributes:
        words: What breaks a good one. ``~`` is the workshop, ``!`` the folder in which `make` works.
        where: How the finding begins.
        says: What it holds.
        make: Makes the files that the words name.
    """

    words: list[str]
    where: str
    says: str
    make: Callable[[Path], object] = lambda _: None


def assert_found(row: Broken, folder: Path, workshop: Path, good_words: list[str], monkeypatch) -> None:
    """A good config with the row's words has the row's finding."""
    for variable in ("RAY_ADDRESS", "WANDB_API_KEY", "WANDB_MODE", "SWANLAB_API_KEY", "SWANLAB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", "/no/such")
    row.make(folder)

    def placed(text: str) -> str:
        return text.replace("~", str(workshop)).replace("!/", f"{folder}/")

    changed = {word.partition("=")[0] for word in row.words}
    kept = [word for word in good_words if word.partition("=")[0] not in changed]  # dicts would be merged
    lines = findings([*kept, *map(placed, row.words)])
    about = [line for line in lines if line.startswith(placed(row.where))]
    assert about, lines
    assert any(row.says in line for line in about), about


def made(folder: Path, *names: str) -> Path:
    """A folder with empty files."""
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def first_row(path: Path, **changes: Any) -> None:
    """Forty good rows, the first of them changed."""
    rows = [pair(index).to_row() for index in range(40)]
    write_rows(path, [{**rows[0], **changes}, *rows[1:]])


def one_large(path: Path) -> None:
    """Forty good rows, and one with large images."""
    write_rows(path, [*(pair(index).to_row() for index in range(40)), pair(40, size=(800, 800)).to_row()])


def paths_without_bytes(path: Path) -> None:
    """Images as structs of a path alone, as datasets writes files that are on disk."""
    images = [{"bytes": None, "path": str(path.parent / name)} for name in ("reference.png", "query.png")]
    for image in images:
        Picture.new("RGB", (84, 84)).save(image["path"])
    write_rows(path, [{**pair(index).to_row(), "images": images} for index in range(40)])


def image_features(path: Path) -> None:
    """A file that datasets would read with its Image features."""
    features = {"info": {"features": {"images": [{"_type": "Image"}]}}}
    table = pa.Table.from_pylist([pair(index).to_row() for index in range(40)], schema=pair_schema())
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)


def nameless(path: Path) -> None:
    """Gold answers of a label alone."""
    golds = [json.dumps({"label": "yes" if index % 2 else "no"}) for index in range(40)]
    write_rows(path, [{**pair(index).to_row(), "answer": gold} for index, gold in enumerate(golds)])


def model_config(folder: Path, **values: Any) -> None:
    """A model folder with a config alone."""
    (made(folder) / "config.json").write_text(json.dumps(values))


def finished_run(folder: Path) -> None:
    """EasyR1's checkpoint of step 4, and the config of the run that saved it."""
    made(folder / "global_step_4" / "actor")
    (folder / "checkpoint_tracker.json").write_text('{"last_global_step": 4}')
    (made(folder / "attempts" / "001") / "easyr1.yaml").write_text("data: {rollout_batch_size: 16}")


def run_of_verl(folder: Path) -> None:
    """A checkpoint of verl."""
    made(folder / "global_step_2")
    (folder / "latest_checkpointed_iteration.txt").write_text("2")
