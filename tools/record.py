"""The instrument as Chromium shows it: a still for pages without scripts, a film for the README.

    python -m tools.record

Writes `book/_static/instrument.png` and `book/_static/instrument.gif`: the digit with which the page begins,
turned from 0 to 180 degrees. Both say in a comment which networks they show. Run it after
`python -m experiments.instrument`.
"""

from __future__ import annotations

import shutil
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Page

from tools.page_assets import ROOT
from tools.shoot import chromium

STATIC = ROOT / "book" / "_static"
FILES = ("instrument.js", "instrument.css", "instrument-data.js")
STILL, FILM = STATIC / "instrument.png", STATIC / "instrument.gif"
COLOURS = 48

# As the chapters have it, with a page around it that is no more than it needs.
DOCUMENT = """<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8">
<title>The instrument</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ background: #fff; font: 16px/1.5 sans-serif; margin: 1rem auto; max-width: 46rem; padding: 0 1rem }}
html[data-theme="dark"] body {{ background: #14181e; color: #ced6dd; --pst-color-text-base: #ced6dd;
  --pst-color-surface: #29313d; --pst-color-text-muted: #9ca4af; --pst-color-primary: #3fb1c5 }}
</style>
<main><h1>The instrument</h1><link rel="stylesheet" href="instrument.css">
<div class="instrument{large}"><img alt="A still picture." src="instrument.png"></div>
<script defer src="instrument.js"></script></main></html>
"""


def write_page(folder: Path, large: bool = False) -> Path:
    """Write a page with the instrument and the files it needs into a folder."""
    for name in FILES:
        shutil.copy(STATIC / name, folder / name)
    page = folder / "index.html"
    page.write_text(DOCUMENT.format(large=" large" if large else ""), encoding="utf-8")
    return page


def wait_for_answer(page: Page) -> str:
    """Wait until the hundred have answered the newest question; return the sentences."""
    said = page.locator(".said[aria-busy='false']")
    said.wait_for(timeout=300_000)  # a busy machine
    return said.inner_text()


def turn(page: Page, degrees: int) -> None:
    """Turn the dial as an input event would."""
    page.locator(".angle").evaluate(
        "(dial, degrees) => { dial.value = degrees; dial.dispatchEvent(new Event('input')); }", degrees
    )


def networks() -> str:
    """Fingerprint of the networks and digits that are shown."""
    return sha256((STATIC / "instrument-data.js").read_bytes()).hexdigest()


def main() -> None:
    """Record both."""
    frames: list[Image.Image] = []
    angles = [*range(0, 181, 10)]
    with TemporaryDirectory() as folder, chromium() as browser:
        page = browser.new_page(viewport={"width": 780, "height": 800})
        page.goto(write_page(Path(folder)).as_uri())
        wait_for_answer(page)
        begins = int(page.locator(".angle").input_value())
        for degrees in angles:
            turn(page, degrees)
            wait_for_answer(page)
            shot = page.locator(".instrument .page").screenshot()
            frames.append(Image.open(BytesIO(shot)).convert("RGB"))
    size = frames[0].width, max(frame.height for frame in frames)
    for k, frame in enumerate(frames):
        paper = Image.new("RGB", size, "white")
        paper.paste(frame)
        frames[k] = paper.quantize(COLOURS, dither=Image.Dither.NONE)
    about = PngInfo()
    about.add_text("Comment", networks())
    frames[angles.index(begins)].save(STILL, optimize=True, pnginfo=about)
    durations = [1200, *[350] * (len(frames) - 2), 1200]  # milliseconds
    frames[0].save(
        FILM, save_all=True, append_images=frames[1:], duration=durations, loop=0, comment=networks()
    )
    for path in (STILL, FILM):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
