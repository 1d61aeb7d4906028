"""verl is given the prompt and the pixels that EasyR1 would give its model, from the same file and options."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

pytest.importorskip("verl")

import pyarrow as pa
import pyarrow.parquet as pq
from omegaconf import OmegaConf

from lad_reasoner.pairs.schema import Image, Pair, pair_schema
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.task import prompt_text, read_prompt_template
from lad_reasoner.training.verl.dataset import PairDataset
from lad_rehearsal.demo.tiny import build_processor

pytestmark = pytest.mark.frameworks


def picture(colour: str, size: tuple[int, int], mode: str = "RGB") -> Image:
    stream = BytesIO()
    Pillow.new(mode, size, colour).save(stream, "PNG")
    return Image(stream.getvalue(), f"{colour}.png", colour)


def pair(number: int, size: tuple[int, int] = (84, 84), mode: str = "RGB") -> dict[str, Any]:
    images = picture("red", size, mode), picture("blue", size, mode)
    return Pair(f"drawn/{number}", "drawn", "box", "no", "good", "good", [images[0]], images[1]).to_row()


@pytest.fixture(scope="module")
def processor() -> Any:
    made = build_processor()
    made.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": 10_000_000}
    return made


def pictures(row: dict[str, Any]) -> list[Pillow.Image]:
    return [part["image"] for part in row["raw_prompt"][0]["content"] if part["type"] == "image"]


def dataset(folder: Path, processor: Any, rows: list[dict[str, Any]], **options: Any) -> PairDataset:
    path = folder / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(rows, schema=pair_schema()), path)
    template = folder / "format.jinja"
    template.write_text(read_prompt_template(), encoding="utf-8")
    config = {
        "prompt_key": "problem",
        "format_prompt": str(template),
        "max_prompt_length": 4096,
        "cache_dir": str(folder),
    }
    config |= {"filter_overlong_prompts": True} | options
    return PairDataset(str(path), processor.tokenizer, OmegaConf.create(config), processor)


def test_prompt_is_the_problem_inside_the_format_prompt(tmp_path: Path, processor: Any) -> None:
    row = dataset(tmp_path, processor, [pair(0)])[0]
    content = row["raw_prompt"][0]["content"]
    shown = "".join("<image>" if part["type"] == "image" else part["text"] for part in content)
    assert shown == prompt_text(pair(0)["problem"])
    assert [image.size for image in pictures(row)] == [(84, 84)] * 2


def test_without_a_format_prompt_the_problem_stands_alone(tmp_path: Path, processor: Any) -> None:
    content = dataset(tmp_path, processor, [pair(0)], format_prompt=None)[0]["raw_prompt"][0]["content"]
    assert "".join("<image>" if part["type"] == "image" else part["text"] for part in content) == pair(0)["problem"]


@pytest.mark.parametrize(
    ("size", "options", "expected"),
    [
        ((200, 100), {"max_pixels": 5000}, (100, 50)),
        ((30, 20), {"min_pixels": 2400}, (60, 40)),
        ((300, 7), {"max_pixels": 1000}, (207, 4)),  # sides are cut, not rounded
        ((90, 90), {"min_pixels": 100, "max_pixels": 10_000}, (90, 90)),
    ],
)
def test_images_are_scaled_as_easyr1_does(
    tmp_path: Path, processor: Any, size: tuple[int, int], options: dict[str, int], expected: tuple[int, int]
) -> None:
    made = dataset(tmp_path, processor, [pair(0, size)], **options, filter_overlong_prompts=False)
    messages = made[0]["raw_prompt"]
    # verl's agent loop calls this method by its name.
    images, videos, audios = made._process_multi_modal_info(messages, image_patch_size=14, config=made.config)
    assert [image.size for image in images] == [expected] * 2
    assert {image.mode for image in images} == {"RGB"}
    assert (videos, audios) == (None, None)


def test_grey_images_become_rgb(tmp_path: Path, processor: Any) -> None:
    row = dataset(tmp_path, processor, [pair(0, mode="L")])[0]
    assert [image.mode for image in pictures(row)] == ["RGB", "RGB"]


def test_prompt_length_is_the_processors(tmp_path: Path, processor: Any) -> None:
    rows = [pair(number, size) for number, size in enumerate([(84, 84), (300, 200), (57, 411)])]
    made = dataset(tmp_path, processor, rows, max_pixels=30_000)
    for number, row in enumerate(rows):
        messages = made[number]["raw_prompt"]
        text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        (ids,) = processor(text=[text], images=pictures(made[number]))["input_ids"]
        assert made.prompt_length(row) == len(ids)


def test_long_prompts_are_left_out_and_counted(
    tmp_path: Path, processor: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [pair(0), pair(1, (840, 840)), pair(2)]
    made = dataset(tmp_path, processor, rows, max_prompt_length=200)
    assert [made[i]["pair_id"] for i in range(len(made))] == ["drawn/0", "drawn/2"]
    assert "1 of 3 prompts are longer than 200 tokens and are left out" in capsys.readouterr().out


def test_wrong_number_of_markers_is_named(tmp_path: Path, processor: Any) -> None:
    row = pair(7)
    row["problem"] = "Only one: <image>"
    with pytest.raises(DataError, match=r"drawn/7: the text has 1 <image> for 2 images"):
        dataset(tmp_path, processor, [row], filter_overlong_prompts=False)[0]


def test_a_column_that_is_no_text_is_named(tmp_path: Path, processor: Any) -> None:
    with pytest.raises(DataError, match=r"column prompt: it holds a list, not text .*data\.prompt_key"):
        dataset(tmp_path, processor, [pair(0)], prompt_key="prompt")


def test_an_unreadable_image_is_named(tmp_path: Path, processor: Any) -> None:
    row = pair(3)
    row["images"][1]["bytes"] = b"not an image"
    with pytest.raises(DataError, match=r"drawn/3: no readable image"):
        dataset(tmp_path, processor, [row])


def test_images_by_path_stand_below_image_dir(tmp_path: Path, processor: Any) -> None:
    row = pair(0)
    for image in row["images"]:
        (tmp_path / image["path"]).write_bytes(image["bytes"])
        image["bytes"] = None
    made = dataset(tmp_path, processor, [row], image_dir=str(tmp_path))
    assert [image.getpixel((0, 0)) for image in pictures(made[0])] == [(255, 0, 0), (0, 0, 255)]


def test_it_can_be_stored_in_a_checkpoint(tmp_path: Path, processor: Any) -> None:
    import pickle

    made = dataset(tmp_path, processor, [pair(0)])
    assert pickle.loads(pickle.dumps(made)).prompt_key == "problem"  # noqa: S301
