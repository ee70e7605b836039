"""Chromium without a screen, as the fixture ``chromium``; tests that use it are marked ``browser``.

``make browser`` installs the driver, which isn't among the packages of other tests, since it brings
a runtime of 40 MB. The browser is Debian's package ``chromium``, or any that is on the PATH.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser; each test opens a context of its own in it."""
    driver = pytest.importorskip("playwright.sync_api", reason="there is no playwright")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is on the PATH")
    with driver.sync_playwright() as playwright:
        # A container has neither the rights for the sandbox nor much shared memory.
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        yield browser
        browser.close()
