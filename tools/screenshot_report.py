"""A report in a real browser: screenshots of every section on a phone and on a desk, light and dark.

    python tools/screenshot_report.py runs/x/report.html /tmp/shots

The browser is the machine's: DAJ_BROWSER, else chromium or google-chrome on PATH.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SIZES = {"phone": (390, 844), "desk": (1280, 900)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def find_browser() -> str | None:
    """Path of a browser of Chromium's family."""
    named = os.environ.get("DAJ_BROWSER")
    names = [named] if named else ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
    return next((path for path in map(shutil.which, names) if path), None)


@contextmanager
def launched(path: str) -> Iterator[Browser]:
    """The browser without a window; as root without its own sandbox, which does not work there."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def screenshots(report: Path, folder: Path, browser: Browser) -> list[Path]:
    """SECTION-SIZE-SCHEME.png of each section, with its details opened, and the first screen as `top-...`."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for size, (width, height) in SIZES.items():
        for scheme in SCHEMES:
            page = browser.new_page(
                viewport={"width": width, "height": height},
                color_scheme=scheme,
                bypass_csp=True,  # playwright styles the page while it takes a picture
            )
            page.goto(report.resolve().as_uri())
            written.append(folder / f"top-{size}-{scheme}.png")
            page.screenshot(path=written[-1])
            for section in page.locator("main > section").all():
                section.locator("details.numbers").evaluate_all("all => all.slice(0, 1).forEach(d => d.open = true)")
                section.locator("details:not(.numbers)").evaluate_all(
                    "all => all.slice(0, 2).forEach(d => d.open = true)"
                )
                written.append(folder / f"{section.get_attribute('id')}-{size}-{scheme}.png")
                section.screenshot(path=written[-1])
            page.close()
    return written


def main() -> None:
    report, folder = map(Path, sys.argv[1:3])
    path = find_browser()
    if path is None:
        sys.exit("no browser: install chromium, or name one in DAJ_BROWSER")
    with launched(path) as browser:
        for picture in screenshots(report, folder, browser):
            print(picture)


if __name__ == "__main__":
    main()
