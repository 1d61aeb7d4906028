"""What is written as Hydra's words is read back by Hydra as the same values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lad_reasoner.training.verl.hydra import as_words, lay_over

#: Line breaks excepted: Hydra's grammar has none inside a word.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=40)
NAMES = st.from_regex(r"[a-z_]{1,8}_", fullmatch=True)  # the ending keeps clear of null, true, inf
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=6
)


@pytest.mark.frameworks
@given(VALUES)
def test_hydra_reads_back_what_is_written(value):
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    (word,) = as_words({"a.b": value})
    (read,) = OverridesParser.create().parse_overrides([word])
    # Through OmegaConf, as Hydra does: that is where an interpolation would be resolved.
    assert OmegaConf.to_container(OmegaConf.create({"x": read.value()}), resolve=True)["x"] == value


def test_a_key_laid_over_replaces_its_new_and_its_old_form():
    assert lay_over({"++a": 1, "b": 2}, {"a": 3, "++b": 4}) == {"a": 3, "++b": 4}
