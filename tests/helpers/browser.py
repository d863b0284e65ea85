"""A browser without a window."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright; skips the test where one of them is not there."""
    playwright = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')
    with playwright.sync_playwright() as driver:
        own = driver.chromium.executable_path
        known = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
        path = own if Path(own).exists() else next(filter(None, map(shutil.which, known)), None)
        if path is None:
            pytest.skip('there is no Chromium: install one, or run `playwright install chromium`')
        started = driver.chromium.launch(executable_path=path, args=['--no-sandbox'])
        yield started
        started.close()
