"""Pictures of each view of the operator's page, at two widths, light and dark: `scripts/screenshots`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.support.admin import ADMIN_KEY
from tests.support.browser import CHROMIUM, go_to, log_in, opened, running_chromium
from tests.support.demo import running_demo, traffic
from tests.support.proxy import Proxy

SIZES = {1280: 900, 390: 844}
SCHEMES = ("light", "dark")


def pictures(directory: Path) -> None:
    """Write them into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as place,
        running_demo(Path(place)) as (proxy, keys),
        running_chromium() as browser,
    ):
        for width, height in SIZES.items():
            for scheme in SCHEMES:
                options: dict[str, Any] = {
                    "viewport": {"width": width, "height": height},
                    "color_scheme": scheme,
                    "reduced_motion": "reduce",
                    "device_scale_factor": 1 if width > 1000 else 2,
                }
                shots = Shots(directory, f"{width}-{scheme}")
                _administrator(browser, proxy, keys, shots, options)
                with opened(browser, f"{proxy.url}/ui", **options) as page:
                    log_in(page, keys["support-agent"])
                    expect(page.locator("main .plot svg")).to_be_visible()
                    shots.take(page, "own-usage")


class Shots:
    """Names the files of one width and scheme."""

    def __init__(self, directory: Path, suffix: str) -> None:
        self._directory = directory
        self._suffix = suffix

    def take(self, page: Page, name: str, *, whole: bool = True) -> None:
        """A picture of the whole page, or of what the window shows."""
        if whole:
            page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=self._directory / f"{name}-{self._suffix}.png", full_page=whole)


def _administrator(
    browser: Browser, proxy: Proxy, keys: dict[str, str], shots: Shots, options: dict[str, Any]
) -> None:
    with opened(browser, f"{proxy.url}/ui", **options) as page:
        expect(page.get_by_role("button", name="Log in")).to_be_visible()
        shots.take(page, "login")
        log_in(page, ADMIN_KEY)
        for _ in range(4):  # for lines in the plots
            traffic(proxy, keys, 12)
            page.wait_for_timeout(1000)
        shots.take(page, "now")
        go_to(page, "Targets")
        expect(page.locator("main tbody tr").first).to_be_visible()
        shots.take(page, "targets")
        _requests(page, shots)
        for view in ("Spend", "Keys"):
            go_to(page, view)
            expect(page.locator("main tbody tr").first).to_be_visible()
            shots.take(page, view.lower())
        page.get_by_role("button", name="Create key").click()
        shots.take(page, "create-key", whole=False)
        page.keyboard.press("Escape")
        go_to(page, "Explain")
        page.get_by_label("Model").fill("smart")
        page.keyboard.press("Enter")
        page.get_by_label("Failure of openai/gpt-5").select_option("timeout")
        shots.take(page, "explain")
        _playground(page, shots)


def _requests(page: Page, shots: Shots) -> None:
    go_to(page, "Requests")
    page.get_by_role("button", name="Pause").click()
    page.get_by_label("Model").fill("smart")
    page.locator("main tbody button").nth(1).click()
    shots.take(page, "requests", whole=False)


def _playground(page: Page, shots: Shots) -> None:
    go_to(page, "Playground")
    page.get_by_text("System prompt, parameters and tools").click()
    page.get_by_role("button", name="Insert an example").click()
    page.get_by_text("System prompt, parameters and tools").click()
    page.get_by_label("Model", exact=True).fill("fast")
    page.get_by_label("Compare two models").check()
    page.get_by_label("Second model", exact=True).fill("openai/gpt-5-mini")
    page.get_by_label("Message").fill("What is the weather in Oxford?")
    page.keyboard.press("Enter")
    lanes = page.locator(".lane")
    for lane in lanes.all():
        lane.get_by_label("Result of get_weather").fill('{"celsius": 14, "sky": "clear"}')
        lane.get_by_role("button", name="Send result").click()
    for lane in lanes.all():
        expect(lane.locator(".figures-line .cost").nth(1)).to_contain_text("$")
    shots.take(page, "playground", whole=False)


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("Chromium is not installed (apt-get install chromium)")
    pictures(Path(sys.argv[1]))
