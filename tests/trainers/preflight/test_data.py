"""`easyr1 check` of what the data holds."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.trainers.conftest import pair, write_pairs, write_rows
from tests.trainers.preflight.kit import (
    KEYS,
    Broken,
    alarms,
    assert_found,
    findings,
    first_row,
    image_features,
    model_config,
    one_large,
    paths_without_bytes,
)

from lad_datasets.files.parquet import path_schema
from lad_reasoner.pairs.schema import pair_schema
from lad_reasoner.training.easyr1.config import load_config
from lad_reasoner.training.installed import Trainer
from lad_reasoner.training.preflight import data as data_checks
from lad_reasoner.training.preflight.context import Known
from lad_reasoner.training.preflight.data import check_image_storage, check_verl_columns

BROKEN = {
    "no rows": Broken(
        ["data.train_files=!/empty.parquet"],
        "error: data.train_files",
        "no rows",
        lambda f: write_rows(f / "empty.parquet", []),
    ),
    "prompt column": Broken(["data.prompt_key=question"], "error: data.prompt_key", "'question'"),
    "answer column": Broken(["data.answer_key=label2"], "error: data.answer_key", "'label2'"),
    "image column": Broken(["data.image_key=pictures"], "error: data.image_key", "'pictures'"),
    "one marker, two images": Broken(
        ["data.train_files=!/one_marker.parquet"],
        "error: data.train_files",
        "1 of 40 rows",
        lambda f: first_row(f / "one_marker.parquet", problem="<image> only"),
    ),
    "three markers": Broken(
        ["data.train_files=!/three_markers.parquet"],
        "error: data.train_files",
        "1 of 40 rows",
        lambda f: first_row(f / "three_markers.parquet", problem="<image><image><image>"),
    ),
    "unreadable image": Broken(
        ["data.train_files=!/bad_image.parquet"],
        "error: data.train_files",
        "image 1 of a pair",
        lambda f: first_row(f / "bad_image.parquet", images=[{"bytes": b"no image", "path": "a.png"}] * 2),
    ),
    "limit_images": Broken(["worker.rollout.limit_images=1"], "error: worker.rollout.limit_images", "Set it to 2"),
    "three images": Broken(
        ["data.train_files=!/two_shot.parquet"],
        "error: worker.rollout.limit_images",
        "Set it to 3",
        lambda f: write_pairs(f / "two_shot.parquet", references=2),
    ),
    "unreadable gold": Broken(
        ["data.train_files=!/bad_gold.parquet"],
        "error: data.train_files",
        "gold answer",
        lambda f: first_row(f / "bad_gold.parquet", answer="perhaps"),
    ),
    "gold from a wrong column": Broken(["data.answer_key=pair_id"], "error: data.train_files", "gold answer"),
    "labels of the 984": Broken(  # 694 yes, 290 no
        ["data.train_files=!/unbalanced.parquet"],
        "warning: data.train_files",
        "always answering yes earns 70.5% of the accuracy reward",
        lambda f: write_rows(f / "unbalanced.parquet", [pair(int(index >= 290)).to_row() for index in range(984)]),
    ),
    "one label": Broken(
        ["data.train_files=!/one_label.parquet"],
        "warning: data.train_files",
        "every answer is no",
        lambda f: write_rows(f / "one_label.parquet", [pair(i * 2).to_row() for i in range(40)]),
    ),
    "LOCO in training": Broken(
        ["data.train_files=!/loco.parquet"],
        "error: data.train_files",
        "mvtec_loco",
        lambda f: write_pairs(f / "loco.parquet", dataset="mvtec_loco"),
    ),
    "validation is training": Broken(
        ["data.val_files=~/train.parquet"], "warning: data.val_files", "the training file"
    ),
    "pixel bounds crossed": Broken(
        ["data.min_pixels=9000", "data.max_pixels=5000"], "error: data.min_pixels", "above data.max_pixels"
    ),
    "no pixels": Broken(["data.max_pixels=0"], "error: data.max_pixels", "0 is too small for an image"),
    "few pixels": Broken(["data.max_pixels=1"], "error: data.max_pixels", "1 is too small for an image"),
    "negative pixels": Broken(["data.max_pixels=-1"], "error: data.max_pixels", "-1 is too small for an image"),
    "stock min_pixels": Broken(["data.min_pixels=262144"], "warning: data.min_pixels", "would enlarge most images"),
    "prompts too long": Broken(
        ["data.train_files=!/large.parquet"],
        "error: data.max_prompt_length",
        "so no pair is left",
        lambda f: write_pairs(f / "large.parquet", 8, size=(800, 800)),
    ),
    "some prompts too long": Broken(
        ["data.train_files=!/mixed.parquet"],
        "warning: data.max_prompt_length",
        "would be dropped",
        lambda f: one_large(f / "mixed.parquet"),
    ),
    "prompts cut": Broken(
        ["data.train_files=!/mixed.parquet", "data.filter_overlong_prompts=false"],
        "error: data.max_prompt_length",
        "or data.max_pixels to",
        lambda f: one_large(f / "mixed.parquet"),
    ),
    "batch above the data": Broken(
        ["data.rollout_batch_size=64"], "error: data.rollout_batch_size", "more than the 40 pairs"
    ),
    "last batch lost": Broken(
        ["data.rollout_batch_size=24", "worker.actor.global_batch_size=24"],
        "warning: data.rollout_batch_size",
        "drops 16 of 40 pairs",
    ),
    "structs without bytes": Broken(
        ["data.train_files=!/hollow.parquet"],
        "error: data.train_files",
        "paths without bytes",
        lambda f: paths_without_bytes(f / "hollow.parquet"),
    ),
    "Image features": Broken(
        ["data.train_files=!/features.parquet"],
        "warning: data.train_files",
        "Image features",
        lambda f: image_features(f / "features.parquet"),
    ),
    "longer than the model's positions": Broken(
        ["worker.actor.model.model_path=!/small"],
        "error: data.max_response_length",
        "1024 tokens exceed the model's max_position_embeddings, 600",
        lambda f: model_config(f / "small", num_attention_heads=3, max_position_embeddings=600),
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name, tmp_path, workshop, good_words, monkeypatch):
    assert_found(BROKEN[name], tmp_path, workshop, good_words, monkeypatch)


def test_every_category_is_looked_at_wherever_it_stands(tmp_path, good_words):
    # Row groups of two pairs; the long category is neither in the first, nor in the middle, nor in the last.
    rows = [pair(index).to_row() for index in range(40)]
    rows[13] = {**pair(13, size=(800, 800)).to_row(), "category": "long_one"}
    table = pa.Table.from_pylist(rows, schema=pair_schema())
    pq.write_table(table, tmp_path / "grouped.parquet", row_group_size=2)
    (line,) = alarms([*good_words, f"data.train_files={tmp_path}/grouped.parquet"])
    assert line.startswith("warning: data.max_prompt_length: 1 of ")
    assert "sampled prompts of data.train_files exceed 512 tokens (long_one 1" in line


def test_every_row_is_read_where_no_prompt_is_filtered(tmp_path, good_words):
    rows = [pair(index).to_row() for index in range(300)]
    rows[177] = pair(177, size=(1960, 1960)).to_row()
    table = pa.Table.from_pylist([{**row, "category": "gear"} for row in rows], schema=pair_schema())
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=100)
    words = [*good_words, f"data.train_files={tmp_path}/t.parquet", "data.max_pixels=4194304"]
    assert "note: data.train_files: the images of 63 of 300 rows were read" in "\n".join(findings(words))
    lines = findings([*words, "data.filter_overlong_prompts=false"])
    assert any("error: data.max_prompt_length: 1 of 300" in line for line in lines), lines
    assert "note: data.train_files: the images of all 300 rows were read" in lines


def test_an_image_too_long_for_the_processor_is_found(tmp_path, good_words):
    write_rows(tmp_path / "t.parquet", [pair(0, size=(4020, 20)).to_row(), *(pair(i).to_row() for i in range(1, 40))])
    lines = alarms([*good_words, f"data.train_files={tmp_path}/t.parquet"])
    assert any("2 images of" in line and "over 200 times as long as wide, such as 4020 x 20" in line for line in lines)


def test_feature_types_of_a_later_datasets_are_found(tmp_path, good_words, monkeypatch):
    features = {"info": {"features": {"images": {"_type": "List", "feature": {"_type": "Value"}}}}}
    table = pa.Table.from_pylist([pair(index).to_row() for index in range(40)], schema=pair_schema())
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), tmp_path / "list.parquet")
    words = [*good_words, f"data.train_files={tmp_path}/list.parquet"]
    monkeypatch.setattr(data_checks, "installed_version", lambda _: "3.6.0")
    (line,) = alarms(words)
    assert "datasets 3.6.0 cannot read" in line
    monkeypatch.setattr(data_checks, "installed_version", lambda _: "4.0.0")
    assert alarms(words) == []


def test_verl_needs_columns_that_easyr1_does_not(workshop, good_words):
    table = pq.read_table(workshop / "train.parquet")
    pq.write_table(table.drop_columns(["reward_model"]), workshop / "easyr1_only.parquet")
    words = [*good_words, f"data.train_files={workshop}/easyr1_only.parquet"]
    config = load_config(words, KEYS)
    for name, count in {"verl": 1, "easyr1": 0}.items():
        known = Known(config=config, trainer=Trainer(name, "", Path()), gpu=False)
        assert len(list(check_verl_columns(known))) == count


def test_bare_gold_answers_are_no_fault(workshop, good_words):
    table = pq.read_table(workshop / "train.parquet").select(["problem", "images", "answer"])
    answers = pa.array(["yes" if index % 2 else "no" for index in range(len(table))])
    pq.write_table(table.set_column(2, "answer", answers), workshop / "bare.parquet")
    assert alarms([*good_words, f"data.train_files={workshop}/bare.parquet"]) == []


def test_a_parquet_of_plain_paths_is_read_from_the_image_folder(tmp_path, good_words):
    rows = [pair(index).to_row() for index in range(40)]
    for row in rows:
        for image in row["images"]:
            (tmp_path / image["path"]).write_bytes(image["bytes"])
        row["images"] = [image["path"] for image in row["images"]]
    pq.write_table(pa.Table.from_pylist(rows, schema=path_schema()), tmp_path / "paths.parquet")
    words = [*good_words, f"data.train_files={tmp_path}/paths.parquet"]
    assert alarms([*words, f"data.image_dir={tmp_path}"]) == []
    (line,) = alarms(words)
    assert line.startswith(f"error: data.train_files: {tmp_path}/paths.parquet has an unreadable image")
    assert "image 1 of a pair" in line


def test_verl_reads_structs_without_bytes(tmp_path, good_words):
    paths_without_bytes(tmp_path / "hollow.parquet")
    config = load_config([*good_words, f"data.train_files={tmp_path}/hollow.parquet"], KEYS)
    known = Known(config=config, trainer=Trainer("verl", "", Path()), gpu=False)
    assert not list(check_image_storage(known))


@pytest.mark.parametrize("trainer", ["easyr1", "verl"])
def test_text_only_data_is_no_fault_unless_its_prompts_have_markers(trainer, tmp_path, good_words):
    columns = {"answer": ["yes", "no"] * 20, "reward_model": [{"ground_truth": "yes"}] * 40, "data_source": ["x"] * 40}
    words = [*good_words, f"data.train_files={tmp_path}/t.parquet"]
    for problem, where in {"a": [], "<image> a": ["error: data.image_key"]}.items():
        pq.write_table(pa.table({"problem": [problem] * 40, **columns}), tmp_path / "t.parquet")
        lines = alarms(words, trainer=Trainer(trainer, "", Path()))
        assert [": ".join(line.split(": ")[:2]) for line in lines] == where


@pytest.mark.parametrize(("yes", "warns"), [(27, True), (26, False), (14, False), (13, True)])
def test_a_constant_answer_that_pays_is_found(yes, warns, tmp_path, good_words):
    rows = [{**pair(i).to_row(), "answer": json.dumps({"label": "yes" if i < yes else "no"})} for i in range(40)]
    write_rows(tmp_path / "t.parquet", rows)
    lines = alarms([*good_words, f"data.train_files={tmp_path}/t.parquet"])
    assert [("always answering" in line and "of the accuracy reward" in line) for line in lines] == [True] * warns


@pytest.mark.parametrize(("digests", "shared"), [(["a", "b", "c"], 2), (["x", "", None], 0)])
def test_queries_that_training_and_validation_share_are_counted(tmp_path, digests, shared) -> None:
    for name, own in (("train", ["a", "b", "", None]), ("val", digests)):
        rows = {"problem": ["?"] * len(own), "answer": ["yes"] * len(own), "query_sha256": own}
        pq.write_table(pa.table(rows), tmp_path / f"{name}.parquet")
    words = [f"data.{name}_files={tmp_path / name}.parquet" for name in ("train", "val")]
    known = Known(load_config([*words, "data.prompt_key=problem"], KEYS), None, gpu=False)
    told = [str(finding) for finding in data_checks.check_leakage(known)]
    own = [line for line in told if "of its queries" in line]
    assert len(own) == bool(shared)
    shown = f"warning: data.val_files: {shared} of its queries are in the training file too"
    assert all(shown in line for line in own)
