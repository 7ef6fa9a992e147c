"""Headless Chromium for tests of pages: what the page says and asks for is kept, for tests to judge."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@dataclass
class Opened:
    """A page, the requests it made, and what it wrote to the console or threw."""

    page: Any
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


def chromium() -> str:
    """The browser's path; skips the test without one, or fails it if SEGFAITH_REQUIRE_BROWSER=1."""
    found = shutil.which("chromium")
    if found is None:
        missing = "no chromium on the PATH"
        if os.environ.get("SEGFAITH_REQUIRE_BROWSER") == "1":
            pytest.fail(f"SEGFAITH_REQUIRE_BROWSER=1, but there is {missing}")
        pytest.skip(missing)
    return found


@contextmanager
def browser() -> Iterator[Any]:
    """A running Chromium."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        try:
            yield running
        finally:
            running.close()


@contextmanager
def opened(running: Any, path: Path, width: int = 1280, height: int = 900, **options: Any) -> Iterator[Opened]:
    """The file in a fresh window of that size; `options` are those of Playwright's `new_context`."""
    context = running.new_context(viewport={"width": width, "height": height}, **options)
    try:
        result = Opened(context.new_page())
        result.page.on("request", lambda request: result.requests.append(request.url))
        result.page.on("console", lambda message: result.complaints.append(f"{message.type}: {message.text}"))
        result.page.on("pageerror", lambda error: result.complaints.append(f"error: {error}"))
        result.page.goto(path.resolve().as_uri())
        yield result
    finally:
        context.close()
