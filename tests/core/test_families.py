"""The table of model families, and that everything that depends on a family reads it."""

from __future__ import annotations

import pytest

from lad_reasoner.models.compatibility import TOKENIZERS
from lad_reasoner.pairs.families import FAMILIES, find_family, model_types
from lad_reasoner.training.preflight.files import EASYR1_MODELS

NAMES = {
    "Qwen/Qwen2.5-VL-3B-Instruct": "qwen2_5_vl",
    "models/qwen2_5_vl_3b/sft": "qwen2_5_vl",
    "Qwen/Qwen2-VL-2B": "qwen2_vl",
    "Qwen/Qwen3-VL-4B-Instruct": "qwen3_vl",
    "Qwen/Qwen3-VL-30B-A3B-Instruct": "qwen3_vl_moe",
    "qwen3_vl": "qwen3_vl",
    "qwen3_vl_moe": "qwen3_vl_moe",
    "Qwen/Qwen3-4B": None,
    "llava-hf/llava-1.5-7b": None,
    "": None,
}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_a_model_belongs_to_the_family_of_its_type_or_name(name: str, expected: str | None) -> None:
    family = find_family(name)
    assert (family.model_type if family else None) == expected


def test_every_part_reads_the_table() -> None:
    types = {family.model_type for family in FAMILIES}
    assert len(types) == len(FAMILIES)
    assert set(TOKENIZERS) == set(EASYR1_MODELS) == types
    assert set(model_types(answers=True)) == types - {"qwen3_vl_moe"}
