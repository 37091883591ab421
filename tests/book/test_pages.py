"""The built pages as a reader meets them: in Chromium, from files and from a server, without a network."""

import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from html import unescape
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from mnf_lite import plots
from tools import build_book, chapters, page_assets
from tools.shoot import chromium, find_chromium, settle

LARGEST = 1_500_000  # bytes of a page and its own pictures
PHONE = 390
PAPER = 657  # CSS pixels of A4 within margins of 18 mm
SMALLEST = 9  # pixels of a letter on a phone, outside of pictures
LEGIBLE = 0.59  # of a picture's own pixels, 110 or 120 an inch: there a letter of 8 points is 8 pixels high
LONG = 35  # words of a sentence
PATIENCE = 180_000  # milliseconds: a busy machine is slow, not wrong
expect.set_options(timeout=30_000)
LOCAL = (None, "127.0.0.1")  # hosts of a file and of the test's own server


def chapters_in_toc() -> list[str]:
    """The pages that the table of contents names, without their ending."""
    return [str(Path(name).with_suffix("")) for name in chapters.files_in_toc()]


PAGES = chapters_in_toc()


@pytest.fixture(scope="module")
def book() -> Path:
    """The built book, brought up to date as `make book` does."""
    reason = None
    if find_chromium() is None:
        reason = "no Chromium on this machine (Debian: apt-get install chromium)"
    elif (note := page_assets.fetch()) is not None:
        reason = f"the pages need their own copies of MathJax and the widget manager. {note}"
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    return build_book.build().parent


@pytest.fixture(scope="module")
def browser(book: Path) -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of a plain file server over a folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(book: Path) -> Iterator[str]:
    with serving(book) as address:
        yield address


class Visit:
    """A page in the browser, with all that it asked for and complained about."""

    def __init__(self, browser: Browser, width: int = 1280) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(PATIENCE)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        # Whatever the page asks of others is noted and refused: the tests never touch a network.
        self.page.route(lambda url: urlsplit(url).hostname not in LOCAL, lambda route: route.abort())
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", self._note_failure)
        self.page.on("response", self._note_response)
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))

    def _note_failure(self, request: Any) -> None:
        if request.failure != "net::ERR_ABORTED":  # left alone when the next page was opened
            self.complaints.append(f"failed: {request.url}")

    def _note_response(self, response: Any) -> None:
        if response.status >= 400:
            self.complaints.append(f"{response.status}: {response.url}")

    def _note_message(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    def others(self) -> list[str]:
        """What was asked of other hosts."""
        return [url for url in self.requests if urlsplit(url).hostname not in LOCAL]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    visit = Visit(browser)
    yield visit
    visit.page.close()


@pytest.fixture(params=["file", "server"])
def root(request: pytest.FixtureRequest, book: Path) -> str:
    """Where the pages come from, each test once from files and once from a server."""
    return book.as_uri() if request.param == "file" else request.getfixturevalue("server")


def light(page: Page, theme: str = "light") -> None:
    """Show a page in a theme."""
    page.evaluate("theme => Object.assign(document.documentElement.dataset, {theme, mode: theme})", theme)


def in_viewport(page: Page, width: int) -> None:
    """Give a page a width, and the time to set its formulas anew."""
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done, 50)))")


class Survey(dict[str, Any]):
    """What was seen of a page in one visit: at a desk, on a phone, on paper, and with axe-core."""

    def __init__(self, name: str, book: Path, browser: Browser) -> None:
        visit = Visit(browser)
        page = visit.page
        page.goto((book / f"{name}.html").as_uri())
        settle(page)
        page.evaluate("signsOfMore()")
        pictures = page.locator("article img")
        self["others"], self["complaints"], self["unset"] = (
            visit.others(),
            visit.complaints,
            unset_formulas(page),
        )
        asked = {urlsplit(url).path for url in visit.requests if url.startswith("file:")}
        self["bytes"] = sum(Path(path).stat().st_size for path in asked)
        self["files"] = len(asked)
        self["pictures"] = pictures.count()
        self["silent"] = pictures.evaluate_all("images => images.filter(i => !i.alt.trim()).map(i => i.src)")
        self["broken"] = pictures.evaluate_all(
            "images => images.filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        )
        self["stops"] = page.evaluate(TAB_STOPS)
        in_viewport(page, PHONE)
        self["phone"] = page.evaluate(WIDER_THAN_A_PHONE, PHONE)
        self["letter"] = page.evaluate(SMALLEST_LETTER)
        self["scale"] = pictures.evaluate_all(
            "images => Math.min(...images.filter(i => i.width && i.naturalWidth > 100)"
            ".map(i => i.width / i.naturalWidth))"
        )
        in_viewport(page, PAPER)
        light(page, "dark")
        page.emulate_media(media="print")
        self["cut"] = page.evaluate(CUT_ON_PAPER)
        self["colours"] = page.evaluate(
            "() => [getComputedStyle(document.body).backgroundColor, "
            "getComputedStyle(document.querySelector('article p')).color]"
        )
        page.emulate_media(media="screen")
        in_viewport(page, 1280)
        page.wait_for_timeout(600)  # the theme looks again at what scrolls when the window has rested
        self["axe"] = judged(page)
        visit.page.close()
        words = sentences(name)
        self["long"] = sum(len(sentence.split()) > LONG for sentence in words)


# Whatever a press of Tab would stop at: what can be focused, and what scrolls with nothing in it that can.
TAB_STOPS = """() => {
  const stops = [...document.querySelectorAll('a[href], button, input, select, summary, [tabindex]')]
    .filter(e => e.tabIndex >= 0 && !e.disabled && e.checkVisibility({checkVisibilityCSS: true}));
  const all = new Set(stops);
  const formulas = [...document.querySelectorAll('mjx-container, div.math')].filter(e => all.has(e)
    || (e.scrollWidth > e.clientWidth && e.clientWidth && getComputedStyle(e).overflowX !== 'visible'));
  return {all: new Set([...stops, ...formulas]).size, formulas: formulas.length};
}"""

WIDER_THAN_A_PHONE = """width => [...document.querySelectorAll('article *')].filter(e => {
  const fits = box => box.getBoundingClientRect().right <= width + 1;
  if (e.closest('mjx-assistive-mml, .onlyprint') || fits(e)) return false;
  for (let box = e.parentElement; box.tagName !== 'ARTICLE'; box = box.parentElement)
    if (getComputedStyle(box).overflowX !== 'visible' && fits(box)) return false;
  return true;
}).map(e => e.outerHTML.slice(0, 200))
  .concat(document.scrollingElement.scrollWidth > width ? ['the page'] : [])"""

SMALLEST_LETTER = """() => {
  const walker = document.createTreeWalker(document.querySelector('article'), NodeFilter.SHOW_TEXT);
  let smallest = Infinity;
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    const counts = !e.closest('script, style, sup, sub, mjx-container');
    if (walker.currentNode.data.trim() && e.checkVisibility() && counts)
      smallest = Math.min(smallest, parseFloat(getComputedStyle(e).fontSize));
  }
  return smallest;
}"""

CUT_ON_PAPER = """() => {
  const right = e => e.getBoundingClientRect().right;
  const fits = e => e.scrollWidth <= e.clientWidth + 1 && right(e) <= innerWidth + 1;
  return [...document.querySelectorAll('article :is(pre, table, .cell_output, figure)')]
    .filter(e => e.offsetParent && !fits(e)).map(e => e.outerHTML.slice(0, 120));
}"""

# axe-core takes half a minute for ten thousand coloured words of code: a block whose kinds of words were all
# in blocks before it is emptied, and so are the strokes of formulas.
EMPTY_WHAT_REPEATS = """() => {
  document.querySelectorAll('article mjx-container > *').forEach(e => e.replaceChildren());
  const seen = new Set();
  for (const block of document.querySelectorAll('article .highlight pre')) {
    const kinds = [...block.querySelectorAll('span')].map(e => e.className).filter(kind => !seen.has(kind));
    if (kinds.length) kinds.forEach(kind => seen.add(kind));
    else block.replaceChildren('as above');
  }
}"""


def judged(page: Page) -> list[str]:
    """What axe-core finds serious or critical, with all rules in light, and the contrasts in dark."""
    found = []
    page.evaluate(EMPTY_WHAT_REPEATS)
    page.add_style_tag(content="* { transition: none !important }")  # colours on their way are no colours
    page.add_script_tag(path=page_assets.AXE)
    for theme, rules in {"light": {}, "dark": {"runOnly": ["color-contrast"]}}.items():
        light(page, theme)
        said = page.evaluate(
            "rules => axe.run(document, {resultTypes: ['violations'], preload: false, ...rules})", rules
        )
        found += [
            f"{theme}, {rule['id']}: {node['html'][:150]}"
            for rule in said["violations"]
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ]
    return found


def sentences(name: str) -> list[str]:
    """The sentences of a page's text, without code, formulas and tables."""
    text = (build_book.ROOT / f"{name}.md").read_text(encoding="utf-8")
    text = re.sub(r"^---\n.*?\n---\n", "", text, count=1, flags=re.S)
    text = re.sub(
        r"^(`{3,})\{code-cell.*?^\1$|^\$\$.*?^\$\$.*?$|^\|.*?$|^:?[`:]{3,}.*?$", "\n", text, flags=re.M | re.S
    )
    text = re.sub(r"\$[^$]+\$", "x", text)
    return [
        " ".join(part.split())
        for part in re.split(r"(?<=[.!?:])\s+|\n\s*\n|^\s*[-*] |^\s*\d\. ", text, flags=re.M)
    ]


@pytest.fixture(scope="module")
def surveys(book: Path, browser: Browser) -> Iterator[Callable[[str], Survey]]:
    """Each page is visited once for all tests that ask; all of it becomes the table `_build/pages.md`."""
    seen: dict[str, Survey] = {}

    def survey(name: str) -> Survey:
        if name not in seen:
            seen[name] = Survey(name, book, browser)
        return seen[name]

    yield survey
    if set(seen) == set(PAGES):
        write_table(seen)


DRIVEN: dict[str, dict[str, int]] = {}  # page -> hand -> sliders that it drove


def write_table(seen: dict[str, Survey]) -> None:
    """Write what was seen of all pages, for a reader and for a program."""
    label = 0.8 * 10 * plots.DPI / 72  # pixels of the smallest label of a figure at its full size
    heads = (
        *("page", "kB", "files", "axe findings", "tab stops", "of these formulas"),
        *(
            "sliders by mouse, touch, keyboard",
            "figures with alternative text",
            "smallest letter on a phone, px",
        ),
        *("label in a picture, px (enlarged)", "blocks cut on paper", f"sentences over {LONG} words"),
    )
    rows = []
    for name in PAGES:
        one = seen[name]
        driven = DRIVEN.get(name, {})
        rows.append(
            (
                *(name, round(one["bytes"] / 1000), one["files"], len(one["axe"])),
                *(one["stops"]["all"], one["stops"]["formulas"]),
                ", ".join(str(driven.get(hand, 0)) for hand in ("mouse", "touch", "keyboard")),
                f"{one['pictures'] - len(one['silent'])} of {one['pictures']}",
                one["letter"] and round(one["letter"], 1),
                f"{label * one['scale']:.1f} ({label:.0f})" if one["scale"] else "",
                *(len(one["cut"]), one["long"]),
            )
        )
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in (heads, ["---"] * len(heads), *rows)]
    (build_book.BUILD / "pages.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    table = [dict(zip(heads, row, strict=True)) for row in rows]
    (build_book.BUILD / "pages.json").write_text(json.dumps(table, indent=1), encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_page_from_a_file_shows_everything_and_asks_nothing(
    name: str, surveys: Callable[[str], Survey]
) -> None:
    seen = surveys(name)
    assert seen["others"] == []
    assert seen["complaints"] == []
    assert seen["unset"] == []
    assert seen["silent"] == [], f"{name}: pictures without alternative text"
    assert seen["broken"] == [], f"{name}: pictures that do not load"


@pytest.mark.parametrize("name", PAGES)
def test_page_from_a_server_shows_everything_and_asks_nothing(name: str, server: str, visit: Visit) -> None:
    visit.page.goto(f"{server}/{name}.html")
    settle(visit.page)
    assert visit.others() == []
    assert visit.complaints == []
    assert unset_formulas(visit.page) == []


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious_in_light_and_dark(name: str, surveys: Callable[[str], Survey]) -> None:
    assert surveys(name)["axe"] == []


@pytest.mark.parametrize("name", PAGES)
def test_formulas_at_a_desk_are_no_tab_stops(name: str, surveys: Callable[[str], Survey]) -> None:
    stops = surveys(name)["stops"]
    assert stops["formulas"] <= 0.05 * stops["all"], stops


def unset_formulas(page: Page) -> list[str]:
    """Formulas that MathJax left as text or set as an error."""
    return page.evaluate(
        r"""() => {
          const formulas = [...document.querySelectorAll('span.math, div.math')];
          const left = formulas.filter(e => !e.querySelector('mjx-container'));
          const wrong = [...document.querySelectorAll(
            'mjx-merror, [data-mjx-error], [data-mml-node="merror"], [data-mml-node="mtext"][fill="red"]')];
          const copy = document.querySelector('article').cloneNode(true);
          copy.querySelectorAll('code, pre, script, style, mjx-container').forEach(e => e.remove());
          const raw = copy.textContent.match(/\\[(\[].{0,80}/g) ?? [];
          return [...left, ...wrong].map(e => e.outerHTML.slice(0, 200)).concat(raw);
        }"""
    )


@pytest.mark.parametrize("name", PAGES)
def test_page_and_its_pictures_are_light(name: str, book: Path) -> None:
    page = book / f"{name}.html"
    pictures = set(re.findall(r'<img[^>]* src="(?!data:|https?:)([^"]+)"', page.read_text()))
    total = page.stat().st_size + sum(
        (page.parent / picture).resolve().stat().st_size for picture in pictures
    )
    assert total <= LARGEST, f"{name} weighs {total:,} bytes"


@pytest.mark.parametrize("name", PAGES)
def test_page_fits_a_phone(name: str, surveys: Callable[[str], Survey]) -> None:
    seen = surveys(name)
    assert seen["phone"] == [], f"{name}: wider than a phone and not scrolling by itself"
    assert seen["letter"] >= SMALLEST
    assert seen["scale"] >= LEGIBLE, "letters in pictures are too small"


@pytest.mark.parametrize("name", PAGES)
def test_page_on_paper_cuts_nothing_and_is_black_on_white(
    name: str, surveys: Callable[[str], Survey]
) -> None:
    seen = surveys(name)
    assert seen["cut"] == [], f"{name}: cut at the right margin of the paper"
    assert seen["colours"] == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"], f"{name}: dark mode is printed as it is"


@pytest.mark.parametrize("name", PAGES)
def test_page_loads_only_what_it_uses(name: str, book: Path, surveys: Callable[[str], Survey]) -> None:
    text = (book / f"{name}.html").read_text()
    loads = " ".join(re.findall(r'<(?:script|link)\b[^>]*(?:src|href)="([^"]*)"', text))
    assert "fontawesome" not in loads
    assert "searchindex" not in loads
    assert ("mathjax" in loads) == ('class="math' in text)
    assert ("html-manager" in loads) == ("jupyter.widget-view" in text)
    instrument = 800_000 if 'class="instrument' in text else 0
    scripts = 5_100_000 if "html-manager" in loads else 3_200_000
    assert surveys(name)["bytes"] <= LARGEST + scripts + instrument


def test_no_page_or_style_names_a_source_on_another_host(book: Path) -> None:
    loads = re.compile(r'<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')
    found = [
        f"{path.relative_to(book)}: {match}"
        for path in book.rglob("*.html")
        for match in loads.findall(
            re.sub(r'<script type="application/[^>]*>.*?</script>', "", path.read_text(), flags=re.S)
        )
    ]
    found += [
        f"{path.relative_to(book)}: {match}"
        for path in book.rglob("*.css")
        for match in re.findall(r"(?:@import|url\()\s*['\"]?(?:https?:)?//[^'\")]*", path.read_text())
    ]
    assert found == []


def test_search_finds_a_page(root: str, visit: Visit) -> None:
    visit.page.goto(f"{root}/{PAGES[0]}.html")
    visit.page.keyboard.press("Control+k")
    field = visit.page.locator(
        "dialog input[type=search], .search-button__wrapper.show input[type=search]"
    ).first
    field.fill("louizos")
    field.press("Enter")
    visit.page.wait_for_url("**/search.html?q=louizos*")
    hits = visit.page.locator("#search-results ul.search li a")
    hits.first.wait_for()
    assert "book/appendix/bibliography.html" in "".join(
        hits.evaluate_all("links => links.map(link => link.href)")
    )
    visit.page.wait_for_load_state("networkidle")
    assert visit.others() == []
    assert visit.complaints == []


def unfold(page: Page) -> None:
    """Open what is folded: frames may lie under a live figure."""
    page.locator("article details").evaluate_all("all => all.forEach(details => (details.open = true))")


SOUGHT = {
    "spline": "book/flows/07_neural_splines.html",
    "ELBO": "book/appendix/glossary.html#term-ELBO",
    "overconfident": "book/experiments/02_rotating_nine.html#the-first-claim-overconfident-in-the-middle",
}


@pytest.mark.parametrize("word", SOUGHT)
def test_search_leads_to_the_place_first_and_marks_the_word(word: str, root: str, visit: Visit) -> None:
    visit.page.goto(f"{root}/search.html?q={word}")
    first = visit.page.locator("#search-results ul.search li a").first
    first.wait_for()
    assert (first.get_attribute("href") or "").endswith(SOUGHT[word])
    first.click()
    visit.page.wait_for_url("**found=*")
    expect(visit.page.locator("article mark.highlighted").first).to_have_text(re.compile(word, re.I))
    assert visit.complaints == []


def test_links_within_the_book_lead_to_anchors_that_exist(book: Path) -> None:
    texts = {path: path.read_text() for path in book.rglob("*.html") if "_static" not in path.parts}
    anchors = {path.resolve(): set(re.findall(r'\bid="([^"]+)"', text)) for path, text in texts.items()}
    broken = [
        f"{path.relative_to(book)}: {file}#{anchor}"
        for path, text in texts.items()
        for file, anchor in re.findall(r'href="(?!https?:)([^"#]*)#([^"]+)"', text)
        if unescape(anchor) not in anchors.get((path.parent / file).resolve() if file else path.resolve(), ())
    ]
    assert broken == []


def test_contents_of_a_page_mark_the_figures_that_move(book: Path) -> None:
    for name in PAGES:
        text = (book / f"{name}.html").read_text()
        contents = re.findall(r'<a class="reference internal nav-link"', text)
        moves = re.search(r'jupyter\.widget-view|class="(live|instrument)"', text)
        assert bool(re.search(r'<span class="moves"', text)) <= bool(moves), name
        if moves and len(contents) > 1 and name != PAGES[0]:
            assert '<span class="moves"' in text, name


def test_picture_is_enlarged_by_mouse_and_by_keyboard(book: Path, visit: Visit) -> None:
    visit.page.goto((book / "book/flows/02_affine_and_actnorm.html").as_uri())
    settle(visit.page)
    in_viewport(visit.page, PHONE)
    picture = visit.page.locator("article figure img").first
    button = picture.locator("xpath=ancestor::*[contains(@class, 'enlargeable')][1]").locator("> .enlarge")
    dialog = visit.page.locator("dialog.enlarged")
    expect(button).to_have_attribute("aria-label", re.compile("Enlarge"))
    for open_it in (picture.click, lambda: button.press("Enter")):
        open_it()
        expect(dialog).to_have_attribute("aria-label", picture.get_attribute("alt") or "no alternative text")
        wide = dialog.locator("img").evaluate("image => [image.width, image.naturalWidth]")
        assert wide[0] >= wide[1], "smaller than the picture is"
        visit.page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)


def test_bar_of_a_closed_solution_opens_it_where_its_link_is_pressed_too(book: Path, visit: Visit) -> None:
    visit.page.goto((book / "book/flows/02_affine_and_actnorm.html").as_uri())
    settle(visit.page)
    box = visit.page.locator(".solution.toggle").first
    bar = box.locator("> .admonition-title")
    expect(box).to_have_class(re.compile("toggle-hidden"))
    bar.locator("a").first.click()
    expect(box).not_to_have_class(re.compile("toggle-hidden"))
    assert "#" not in visit.page.url
    bar.click(position={"x": 3, "y": 3})
    expect(box).to_have_class(re.compile("toggle-hidden"))


def test_what_scrolls_on_a_phone_shows_it(book: Path, visit: Visit) -> None:
    visit.page.goto((book / "book/flows/02_affine_and_actnorm.html").as_uri())
    settle(visit.page)
    in_viewport(visit.page, PHONE)
    wide = visit.page.locator("article .highlight pre.more-right").first
    assert wide.evaluate("pre => getComputedStyle(pre).maskImage") != "none"
    wide.evaluate("pre => pre.scrollTo(pre.scrollWidth, 0)")
    expect(wide.page.locator("article pre.more-left").first).to_be_attached()


def shown_frame(figure: Locator) -> str:
    """The picture that a figure with a slider shows."""
    frames = figure.locator("img:visible")
    assert frames.count() == 1, f"{frames.count()} frames are visible at once"
    return str(frames.first.get_attribute("src"))


def drag_by_finger(page: Page, handle: Any, end: float) -> None:
    """Touch a handle, move it to an end, let it go."""
    y = handle["y"] + handle["height"] / 2
    middle = handle["x"] + handle["width"] / 2
    session = page.context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [{"x": middle, "y": y}]),
        ("touchMove", [{"x": (middle + end) / 2, "y": y}]),
        ("touchMove", [{"x": end, "y": y}]),
        ("touchEnd", []),
    ):
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.detach()


def test_slider_changes_the_picture_by_mouse_finger_and_keyboard(book: Path, root: str, visit: Visit) -> None:
    with_slider = [name for name in PAGES if "SliderModel" in (book / f"{name}.html").read_text()]
    assert with_slider, "no page has a slider"
    for name in with_slider:
        visit.page.goto(f"{root}/{name}.html")
        settle(visit.page)
        unfold(visit.page)
        figures = visit.page.locator(".widget-subarea", has=visit.page.locator(".noUi-handle"))
        assert figures.count() > 0
        for figure in figures.all():
            handle = figure.locator(".noUi-handle").first
            handle.scroll_into_view_if_needed()
            seen = [shown_frame(figure)]
            box = handle.bounding_box()
            assert box is not None
            track = figure.locator(".noUi-target").first.bounding_box()
            assert track is not None
            visit.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            visit.page.mouse.down()
            late = box["x"] + box["width"] / 2 > track["x"] + track["width"] / 2  # drag it to the farther end
            end = track["x"] + (0 if late else track["width"])
            visit.page.mouse.move(end, box["y"] + box["height"] / 2, steps=10)
            visit.page.mouse.up()
            seen.append(shown_frame(figure))
            handle.focus()
            visit.page.keyboard.press("ArrowRight" if late else "ArrowLeft")
            seen.append(shown_frame(figure))
            size = handle.bounding_box()
            assert size is not None
            assert min(size["width"], size["height"]) >= 23.9, f"{name}: the handle is smaller than 24 pixels"
            if root.startswith("file:"):
                drag_by_finger(visit.page, size, end)
                seen.append(shown_frame(figure))
                assert seen[3] != seen[2], f"{name}: a finger did not change the picture"
                hands = DRIVEN.setdefault(name, dict.fromkeys(("mouse", "touch", "keyboard"), 0))
                hands.update({hand: number + 1 for hand, number in hands.items()})
            assert seen[1] != seen[0], (
                f"{name}: dragging the slider to its farther end did not change the picture"
            )
            assert seen[2] != seen[1], f"{name}: an arrow key did not change the picture"
        assert visit.complaints == []


def test_play_button_moves_the_slider(book: Path, root: str, visit: Visit) -> None:
    with_play = [name for name in PAGES if "PlayModel" in (book / f"{name}.html").read_text()]
    for name in with_play:
        visit.page.goto(f"{root}/{name}.html")
        settle(visit.page)
        figure = visit.page.locator(".widget-subarea", has=visit.page.locator(".widget-play")).first
        before = shown_frame(figure)
        figure.locator(".widget-play button").first.click()
        visit.page.wait_for_function(
            """([figure, before]) => [...figure.querySelectorAll('img')]
                .some(image => image.offsetParent && image.src !== before)""",
            arg=[figure.element_handle(), before],
        )
        assert visit.complaints == []


def test_sliders_buttons_and_folded_cells_have_names_and_values_in_words(book: Path, visit: Visit) -> None:
    with_slider = [name for name in PAGES if "SelectionSliderModel" in (book / f"{name}.html").read_text()]
    for name in with_slider:
        visit.page.goto((book / f"{name}.html").as_uri())
        settle(visit.page)
        unfold(visit.page)
        for slider in visit.page.locator(".widget-slider").all():
            handle, words = slider.locator(".noUi-handle").first, slider.locator(".widget-readout").first
            expect(handle).to_have_attribute("aria-label", slider.locator(".widget-label").inner_text())
            expect(handle).to_have_attribute("aria-valuetext", words.inner_text())
            before = words.inner_text()
            handle.press("ArrowRight" if handle.get_attribute("aria-valuenow") == "0.0" else "ArrowLeft")
            expect(words).not_to_have_text(before)
            expect(handle).to_have_attribute("aria-valuetext", words.inner_text())
        unnamed = visit.page.locator(".widget-play button:not([aria-label])")
        expect(unnamed).to_have_count(0)
        hidden = visit.page.locator('summary[aria-label="Toggle hidden content"]')
        expect(hidden).to_have_count(0)


def test_moved_slider_announces_its_picture_by_the_alternative_text(book: Path, visit: Visit) -> None:
    name = next(name for name in PAGES if "SelectionSliderModel" in (book / f"{name}.html").read_text())
    visit.page.goto((book / f"{name}.html").as_uri())
    settle(visit.page)
    unfold(visit.page)
    figure = visit.page.locator(".widget-subarea", has=visit.page.locator(".widget-slider")).first
    status = figure.get_by_role("status")
    # On a busy machine the page may hear the first presses too early; each starts its wait for rest anew.
    for key in ("ArrowRight", "ArrowLeft") * 5:
        figure.locator(".noUi-handle").first.press(key)
        visit.page.wait_for_timeout(2000)
        if status.count() and status.inner_text():
            break
    expect(status).not_to_be_empty()
    shown = figure.locator("img").locator("visible=true").first
    expect(status).to_have_text(shown.get_attribute("alt") or "no alternative text")
