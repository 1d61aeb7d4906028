"""The page in a real Chromium, opened from disk."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.chromium import open_chromium
from tests.report.conftest import draw_pairs, png, write_pairs, write_predictions

from lad_reasoner import write_report as write_whole_report
from lad_reasoner.report.content import read_content
from lad_reasoner.report.page import ReportOptions, write_report

pytestmark = pytest.mark.slow


MODELS = ("base", "sft", "grpo", "sft-grpo")
HOSTILE = "<think> </script><script>document.title='owned'</script> & <b>bold</b> </think><answer> yes </answer>"
LONG = "y" * 1_000_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_chromium("--window-size=1440,1000", logs="browser,performance") as opened:
        yield opened


def write(
    folder: Path, count: int, *, masks: Path | None = None, single: bool = False, limit: int | None = None
) -> Path:
    """Write a report over four models; two responses of the first are hostile."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = draw_pairs(count)
    data = write_pairs(folder / "pairs.parquet", pairs)
    odd = {pairs[0].pair_id: HOSTILE, pairs[1].pair_id: LONG}
    runs = [
        write_predictions(folder / f"{name}.jsonl", data, seed=seed, responses=odd if seed == 0 else None)
        for seed, name in enumerate(MODELS)
    ]
    content = read_content(runs, data, "all", limit=limit, resamples=50)
    write_report(content, folder / "out", ReportOptions(masks=masks, single_file=single))
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small report #1 \u00fc")  # a path that must be quoted in an address
    root = folder / "loco"
    for pair in draw_pairs(90):
        if pair.kind == "logical":
            place = root / pair.category / "ground_truth" / "logical_anomalies" / Path(pair.query.path).stem
            place.mkdir(parents=True)
            (place / "000.png").write_bytes(png(1))
    return write(folder, 90, masks=root)


@pytest.fixture
def page(browser, small: Path):
    forget_and_open(browser, small)
    browser.get_log("browser")
    return browser


def forget_and_open(browser, page: Path) -> None:
    """Open a page that remembers nothing of the tests before."""
    browser.get(page.as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get(page.as_uri())


def one(browser, selector: str):
    return browser.find_element("css selector", selector)


def many(browser, selector: str):
    return browser.find_elements("css selector", selector)


def press(browser, key: str) -> None:
    one(browser, "body").send_keys(key)


def count(browser) -> int:
    return int(one(browser, "#count").text.split()[0])


def choose(browser, field: str, value: str) -> None:
    from selenium.webdriver.support.select import Select

    Select(one(browser, f"#{field}")).select_by_value(value)


def wait_until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


FIGURES = "return [...document.querySelectorAll('.plot img')].map((image) => image.currentSrc)"

LOADED = "return [...document.querySelectorAll('.pair:first-child img')].every((image) => image.naturalWidth > 0)"


def search(browser, text: str) -> None:
    field = one(browser, "#search")
    field.clear()
    field.send_keys(text)
    time.sleep(0.4)  # longer than the page waits for the next letter


def test_every_cell_of_a_matrix_shows_the_pairs_it_counts(page) -> None:
    for run in range(len(MODELS)):
        pooled = f".model:nth-of-type({run + 1}) .matrix.pooled .cell:not(:disabled)"
        for place in range(len(many(page, pooled))):
            cell = many(page, pooled)[place]
            expected = int(cell.text)
            page.execute_script("arguments[0].click()", cell)
            assert count(page) == expected
            assert one(page, "#run").get_property("value") == str(run)
    cell = one(page, '.cell[data-category="pushpins"]:not(:disabled)')
    expected = int(cell.text)
    page.execute_script("arguments[0].click()", cell)
    assert count(page) == expected
    assert {title.text for title in many(page, ".about h3")} == {"pushpins"}


def test_a_defect_shows_its_pairs(page) -> None:
    button = one(page, '.link[data-category="screw_bag"]')
    expected = int(button.find_element("xpath", "ancestor::tr/td[2]").text)
    page.execute_script("arguments[0].click()", button)
    assert count(page) == expected
    assert one(page, "#defect").get_property("value") == button.text


def test_worst_first(page) -> None:
    many(page, "#clear")[0].click()
    heads = [one(card, ".said .verdict").text for card in many(page, ".pair")]
    assert all("wrong" in head for head in heads)
    choose(page, "order", "best")
    assert all("right" in one(card, ".said .verdict").text for card in many(page, ".pair"))


def test_keys_step_through_pairs_and_pages(page) -> None:
    def current() -> str:
        return one(page, ".pair.current").get_attribute("aria-label").split(":")[0]

    assert current() == "Pair 1"
    press(page, "j")
    press(page, "j")
    assert current() == "Pair 3"
    press(page, "k")
    assert current() == "Pair 2"
    assert page.execute_script("return document.activeElement === document.querySelector('.pair.current')")
    for _ in range(9):
        press(page, "j")
    assert current() == "Pair 11"
    assert one(page, "#page").text == "page 2 of 9"
    press(page, "k")
    assert current() == "Pair 10"
    from selenium.webdriver.common.keys import Keys

    press(page, Keys.ARROW_RIGHT)
    assert current() == "Pair 11"
    press(page, "/")
    assert page.execute_script("return document.activeElement.id") == "search"
    one(page, "#search").send_keys("jm")  # letters, not commands
    assert one(page, "#search").get_property("value") == "jm"
    one(page, "#search").send_keys(Keys.ESCAPE)
    press(page, "c")
    assert one(page, "#search").get_property("value") == ""


def test_the_mask_is_toggled(page) -> None:
    choose(page, "kind", "logical")
    mask = one(page, ".pair .mask")
    assert mask.is_displayed()
    page.execute_script("document.querySelector('.pair').scrollIntoView()")
    wait_until(lambda: page.execute_script(LOADED))
    press(page, "m")
    assert not mask.is_displayed()
    assert one(page, "#mask").get_attribute("aria-pressed") == "false"
    one(page, "#mask").click()
    assert mask.is_displayed()


def test_models_are_switched_on_and_off(page) -> None:
    names = [title.text for title in many(one(page, ".pair"), ".said h4")]
    assert names == list(MODELS)
    press(page, "2")
    assert [title.text for title in many(one(page, ".pair"), ".said h4")] == ["base", "grpo", "sft-grpo"]
    one(page, '[data-column="1"]').click()
    assert len(many(one(page, ".pair"), ".said h4")) == 4
    choose(page, "run", "3")
    choose(page, "answer", "wrong")
    assert all("wrong" in many(card, ".said .verdict")[3].text for card in many(page, ".pair"))


def test_hostile_text_is_shown_and_does_nothing(page) -> None:
    search(page, "owned")
    assert count(page) == 1
    said = one(page, ".said .response").text
    assert said == "</script><script>document.title='owned'</script> & <b>bold</b>"
    press(page, "r")
    assert one(page, ".said pre.response").text == HOSTILE
    assert page.title == "Logical anomaly detection"
    assert page.get_log("browser") == []


def test_a_megabyte_is_shown_in_part_until_asked_for(page) -> None:
    search(page, "yyyyyyyyyyyy")
    assert count(page) == 1
    response = one(page, ".said .response")
    assert len(response.get_property("textContent")) < 7000
    more = response.find_element("css selector", ".link")
    assert more.text == "show all 1,000,000 characters"
    more.click()
    assert len(response.get_property("textContent")) == 1_000_000


def test_a_pair_is_enlarged_and_left(page) -> None:
    from selenium.webdriver.common.keys import Keys

    press(page, "z")
    assert len(many(page, "#zoom[open] img")) >= 2
    one(page, "#zoom").send_keys(Keys.ESCAPE)
    assert not many(page, "#zoom[open]")


def test_dark_and_light(page) -> None:
    def colour() -> str:
        return page.execute_script("return getComputedStyle(document.body).backgroundColor")

    light = colour()
    emulate(page, features=[{"name": "prefers-color-scheme", "value": "dark"}])
    dark = colour()
    assert dark != light
    one(page, "#theme").click()
    assert colour() == light
    page.refresh()
    assert colour() == light  # remembered
    one(page, "#theme").click()
    assert colour() == dark
    emulate(page)


def test_figures_follow_the_theme_button(browser, tmp_path: Path) -> None:
    """They have a dark variant each, which the page's colours alone would not choose."""
    data = write_pairs(tmp_path / "pairs.parquet", draw_pairs(30))
    runs = [write_predictions(tmp_path / f"{name}.jsonl", data, seed=seed) for seed, name in enumerate(MODELS[:2])]
    written = write_whole_report(runs, tmp_path / "out", data=data, resamples=20)
    forget_and_open(browser, written.page)

    def shown() -> list[str]:
        return [Path(source).name for source in browser.execute_script(FIGURES)]

    browser.execute_script("for (const image of document.querySelectorAll('.plot img')) image.loading = 'eager'")
    wait_until(lambda: all(shown()))
    light = shown()
    assert len(light) == 2
    assert not any("dark" in name for name in light)
    one(browser, "#theme").click()
    wait_until(lambda: [name.replace("-dark", "") for name in shown()] == light != shown())
    one(browser, "#theme").click()
    wait_until(lambda: shown() == light)


def emulate(page, **media: object) -> None:
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [], **media})


def test_nothing_overflows_a_phone(page) -> None:
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") == 360
        assert one(page, ".pair .said").size["width"] > 280
        assert one(page, ".top h1").is_displayed()
        links = [link.rect for link in many(page, ".top nav a")]
        assert all(link["x"] >= 0 and link["x"] + link["width"] <= 360 for link in links)
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_long_name_pushes_nothing_off_a_phone(browser, tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.parquet", draw_pairs(15))
    runs = [write_predictions(tmp_path / f"{'x' * 90}-{seed}.jsonl", data, seed=seed) for seed in range(2)]
    write_report(read_content(runs, data, "all", resamples=20), tmp_path / "out", ReportOptions())
    browser.get((tmp_path / "out" / "index.html").as_uri())
    metrics = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        assert browser.execute_script("return document.documentElement.scrollWidth") == 360
        assert one(browser, ".scores tbody th").size["width"] < 180
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_print_shows_tables_and_pairs_in_full_and_no_controls(page) -> None:
    emulate(page, media="print")
    try:
        assert not one(page, "#filters").is_displayed()
        assert not one(page, ".top nav").is_displayed()
        assert one(page, ".pair .response").is_displayed()
        assert page.execute_script("return getComputedStyle(document.querySelector('.tall')).maxHeight") == "none"
    finally:
        emulate(page)
    pdf = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 20_000


A4_WIDTH = 703  # CSS pixels between margins of 12 mm


def test_no_column_is_cut_off_on_paper(page) -> None:
    emulate(page, media="print")
    metrics = {"width": A4_WIDTH, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        widths = page.execute_script(
            "return [...document.querySelectorAll('table')].map((table) => table.scrollWidth)"
        )
        assert max(widths) <= A4_WIDTH
        assert page.execute_script("return document.documentElement.scrollWidth") <= A4_WIDTH
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        emulate(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_small_print_can_be_read(page, scheme: str) -> None:
    """The contrast that WCAG 2 asks of small text (AA), of everything that bears a figure."""
    emulate(page, features=[{"name": "prefers-color-scheme", "value": scheme}])
    try:
        for selector in (".interval", ".number", ".lead", ".headline", ".facts", ".verdict", ".tag", ".about code"):
            text, ground = page.execute_script(COLOURS, one(page, selector))
            assert contrast(text, ground) >= 4.5, selector
    finally:
        emulate(page)


COLOURS = """
    let ground = arguments[0];
    while (ground && getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
    return [getComputedStyle(arguments[0]).color, getComputedStyle(ground ?? document.body).backgroundColor]"""


def contrast(first: str, second: str) -> float:
    """Return the ratio of two CSS colours' relative luminances, 1 to 21."""
    lights = []
    for colour in (first, second):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_everything_pressed_has_a_name_and_every_image_an_alternative(page) -> None:
    nameless = page.execute_script("""
        return [...document.querySelectorAll("button, input, select, svg[role=img], [tabindex='0']")]
          .filter((item) => !(item.getAttribute("aria-label") || item.textContent.trim() || item.labels?.length))
          .map((item) => item.outerHTML)""")
    assert nameless == []
    assert page.execute_script("return [...document.images].every((image) => image.hasAttribute('alt'))")
    headings = [int(item.tag_name[1]) for item in many(page, "h1, h2, h3, h4")]
    assert all(later - earlier <= 1 for earlier, later in pairwise(headings))


def test_a_single_file_opens_with_its_pictures(browser, tmp_path: Path) -> None:
    browser.get(write(tmp_path, 15, single=True).as_uri())
    assert count(browser) == 15
    browser.execute_script("document.querySelector('.pair').scrollIntoView()")  # pictures load when they are near
    wait_until(lambda: browser.execute_script(LOADED))
    assert browser.get_log("browser") == []


def test_nothing_is_asked_of_the_network(browser, small: Path) -> None:
    browser.get("about:blank")
    browser.get_log("performance")
    browser.get(small.as_uri())
    browser.execute_script("document.querySelector('.pair').scrollIntoView()")
    wait_until(lambda: browser.execute_script(LOADED))
    requests = [
        entry["message"] for entry in browser.get_log("performance") if "requestWillBeSent" in entry["message"]
    ]
    assert requests
    assert not any('"url":"http' in request for request in requests)
