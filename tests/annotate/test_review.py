"""The review page in a real Chromium, and the rates of what was decided on it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from tests.chromium import open_chromium

from lad_datasets.annotate.annotate import annotate_with_templates
from lad_datasets.annotate.review import compare, rate, write_page
from lad_datasets.annotate.subjects import find_subjects
from lad_datasets.commands.review import review
from lad_datasets.files.annotations import Annotation, Decision, read_annotations
from lad_reasoner.support.errors import DataError
from lad_reasoner.support.findings import Findings

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver
    from tests.annotate.conftest import Trees

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\"> {{ 7*7 }}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    downloads = tmp_path_factory.mktemp("downloads")
    with open_chromium(preferences={"download.default_directory": str(downloads)}) as opened:
        opened.downloads = downloads
        opened.set_window_size(1280, 900)
        yield opened


@pytest.fixture
def folder(trees: Trees, tmp_path: Path) -> Path:
    """Annotations of 28 images, one of them hostile."""
    subjects = find_subjects(trees.roots, mmad_root=trees.mmad, findings=Findings(quiet=True))
    annotate_with_templates(subjects, tmp_path / "qa", Findings(quiet=True))
    lines = (tmp_path / "qa" / "annotations.jsonl").read_text().splitlines()
    hostile = json.loads(lines[1]) | {"answer": HOSTILE}
    (tmp_path / "qa" / "annotations.jsonl").write_text("\n".join([lines[0], json.dumps(hostile), *lines[2:]]) + "\n")
    return tmp_path / "qa"


def opened(browser: WebDriver, folder: Path, **options: Any) -> Path:
    page, _ = write_page(folder, **options)
    browser.get(page.resolve().as_uri())
    for _ in range(10):  # see `reloaded`
        browser.execute_script("localStorage.clear()")
        browser.refresh()
        if browser.execute_script("return localStorage.length") == 0:
            return page
        time.sleep(0.5)
    pytest.fail("the browser keeps what it was told to forget")


def press(browser: WebDriver, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    # Chromium drops keys that come before a page's first frame.
    browser.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(arguments[0]))")
    for key in keys:
        ActionChains(browser).send_keys(key).perform()


def text(browser: WebDriver, name: str) -> str:
    return str(browser.find_element("id", name).text)


def reloaded(browser: WebDriver, progress: str) -> bool:
    """Return whether a reloaded page shows this progress.

    The page keeps decisions in localStorage, which Chromium hands from one process to another after the call returns:
    a page that is reloaded within milliseconds may still read what was there before.
    """
    for _ in range(10):
        browser.refresh()
        if text(browser, "progress").startswith(progress):
            return True
        time.sleep(0.5)
    return False


def export(browser: WebDriver) -> list[dict[str, Any]]:
    """Press the button and return what was saved."""
    from selenium.webdriver.support.wait import WebDriverWait

    for file in browser.downloads.iterdir():
        file.unlink()
    browser.find_element("id", "export").click()
    saved = browser.downloads / "decisions.jsonl"
    WebDriverWait(browser, 20).until(lambda _: saved.is_file() and saved.stat().st_size)
    return [json.loads(line) for line in saved.read_text().splitlines()]


def test_keys_decide_and_the_export_is_what_build_sft_reads(browser: WebDriver, folder: Path) -> None:
    opened(browser, folder)
    rows = [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]
    press(browser, "a", "r", "j", "a", "k", "u")  # accept, reject, skip, accept, back, clear
    assert text(browser, "progress") == f"2 of {len(rows)} decided"
    from selenium.webdriver.common.keys import Keys

    press(browser, "e")
    box = browser.find_element("id", "answer-edit")
    assert browser.switch_to.active_element == box
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.NULL, "Seen by a person; arj")  # letters that are keys elsewhere
    assert not browser.find_element("id", "accept").is_enabled()  # nothing else may drop what was typed
    box.send_keys(Keys.CONTROL, Keys.ENTER)
    decided = {line["id"]: line for line in export(browser)}
    assert [decided[row["id"]]["decision"] for row in rows[:2]] == ["accept", "reject"]
    edited = next(line for line in decided.values() if line["decision"] == "edit")
    row = next(row for row in rows if row["id"] == edited["id"])
    assert edited == {
        "id": row["id"],
        "decision": "edit",
        "question": row["question"],
        "answer": "Seen by a person; arj",
    }
    shutil.copy(browser.downloads / "decisions.jsonl", folder)
    findings = Findings(quiet=True)
    _, kept = read_annotations(folder, findings)
    assert len(kept) == len(rows) - 1
    assert findings.counts == {"rejected": 1, "edited": 1}
    assert {a.id: a.answer for a in kept}[edited["id"]] == "Seen by a person; arj"


def test_decisions_survive_a_reload_and_come_back_from_the_file(browser: WebDriver, folder: Path) -> None:
    opened(browser, folder)
    press(browser, "a", "a")
    assert reloaded(browser, "2 of")
    export(browser)
    shutil.copy(browser.downloads / "decisions.jsonl", folder)
    opened(browser, folder)  # another browser: its memory is empty
    assert text(browser, "progress").startswith("2 of")
    press(browser, "u")
    assert reloaded(browser, "1 of")  # what was cleared stays cleared


def test_an_edit_can_be_left_and_an_empty_one_is_refused(browser: WebDriver, folder: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    opened(browser, folder)
    before = text(browser, "answer")
    press(browser, "e")
    browser.find_element("id", "answer-edit").clear()
    browser.find_element("id", "edit").click()
    assert "needs a question and an answer" in text(browser, "warning")
    press(browser, Keys.ESCAPE)
    assert text(browser, "answer") == before
    assert text(browser, "progress").startswith("0 of")


def test_an_edit_can_be_left_without_a_keyboard(browser: WebDriver, folder: Path) -> None:
    opened(browser, folder)
    before = text(browser, "answer")
    browser.find_element("id", "edit").click()
    browser.find_element("id", "answer-edit").send_keys("typed by mistake")
    assert text(browser, "clear-word") == "Cancel"
    browser.find_element("id", "clear").click()
    assert text(browser, "answer") == before
    assert text(browser, "clear-word") == "Clear"
    assert text(browser, "progress").startswith("0 of")


def test_what_a_model_wrote_is_text(browser: WebDriver, folder: Path) -> None:
    opened(browser, folder)
    press(browser, "j")
    assert text(browser, "answer") == HOSTILE
    assert browser.title == "Review: qa"
    assert not browser.find_elements("css selector", "#answer *")


def test_nothing_is_fetched_and_nothing_fails(browser: WebDriver, folder: Path) -> None:
    page = opened(browser, folder)
    press(browser, *"jjjjkm")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith("file:") for name in loaded)
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert "http" not in page.read_text().replace("http-equiv", "")
    widths = browser.execute_async_script(
        "const images = [...document.images], done = arguments[0];"
        "Promise.allSettled(images.map(image => image.decode())).then(() => done(images.map(i => i.naturalWidth)))"
    )
    assert all(widths)


def test_the_mask_lies_on_the_image_and_can_be_hidden(browser: WebDriver, folder: Path) -> None:
    opened(browser, folder)
    image, layer = browser.find_elements("css selector", "figure img")
    assert image.rect == layer.rect
    press(browser, "m")
    assert not layer.is_displayed()
    press(browser, "j")
    assert not browser.find_element("css selector", ".layer").is_displayed()  # also on the next one


def test_filters_show_a_category_and_what_is_left(browser: WebDriver, folder: Path) -> None:
    from selenium.webdriver.support.select import Select

    opened(browser, folder)
    rows = [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]
    candles = sum(row["category"] == "candle" for row in rows)
    Select(browser.find_element("id", "category")).select_by_visible_text("visa/candle")
    assert f"of {candles}:" in text(browser, "place")
    browser.find_element("id", "undecided").click()
    browser.execute_script("document.activeElement.blur()")
    press(browser, "r", "a")
    assert f"1 of {candles - 2}:" in text(browser, "place")
    press(browser, *"a" * (candles - 2))
    assert browser.find_element("id", "nothing").is_displayed()
    browser.execute_script("document.querySelector('.rates').open = true")
    cells = [cell.text for cell in browser.find_elements("css selector", "#rates tr:last-child td")]
    assert cells == ["visa/candle", str(candles - 1), "0", "1", "0", f"{100 / candles:.1f}%"]


@pytest.mark.parametrize("width", [360, 400, 768, 1280])
def test_no_screen_is_too_narrow(browser: WebDriver, folder: Path, width: int) -> None:
    opened(browser, folder)
    try:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False},
        )
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        for name in ("accept", "edit", "reject", "next", "export"):
            box = browser.find_element("id", name).rect
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        buttons = [browser.find_element("id", name).rect for name in ("accept", "edit", "reject")]
        assert all(a["x"] + a["width"] <= b["x"] for a, b in pairwise(buttons))
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("height", [640, 844])
def test_the_buttons_do_not_cover_the_edit_box_on_a_phone(browser: WebDriver, folder: Path, height: int) -> None:
    opened(browser, folder)
    try:
        browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": 390, "height": height, "deviceScaleFactor": 1, "mobile": True},
        )
        browser.find_element("id", "edit").click()
        covered = browser.execute_script(
            "const bottom = id => document.getElementById(id).getBoundingClientRect().bottom;"
            "return bottom('answer-edit') - document.querySelector('nav').getBoundingClientRect().top"
        )
        assert covered <= 0
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_both_schemes(browser: WebDriver, folder: Path, scheme: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    opened(browser, folder)
    press(browser, "a", "k")
    for toggled in (False, True):
        if toggled:
            browser.find_element("id", "theme").click()
        back = _luminance(browser, ".pair", "backgroundColor")
        assert (back > 0.5) == ((scheme == "light") != toggled)
        for selector in ("#answer", "#place", ".state", "h2", "#accept", "#edit", "#reject", "#export"):
            own = browser.execute_script(
                "return getComputedStyle(document.querySelector(arguments[0])).backgroundColor", selector
            )
            behind = back if own == "rgba(0, 0, 0, 0)" else _luminance(browser, selector, "backgroundColor")
            lighter, darker = sorted((_luminance(browser, selector, "color"), behind), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector  # WCAG 2, level AA


def _luminance(browser: WebDriver, selector: str, style: str) -> float:
    colour = browser.execute_script(f"return getComputedStyle(document.querySelector(arguments[0])).{style}", selector)
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_every_control_has_a_name(browser: WebDriver, folder: Path) -> None:
    opened(browser, folder)
    for control in browser.find_elements("css selector", "button, select, input"):
        if control.is_displayed():
            assert control.accessible_name


@pytest.mark.slow
def test_three_thousand_pairs_do_not_stutter(browser: WebDriver, folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "annotations.jsonl").read_text().splitlines()]
    many = [row | {"id": f"{row['id']}-{copy}"} for copy in range(80) for row in rows][:3000]
    (folder / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    opened(browser, folder)
    assert text(browser, "progress") == "0 of 3000 decided"
    spent = browser.execute_script(
        """
        const spent = [];
        for (let turn = 0; turn < 300; turn++) {
          const key = ["a", "r", "j"][turn % 3];
          const start = performance.now();
          document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
          document.body.offsetHeight;  // lay the page out now
          spent.push(performance.now() - start);
        }
        return spent.sort((a, b) => a - b);
        """
    )
    assert text(browser, "progress") == "200 of 3000 decided"
    assert spent[len(spent) // 2] < 16  # milliseconds: a frame
    assert spent[int(0.95 * len(spent))] < 100


def test_a_sample_is_drawn_by_its_seed(folder: Path) -> None:
    def shown(seed: int) -> list[str]:
        page, count = write_page(folder, sample=10, seed=seed)
        assert count == 10
        data = page.read_text().split('id="data">')[1].split("</script>")[0]
        return [item["id"] for item in json.loads(data)["items"]]

    assert shown(0) == shown(0) != shown(1)


def test_a_page_without_subjects_and_with_two_images_is_made(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    row = {
        "id": "x",
        "images": ["a.png", "b.png"],
        "question": "Reference: <image>\nQuery: <image>\nAlike?",
        "answer": "Yes.",
        "dataset": "d",
        "category": "c",
    }
    (tmp_path / "annotations.jsonl").write_text(json.dumps(row))
    page, _ = write_page(tmp_path)
    assert len(list((page.parent / "pictures").iterdir())) == 2


def test_an_unreadable_image_is_named(folder: Path, trees: Trees) -> None:
    broken = trees.mvtec / "bottle/test/good/000.png"
    broken.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"good/000\.png"):
        write_page(folder)


def note(name: str, category: str = "c") -> Annotation:
    return Annotation(id=name, images=("a",), question="<image>", answer="y", dataset="d", category=category)


def verdicts(**made: str) -> dict[str, Decision]:
    return {name: Decision(id=name, decision=decision) for name, decision in made.items()}  # type: ignore[arg-type]


def test_rates_count_what_was_decided_and_nothing_else() -> None:
    rows = rate([note("a"), note("b"), note("c", "k"), note("d", "k")], verdicts(a="accept", b="reject", c="edit"))
    by_name = {row["category"]: row for row in rows}
    assert by_name["d/c"]["rejection"] == 0.5
    assert by_name["d/k"] == {
        "category": "d/k", "accept": 0, "edit": 1, "reject": 0, "undecided": 1, "agreement": 0.0, "rejection": 0.0
    }  # fmt: skip
    assert by_name["all"]["agreement"] == pytest.approx(1 / 3)
    assert rate([note("a")], {})[-1]["rejection"] is None  # n/a, never 0


def test_two_reviewers_are_compared_by_share_and_kappa() -> None:
    first = verdicts(a="accept", b="accept", c="reject", d="reject")
    second = verdicts(a="accept", b="reject", c="reject", d="reject", e="accept")
    # 3 of 4 agree; by chance (2*1 + 2*3) / 16 = 0.5 would: kappa (0.75 - 0.5) / 0.5
    assert compare(first, second) == {"common": 4, "agreement": 0.75, "kappa": 0.5}
    assert compare(first, {})["kappa"] is None
    assert compare(verdicts(a="accept"), verdicts(a="accept"))["kappa"] is None


def test_the_rates_are_printed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = json.loads((folder / "annotations.jsonl").read_text().splitlines()[0])
    for name, decision in (("a", "accept"), ("b", "reject")):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"id": first["id"], "decision": decision}) + "\n")
    review(folder, decisions=[tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    out = capsys.readouterr().out
    assert "mvtec_ad/bottle\t1\t0\t0\t" in out
    assert "agree on 0.0% of 1" in out


def test_decisions_about_unknown_pairs_are_reported(folder: Path, tmp_path: Path, capsys) -> None:
    lines = (folder / "annotations.jsonl").read_text().splitlines()
    ours = {"id": json.loads(lines[0])["id"], "decision": "accept"}
    made = [ours, {"id": "elsewhere#detection", "decision": "reject"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in made))
    review(folder, decisions=[tmp_path / "d.jsonl"], as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out)["unknown"] == {str(tmp_path / "d.jsonl"): ["elsewhere#detection"]}
    assert "1 decision is about pairs that" in captured.err


def test_missing_decisions_are_exported_on_the_page(folder: Path) -> None:
    with pytest.raises(DataError, match=r"no such file\. Export the decisions on the page of `lad review`"):
        review(folder, decisions=[folder / "decisions.jsonl"])


def test_what_to_do_next_is_printed(folder: Path, capsys) -> None:
    review(folder)
    captured = capsys.readouterr()
    assert captured.out.strip() == str(folder / "review" / "index.html")
    assert f"lad review {folder} --decisions {folder}/decisions.jsonl" in captured.err
    assert "lad build sft" in captured.err
