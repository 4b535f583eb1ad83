"""Debian's Chromium, driven by Playwright, and what its pages complain of."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Response, expect, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="Chromium is not installed (apt-get install chromium)"
)
# Only what hangs takes so long: a busy machine does not.
GENEROUS_MS = 60_000.0
expect.set_options(timeout=GENEROUS_MS)

# What the page asks before a login is answered with 401, and browsers note that in the console.
_EXPECTED = ("/ui/session", "/ui/login")
_WATCH = """
document.addEventListener("securitypolicyviolation", (event) =>
    console.error(`policy violated: ${event.violatedDirective} ${event.blockedURI}`));
"""


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A browser without a window. No other event loop may run in this thread meanwhile."""
    assert CHROMIUM is not None
    # Chromium's sandbox does not run as root.
    options = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, url: str, expected: tuple[str, ...] = (), **options: Any) -> Iterator[Page]:
    """A page of its own session at `url`, without errors in its console and violations of its policy.

    `expected` are parts of the URLs whose failures the test causes.
    """
    problems: list[str] = []
    elsewhere: list[str] = []
    origin = "/".join(url.split("/")[:3]) + "/"
    with browser.new_context(locale="en-US", timezone_id="UTC", **options) as context:
        context.set_default_timeout(GENEROUS_MS)
        context.add_init_script(_WATCH)
        page = context.new_page()

        def log(message: ConsoleMessage) -> None:
            at = message.location["url"]
            if message.type in {"error", "warning"} and not any(
                part in at for part in (*_EXPECTED, *expected)
            ):
                problems.append(f"{message.type} {message.text} at {at}")

        def loaded(response: Response) -> None:
            if not response.url.startswith((origin, "data:")):
                elsewhere.append(response.url)

        page.on("console", log)
        page.on("pageerror", lambda error: problems.append(f"uncaught {error}"))
        page.on("response", loaded)
        page.goto(url)
        yield page
    assert not problems, "\n".join(problems)
    assert not elsewhere


def log_in(page: Page, key: str) -> None:
    """Type `key` into the form, and wait for the first view."""
    page.get_by_label("Key", exact=False).fill(key)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("main h1")).to_be_visible()


def go_to(page: Page, view: str) -> None:
    """Open a view by its link."""
    page.get_by_role("navigation", name="Views").get_by_role("link", name=view).click()
    expect(page.locator("main h1")).to_have_text(view)
