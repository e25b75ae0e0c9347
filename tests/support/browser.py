"""A Chromium that is installed, to open pages in."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

#: What distributions call it.
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

#: Nothing that it would ask the network for; a root, as in containers, has no sandbox.
_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


@contextlib.contextmanager
def opened() -> Iterator[Any]:
    """Yield a browser. EDGESHARD_TEST_CHROMIUM is its path; where it is set, as in CI, the tests are never skipped."""
    found = os.environ.get("EDGESHARD_TEST_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium here; install it (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=_OPTIONS)
        yield chromium
        chromium.close()
