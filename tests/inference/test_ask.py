"""One pair from the terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Literal

import pytest

from lad_reasoner.commands.ask import print_verdict
from lad_reasoner.commands.lad import main
from lad_reasoner.inference.ask import Verdict, read_image_file
from lad_reasoner.inference.protocol import Answer
from lad_reasoner.pairs.images import MAX_IMAGE_PIXELS
from lad_reasoner.support.errors import DataError
from lad_reasoner.task.response import parse


@pytest.fixture
def image(tmp_path: Path) -> Path:
    from PIL import Image

    path = tmp_path / "\u00e9cran 1.png"
    Image.new("RGB", (84, 84), "teal").save(path)
    return path


def test_the_bytes_are_as_they_lie_on_disk(image: Path) -> None:
    assert read_image_file(image).data == image.read_bytes()


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("text.png", b"hello", "no readable image"),
        ("empty.png", b"", "a file of zero bytes"),
        ("animation.gif", b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff;", "no readable image"),
        ("absent.png", None, "no such file"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, name: str, content: bytes | None, found: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=found):
        read_image_file(tmp_path / name)


def test_a_huge_picture_is_refused_by_its_header(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "huge.png"
    Image.new("1", (9000, 9000)).save(path)
    assert MAX_IMAGE_PIXELS < 9000 * 9000
    with pytest.raises(DataError, match="81,000,000 pixels"):
        read_image_file(path)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_photo_that_is_cut_off_costs_no_model_load(
    image: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    from PIL import Image

    whole, cut = BytesIO(), image.with_name("cut")
    Image.effect_noise((200, 200), 60).save(whole, form)
    cut.write_bytes(whole.getvalue()[: len(whole.getvalue()) * 2 // 3])
    with pytest.raises(SystemExit) as stop:
        main(["ask", "--reference", str(image), "--query", str(cut), "--model", "no-such-model"])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {cut}: ")


def test_a_wrong_image_costs_no_model_load(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["ask", "--reference", str(image), "--query", str(image.with_name("no.png")), "--model", "no-such-model"])
    assert stop.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {image.with_name('no.png')}: no readable file (no such file")


def test_control_characters_and_markup_of_a_response_do_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    said = "\x1b[2J[red]a pin[/red] is\u202e missing"
    print_verdict(Verdict("yes", said, 0.9, "answer_token", True, said, 0.1))
    assert (
        capsys.readouterr().out
        == "\\x1b[2J[red]a pin[/red] is\\u202e missing\nverdict: anomalous (yes), P(yes) 0.90\n"
    )


class _Answers:
    """A backend whose response ends for one reason."""

    model = "m"

    def __init__(self, reason: Literal["stop", "length"]) -> None:
        self.reason = reason

    def answer(self, questions: object) -> Iterator[Answer]:
        yield Answer("", 0, "<think> a pin", None, None, 9, 3, self.reason, 0.1)


@pytest.mark.parametrize(("reason", "cut"), [("length", True), ("stop", False)])
def test_a_response_that_is_cut_off_is_reported(image, capsys, monkeypatch, reason, cut) -> None:
    monkeypatch.setattr("lad_reasoner.commands.ask.load_model", lambda *_, **__: _Answers(reason))
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "ask",
                "--reference",
                str(image),
                "--query",
                str(image),
                "--model",
                "m",
                "--max-new-tokens",
                "3",
                "--json",
            ]
        )
    shown = capsys.readouterr()
    assert stop.value.code == 0
    assert json.loads(shown.out)["cut"] is cut
    warning = "warning: the response is cut off at 3 tokens. Ask again with a larger --max-new-tokens.\n"
    assert shown.err == warning * cut


@pytest.mark.parametrize(
    ("words", "module", "extra"),
    [
        (["serve", "--model", "m"], "gradio", "serve"),
        (["ask", "--reference", "{image}", "--query", "{image}", "--model", "m"], "torch", "predict"),
    ],
)
def test_a_missing_package_names_its_extra(image, capsys, monkeypatch, *, words, module, extra) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.delitem(sys.modules, "lad_reasoner.inference.backends.transformers", raising=False)
    with pytest.raises(SystemExit) as stop:
        main([word.format(image=image) for word in words])
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f"In the checkout, run: pip install '.[{extra}]'.\n")


@pytest.mark.slow
@pytest.mark.frameworks
def test_the_embedded_model_answers_without_colours_in_a_pipe(image: Path, repository: Path) -> None:
    model = repository / "plugin" / "lad_rehearsal" / "demo" / "base"
    words = ["ask", "--reference", str(image), "--query", str(image), "--model", str(model), "--max-new-tokens", "40"]
    done = subprocess.run(
        [sys.executable, "-m", "lad_reasoner.commands.lad", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "verdict: " in done.stdout
    assert "\x1b" not in done.stdout
    as_json = subprocess.run(
        [sys.executable, "-m", "lad_reasoner.commands.lad", *words, "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    verdict = json.loads(as_json.stdout)
    assert verdict["answer"] == parse(verdict["response"]).answer
    assert verdict["well_formed"] == parse(verdict["response"]).well_formed
    assert 0 <= verdict["score"] <= 1
    assert verdict["reasoning"] in verdict["response"]
