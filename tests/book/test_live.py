"""The live figures of the flows: what they compute is the package's, and they answer to every hand."""

import json
import math
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from torch import Tensor

from experiments.live_coupling import load
from mnf_lite.flows import Compose
from mnf_lite.flows.spline import EPSILON, UNIT_SLOPE, Spline
from tests.book import test_pages
from tools import stills
from tools.shoot import chromium, find_chromium, settle

book, server = test_pages.book, test_pages.server
STATIC = stills.STATIC
CHAPTERS = {
    "live-map": "book/flows/01_change_of_variables",
    "live-spline": "book/flows/07_neural_splines",
    "live-coupling": "book/flows/04_coupling",
}
figures = pytest.mark.parametrize("name", CHAPTERS)


# What they compute


def in_node(script: str, answer: str, given: Any) -> Any:
    """What an expression of a figure's script makes of ``given``, without a page around it."""
    files = (
        ["live.js", f"{script}.js"]
        if script != "live-coupling"
        else ["live.js", f"{script}-data.js", f"{script}.js"]
    )
    source = [(STATIC / file).read_text(encoding="utf-8") for file in files]
    source.insert(1, "Live.figure = () => {};\n")
    source.append(f"const given = {json.dumps(given)}; console.log(JSON.stringify({answer}));")
    done = subprocess.run(["node", "-"], input="".join(source), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def random_bends(count: int) -> list[list[dict[str, float]]]:
    """Pairs of bends of maps that rise."""
    generator = np.random.default_rng(0)
    places, strengths = generator.uniform(-2, 2, (count, 2)), generator.uniform(-0.2, 1.5, (count, 2))
    return [
        [{"a": a, "c": c} for a, c in zip(*pair, strict=True)] for pair in zip(strengths, places, strict=True)
    ]


def test_map_has_the_chapters_formula_and_slope() -> None:
    z = torch.linspace(-4, 4, 41, dtype=torch.float64)
    answer = "given.bends.map((b) => given.z.map((z) => [liveMap.f(z, b), liveMap.slope(z, b)]))"
    bends = random_bends(20)
    found = torch.tensor(in_node("live-map", answer, {"z": z.tolist(), "bends": bends}), dtype=torch.float64)
    for (first, second), (f, slope) in zip(bends, found.transpose(1, 2), strict=True):

        def chapters(z: Tensor, first: Any = first, second: Any = second) -> Tensor:
            return z + sum(b["a"] * torch.tanh(2 * (z - b["c"])) for b in (first, second))

        torch.testing.assert_close(f, chapters(z))
        torch.testing.assert_close(slope, torch.func.vmap(torch.func.grad(chapters))(z))


def test_density_of_the_map_has_the_mass_of_the_base_left_of_every_point() -> None:
    z = torch.linspace(-8, 8, 8001, dtype=torch.float64)
    answer = "given.bends.map((b) => given.z.map((z) => [liveMap.f(z, b), liveMap.pX(z, b)]))"
    for rows in in_node("live-map", answer, {"z": z.tolist(), "bends": random_bends(10)}):
        x, p = torch.tensor(rows, dtype=torch.float64).T
        mass = torch.cumulative_trapezoid(p, x)
        torch.testing.assert_close(mass, torch.special.ndtr(z[1:]), rtol=0, atol=1e-5)
        assert mass[-1].item() == pytest.approx(1, abs=1e-5)


def test_map_measures_its_own_area_and_hills() -> None:
    cases = [[{"a": a, "c": 0}, {"a": 0, "c": 1.6}] for a in (-0.45, 0, 1)]
    found = in_node("live-map", "given.map(liveMap.measure)", cases)
    assert [case["hills"] for case in found] == [1, 1, 2]
    assert [case["area"] for case in found] == pytest.approx([1, 1, 1], abs=1e-4)


def test_map_cannot_be_bent_until_it_folds() -> None:
    wishes = [{"k": k, "a": a, "c": c} for k in (0, 1) for a in (-3, -0.6, 5) for c in (-1, 0.3, 1.6)]
    answer = """given.map(({ k, a, c }) => liveMap.towards([{ a: -0.4, c: 0 }, { a: -0.3, c: 1.6 }], k, a, c))
        .map((bends) => Math.min(...Live.range(-5, 5, 4000).map((z) => liveMap.slope(z, bends))))"""
    assert min(in_node("live-map", answer, wishes)) > 0.04


def random_knots(count: int) -> tuple[Tensor, Tensor]:
    """Raw numbers ``[count, 11]`` of splines of four bins, and where they are evaluated, ``[count]``."""
    generator = torch.Generator().manual_seed(0)
    raw = torch.randn(count, 11, generator=generator, dtype=torch.float64)
    return raw, 8 * torch.rand(count, generator=generator, dtype=torch.float64) - 4


def test_spline_is_the_packages() -> None:
    raw, x = random_knots(300)
    spline = Spline(4, 3.0).double()
    w, h, d = raw.split((4, 4, 3), -1)
    share = lambda r: EPSILON + (1 - 4 * EPSILON) * r.softmax(-1)  # noqa: E731
    ends = [6 * torch.nn.functional.pad(share(r).cumsum(-1), (1, 0)) - 3 for r in (w, h)]
    slopes = torch.nn.functional.pad(
        EPSILON + torch.nn.functional.softplus(d + UNIT_SLOPE), (1, 1), value=1.0
    )
    knots = [
        {"xs": xs, "ys": ys, "d": d}
        for xs, ys, d in zip(ends[0].tolist(), ends[1].tolist(), slopes.tolist(), strict=True)
    ]
    answer = """given.x.map((x, i) =>
      [...liveSpline.curve(x, given.knots[i]), liveSpline.logDensity(x, given.knots[i])])"""
    found = in_node("live-spline", answer, {"x": x.tolist(), "knots": knots})
    y, log_slope, log_p = torch.tensor(found, dtype=torch.float64).T
    theirs, their_log_slope = spline(x, raw)
    torch.testing.assert_close(y, theirs, rtol=0, atol=1e-6)
    torch.testing.assert_close(log_slope, their_log_slope, rtol=0, atol=1e-5)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(theirs)
    torch.testing.assert_close(log_p, normal + their_log_slope, rtol=0, atol=1e-5)


def test_mass_left_of_a_knot_is_the_normal_one() -> None:
    z = torch.linspace(-4, 4, 81, dtype=torch.float64)
    found = torch.tensor(
        in_node("live-spline", "given.map(liveSpline.below)", z.tolist()), dtype=torch.float64
    )
    torch.testing.assert_close(found, torch.special.ndtr(z), rtol=0, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 5, 8])
def test_couplings_are_the_packages(n: int) -> None:
    flow = Compose(load()[:n], dim=2)
    z = 2 * torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    answer = """(() => {
      const chain = liveCoupling.couplings(liveCouplingData);
      const ways = { forward: ({ x, logDet }) => [...x, logDet], inverse: ({ z, logDet }) => [...z, logDet] };
      return Object.entries(ways).map(([way, list]) =>
        given.z.map((z) => list(liveCoupling[way](z, chain, given.n))));
    })()"""
    found = torch.tensor(in_node("live-coupling", answer, {"z": z.tolist(), "n": n}), dtype=torch.float64)
    with torch.no_grad():
        for theirs, ours in zip((flow(z), flow.inverse(z)), found, strict=True):
            torch.testing.assert_close(ours[:, :2], theirs[0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(ours[:, 2], theirs[1], rtol=1e-9, atol=1e-9)


def test_a_part_of_a_coupling_is_a_coupling() -> None:
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    answer = """(() => {
      const chain = liveCoupling.couplings(liveCouplingData), n = 4.6, h = 1e-6;
      return given.map((z) => {
        const { x, logDet } = liveCoupling.forward(z, chain, n), back = liveCoupling.inverse(x, chain, n);
        const right = liveCoupling.forward([z[0] + h, z[1]], chain, n).x;
        const up = liveCoupling.forward([z[0], z[1] + h], chain, n).x;
        const [a, b, c, d] = [right[0] - x[0], up[0] - x[0], right[1] - x[1], up[1] - x[1]].map((v) => v / h);
        return [...back.z, logDet, back.logDet, Math.log(Math.abs(a * d - b * c))];
      });
    })()"""
    found = torch.tensor(in_node("live-coupling", answer, z.tolist()), dtype=torch.float64)
    torch.testing.assert_close(found[:, :2], z, rtol=0, atol=1e-9)
    torch.testing.assert_close(found[:, 2], -found[:, 3], rtol=0, atol=1e-9)
    off = (found[:, 2] - found[:, 4]).abs()
    assert (off < 1e-3).float().mean() > 0.9, "but at a kink of a ReLU differences say little"


def test_tables_of_the_picture_are_close_to_the_networks() -> None:
    answer = """(() => {
      const chain = liveCoupling.couplings(liveCouplingData), quick = liveCoupling.tabulated(chain);
      const apart = (h) => Live.range(-6, 6, 3001).flatMap((u) =>
        chain.map((layer, k) => Math.abs(layer[h](u) - quick[k][h](u))));
      return Math.max(...apart("s"), ...apart("t"));
    })()"""
    assert in_node("live-coupling", answer, None) < 0.05


# How they answer: on a page that holds nothing but the figure, which stands in a moment


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        reason = "no Chromium on this machine (Debian: apt-get install chromium)"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page on which no script may fail."""
    page, errors = browser.new_page(viewport={"width": 720, "height": 900}), []
    page.on("pageerror", lambda error: errors.append(error))
    yield page
    page.close()
    assert errors == []


def open_figure(page: Page, name: str, folder: Path) -> None:
    """Open the figure alone, as its chapter has it."""
    chapter = Path(stills.ROOT, f"{CHAPTERS[name]}.md").read_text(encoding="utf-8")
    found = re.search(r"<link rel.*</script>", chapter, re.S)
    assert found
    block = re.sub(r"!\[(.*?)\]\(../_static/(.*?)\)", r'<img alt="\1" src="../../_static/\2">', found[0])
    bare = folder / "figure.html"
    bare.write_text(
        f"<meta charset=utf-8>{block}".replace("../../_static", STATIC.as_uri()), encoding="utf-8"
    )
    page.goto(bare.as_uri())


def handles(page: Page) -> Locator:
    return page.locator(".live [role=slider]")


def words(handle: Locator) -> str:
    return handle.get_attribute("aria-valuetext") or ""


def values(handle: Locator) -> list[float]:
    """The least value, the present one and the greatest."""
    return [float(handle.get_attribute(f"aria-value{part}") or "nan") for part in ("min", "now", "max")]


def middle(locator: Locator) -> tuple[float, float]:
    box = locator.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@figures
def test_every_handle_has_a_name_and_says_where_it_is(name: str, page: Page, tmp_path: Path) -> None:
    open_figure(page, name, tmp_path)
    found = handles(page).all()
    labels = [handle.get_attribute("aria-label") for handle in found]
    assert all(labels)
    assert len(set(labels)) == len(labels) >= 2
    for handle in found:
        assert words(handle)
        least, now, most = (
            float(handle.get_attribute(f"aria-value{part}") or "nan") for part in ("min", "now", "max")
        )
        assert least <= now <= most
        assert handle.get_attribute("tabindex") == "0"


@figures
def test_every_handle_follows_the_mouse(name: str, page: Page, tmp_path: Path) -> None:
    open_figure(page, name, tmp_path)
    for handle in handles(page).all():
        before, (x, y) = words(handle), middle(handle)
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 14, y - 25, steps=5)
        during = words(handle)
        page.mouse.up()
        page.mouse.move(x + 60, y - 60)
        assert during != before, handle.get_attribute("aria-label")
        assert words(handle) == during, "it was let go"


@figures
def test_every_handle_follows_a_finger_and_the_page_stays(
    name: str, browser: Browser, tmp_path: Path
) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    page = context.new_page()
    open_figure(page, name, tmp_path)
    finger = context.new_cdp_session(page)

    def touch(kind: str, *at: float) -> None:
        points = [{"x": at[0], "y": at[1]}] if at else []
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    for handle in handles(page).all():
        handle.scroll_into_view_if_needed()
        before, scrolled, (x, y) = words(handle), page.evaluate("scrollY"), middle(handle)
        touch("touchStart", x, y)
        for step in range(1, 6):
            touch("touchMove", x + 3 * step, y - 5 * step)
        touch("touchEnd")
        assert words(handle) != before, handle.get_attribute("aria-label")
        assert page.evaluate("scrollY") == scrolled
    context.close()


@figures
def test_every_handle_obeys_the_keyboard_and_keeps_its_bounds(name: str, page: Page, tmp_path: Path) -> None:
    open_figure(page, name, tmp_path)
    for handle in handles(page).all():
        for key in ("ArrowRight", "ArrowUp"):  # one of the two for what moves along one axis
            before = words(handle)
            handle.press(key)
            if words(handle) != before:
                break
        else:
            pytest.fail(f"{handle.get_attribute('aria-label')} does not move")
        for key in ("Home", "End", "PageUp", "Shift+ArrowLeft"):
            handle.press(key)
            least, now, most = values(handle)
            assert least - 0.01 <= now <= most + 0.01, f"{handle.get_attribute('aria-label')} after {key}"
    page.get_by_role("button", name="Start over").click()


@figures
def test_what_is_seen_is_announced(name: str, page: Page, tmp_path: Path) -> None:
    open_figure(page, name, tmp_path)
    figure = page.locator(f"#{name}")
    first = figure.locator(".words").inner_text()
    expect(figure.get_by_role("status")).to_have_text(first)
    handles(page).first.press("ArrowRight")
    handles(page).first.press("ArrowUp")
    expect(figure.locator(".words")).not_to_have_text(first)
    expect(figure.get_by_role("status")).to_have_text(figure.locator(".words").inner_text())


def test_image_lands_where_it_is_dragged_and_the_couplings_are_undone(page: Page, tmp_path: Path) -> None:
    open_figure(page, "live-coupling", tmp_path)
    z, x = handles(page).all()
    before = words(z)
    (x_0, y_0), (to_x, to_y) = middle(x), (middle(x)[0] + 30, middle(x)[1] - 40)
    page.mouse.move(x_0, y_0)
    page.mouse.down()
    page.mouse.move(to_x, to_y, steps=8)
    page.mouse.up()
    assert words(z) != before
    assert math.dist(middle(x), (to_x, to_y)) < 1.5


def test_dial_moves_points_between_two_couplings(page: Page, tmp_path: Path) -> None:
    open_figure(page, "live-coupling", tmp_path)
    dial = page.get_by_label("couplings", exact=True)
    expect(dial).to_have_attribute("aria-valuetext", "8 of 8 couplings")
    dots = page.locator("#live-coupling circle.sample")
    seen = []
    for value in ("4", "4.5", "5"):
        dial.fill(value)
        seen.append(
            dots.evaluate_all("dots => dots.map(dot => [+dot.getAttribute('cx'), +dot.getAttribute('cy')])")
        )
    low, between, high = (np.array(positions)[400:] for positions in seen)
    assert (low[:, 0] == high[:, 0]).all(), "the fifth coupling moves x_2 alone"
    inside = (between[:, 1] >= np.minimum(low, high)[:, 1] - 0.2) & (
        between[:, 1] <= np.maximum(low, high)[:, 1] + 0.2
    )
    assert inside.mean() > 0.8
    assert (between != low).any()


def test_play_runs_from_noise_to_moons_and_stops_when_told(page: Page, tmp_path: Path) -> None:
    open_figure(page, "live-coupling", tmp_path)
    dial = page.get_by_label("couplings", exact=True)
    page.get_by_role("button", name="Play").click()
    page.wait_for_function(
        "() => { const n = +document.querySelector('#live-coupling input').value; return n > 0.3 && n < 7; }"
    )
    page.get_by_role("button", name="Pause").click()
    stopped = dial.input_value()
    page.wait_for_timeout(300)
    assert dial.input_value() == stopped
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_density_is_painted_anew_in_the_other_theme(page: Page, tmp_path: Path) -> None:
    open_figure(page, "live-coupling", tmp_path)
    heat = page.locator("#live-coupling image").first
    before = heat.get_attribute("href")
    page.add_style_tag(content="[data-theme=dark] { --pst-color-text-base: #eee }")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(
        "before => document.querySelector('#live-coupling image').getAttribute('href') !== before", arg=before
    )


def test_lost_weights_are_told_and_the_still_comes_back(page: Page, tmp_path: Path) -> None:
    page.route("**/live-coupling-data.js", lambda route: route.abort())
    open_figure(page, "live-coupling", tmp_path)
    expect(page.locator("#live-coupling img")).to_be_visible()
    expect(page.locator("#live-coupling")).to_contain_text("weights did not load")


# How they stand in their chapters


def contrast(a: str, b: str) -> float:
    """WCAG's ratio of two colours such as ``rgb(0, 114, 178)``."""

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in colour.split("(")[1].rstrip(")").split(",")[:3]]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


CUT = """(parts, width) => parts.map(part => [part.textContent, part.getBoundingClientRect()])
    .filter(([, box]) => box.width && (box.left < 0 || box.right > width)).map(([text]) => text)"""


@pytest.mark.parametrize(
    ("width", "scheme", "source"), [(390, "light", "file"), (390, "dark", "server"), (1920, "dark", "file")]
)
@figures
def test_figure_stands_in_its_chapter(
    name: str, width: int, scheme: str, source: str, book: Path, browser: Browser, request: Any
) -> None:
    visit = test_pages.Visit(browser, width)
    page = visit.page
    page.set_default_timeout(90_000)
    page.add_init_script(
        f"localStorage.setItem('mode', '{scheme}'); localStorage.setItem('theme', '{scheme}')"
    )
    root = book.as_uri() if source == "file" else request.getfixturevalue("server")
    page.goto(f"{root}/{CHAPTERS[name]}.html")
    settle(page)
    figure = page.locator(f"#{name}")
    expect(figure.locator("svg")).to_be_visible()
    expect(figure.locator("img")).to_have_count(0)
    assert visit.others() == []
    assert visit.complaints == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    assert figure.locator("svg :is(text, .dot)").evaluate_all(CUT, width) == []
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    parts = {".ink, .trail": "stroke", "text": "fill", ".green:not(.open) .dot": "fill"}
    for selector, what in parts.items():
        part = figure.locator("svg").locator(selector).first
        colour = part.evaluate("(part, what) => getComputedStyle(part)[what]", what)
        assert contrast(colour, ground) >= (4.5 if selector == "text" else 3), (
            f"{selector}: {colour} on {ground}"
        )
    page.close()


@figures
def test_still_stands_in_without_scripts(name: str, book: Path, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((book / f"{CHAPTERS[name]}.html").as_uri())
    expect(page.locator(f"#{name} img")).to_be_visible()
    expect(page.locator(f"#{name} noscript")).to_be_visible()
    context.close()


@pytest.fixture(scope="module")
def drawn(book: Path, browser: Browser) -> dict[str, Image.Image]:
    return stills.stills(browser)


@figures
def test_still_shows_the_figure_as_it_begins(name: str, drawn: dict[str, Image.Image]) -> None:
    """Letters differ between machines, so the pictures are compared coarsely."""
    stored = Image.open(STATIC / f"{name}.png").convert("RGB")
    assert abs(stored.width - drawn[name].width) <= 4
    coarse = [np.asarray(picture.resize((48, 32)), dtype=float) for picture in (stored, drawn[name])]
    assert np.abs(coarse[0] - coarse[1]).mean() < 4, "draw it anew: python -m tools.stills"
