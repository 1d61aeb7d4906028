"""Checks of the data against the config: markers, images, labels, prompt lengths, batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from packaging.version import Version

from lad_reasoner.pairs.prompt_length import PromptRuler, round_up
from lad_reasoner.pairs.reader import shared_queries
from lad_reasoner.pairs.tokens import MAX_ASPECT_RATIO, QWEN2_5_VL, TrainerPixels
from lad_reasoner.support.findings import Finding, error, note, warning
from lad_reasoner.support.packages import installed_version
from lad_reasoner.training.preflight.context import Check, Known
from lad_reasoner.training.preflight.pair_file import PairFile, SampledPair
from lad_reasoner.training.preflight.reward import is_ours

__all__ = ["DATA_CHECKS", "prompt_tokens"]

#: A constant answer that earns more than this share of the accuracy reward is reported. Our choice.
CONSTANT_SHARE: Final = 0.65

#: A last, dropped batch of more than this share of the data is worth saying.
LOST_SHARE_WORTH_SAYING: Final = 0.1

#: The least sensible ``data.max_pixels``: the square of one image token.
MIN_AREA: Final = QWEN2_5_VL.factor**2


def _files(known: Known) -> list[tuple[str, PairFile]]:
    files = (("data.train_files", known.train), ("data.val_files", known.val))
    return [(key, file) for key, file in files if file is not None and not file.problem]


def check_not_empty(known: Known) -> Iterator[Finding]:
    """Both files have rows."""
    for key, file in _files(known):
        if file.rows == 0:
            yield error(key, f"{file.path} has no rows", remedy="Widen the recipe")


def check_columns(known: Known) -> Iterator[Finding]:
    """The columns that the config names exist; a file without images is read as text."""
    for key, file in _files(known):
        for name in ("data.prompt_key", "data.answer_key", "data.image_key"):
            text_only = name == "data.image_key" and not any(file.markers)  # both trainers read such a file as text
            if known[name] not in file.columns and not text_only:
                names = ", ".join(file.columns[:12])
                yield error(name, f"{file.path} ({key}) has no column {known[name]!r}", remedy=f"Use one of: {names}")


def check_verl_columns(known: Known) -> Iterator[Finding]:
    """The columns exist from which verl reads the gold answer and the name of the metrics."""
    if not known.trains_with("verl"):
        return
    for key, file in _files(known):
        if missing := [name for name in ("reward_model", "data_source") if name not in file.columns]:
            problem = f"{file.path} lacks the columns that verl needs: {', '.join(missing)}"
            yield error(key, problem, remedy="Build it with `lad build`")


def check_markers(known: Known) -> Iterator[Finding]:
    """Each prompt has as many markers as images; too few are accepted silently, too many end the run."""
    for key, file in _files(known):
        if file.mismatched:
            rows = f"{file.mismatched} of {file.rows} rows of {file.path}"
            remedy = "Build the file again with `lad build`"
            yield error(key, f"{rows} have more or fewer <image> than images", remedy=remedy)


def check_images_readable(known: Known) -> Iterator[Finding]:
    """The sampled images have readable headers."""
    for key, file in _files(known):
        if file.bad_image:
            yield error(key, f"{file.path} has an unreadable image ({file.bad_image})", remedy="Use PNG, JPEG or WebP")


def check_aspect_ratio(known: Known) -> Iterator[Finding]:
    """No image is so long that the processor rejects it, which would end the run at its row."""
    for key, file in _files(known):
        shapes = [size for sample in file.samples for size in sample.sizes]
        long = [size for size in shapes if max(size) > MAX_ASPECT_RATIO * max(min(size), 1)]
        if long:
            problem = f"{len(long)} images of {file.path} are over {MAX_ASPECT_RATIO} times as long as wide"
            yield error(key, f"{problem}, such as {long[0][0]} x {long[0][1]}", remedy="Crop them, or leave them out")


def check_looked_at(known: Known) -> Iterator[Finding]:
    """Report how many images the checks have read."""
    for key, file in _files(known):
        if 0 < len(file.samples) < file.rows:
            all_rows = "`lad check` and data.filter_overlong_prompts=false read all"
            yield note(key, f"the images of {len(file.samples)} of {file.rows} rows were read; {all_rows}")
        elif file.samples:
            yield note(key, f"the images of all {file.rows} rows were read")


def check_image_storage(known: Known) -> Iterator[Finding]:
    """Images are stored as the trainer reads them: bytes, or paths as plain strings."""
    easyr1 = not known.trains_with("verl")
    for key, file in _files(known):
        if file.hollow and easyr1 and not file.bad_image:
            problem = f"the images of {file.path} are paths without bytes, and EasyR1 reads only the bytes"
            yield error(key, problem, remedy="Build the file with `lad build`, with --images embed or path")
        if "Image" in file.features:
            problem = f"{file.path} has Image features: decoded images travel through Ray, some ten times larger"
            yield warning(key, problem, remedy="Build it with `lad build`")


def check_features(known: Known) -> Iterator[Finding]:
    """The installed datasets library supports the feature types of the file."""
    if (installed := installed_version("datasets")) is None:
        return
    for key, file in _files(known):
        if "List" in file.features and Version(installed) < Version("4.0"):
            problem = f"datasets {installed} cannot read {file.path}, which datasets 4 or later wrote"
            yield error(key, problem, remedy="Build it with `lad build`, whose files both read")


def check_limit_images(known: Known) -> Iterator[Finding]:
    """The rollout engine accepts as many images as a prompt has; 0 is vLLM's own limit, which is 999."""
    most = max((max(file.images, default=0) for _, file in _files(known)), default=0)
    key, limit = "worker.rollout.limit_images", known["worker.rollout.limit_images"]
    if 0 < limit < most:
        yield error(key, f"{limit} is too few: a prompt has {most} images", remedy=f"Set it to {most}")


def check_gold(known: Known) -> Iterator[Finding]:
    """Our reward can read every gold answer, and both labels occur."""
    if not is_ours(known):
        return
    for key, file in _files(known):
        if file.bad_gold:
            problem = f"{file.path} has an unreadable gold answer ({file.bad_gold})"
            yield error(key, problem, remedy="Set data.answer_key, or build the file again")
        elif len(file.labels) == 1 and file.rows > 1:
            problem = f"every answer is {next(iter(file.labels))}, so that answer always pays"
            yield warning(key, problem, remedy="Add pairs of the other label")
        elif key == "data.train_files" and file.labels:
            label, count = max(file.labels.items(), key=lambda item: item[1])
            share = count / sum(file.labels.values())
            if share > CONSTANT_SHARE:
                problem = f"always answering {label} earns {share:.1%} of the accuracy reward"
                yield warning(key, problem, remedy="Balance the labels of the training file")


def check_leakage(known: Known) -> Iterator[Finding]:
    """No MVTec LOCO AD image is trained on: the paper's evaluation would mean nothing."""
    if known.train is not None and (rows := known.train.datasets.get("mvtec_loco", 0)):
        problem = f"{rows} pairs are from mvtec_loco, the evaluation set"
        yield error("data.train_files", problem, remedy="Train on other data")
    if known["data.train_files"] and known["data.train_files"] == known["data.val_files"]:
        yield warning("data.val_files", "it is the training file", remedy="Validate on pairs that are not trained on")
    elif known.train and known.val:
        problem = shared_queries(known.val.queries, known.train.queries, other="the training file")
        if problem:
            yield warning("data.val_files", problem, remedy="Validate on pairs that are not trained on")


def check_pixels(known: Known) -> Iterator[Finding]:
    """The pixel bounds leave an image and are in order, and small images are not enlarged."""
    low, high = known["data.min_pixels"], known["data.max_pixels"]
    if high is not None and high < MIN_AREA:
        yield error("data.max_pixels", f"{high} is too small for an image", remedy=f"Set it to {MIN_AREA} or more")
        return
    if low is not None and high is not None and low > high:
        yield error("data.min_pixels", f"{low} is above data.max_pixels, {high}")
        return
    for key, file in _files(known):
        sizes = [size for sample in file.samples for size in sample.sizes]
        small = [size for size in sizes if low is not None and size[0] * size[1] < low]
        if len(small) > len(sizes) / 2:
            width, height = small[0]
            problem = f"{low} would enlarge most images of {key}, which are smaller ({width} x {height})"
            yield warning("data.min_pixels", problem, remedy=f"Set it to {56 * 56}, or to null")


def check_prompt_length(known: Known) -> Iterator[Finding]:
    """Prompts fit into max_prompt_length: EasyR1 drops those that do not, or cuts through their images."""
    limit = known["data.max_prompt_length"]
    if known["data.max_pixels"] is not None and known["data.max_pixels"] < MIN_AREA:
        return  # check_pixels reports it
    for key, file in _files(known):
        lengths = _lengths_by_category(known, file)
        over = {name: values for name, values in lengths.items() if max(values) > limit}
        if not over:
            continue
        count = sum(length > limit for values in over.values() for length in values)
        worst = ", ".join(f"{name} {max(values)}" for name, values in sorted(over.items())[:6])
        longest = max(max(values) for values in over.values())
        remedy = f"Set it to {round_up(longest)}"
        if pixels := _pixels_that_fit(known, file):
            remedy += f", or data.max_pixels to {pixels}"
        problem = f"{count} of {len(file.samples)} sampled prompts of {key} exceed {limit} tokens ({worst})"
        if not known["data.filter_overlong_prompts"]:
            yield error("data.max_prompt_length", problem, remedy=remedy)
        elif count == len(file.samples):
            yield error("data.max_prompt_length", f"{problem}, so no pair is left", remedy=remedy)
        else:
            yield warning("data.max_prompt_length", f"{problem} and would be dropped", remedy=remedy)


def check_batches_of_data(known: Known) -> Iterator[Finding]:
    """There is a full batch, and the last, incomplete one, which is dropped, is small."""
    key, size = "data.rollout_batch_size", known["data.rollout_batch_size"]
    if known.train is None or known.train.problem or not known.train.rows or size < 1:
        return
    if known.train.rows < size:
        yield error(key, f"{size} is more than the {known.train.rows} pairs of data.train_files")
        return
    lost = known.train.rows % size
    if lost > LOST_SHARE_WORTH_SAYING * known.train.rows:
        remedy = "Choose a size that divides the number of pairs more closely"
        yield warning(key, f"{size} drops {lost} of {known.train.rows} pairs in every epoch", remedy=remedy)


def prompt_tokens(known: Known, sample: SampledPair, pixels: TrainerPixels) -> int:
    """Return the tokens of a pair's prompt at these bounds."""
    return PromptRuler(pixels, known.processor).measure(known.render(sample.text), sample.sizes)


def _lengths_by_category(known: Known, file: PairFile) -> dict[str, list[int]]:
    pixels = TrainerPixels(known["data.min_pixels"], known["data.max_pixels"])
    lengths: defaultdict[str, list[int]] = defaultdict(list)
    for sample in file.samples:
        lengths[sample.category].append(prompt_tokens(known, sample, pixels))
    return lengths


def _pixels_that_fit(known: Known, file: PairFile) -> int | None:
    """Return the largest max_pixels, in steps of 100 tokens per image, at which no sampled prompt is too long."""
    for tokens in range(4000, 99, -100):
        pixels = TrainerPixels(known["data.min_pixels"], tokens * 28 * 28)
        longest = max(prompt_tokens(known, sample, pixels) for sample in file.samples)
        if longest <= known["data.max_prompt_length"]:
            return tokens * 28 * 28
    return None


DATA_CHECKS: Final[tuple[Check, ...]] = (
    check_not_empty,
    check_columns,
    check_verl_columns,
    check_markers,
    check_images_readable,
    check_aspect_ratio,
    check_image_storage,
    check_features,
    check_limit_images,
    check_gold,
    check_leakage,
    check_pixels,
    check_prompt_length,
    check_batches_of_data,
    check_looked_at,
)
