"""A headless Chromium for the tests of pages, or why there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

__all__ = ["open_chromium"]


@contextmanager
def open_chromium(
    *arguments: str, logs: str = "browser", preferences: Mapping[str, Any] | None = None
) -> Iterator[Any]:
    """Yield a browser's driver; skip the test where Chromium, its driver or selenium is missing.

    Args:
        arguments: Of Chromium, beside those that a machine without a display needs.
        logs: Which logs are kept, with commas between: browser, performance.
        preferences: Of the profile.
    """
    webdriver = pytest.importorskip("selenium.webdriver", reason="browser tests need the package selenium")
    names = ("chromium", "chromium-browser", "google-chrome")
    binary, driver = next(filter(None, map(shutil.which, names)), None), shutil.which("chromedriver")
    if not (binary and driver):
        pytest.skip("no Chromium: install Debian's packages chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", dict.fromkeys(logs.split(","), "ALL"))
    if preferences:
        options.add_experimental_option("prefs", dict(preferences))
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield opened
    finally:
        opened.quit()
