"""The examples for other frameworks, run by those frameworks where they are installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from lad_reasoner.commands.lad import build_app

pytestmark = [pytest.mark.slow, pytest.mark.frameworks]

BASE = Path(__file__).parents[2] / "plugin/lad_rehearsal/demo/base"


@pytest.fixture(scope="module")
def loco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A drawn tree in the layout of MVTec LOCO AD."""
    folder = tmp_path_factory.mktemp("synthetic")
    assert CliRunner().invoke(build_app(), ["build", "synthetic", "--out", str(folder)]).exit_code == 0
    return folder / "mvtec_loco"


@pytest.fixture(scope="module")
def pairs(loco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty pairs of it, structural anomalies included."""
    out = tmp_path_factory.mktemp("pairs") / "loco.parquet"
    words = ["build", "loco", "--root", str(loco), "--out", str(out), "--subset", "all", "--limit", "30"]
    assert CliRunner().invoke(build_app(), words).exit_code == 0
    return out


def require(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take the framework that is installed, or install it for this test, or skip."""
    if find_spec(package):
        return
    if not os.environ.get("LAD_INSTALL_IN_TESTS"):
        pytest.skip(f"{package} is not installed; LAD_INSTALL_IN_TESTS=1 installs it in a temporary folder")
    site, wanted = tmp_path / "site", Path(__file__).with_name(f"{package}.txt")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), "-r", str(wanted)]
    subprocess.run(pip, check=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])  # behind what is installed


def load(path: Path) -> ModuleType:
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("answer", ["yes", "no", "perhaps"])
def test_lmms_eval_scores_as_lad_score_does(pairs, repository, tmp_path, monkeypatch, answer) -> None:
    """lmms-eval runs the task with its own model that always says the same; the figures follow from the counts."""
    require("lmms_eval", monkeypatch, tmp_path)
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from lad_reasoner.evaluation.protocols import select
    from lad_reasoner.pairs.reader import read_truths

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    task = repository / "examples/eval/lmms_eval/rlad.yaml"
    (tmp_path / "tasks").mkdir()
    data = f"{{data_files: {{test: {pairs}}}, cache_dir: {tmp_path}/cache}}"
    (tmp_path / "tasks/mine.yaml").write_text(f"include: {task}\ntask: rlad_drawn\ndataset_kwargs: {data}\n")
    results = simple_evaluate(
        model="dummy",
        model_args=f"response=<think> compared </think><answer> {answer} </answer>",
        tasks=["rlad_drawn"],
        task_manager=TaskManager(include_path=str(tmp_path / "tasks"), include_defaults=False),
        bootstrap_iters=0,
        batch_size=1,
    )
    found = {name.split(",")[0]: value for name, value in results["results"]["rlad_drawn"].items()}
    truths = select(read_truths(pairs), "paper")
    anomalous = sum(truth.label == "yes" for truth in truths)
    assert 0 < anomalous < len(truths) < 30
    right = {"yes": anomalous, "no": len(truths) - anomalous, "perhaps": 0}[answer]
    assert found["rlad_accuracy"] == pytest.approx(right / len(truths))
    assert found["rlad_f1"] == pytest.approx(2 * anomalous / (anomalous + len(truths)) if answer == "yes" else 0)
    assert found["rlad_unparsed"] == float(answer == "perhaps")


def test_lmms_evals_messages_are_the_training_prompt(pairs, repository) -> None:
    """No lmms-eval is needed for this: the functions are plain."""
    from datasets import load_dataset
    from lad_reasoner.pairs.reader import iter_pairs
    from lad_reasoner.task.task import prompt_text

    utils = load(repository / "examples/eval/lmms_eval/utils.py")
    doc = load_dataset("parquet", data_files={"test": str(pairs)}, cache_dir=str(pairs.parent / "cache"))["test"][0]
    pair = next(iter_pairs(pairs))
    (turn,) = utils.doc_to_messages(doc)
    kinds = [part["type"] for part in turn["content"]]
    assert kinds == ["text", "image", "text", "image", "text"]
    text = "".join(part.get("text", "<image>") for part in turn["content"])
    assert text == prompt_text(pair.problem)
    assert "<image>" not in utils.doc_to_text(doc)
    assert len(utils.doc_to_visual(doc)) == 2


def test_anomalib_tests_the_model_on_its_own_data_module(loco, repository, monkeypatch, tmp_path) -> None:
    """anomalib's Engine runs the adapter over its MVTecLOCO; its metrics are those of the same answers scored here."""
    require("anomalib", monkeypatch, tmp_path)
    from anomalib.data import MVTecLOCO
    from anomalib.engine import Engine
    from sklearn.metrics import f1_score, roc_auc_score

    monkeypatch.chdir(tmp_path)
    module = load(repository / "examples/eval/anomalib/lad_model.py")
    category = min(path.name for path in loco.iterdir() if path.is_dir())
    data = MVTecLOCO(loco, category, num_workers=0, eval_batch_size=8)
    model = module.LadModel(str(BASE), device="cpu", max_new_tokens=24)
    engine = Engine(logger=False, accelerator="cpu", devices=1, default_root_dir=tmp_path)
    (found,) = engine.test(model, datamodule=data)
    batches = engine.predict(model, datamodule=data)
    truth = [bool(label) for batch in batches for label in batch.gt_label]
    scores = [float(score) for batch in batches for score in batch.pred_score]
    labels = [bool(label) for batch in batches for label in batch.pred_label]
    assert len(truth) == len(list((loco / category / "test").glob("*/*.png")))
    assert all(0 <= score <= 1 for score in scores)
    assert found["image_AUROC"] == pytest.approx(roc_auc_score(truth, scores), abs=1e-6)
    assert found["image_F1Score"] == pytest.approx(f1_score(truth, labels), abs=1e-6)
    assert all(isinstance(text, str) and text for batch in batches for text in batch.explanation)
