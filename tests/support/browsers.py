"""A headless Chromium, where there is one."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium(*options):
    """Yield a Chromium that plays without being clicked; skip the test where there is none."""
    api = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    with api.sync_playwright() as driver:
        if not (found or Path(driver.chromium.executable_path).exists()):
            pytest.skip("there is no Chromium: install one, or run `playwright install chromium`")
        browser = driver.chromium.launch(
            executable_path=found,
            # As root, as in a container, Chromium has no sandbox.
            args=["--autoplay-policy=no-user-gesture-required", *options]
            + ["--no-sandbox"] * (os.getuid() == 0),
        )
        yield browser
        browser.close()
