"""The whole book as one PDF: `make pdf`.

Chromium prints page by page what `make book` built, with the style sheet for paper and every solution open.
Then the pages are joined, with a page of contents before them, bookmarks, and a number at each foot.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from html import escape
from pathlib import Path

import yaml
from playwright.sync_api import Browser
from pypdf import PdfReader, PdfWriter
from pypdf.generic import ArrayObject, NameObject

from tools import build_book
from tools.shoot import chromium, settle

PDF = build_book.BUILD / "normalizing-flows.pdf"
MARGIN = "18mm"
PAPER = {"format": "A4", "margin": dict.fromkeys(("top", "bottom", "left", "right"), MARGIN)}
MINUTES = 5  # at most, for one page on a busy machine
STYLE = """<meta charset="utf-8"><style>
body { font: 11pt/1.5 system-ui, sans-serif; margin: 0 }
h1 { font-size: 22pt; margin: 0 0 1em }
h2 { font-size: 12pt; margin: 1em 0 0.2em }
p { display: flex; justify-content: space-between; margin: 0 }
.deeper { padding-left: 2em }
footer { break-after: page; height: 255mm; display: flex; align-items: end; justify-content: center }
</style>"""

# A line of the contents: part, name of the page, how deep it lies.
Line = tuple[str, str, int]


def lines_of_contents() -> list[Line]:
    """All pages in their order, by the table of contents."""
    toc = yaml.safe_load((build_book.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    lines: list[Line] = [("", toc["root"], 0)]
    for part in toc["parts"]:
        for top in part["chapters"]:
            lines.append((part["caption"], top["file"], 0))
            lines += [(part["caption"], section["file"], 1) for section in top.get("sections", [])]
    return [(part, str(Path(name).with_suffix("")), depth) for part, name, depth in lines]


def print_page(browser: Browser, address: str, target: Path) -> str:
    """Print one built page, and return its title."""
    page = browser.new_page()
    page.set_default_timeout(MINUTES * 60_000)
    page.goto(address)
    settle(page)
    title = page.locator("h1").first.evaluate("h1 => h1.firstChild.textContent.trim()")
    page.pdf(path=target, outline=True, tagged=True, **PAPER)
    page.close()
    return str(title)


def print_text(browser: Browser, html: str, target: Path, **margins: str) -> None:
    """Print a page that is made here: the contents, and the numbers."""
    page = browser.new_page()
    page.set_content(STYLE + html)
    page.pdf(path=target, **{**PAPER, **({"margin": margins} if margins else {})})
    page.close()


def contents(lines: list[Line], titles: list[str], first_pages: list[int]) -> str:
    """The page of contents, in HTML."""
    book, *_ = titles
    html, now = f"<h1>{escape(book)}</h1>", ""
    for (part, _, depth), title, first in zip(lines, titles, first_pages, strict=True):
        html += f"<h2>{escape(part)}</h2>" if part != now else ""
        html += f'<p class="{"deeper" if depth else ""}"><span>{escape(title)}</span><span>{first}</span></p>'
        now = part
    return html


def lead_within(writer: PdfWriter, starts: dict[str, int]) -> None:
    """Let links from page to page of the book lead within the PDF."""
    for page in writer.pages:
        for annotation in page.get("/Annots", []):
            link = annotation.get_object()
            address = str(link.get("/A", {}).get("/URI", "")).split("#")[0]
            if address in starts:
                del link["/A"]
                there = writer.pages[starts[address]].indirect_reference
                link[NameObject("/Dest")] = ArrayObject([there, NameObject("/Fit")])


def make(lines: list[Line], target: Path) -> Path:
    """Print the built pages, join them, and write the PDF."""
    root = build_book.HTML.as_uri()
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        work = Path(folder)
        files = [work / f"{number}.pdf" for number in range(len(lines))]
        addresses = [f"{root}/{name}.html" for _, name, _ in lines]
        titles = [print_page(browser, *both) for both in zip(addresses, files, strict=True)]
        lengths = [len(PdfReader(file).pages) for file in files]

        def starts_after(before: int) -> list[int]:
            return [before + sum(lengths[:number]) for number in range(len(lengths))]

        front = work / "contents.pdf"
        print_text(browser, contents(lines, titles, starts_after(0)), front)
        before = len(PdfReader(front).pages)  # how long the contents are does not hang on the numbers in it
        firsts = starts_after(before)
        print_text(browser, contents(lines, titles, [first + 1 for first in firsts]), front)

        writer = PdfWriter()
        writer.append(front, outline_item="Contents")
        for title, file in zip(titles, files, strict=True):
            writer.append(file, outline_item=title, import_outline=True)
        lead_within(writer, dict(zip(addresses, firsts, strict=True)))
        numbers = work / "numbers.pdf"
        feet = "".join(f"<footer>{number + 1}</footer>" for number in range(len(writer.pages)))
        print_text(browser, feet, numbers, top="18mm", bottom="8mm")
        for page, number in zip(writer.pages, PdfReader(numbers).pages, strict=False):
            page.merge_page(number)
        writer.add_metadata({"/Title": titles[0]})
        writer.compress_identical_objects(remove_duplicates=True, remove_unreferenced=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        writer.write(target)
    return target


def main() -> None:
    """Bring the book up to date and print it."""
    parser = argparse.ArgumentParser(description="The built book as one PDF.")
    parser.add_argument(
        "pages", nargs="*", help="pages without ending, such as book/00_preface (default: all)"
    )
    chosen = parser.parse_args().pages
    lines = [line for line in lines_of_contents() if not chosen or line[1] in chosen]
    if len(lines) < len(chosen):
        sys.exit(f"Not in the table of contents: {', '.join(set(chosen) - {name for _, name, _ in lines})}")
    build_book.build()
    print(f"Printed. Open {os.path.relpath(make(lines, PDF))}")


if __name__ == "__main__":
    main()
