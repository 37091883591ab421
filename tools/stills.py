"""Stills of the live figures, for notebooks and for readers without JavaScript: `python -m tools.stills`.

Each `<div class="live" id="ID">` of the built pages is drawn as it stands at first, into
`book/_static/ID.png`.
Needs Chromium; build the book before and after.
"""

from __future__ import annotations

from io import BytesIO

from PIL import Image
from playwright.sync_api import Browser

from tools.build_book import ROOT
from tools.shoot import chromium, html_pages, settle

STATIC = ROOT / "book" / "_static"
WIDTH, SHARPNESS, COLOURS = 1280, 1.5, 160
PATIENCE = 120_000  # milliseconds for a page, on a busy machine


def stills(browser: Browser) -> dict[str, Image.Image]:
    """A picture of every live figure, by its id."""
    pictures = {}
    view = {"viewport": {"width": WIDTH, "height": 900}, "device_scale_factor": SHARPNESS}
    page = browser.new_page(color_scheme="light", **view)
    page.set_default_timeout(PATIENCE)
    for path in html_pages():
        if 'class="live"' not in path.read_text(encoding="utf-8"):
            continue
        page.goto(path.as_uri())
        settle(page)
        for figure in page.locator(".live").all():
            shot = figure.locator("svg").screenshot(animations="disabled")
            pictures[figure.get_attribute("id")] = Image.open(BytesIO(shot)).convert("RGB")
    page.close()
    return pictures


def main() -> None:
    """Draw all stills anew."""
    with chromium() as browser:
        pictures = stills(browser)
    for name, picture in pictures.items():
        path = STATIC / f"{name}.png"
        picture.quantize(COLOURS).save(path, optimize=True)
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
