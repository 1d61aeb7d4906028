"""The files of a report, without a browser."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import pytest
from tests.report.conftest import WriteRuns, draw_pairs, png, write_pairs, write_predictions

from lad_reasoner.commands.lad import main
from lad_reasoner.pairs.masks import mask_files
from lad_reasoner.pairs.reader import iter_pairs
from lad_reasoner.report.content import read_content
from lad_reasoner.report.page import ReportOptions, write_report
from lad_reasoner.report.pictures import MemoryStore, draw_pictures
from lad_reasoner.support.errors import DataError, UsageError

pytestmark = pytest.mark.slow


def report(data: Path, runs: list[Path], out: Path, **options: object) -> str:
    content = read_content(runs, data, "all", resamples=20)
    write_report(content, out, ReportOptions(**options))
    return (out / "index.html").read_text(encoding="utf-8")


def read_data(out: Path) -> dict:
    script = (out / "data.js").read_text(encoding="utf-8")
    return json.loads(script.removeprefix("globalThis.ladReport = ").removesuffix(";\n"))


def test_each_picture_is_stored_once(write_runs: WriteRuns, tmp_path: Path) -> None:
    data, runs = write_runs(30)
    report(data, runs, tmp_path / "out")
    stored = {file.name for file in (tmp_path / "out" / "images").iterdir()}
    pairs = read_data(tmp_path / "out")["pairs"]
    assert stored == {name for pair in pairs for name in (*pair["references"], pair["query"])}
    assert len(stored) == 30 + 5


def test_a_second_report_keeps_pictures_and_removes_strangers(write_runs: WriteRuns, tmp_path: Path) -> None:
    data, runs = write_runs(30)
    report(data, runs, tmp_path / "out")
    images = tmp_path / "out" / "images"
    before = {file.name: file.stat().st_mtime_ns for file in images.iterdir()}
    (images / "old-448.webp").write_bytes(b"")
    report(data, runs, tmp_path / "out")
    assert {file.name: file.stat().st_mtime_ns for file in images.iterdir()} == before


class SlowStore(MemoryStore):
    """Takes so long to write that other threads meet a picture that is half stored."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, name: str, data: bytes) -> None:
        self.written.append(name)
        time.sleep(0.02)
        super().write(name, data)


def test_a_picture_that_pairs_share_is_drawn_by_one_thread(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.parquet", draw_pairs(30))
    store = SlowStore()
    wanted = {pair.pair_id for pair in iter_pairs(data)}
    drawn = draw_pictures(data, wanted, store, edge=64, image_root=tmp_path)
    assert drawn.keys() == wanted
    assert len(store.written) == len(set(store.written)) == 30 + 5


def test_a_folder_with_something_else_is_left_alone(write_runs: WriteRuns, tmp_path: Path) -> None:
    data, runs = write_runs(15, models=1)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "index.html").write_text("<p>mine</p>")
    with pytest.raises(UsageError, match="does not contain a report"):
        report(data, runs, tmp_path / "out")
    assert (tmp_path / "out" / "index.html").read_text() == "<p>mine</p>"


def test_nothing_comes_from_the_network(write_runs: WriteRuns, tmp_path: Path) -> None:
    data, runs = write_runs(15, models=1)
    for single in (False, True):
        out = tmp_path / f"out-{single}"
        page = report(data, runs, out, single_file=single)
        for file in out.rglob("*.*s"):
            page += file.read_text(encoding="utf-8")
        addresses = set(re.findall(r"https?://[^\s\"'<]+", page))
        assert addresses <= {"http://www.w3.org/2000/svg"}  # a name, not an address to load


def test_a_single_file_holds_everything(write_runs: WriteRuns, tmp_path: Path) -> None:
    data, runs = write_runs(15)
    page = report(data, runs, tmp_path / "out", single_file=True)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["index.html"]
    assert page.count("data:image/webp;base64,") == 15 + 5


def test_a_single_file_has_its_limit(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.parquet", draw_pairs(301))
    run = write_predictions(tmp_path / "base.jsonl", data)
    with pytest.raises(UsageError, match="--limit 300"):
        report(data, [run], tmp_path / "out", single_file=True)
    assert not (tmp_path / "out").exists()


HOSTILE = {
    "script": "<think> </script><script>document.title='owned'</script> </think><answer> yes </answer>",
    "comment": "<!-- <script>",
    "image": '"><img src=x onerror="document.title=\'owned\'">',
    "separators": "a\u2028b\u2029c\x00d",
    "surrogate": "<think> \ud800 </think><answer> no </answer>".encode("utf-8", "replace").decode(),
    "long": "x" * 1_000_000,
}


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    pairs = draw_pairs(15)
    data = write_pairs(tmp_path / "pairs.parquet", pairs)
    responses = {pair.pair_id: text for pair, text in zip(pairs, HOSTILE.values(), strict=False)}
    run = write_predictions(tmp_path / "<b>run.jsonl", data, responses=responses)
    page = report(data, [run], tmp_path / "out")
    assert "<b>run" not in page
    assert "&lt;b&gt;run" in page
    told = {
        pair["id"]: "".join(pair["said"][0]["samples"][0]["text"]) for pair in read_data(tmp_path / "out")["pairs"]
    }
    assert {pair_id: told[pair_id] for pair_id in responses} == responses
    assert "<" not in (tmp_path / "out" / "data.js").read_text(encoding="utf-8").removeprefix("globalThis")
    single = report(data, [run], tmp_path / "single", single_file=True)
    assert single.count("</script>") == 2


def draw_masks(root: Path) -> None:
    from PIL import Image

    folder = root / "juice_bottle" / "ground_truth" / "logical_anomalies" / "005"
    folder.mkdir(parents=True)
    for number, place in enumerate(((4, 4), (30, 30))):
        mask = Image.new("L", (48, 48))
        mask.paste(250, (*place, place[0] + 6, place[1] + 6))
        mask.save(folder / f"{number:03}.png")


def test_masks_are_laid_over_the_query_they_belong_to(write_runs: WriteRuns, tmp_path: Path) -> None:
    from PIL import Image

    data, runs = write_runs(30, models=1)
    draw_masks(tmp_path / "loco")
    page = report(data, runs, tmp_path / "out", masks=tmp_path / "loco")
    assert "1 pairs have a mask" in page
    (masked,) = [pair for pair in read_data(tmp_path / "out")["pairs"] if pair["mask"]]
    assert masked["path"] == "juice_bottle/test/logical_anomalies/005.png"
    with Image.open(tmp_path / "out" / "images" / masked["mask"]) as mask:
        alpha = mask.getchannel("A")
    assert alpha.getpixel((6, 6)) > 0
    assert alpha.getpixel((33, 33)) > 0
    assert alpha.getpixel((20, 20)) == 0


def test_without_masks_the_page_says_so(write_runs: WriteRuns, tmp_path: Path, capsys) -> None:
    data, runs = write_runs(15, models=1)
    assert "No masks: the pair file contains none" in report(data, runs, tmp_path / "out")
    (tmp_path / "empty").mkdir()
    assert "No masks were found in" in report(data, runs, tmp_path / "out", masks=tmp_path / "empty")
    words = [*map(str, runs), "--data", str(data), "--masks", str(tmp_path / "empty"), "--resamples", "10"]
    for command in (["score", *words], ["report", *words, "--out", str(tmp_path / "again")]):
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 0
        assert "anomalous queries has a mask here" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path", ["../test/../../etc/x.png", "a/../b/test/../x.png", "x.png", "a/train/good/x.png", ""]
)
def test_a_query_path_cannot_lead_out_of_the_mask_root(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret_mask.png").write_bytes(png(1))
    assert mask_files(tmp_path / "root", path) == ()


def test_mvtec_ad_has_one_mask_a_query(tmp_path: Path) -> None:
    mask = tmp_path / "cable" / "ground_truth" / "bent_wire" / "003_mask.png"
    mask.parent.mkdir(parents=True)
    mask.write_bytes(png(1))
    assert mask_files(tmp_path, "/somewhere/mvtec/cable/test/bent_wire/003.png") == (mask,)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    pairs = draw_pairs(5)
    broken = io.BytesIO(pairs[0].query.data).read()[:60]
    pairs[0] = type(pairs[0])(**{**_fields(pairs[0]), "query": type(pairs[0].query)(broken, "juice_bottle/x.png", "")})
    data = write_pairs(tmp_path / "pairs.parquet", pairs)
    run = write_predictions(tmp_path / "base.jsonl", data)
    with pytest.raises(DataError, match=r"juice_bottle/x\.png: a corrupt image"):
        report(data, [run], tmp_path / "out")


def _fields(pair: object) -> dict:
    return {name: getattr(pair, name) for name in pair.__slots__}


def test_the_papers_rows_are_marked_and_only_compared_with_its_own_data(write_runs: WriteRuns, tmp_path: Path) -> None:
    data, runs = write_runs(60)
    content = read_content(runs, data, "paper", resamples=20)
    write_report(content, tmp_path / "out", ReportOptions())
    page = (tmp_path / "out" / "index.html").read_text()
    assert page.count('<span class="tag">paper</span>') == 2 * 7 + 1  # of scores and of replies, and the note
    assert "LAD-Reasoner" in page
    assert "so the rows do not compare" not in page
    assert "20 structural pairs are not scored" in page


def test_the_share_of_unparsed_answers_stands_beside_their_number(tmp_path: Path) -> None:
    pairs = draw_pairs(20)
    data = write_pairs(tmp_path / "pairs.parquet", pairs)
    unreadable = {pair.pair_id: "I cannot tell" for pair in pairs[:5]}
    said = {pair.pair_id: "<think> x </think><answer> yes </answer>" for pair in pairs[5:]}
    page = report(
        data, [write_predictions(tmp_path / "base.jsonl", data, responses=unreadable | said)], tmp_path / "out"
    )
    assert '<td class="number">5<span class="interval">25.0%</span></td>' in page


def test_the_command_writes_page_and_figures(
    write_runs: WriteRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, runs = write_runs(60)
    training = tmp_path / "grpo"
    training.mkdir()
    lines = [{"step": step, "response_length": {"mean": 100 - step}, "reward": {"overall": 0.5}} for step in (1, 2)]
    (training / "experiment_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    words = ["report", *map(str, runs), "--out", str(out), "--resamples", "20", "--training", f"with SFT={training}"]
    with pytest.raises(SystemExit) as stop:
        main(words)
    told = capsys.readouterr()
    assert stop.value.code == 0
    assert told.out == f"{out / 'index.html'}\n"
    assert told.err.startswith("figure 2 is left out: no SFT data was named")
    names = {f"figure-{number}.{form}" for number in (4, 5, 7) for form in ("svg", "png")}
    assert {file.name for file in (out / "figures").iterdir()} == names


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--training", "nothing"], "LABEL=FOLDER"),
        (["--masks", "/no/such/folder"], "the dataset's root"),
        (["--pair", "no-such-pair"], "the report shows no pair"),
    ],
)
def test_wrong_usage_is_one_line(
    write_runs: WriteRuns, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    _, runs = write_runs(15, models=1)
    with pytest.raises(SystemExit) as stop:
        main(["report", str(runs[0]), "--out", str(tmp_path / "out"), "--resamples", "20", *words])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert line in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("kept", "limit", "said"),
    [
        (15, None, "No masks:"),
        (3, None, "3 of 15 pairs have a reply; the others are neither shown nor counted. No masks:"),
        (15, 4, "The 4 pairs of 15 on which base is most wrong; the tables count all. No masks:"),
        (
            6,
            4,
            (
                "The 4 pairs of 6 on which base is most wrong; the tables count all. "
                "6 of 15 pairs have a reply; the others are neither shown nor counted. No masks:"
            ),
        ),
    ],
)
def test_the_gallery_says_what_it_leaves_out(
    write_runs: WriteRuns, tmp_path: Path, kept: int, limit: int | None, said: str
) -> None:
    data, (run,) = write_runs(15, models=1)
    run.write_text("".join(run.read_text().splitlines(keepends=True)[:kept]))
    write_report(read_content([run], data, "all", limit=limit, resamples=20), tmp_path / "out", ReportOptions())
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    lead = page.split('id="gallery-title">Pairs</h2>')[1].split("</p>")[0].partition('<p class="lead">')[2]
    assert lead.strip().startswith(said)
