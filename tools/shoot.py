"""Screenshots of built pages in light, in dark and at the width of a phone, for authors to look at.

    python -m tools.shoot OUT_FOLDER book/flows/01_change_of_variables [more pages]     (default: every page)

Needs Chromium on the machine; build the book first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tools.build_book import HTML

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
VIEWS = {"light": (1280, 900, "light"), "dark": (1280, 900, "dark"), "phone": (390, 844, "light")}


def find_chromium() -> str | None:
    """The browser on this machine, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless browser with a fresh profile."""
    path = find_chromium()
    if path is None:
        sys.exit("No Chromium on this machine. Install it (Debian: apt-get install chromium) and try again.")
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=[*FLAGS, *(["--no-sandbox"] if root else [])]
        )
        try:
            yield browser
        finally:
            browser.close()


def settle(page: Page) -> None:
    """Wait until formulas are set and widgets stand."""
    page.wait_for_function(
        """() => !document.querySelector('script[src*="mathjax"]')
            || (window.MathJax?.startup?.promise ?? Promise.reject('MathJax did not load'))
                .then(() => true)"""
    )
    page.wait_for_function(
        """() => [...document.querySelectorAll('script[type="application/vnd.jupyter.widget-view+json"]')]
            .every(script => script.parentElement.querySelector('.jupyter-widgets'))"""
    )


def html_pages() -> list[Path]:
    """The built pages of the book itself, without the index pages that Sphinx adds."""
    return sorted((HTML / "book").rglob("*.html"))


def main() -> None:
    """Shoot the pages that the command line names."""
    parser = argparse.ArgumentParser(description="Screenshots of built pages: light, dark, phone.")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("pages", nargs="*", help="pages without ending, such as book/00_preface")
    arguments = parser.parse_args()
    pages = [HTML / f"{name.removesuffix('.md').removesuffix('.ipynb')}.html" for name in arguments.pages]
    arguments.out.mkdir(parents=True, exist_ok=True)
    if missing := [str(path) for path in pages if not path.is_file()]:
        sys.exit(f"Not built: {', '.join(missing)}. Run `make book` first.")
    with chromium() as browser:
        for path in pages or html_pages():
            for view, (width, height, scheme) in VIEWS.items():
                page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                page.add_init_script(
                    f"localStorage.setItem('mode', '{scheme}'); localStorage.setItem('theme', '{scheme}')"
                )
                page.goto(path.as_uri())
                settle(page)
                picture = arguments.out / f"{path.stem}-{view}.png"
                page.screenshot(path=picture, full_page=True)
                page.close()
                print(picture)


if __name__ == "__main__":
    main()
