"""Mixed pairs are kept; pass@k and majority@k are those of counting every choice."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tests.report.conftest import draw_pairs, write_pairs, write_predictions

from lad_reasoner.commands.lad import main
from lad_reasoner.evaluation.difficulty import PairDifficulty, majority_at, mixed_pairs, pass_at


def test_pass_and_majority_are_those_of_every_choice() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        replies = [list(rng.choice(["right", "wrong", "none"], size=6)) for _ in range(4)]
        pairs = [
            PairDifficulty(str(n), "yes", row.count("right"), row.count("wrong"), row.count("none"))
            for n, row in enumerate(replies)
        ]
        for k in (1, 2, 3, 4, 6):
            found, voted = [], []
            for row in replies:
                choices = [[row[place] for place in places] for places in combinations(range(6), k)]
                found.append(np.mean(["right" in choice for choice in choices]))
                votes = [choice.count("right") - choice.count("wrong") for choice in choices]
                tie = [0.5 * ("right" in choice) for choice in choices]
                voted.append(
                    np.mean([1.0 if v > 0 else t if v == 0 else 0.0 for v, t in zip(votes, tie, strict=True)])
                )
            assert pass_at(pairs, k) == pytest.approx(float(np.mean(found)), abs=1e-12)
            assert majority_at(pairs, k) == pytest.approx(float(np.mean(voted)), abs=1e-12)
    assert pass_at(pairs, 7) is None


def test_the_bounds_are_inclusive_and_default_to_mixed() -> None:
    pairs = [PairDifficulty(str(right), "no", right, 8 - right, 0) for right in range(9)]
    assert [pair.right for pair in mixed_pairs(pairs)] == list(range(1, 8))
    assert [pair.right for pair in mixed_pairs(pairs, min_share=0.25, max_share=0.75)] == [2, 3, 4, 5, 6]
    assert [pair.right for pair in mixed_pairs(pairs, min_share=0.0)] == list(range(8))


@pytest.fixture
def sampled(tmp_path: Path) -> tuple[Path, Path, set[str]]:
    """A training parquet of own images, eight answers per pair, and the ids whose answers are mixed."""
    pairs = [
        replace(
            pair, dataset="own", category="part", pair_id=f"own/{n}", query=replace(pair.query, path=f"part/{n}.png")
        )
        for n, pair in enumerate(draw_pairs(30))
    ]
    data = write_pairs(tmp_path / "grpo.parquet", pairs)
    run = write_predictions(tmp_path / "samples.jsonl", data, skill=0.85, samples=8)
    lines = [json.loads(line) for line in run.read_text().splitlines()]
    labels = {pair.pair_id: pair.label for pair in pairs}
    shares: dict[str, list[bool]] = {}
    for line in lines:
        answer = "yes" if "<answer> yes" in line["response"] else "no" if "<answer> no" in line["response"] else None
        shares.setdefault(line["pair_id"], []).append(answer == labels[line["pair_id"]])
    return data, run, {pair_id for pair_id, right in shares.items() if len(set(right)) == 2}


def test_the_file_holds_the_mixed_pairs_alone_and_their_bytes(sampled, tmp_path: Path, capsys) -> None:
    data, run, mixed = sampled
    out = tmp_path / "mixed.parquet"
    with pytest.raises(SystemExit) as stop:
        main(["filter", str(run), "--data", str(data), "--out", str(out)])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert f"{len(mixed)} of 30 pairs" in said
    assert "pass: @1" in said
    before, after = pq.read_table(data), pq.read_table(out)
    assert set(after["pair_id"].to_pylist()) == mixed
    assert 0 < len(mixed) < 30
    kept = [row for row in before.to_pylist() if row["pair_id"] in mixed]
    assert after.to_pylist() == kept
    assert after.schema.equals(before.schema)
    manifest = json.loads((tmp_path / "mixed.manifest.json").read_text())
    assert manifest["rows"] == len(mixed) == sum(row["rows"] for row in manifest["counts"])
    assert manifest["all_right"] + manifest["none_right"] == 30 - len(mixed)
    assert manifest["samples"] == 8
    assert 0 < manifest["pass_at_kept"]["1"] < 1
    assert manifest["pass_at_kept"]["8"] == 1.0  # every kept pair has a right answer
    with pytest.raises(SystemExit) as stop:
        main(["filter", str(run), "--data", str(data), "--out", str(out)])
    assert stop.value.code == 2
    assert "exists" in capsys.readouterr().err


def test_one_answer_per_pair_and_nothing_left_are_named(sampled, tmp_path: Path, capsys) -> None:
    data, run, _ = sampled
    single = write_predictions(tmp_path / "single.jsonl", data)
    for words, message in (
        ([str(single)], "--samples 8"),
        ([str(run), "--min-share", "0.49", "--max-share", "0.495"], "no pair of 30 has mixed answers"),
        ([str(run), "--min-share", "0.9", "--max-share", "0.1"], "larger than --max-share"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["filter", *words, "--data", str(data), "--out", str(tmp_path / "none.parquet")])
        assert stop.value.code in {1, 2}
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none.parquet").exists()


def test_test_images_of_mvtec_loco_ad_are_refused(tmp_path: Path, capsys) -> None:
    data = write_pairs(tmp_path / "loco.parquet", draw_pairs(10))
    run = write_predictions(tmp_path / "run.jsonl", data, samples=4)
    with pytest.raises(SystemExit) as stop:
        main(["filter", str(run), "--data", str(data), "--out", str(tmp_path / "train.parquet")])
    assert stop.value.code == 1
    assert "MVTec LOCO AD" in capsys.readouterr().err
    assert not (tmp_path / "train.parquet").exists()


@pytest.mark.parametrize("shards", [False, True])
def test_the_training_data_is_never_the_output(sampled, tmp_path: Path, capsys, shards) -> None:
    data, run, _ = sampled
    if shards:
        folder = tmp_path / "shards"
        folder.mkdir()
        data = data.rename(folder / "000.parquet")
    before = data.read_bytes()
    out = data.with_name("001.parquet") if shards else tmp_path / "link.parquet"
    if not shards:
        out.symlink_to(data)
    source = data.parent if shards else data
    with pytest.raises(SystemExit) as stopped:
        main(["filter", str(run), "--data", str(source), "--out", str(out), "--overwrite"])
    assert stopped.value.code == 2
    assert "this is the training data itself" in capsys.readouterr().err
    assert data.read_bytes() == before
    assert list(data.parent.glob("001*")) == []
