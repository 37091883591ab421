"""What the pages still need when Sphinx has written them: a Sphinx extension that works on finished HTML.

Each function takes the text of a page and returns it mended. Nothing here needs a script in the reader's
browser; what only a browser knows (how wide a formula is, which frame a slider shows) is in `book.js`.
"""

from __future__ import annotations

import re
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

# What a section begins with, and what stands in a section that a reader can move.
SECTION_OR_MOVING = re.compile(
    r'<section\b[^>]*? id="([^"]+)"'
    r'|application/vnd\.jupyter\.widget-view\+json|<div class="(?:live|instrument)"'
)
MOVES = "with a figure that you can move"
ICON = re.compile(r'<(i|span) class="([^"]*\b(?:fa-solid|fas|fab)\b[^"]*)"([^>]*)></\1>')
OLD_NAMES = {"pencil-alt": "pencil"}  # of icons

# Scripts and styles by a piece of their address, and what a page must hold to need them.
NEEDED_BY = {
    "scripts/fontawesome.js": None,  # a megabyte and a half; the dozen signs stand in the page instead
    "searchtools.js": 'id="search-results"',
    "language_data.js": 'id="search-results"',
    "searchindex.js": 'id="search-results"',
    "design-tabs.js": 'class="sd-',
    "sphinx-design.min.css": 'class="sd-',
    "clipboard.min.js": 'class="highlight',
    "copybutton.js": 'class="highlight',
    "copybutton.css": 'class="highlight',
    "proof.css": 'class="proof',
    "exercise.css": 'class="exercise',
    "mystnb.": "cell_",
}


@cache
def drawings(fontawesome: Path) -> dict[str, tuple[str, str, str]]:
    """Width, height and path of every sign in the theme's copy of Font Awesome, the filled ones of a pair."""
    drawn = r'"?([\w-]+)"?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","(M[^"]+)"\]'
    signs = re.findall(drawn, fontawesome.read_text(encoding="utf-8"))
    return {name: (width, height, path) for name, width, height, path in signs}


def draw_icons(page: str, known: dict[str, tuple[str, str, str]]) -> str:
    """Put each sign into the page as a drawing, as the theme's script would in the reader's browser."""

    def draw(match: re.Match[str]) -> str:
        names = [word[3:] for word in match[2].split() if word.startswith("fa-")]
        names = [OLD_NAMES.get(name, name) for name in names]
        found = [known[name] for name in names if name in known]
        if not found:
            return match[0]
        width, height, path = found[0]
        return (
            f'<svg class="svg-inline--fa {" ".join(match[2].split())}"{match[3]} aria-hidden="true" '
            f'viewBox="0 0 {width} {height}"><path fill="currentColor" d="{path}"/></svg>'
        )

    return ICON.sub(draw, page)


def load_what_is_used(page: str) -> str:
    """Leave out the scripts and styles that nothing on the page needs."""
    for name, needed_by in NEEDED_BY.items():
        if needed_by is None or needed_by not in page:
            loads = (
                rf'<(?:script|link)\b[^>]*\b(?:src|href)="[^"]*{re.escape(name)}[^"]*"[^>]*>(?:</script>)?\s*'
            )
            page = re.sub(loads, "", page)
    return page


def name_what_is_pressed(page: str) -> str:
    """Give buttons and folded lists names that hold what stands on them."""
    page = page.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    page = re.sub(r'(<button class="btn search-button-field[^>]*) aria-label="Search"', r"\1", page)
    page = re.sub(r'(<i class="theme-switch[^>]*) title="[^"]*"', r"\1", page)  # its button is named
    return re.sub(
        r'(<a class="[^"]*" href="[^"]*">([^<]*)</a><details[^>]*>)<summary>',
        r'\1<summary aria-label="Pages of \2">',
        page,
    )


def lists_are_lists(page: str) -> str:
    """Take the role of a list from what is none: parameters of a signature, entries of a bibliography."""
    page = re.sub(
        r'<dl>(\s*<dd><em class="sig-param">.*?)</dl>',
        lambda match: re.sub("<(/?)dd>", r"<\1span>", f'<span class="sig-params">{match[1]}</span>'),
        page,
        flags=re.DOTALL,
    )
    return page.replace(' role="list" class="citation-list"', ' class="citation-list"').replace(
        ' role="doc-biblioentry"', ""
    )


def mark_what_moves(page: str) -> str:
    """Mark in the page's contents the sections with a figure that a reader can move."""
    entries = set(re.findall(r'<a class="reference internal nav-link" href="#([^"]+)"', page))
    now, moving = None, set()
    for match in SECTION_OR_MOVING.finditer(page):
        if match[1] is None:
            moving.add(now)
        elif match[1] in entries:
            now = match[1]
    mark = f'<span class="moves" title="{MOVES}" aria-hidden="true"> ◐</span>'
    mark += f'<span class="visually-hidden">, {MOVES}</span>'
    for section in moving - {None}:
        entry = rf'(<a class="reference internal nav-link" href="#{re.escape(section)}">(?:(?!</a>).)*)</a>'
        page = re.sub(entry, rf"\1{mark}</a>", page, flags=re.DOTALL)
    return page


def links_back(page: str, path: Path, anchors: dict[Path, set[str]]) -> str:
    """Let each "[docs]" of a source page lead to where its name is described, or leave it out."""

    def lead(match: re.Match[str]) -> str:
        target, name = match[1], unescape(match[2])
        there = anchors.get((path.parent / target).resolve(), set())
        package, *rest = name.split(".")
        # mnf_lite.layers.MeanField is described as mnf_lite.layers.base.MeanField
        for length in range(len(rest)):
            end = "." + ".".join(rest[length:])
            found = [a for a in there if a.startswith(f"{package}.") and a.endswith(end)]
            if name in there or len(found) == 1:
                anchor = name if name in there else found[0]
                return f'<a class="viewcode-back" href="{target}#{anchor}">[docs]</a>'
        return ""

    return re.sub(r'<a class="viewcode-back" href="([^"#]+)#([^"]+)">\[docs\]</a>', lead, page)


def finish(app: Any, exception: Exception | None) -> None:
    """Mend every written page."""
    if exception is not None or app.builder.name != "html":
        return
    root = Path(app.outdir)
    texts = {
        path.resolve(): path.read_text(encoding="utf-8")
        for path in root.rglob("*.html")
        if "_static" not in path.parts
    }
    anchors = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in texts.items()}
    known = drawings(root / "_static" / "scripts" / "fontawesome.js")
    for path, text in texts.items():
        page = name_what_is_pressed(text)
        page = mark_what_moves(lists_are_lists(page))
        page = load_what_is_used(draw_icons(links_back(page, path, anchors), known))
        if page != text:
            path.write_text(page, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this when it loads the extension."""
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
