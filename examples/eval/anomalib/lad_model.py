"""A model of this project inside anomalib: its Engine, its data modules, its image metrics.

Needs:    pip install anomalib, and lad-reasoner in the same environment
Command:  python examples/eval/anomalib/lad_model.py --root DIR --category screw_bag --model runs/sft-grpo
Hardware: one GPU of 16 GB for a 3B model (estimated)
Time:     about 15 minutes for the 341 test images of screw_bag on one A100 (estimated)

anomalib reports AUROC and F1 over all test images, structural anomalies included, and the reference is the first
normal training image. For the paper's protocol and its statistics use `lad build loco`, `predict` and `score`.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from anomalib import LearningType
from anomalib.data import ImageBatch
from anomalib.metrics import AUROC, Evaluator, F1Score
from anomalib.models import AnomalibModule

from lad_reasoner import BackendOptions, Image, Question, load_backend, parse, problem_text, prompt_text


class LadModel(AnomalibModule):
    """Compares each image with the first normal training images, as the paper does with one.

    An image gets ``pred_score`` (P(yes), in [0, 1]), ``pred_label`` (the answer) and ``explanation`` (the reasoning).
    A response without a readable answer counts as no anomaly, and the explanation says so.

    Args:
        model: Folder or name of a Qwen-VL model.
        shots: Reference images per question.
        options: Fields of ``BackendOptions``: ``max_pixels``, ``max_new_tokens``, ``device``, ...
    """

    def __init__(self, model: str, *, shots: int = 1, **options: Any) -> None:
        super().__init__(pre_processor=False, post_processor=False, visualizer=False)
        self._backend = load_backend(BackendOptions(model=model, **options))
        self._shots = shots
        self._references: tuple[Image, ...] = ()

    def setup(self, stage: str) -> None:
        """Use the first normal training images, by name, as references."""
        super().setup(stage)
        paths = sorted(str(path) for path in self.trainer.datamodule.train_data.samples.image_path)
        if len(paths) < self._shots:
            raise ValueError(f"there are {len(paths)} normal training images, but shots is {self._shots}")
        self._references = tuple(_read(path) for path in paths[: self._shots])

    def validation_step(self, batch: ImageBatch, *_: Any, **__: Any) -> ImageBatch:
        """Answer for every image of a batch."""
        prompt = prompt_text(problem_text(self._shots))
        paths: Sequence[str] = batch.image_path
        questions = [Question(path, prompt, (*self._references, _read(path))) for path in dict.fromkeys(paths)]
        answers = {answer.pair_id: answer for answer in self._backend.answer(questions)}
        responses = [parse(answers[path].response) for path in paths]
        scores = [answers[path].score for path in paths]
        if None in scores:
            raise ValueError(f"{self._backend.model} spells yes or no in several tokens, so it has no score")
        batch.pred_score = torch.tensor(scores, device=self.device)
        batch.pred_label = torch.tensor([response.answer == "yes" for response in responses], device=self.device)
        batch.explanation = [response.reasoning or "no readable answer" for response in responses]
        return batch

    test_step = validation_step
    predict_step = validation_step

    @property
    def learning_type(self) -> LearningType:
        """Nothing is trained; the model sees a few normal images."""
        return LearningType.FEW_SHOT

    @property
    def trainer_arguments(self) -> dict[str, Any]:
        """The trainer needs no special arguments."""
        return {}

    @staticmethod
    def configure_evaluator() -> Evaluator:
        """AUROC of the score and F1 of the answer, over images."""
        return Evaluator(
            test_metrics=[
                AUROC(fields=["pred_score", "gt_label"], prefix="image_"),
                F1Score(fields=["pred_label", "gt_label"], prefix="image_"),
            ]
        )


def _read(path: str) -> Image:
    data = Path(path).read_bytes()
    return Image(data, path, hashlib.sha256(data).hexdigest())


def main() -> None:
    """Evaluate a model on a category of MVTec LOCO AD."""
    from anomalib.data import MVTecLOCO
    from anomalib.engine import Engine

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="MVTec LOCO AD")
    parser.add_argument("--category", default="screw_bag")
    parser.add_argument("--model", required=True)
    parser.add_argument("--max-pixels", type=int, default=401408)
    words = parser.parse_args()
    data = MVTecLOCO(words.root, words.category, num_workers=0)
    Engine(logger=False).test(LadModel(words.model, max_pixels=words.max_pixels), datamodule=data)


if __name__ == "__main__":
    main()
