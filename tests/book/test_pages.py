"""The built pages as a reader meets them: in Chromium, from files and from a server, without a network."""

import os
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tools import build_book, chapters, page_assets
from tools.shoot import chromium, find_chromium, settle

LARGEST = 1_500_000  # bytes of a page and its own pictures
PHONE = 390
PAPER = 657  # CSS pixels of A4 within margins of 18 mm
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


@pytest.fixture(scope="module")
def server(book: Path) -> Iterator[str]:
    """The address of a plain file server over the book."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=book)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


class Visit:
    """A page in the browser, with all that it asked for and complained about."""

    def __init__(self, browser: Browser, width: int = 1280) -> None:
        self.page: Page = browser.new_page(viewport={"width": width, "height": 900})
        self.requests: list[str] = []
        self.complaints: list[str] = []
        # Whatever the page asks of others is noted and refused: the tests never touch a network.
        self.page.route(lambda url: urlsplit(url).hostname not in LOCAL, lambda route: route.abort())
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("response", self._note_response)
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))

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


@pytest.mark.parametrize("name", PAGES)
def test_page_asks_nothing_of_others_and_shows_formulas_and_pictures(
    name: str, root: str, visit: Visit
) -> None:
    visit.page.goto(f"{root}/{name}.html")
    settle(visit.page)
    assert visit.others() == []
    assert visit.complaints == []
    assert unset_formulas(visit.page) == []
    without_text = visit.page.locator("article img").evaluate_all(
        "images => images.filter(image => !image.alt.trim()).map(image => image.outerHTML.slice(0, 200))"
    )
    assert without_text == [], f"{name}: pictures without alternative text"
    broken = visit.page.locator("article img").evaluate_all(
        "images => images.filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
    )
    assert broken == [], f"{name}: pictures that do not load"


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
def test_page_fits_a_phone(name: str, book: Path, browser: Browser) -> None:
    visit = Visit(browser, width=PHONE)
    visit.page.goto((book / f"{name}.html").as_uri())
    settle(visit.page)
    assert visit.page.evaluate("document.scrollingElement.scrollWidth") <= PHONE
    wide = visit.page.evaluate(
        """width => [...document.querySelectorAll('article *')].filter(e => {
          const fits = box => box.getBoundingClientRect().right <= width + 1;
          if (e.closest('mjx-assistive-mml, .onlyprint') || fits(e)) return false;
          for (let box = e.parentElement; box.tagName !== 'ARTICLE'; box = box.parentElement)
            if (getComputedStyle(box).overflowX !== 'visible' && fits(box)) return false;
          return true;
        }).map(e => e.outerHTML.slice(0, 200))""",
        PHONE,
    )
    visit.page.close()
    assert wide == [], f"{name}: wider than a phone and not scrolling by itself"


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


def shown_frame(figure: Locator) -> str:
    """The picture that a figure with a slider shows."""
    frames = figure.locator("img:visible")
    assert frames.count() == 1, f"{frames.count()} frames are visible at once"
    return str(frames.first.get_attribute("src"))


def test_slider_changes_the_picture_by_mouse_and_by_keyboard(book: Path, root: str, visit: Visit) -> None:
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
            assert seen[1] != seen[0], f"{name}: dragging the slider to its farther end did not change the picture"
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
    for key in ("ArrowRight", "ArrowLeft") * 5:  # on a busy machine the page may hear the first ones too early
        figure.locator(".noUi-handle").first.press(key)
        visit.page.wait_for_timeout(2000)  # the page waits until the slider rests, and each press starts that anew
        if status.count() and status.inner_text():
            break
    expect(status).not_to_be_empty()
    shown = figure.locator("img").locator("visible=true").first
    expect(status).to_have_text(shown.get_attribute("alt") or "no alternative text")


@pytest.mark.parametrize("name", PAGES)
def test_page_on_paper_cuts_nothing_and_is_black_on_white(name: str, book: Path, browser: Browser) -> None:
    visit = Visit(browser, width=PAPER)
    visit.page.add_init_script("localStorage.setItem('mode', 'dark'); localStorage.setItem('theme', 'dark')")
    visit.page.goto((book / f"{name}.html").as_uri())
    settle(visit.page)
    visit.page.emulate_media(media="print")
    cut = visit.page.evaluate(
        """() => {
          const right = e => e.getBoundingClientRect().right;
          const fits = e => e.scrollWidth <= e.clientWidth + 1 && right(e) <= innerWidth + 1;
          return [...document.querySelectorAll('article :is(pre, table, .cell_output, figure)')]
            .filter(e => e.offsetParent && !fits(e)).map(e => e.outerHTML.slice(0, 120));
        }"""
    )
    colours = visit.page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor,
            getComputedStyle(document.querySelector('article p')).color]"""
    )
    visit.page.close()
    assert cut == [], f"{name}: cut at the right margin of the paper"
    assert colours == ["rgb(255, 255, 255)", "rgb(0, 0, 0)"], f"{name}: dark mode is printed as it is"
