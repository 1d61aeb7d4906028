"""Image token counts agree with the libraries that resize the images."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lad_reasoner.pairs.tokens import (
    QWEN2_5_VL,
    QWEN3_VL,
    ProcessorPixels,
    TrainerPixels,
    fit_processor,
    fit_trainer,
    image_tokens,
)

SIZES = st.integers(min_value=1, max_value=6000)


# Two images of MVTec LOCO AD and others at full size: the prompt lengths that stock settings filter away.
@pytest.mark.parametrize(
    ("width", "height", "pair"),
    [
        (1600, 1280, 5244),  # breakfast_box
        (800, 1600, 3306),  # juice_bottle
        (1700, 1000, 4392),  # pushpins
        (1600, 1100, 4446),  # screw_bag
        (1700, 850, 3660),  # splicing_connectors
        (1024, 1024, 2738),  # most of MVTec AD
        (900, 900, 2048),  # bottle
        (800, 800, 1682),  # pill
        (700, 700, 1250),  # metal_nut
    ],
)
def test_full_size_pairs(width, height, pair):
    assert 2 * image_tokens(width, height) == pair


def test_a_pair_at_the_default_max_pixels_is_about_a_thousand_tokens():
    assert image_tokens(1600, 1280, trainer=TrainerPixels(max_pixels=401408)) == 500


@pytest.mark.parametrize(("size", "fitted"), [(42, 56), (70, 56), (14, 56), (84, 84), (1, 56)])
def test_rounding_is_to_even_and_the_minimum_holds(size, fitted):
    assert fit_processor(size, size) == (fitted, fitted)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (1, 201), (4001, 20)])
def test_impossible_images_are_refused(width, height):
    with pytest.raises(ValueError, match="cannot be processed"):
        image_tokens(width, height)


@given(SIZES, SIZES, st.integers(3000, 500_000), st.integers(500_000, 5_000_000))
def test_the_trainer_keeps_the_area_within_bounds(width, height, low, high):
    fitted = fit_trainer(width, height, TrainerPixels(min_pixels=low, max_pixels=high))
    assert fitted[0] * fitted[1] <= high
    if low <= width * height <= high:
        assert fitted == (width, height)


@pytest.mark.frameworks
@settings(deadline=None)
@given(SIZES, SIZES, st.sampled_from([QWEN2_5_VL, QWEN3_VL, ProcessorPixels(28, 3136, 7056)]))
def test_the_processor_rule_is_transformers_own(width, height, pixels):
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    if max(width, height) > 200 * min(width, height):
        return
    theirs = smart_resize(
        height, width, factor=pixels.factor, min_pixels=pixels.min_pixels, max_pixels=pixels.max_pixels
    )
    assert fit_processor(width, height, pixels) == theirs[::-1]
