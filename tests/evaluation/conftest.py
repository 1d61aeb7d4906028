"""System, parquets and prediction files made from confusion matrices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.pair_files import make_pair, make_run_key, write_pairs

from lad_reasoner.pairs.schema import Image, Pair
from lad_reasoner.support.confusion import Confusion

YES = "<think> a part is missing </think><answer> yes </answer>"
NO = "<think> all parts match </think><answer> no </answer>"


@pytest.fixture
def write_run(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Return a function that writes a parquet and predictions with the given confusion matrix for each category."""

    def write(matrices: Mapping[str, Confusion], *, name: str = "model", structural: int = 0) -> tuple[Path, Path]:
        from lad_reasoner.inference.predictions import Prediction, PredictionStore
        from lad_reasoner.pairs.reader import data_sha256

        rows = [
            (category, kind, index, text)
            for category, matrix in matrices.items()
            for kind, count, text in (
                ("logical", matrix.tp, YES),
                ("logical", matrix.fn, NO),
                ("good", matrix.fp, YES),
                ("good", matrix.tn, NO),
                ("structural", structural, NO),
            )
            for index in range(count)
        ]
        data, out = tmp_path / f"{name}.parquet", tmp_path / f"{name}.jsonl"
        pairs = [_pair(category, kind, number) for number, (category, kind, _, _) in enumerate(rows)]
        write_pairs(data, pairs)
        key = make_run_key(data_sha256(data), model=name)
        with PredictionStore(out, key) as store:
            for pair, (_, _, _, text) in zip(pairs, rows, strict=True):
                store.append(Prediction(**dict(key), pair_id=pair.pair_id, response=text))
        return out, data

    return write


def _pair(category: str, kind: str, number: int) -> Pair:
    picture = Image(data=b"", path=f"{category}/{kind}/{number}.png", sha256="")
    return make_pair(category, kind, [picture], picture, defect=f"{kind}_defect")
