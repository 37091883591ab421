"""The page that answers: in Node its numbers are PyTorch's, in Chromium it answers whatever a reader does."""

import json
import math
import os
import posixpath
import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from torch import Tensor, nn

from experiments import instrument
from experiments.results import RESULTS, load
from mnf_lite import metrics, models, plots, predict
from tests.book.test_pages import PHONE, Visit, serving
from tools import chapters, record
from tools.shoot import chromium, find_chromium

CHAPTERS = ("book/00_preface", "book/experiments/02_rotating_nine")
NODE = shutil.which("node")
WEIGHT = 1_200_000  # bytes that a page may gain
FEW = 6  # networks in the tests of the page, which need not wait for a hundred
UPRIGHT = 0  # degrees


def checkpoint(name: str) -> nn.Module:
    return models.load(instrument.network(name))


@pytest.fixture(scope="module")
def head() -> dict[str, Any]:
    """The file of data, its numbers still in one string."""
    text = instrument.FILE.read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(re.fullmatch(r"//.*\nwindow.INSTRUMENT_DATA = (.*);\n", text)[1])
    return found


@pytest.fixture(scope="module")
def digits(head: dict[str, Any]) -> Tensor:
    """The digits of the file: ``[30, 1, 28, 28]``, in steps of 1/255."""
    numbers = np.frombuffer(b64decode(head["bytes"]), np.uint8)
    return torch.tensor(numbers[-784 * len(head["labels"]) :].reshape(-1, 1, 28, 28) / 255).float()


# In Node: the numbers.


def node(body: str, **arguments: Any) -> Any:
    """What a piece of JavaScript returns; ``I`` are the parts of instrument.js, ``N`` what it read."""
    if NODE is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Node.js on this machine")
    program = f"""globalThis.window = {{}};
        const I = require({json.dumps(str(record.STATIC / "instrument.js"))});
        require({json.dumps(str(instrument.FILE))});
        const A = JSON.parse(require("fs").readFileSync(0)), N = I.read(window.INSTRUMENT_DATA);
        const result = (() => {{ {body} }})();
        console.log(JSON.stringify(result, (_, x) => ArrayBuffer.isView(x) ? Array.from(x) : x));"""
    done = subprocess.run(
        [str(NODE), "-e", program], input=json.dumps(arguments), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


ASK = "A.images.map((x) => I.forward(network, I.patches(x, 28)))"


def test_one_answers_as_in_pytorch(digits: Tensor) -> None:
    asked = node(f"const network = N.lenet; return {ASK}", images=digits.flatten(1).tolist())
    with torch.no_grad():
        wanted = checkpoint("LeNet")(digits).softmax(-1)
    torch.testing.assert_close(torch.tensor(asked), wanted, atol=1e-3, rtol=0)


def test_networks_answer_as_in_pytorch_for_the_same_z_and_noise(head: dict[str, Any], digits: Tensor) -> None:
    turned = plots.rotate(digits[-1], range(0, 360, 30))  # [12, 1, 28, 28]: answers that are far from sure
    layers = instrument.layers_of(checkpoint("MNF-LeNet"))
    noise = [[torch.randn(layer.weight_mean.shape), torch.randn(layer.bias_mean.shape)] for layer in layers]
    s = 17  # of the stored draws of z
    zs = node(f"return N.mnf.map((layer) => layer.zs[{s}])")
    network = models.LeNet(checkpoint("MNF-LeNet").settings["widths"])
    for plain, layer, about, z, (in_w, in_b) in zip(
        instrument.layers_of(network), layers, head["mnf"], zs, noise, strict=True
    ):
        steps = ((layer.weight_log_var - about["low"]) / about["step"]).round()  # as the file rounds them
        sigma = ((about["low"] + about["step"] * steps) / 2).exp()
        w = layer.along_z(torch.tensor(z)) * layer.weight_mean + sigma * in_w
        b = layer.bias_mean + (layer.bias_log_var / 2).exp() * in_b
        plain.load_state_dict({"weight": w, "bias": b})
    asked = node(
        f"""let i = 0;
        const network = N.mnf.map((layer) => I.draw(layer, layer.zs[{s}], () => A.noise[i++]));
        return [{ASK}, i]""",
        images=turned.flatten(1).tolist(),
        noise=torch.cat([part.flatten() for parts in noise for part in parts]).tolist(),
    )
    assert asked[1] == sum(part.numel() for parts in noise for part in parts), "each noise is used once"
    with torch.no_grad():
        wanted = network(turned).softmax(-1)
    assert wanted.max(-1).values.min() < 0.9, "nothing to tell apart: all are sure"
    torch.testing.assert_close(torch.tensor(asked[0]), wanted, atol=1e-3, rtol=0)


def test_a_hundred_drawn_by_the_page_answer_as_pytorchs_do_on_average(digits: Tensor) -> None:
    turned = plots.rotate(digits[-1], [0, 60, 90, 120])
    ask = f"""const hundred = I.posterior(N);
        return N.mnf[0].zs.map((_, s) => {{ const network = hundred(s); return {ASK} }})"""
    asked = torch.tensor(node(ask, images=turned.flatten(1).tolist()))  # [100, 4, 10]
    assert asked.shape == (100, 4, 10)
    drawn = predict(checkpoint("MNF-LeNet"), turned, n_samples=400)
    error = (asked.var(0) / 100 + drawn.var(0) / 400).sqrt()
    assert ((asked.mean(0) - drawn.mean(0)).abs() < 5 * error + 2e-3).all()
    ratio = asked.std(0) / drawn.std(0)
    assert (ratio[drawn.std(0) > 0.1] - 1).abs().max() < 0.5, "as scattered as PyTorch's"


def test_another_hundred_is_another_and_takes_every_z_once() -> None:
    found = node("""const [a, b] = [I.posterior(N), I.posterior(N)];
        const same = (p, q) => p.every((layer, l) => layer.W.every((w, i) => w === q[l].W[i]));
        return [same(a(3), a(3)), same(a(3), a(4)), same(a(3), b(3))]""")
    assert found == [True, False, False]


def test_doubt_is_that_of_the_package() -> None:
    p = torch.rand(7, 1, 10).pow(4)
    p[0, 0, :9] = 0
    p = p / p.sum(-1, keepdim=True)
    found = node("return I.doubt(A.p)", p=p[:, 0].tolist())
    assert found["entropy"] == pytest.approx(metrics.predictive_entropy(p).item(), abs=1e-5)
    assert found["disagreement"] == pytest.approx(metrics.mutual_information(p).item(), abs=1e-5)
    assert found["within"] == pytest.approx(found["entropy"] - found["disagreement"], abs=1e-6)


@pytest.mark.parametrize("angle", [UPRIGHT, 33, 90, 200])
def test_digit_of_the_test_set_turns_as_the_books_do(digits: Tensor, angle: int) -> None:
    seen = node(
        "return I.image({ pixels: A.x, strokes: [] }, A.angle, true)",
        x=digits[-1].flatten().tolist(),
        angle=angle,
    )
    wanted = plots.rotate(digits[-1], [angle])[0].flatten()
    torch.testing.assert_close(torch.tensor(seen), wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("angle", [UPRIGHT, 45])
def test_drawing_is_normalised_and_turned_as_when_it_was_measured(angle: int) -> None:
    drawings = json.loads(instrument.DRAWN.read_text())
    seen = node(
        "return A.drawings.map(({ strokes }) => I.image({ pixels: null, strokes }, A.angle, true))",
        drawings=drawings,
        angle=angle,
    )
    wanted = torch.stack([instrument.drawn_image(drawing["strokes"], angle) for drawing in drawings])
    torch.testing.assert_close(torch.tensor(seen), wanted.flatten(1), atol=1e-4, rtol=0)


def test_normalised_drawing_fills_the_box_of_mnist_with_its_mass_in_the_middle() -> None:
    corner = [[[2, 2], [2, 8]], [[2, 5], [4, 5]]]
    seen = node("return I.image({ pixels: null, strokes: A.strokes }, 0, true)", strokes=corner)
    x = torch.tensor(seen).view(28, 28)
    inked = (x > 0.5).nonzero()
    assert (inked.max(0).values - inked.min(0).values + 1).max().item() == pytest.approx(20, abs=1)
    at = torch.arange(28) + 0.5
    for mass in (x.sum(0), x.sum(1)):
        assert ((mass * at).sum() / mass.sum()).item() == pytest.approx(14, abs=0.1)


@pytest.mark.parametrize("damage", ["bytes", "cut", "shape"])
def test_damaged_file_is_refused(damage: str) -> None:
    harm = {
        "bytes": "D.bytes = D.bytes.replace(/[A-M]/, 'Z')",
        "cut": "D.bytes = D.bytes.slice(0, 4000)",
        "shape": "D.mnf[2].shape = [50, 900]",
    }[damage]
    found = node(
        f"const D = window.INSTRUMENT_DATA; {harm}; try {{ I.read(D) }} catch (e) {{ return 'refused' }}"
    )
    assert found == "refused"


# The files.


def test_file_holds_the_networks_that_its_result_names(head: dict[str, Any]) -> None:
    assert instrument.left(load(RESULTS / "instrument.json")) == []
    read = node("return N.mnf.map(({ mu, sigma, m, root_v }) => ({ mu, sigma, m, root_v }))")
    for stored, layer, about in zip(
        read, instrument.layers_of(checkpoint("MNF-LeNet")), head["mnf"], strict=True
    ):
        assert about["shape"] == list(layer.weight_mean.shape)
        mean = layer.weight_mean.detach().flatten()
        torch.testing.assert_close(torch.tensor(stored["mu"]), mean, atol=1e-6, rtol=5e-4)
        log_var = 2 * torch.tensor(stored["sigma"]).log()
        wanted = layer.weight_log_var.detach().flatten()
        assert (log_var - wanted).abs().max() <= about["step"] / 2 + 1e-4
        assert about["step"] < 0.07, "a log variance is off by 0.035 at most, a standard deviation by 2 %"
        torch.testing.assert_close(torch.tensor(stored["m"]), layer.bias_mean.detach(), atol=1e-6, rtol=1e-5)


def test_script_is_short_and_all_of_it_light() -> None:
    files = [record.STATIC / name for name in record.FILES]
    assert sum(path.stat().st_size for path in files) + record.STILL.stat().st_size <= WEIGHT
    assert record.FILM.stat().st_size < 1_000_000
    lines = files[0].read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 120


def test_still_and_film_show_the_stored_networks() -> None:
    hint = "run python -m tools.record"
    assert Image.open(record.STILL).text["Comment"] == record.networks(), hint
    assert Image.open(record.FILM).info["comment"].decode() == record.networks(), hint


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_finds_the_instrument_before_its_first_code(name: str) -> None:
    text = (chapters.ROOT / f"{name}.md").read_text(encoding="utf-8")
    before = text.split("```{code-cell}")[0]
    (script,) = re.findall(r'<script defer src="(.+?)"></script>', before)
    (style,) = re.findall(r'<link rel="stylesheet" href="(.+?)">', before)
    for file, asked in (("instrument.js", script), ("instrument.css", style)):
        assert posixpath.normpath(f"{posixpath.dirname(name)}/{asked}") == f"_static/{file}"
    still = re.search(r'<div class="instrument( large)?">\n\n!\[.+\]\((.+?)\)\n\n</div>', before)
    assert still, "without scripts a reader sees a picture"
    assert ((chapters.ROOT / name).parent / still[2]).resolve() == record.STILL


# In Chromium: the page.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if find_chromium() is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no Chromium on this machine")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(digits: Tensor, head: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the instrument as it is and few networks."""
    folder = tmp_path_factory.mktemp("site")
    record.write_page(folder)
    shutil.copy(record.STILL, folder)
    with torch.no_grad():
        few = instrument.Networks(checkpoint("LeNet"), checkpoint("MNF-LeNet"), FEW)
        script = few.script(digits, head["labels"], head["start"])
    (folder / "instrument-data.js").write_text(script, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[str]:
    with serving(site) as address:
        yield address


@pytest.fixture
def visit(browser: Browser, site: Path) -> Iterator[Visit]:
    """The page, opened from its file; the test ends without a complaint and without a request to others."""
    visit = Visit(browser)
    visit.page.goto((site / "index.html").as_uri())
    yield visit
    assert visit.complaints == []
    assert visit.others() == []
    visit.page.close()


def said(page: Page) -> str:
    return record.wait_for_answer(page)


def place(field: Locator, x: float, y: float) -> tuple[float, float]:
    """Where a point of the field, in its 28 units, lies in the window."""
    field.scroll_into_view_if_needed()
    box = field.bounding_box()
    assert box is not None
    return box["x"] + x / 28 * box["width"], box["y"] + y / 28 * box["height"]


def drag(page: Page, *points: tuple[float, float]) -> None:
    """Draw through points of the field with the mouse."""
    field = page.locator(".field")
    page.mouse.move(*place(field, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(field, *point), steps=4)
    page.mouse.up()


ONE = ((14, 4), (14, 24))


@pytest.mark.parametrize("source", ["file", "server"])
def test_page_begins_with_an_answer_of_one_and_of_many(
    source: str, site: Path, browser: Browser, request: pytest.FixtureRequest
) -> None:
    root = site.as_uri() if source == "file" else request.getfixturevalue("server")
    visit = Visit(browser)
    visit.page.goto(f"{root}/index.html")
    words = said(visit.page)
    assert re.search(
        r"One LeNet says \d, with (over )?\d+%; the entropy of its answer is \d\.\d\d nats", words
    )
    assert re.search(rf"\b{FEW} networks", words)
    assert re.search(r"Its entropy is \d\.\d\d nats; \d\.\d\d of these are disagreement", words)
    assert len(re.findall("M", visit.page.locator(".bars").get_attribute("d") or "")) == 10
    assert visit.page.locator(".cloud path[d]").count() == FEW
    expect(visit.page.get_by_alt_text("A still picture.")).to_be_hidden()
    assert visit.complaints == []
    assert visit.others() == []
    visit.page.close()


def test_numbers_on_the_page_are_pytorchs(visit: Visit, head: dict[str, Any], digits: Tensor) -> None:
    said(visit.page)
    record.turn(visit.page, 100)
    found = re.search(r"One LeNet says (\d), .* is (\d\.\d\d) nats", said(visit.page))
    turned = plots.rotate(digits[head["start"]["digit"]], [100])
    with torch.no_grad():
        p = checkpoint("LeNet")(turned).softmax(-1)
    assert found is not None
    assert int(found[1]) == p.argmax()
    assert float(found[2]) == pytest.approx(metrics.predictive_entropy(p[None]).item(), abs=0.006)


def test_mouse_draws_undoes_and_clears(visit: Visit) -> None:
    page = visit.page
    said(page)
    page.get_by_role("button", name="Clear").click()
    assert "Nothing to answer yet" in said(page)
    drag(page, *ONE)
    assert "One LeNet says 1" in said(page)
    drag(page, (8, 14), (20, 14))
    expect(page.locator(".strokes path")).to_have_count(2)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".strokes path")).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    assert "Nothing to answer yet" in said(page)


def test_finger_draws_and_does_not_scroll(browser: Browser, site: Path) -> None:
    context = browser.new_context(viewport={"width": PHONE, "height": 700}, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.goto((site / "index.html").as_uri())
    said(page)
    page.get_by_role("button", name="Clear").tap()
    field = page.locator(".field")
    before = page.evaluate("scrollY")
    finger = context.new_cdp_session(page)

    def touch(kind: str, *points: tuple[float, float]) -> None:
        touches = [dict(zip("xy", place(field, *point), strict=True)) for point in points]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})

    touch("touchStart", ONE[0])
    for y in range(5, 25):
        touch("touchMove", (14, y))
    touch("touchEnd")
    assert "One LeNet says 1" in said(page)
    assert page.evaluate("scrollY") == before
    context.close()


def test_keyboard_alone_draws_turns_and_chooses(visit: Visit) -> None:
    page = visit.page
    said(page)

    def tab_to(name: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('." + name + "')"):
                return
        pytest.fail(f"the Tab key never comes to {name}")

    tab_to("clear")
    page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    expect(page.locator(".field")).to_be_focused()
    expect(page.locator(".pen")).to_have_css("visibility", "visible")
    for key in ["ArrowUp"] * 10 + [" "] + ["ArrowDown"] * 20 + [" "]:
        page.keyboard.press(key)
    assert "One LeNet says 1" in said(page)
    expect(page.get_by_role("status")).to_contain_text("One LeNet says 1")
    tab_to("angle")
    page.keyboard.press("ArrowRight")
    expect(page.locator(".angle")).to_have_attribute("aria-valuetext", "1 degrees")
    said(page)
    assert page.evaluate("scrollY") == 0 or page.locator(".field").is_visible()


def test_dial_turns_the_digit_and_leaves_a_curve(visit: Visit) -> None:
    page = visit.page
    said(page)
    page.get_by_role("button", name="A handwritten 9").click()
    said(page)
    for angle in (30, 40, 200):
        record.turn(page, angle)
        said(page)
    for curve in ("one", "entropy", "within"):
        d = page.locator(f".by-{curve}").get_attribute("d") or ""
        assert d.count("h0") == 4  # where the dial stood when the digit was taken, and three more
        assert "L40 " in d, "neighbours are joined"
        assert "M200 " in d, "a gap is left open"
    page.get_by_role("button", name="A handwritten 4").click()
    said(page)
    assert (page.locator(".by-one").get_attribute("d") or "").count("h0") == 1, "another digit, another curve"


def test_turning_all_the_way_stops_at_the_end_or_when_told(visit: Visit) -> None:
    page = visit.page
    said(page)
    page.get_by_role("button", name="Turn all the way").click()
    expect(page.locator(".angle")).to_have_value("360", timeout=120_000)
    expect(page.get_by_role("button", name="Turn all the way")).to_be_visible()
    page.wait_for_function(
        "() => document.querySelector('.by-one').getAttribute('d').split('h0').length > 37"
    )
    # Six networks answer within a click, so it may have come some way before it is stopped.
    page.evaluate("() => { const play = document.querySelector('.play'); play.click(); play.click(); }")
    said(page)
    stopped = page.locator(".angle").input_value()
    page.wait_for_timeout(500)
    assert page.locator(".angle").input_value() == stopped
    expect(page.get_by_role("button", name="Turn all the way")).to_be_visible()


def test_new_hundred_answers_differently_and_the_one_does_not(visit: Visit) -> None:
    page = visit.page
    said(page)
    bars, dots = (page.locator(path).first for path in (".bars", ".cloud path"))
    before = bars.get_attribute("d"), dots.get_attribute("d")
    page.get_by_role("button", name="Draw a new hundred").click()
    said(page)
    assert bars.get_attribute("d") == before[0]
    assert dots.get_attribute("d") != before[1]


def test_switch_shows_what_normalising_does(visit: Visit) -> None:
    page = visit.page
    said(page)
    page.get_by_role("button", name="Clear").click()
    drag(page, (4, 4), (4, 10))
    said(page)
    middle = page.locator(".seen svg").inner_html()
    page.get_by_label("centre and scale").uncheck()
    said(page)
    corner = page.locator(".seen svg").inner_html()
    assert "M3 6h1v1h-1z" in corner
    assert "M3 6h1v1h-1z" not in middle
    assert "M13 13h1v1h-1z" in middle


BAD = {
    "full": ([((x, 0), (x, 28)) for x in range(0, 29, 2)], "A full field is no digit"),
    "dot": ([((14, 14), (14, 14))], "A dot is no digit"),
    "edge": ([((14, 1), (1, 14))], "touches the edge"),
    "leaving": ([((14, 14), (14, 34), (20, 34), (20, 14))], "left the field"),
}


@pytest.mark.parametrize("what", BAD)
def test_drawing_that_is_no_digit_is_answered_and_spoken_of(what: str, visit: Visit) -> None:
    page = visit.page
    said(page)
    page.get_by_role("button", name="Clear").click()
    strokes, words = BAD[what]
    for stroke in strokes:
        drag(page, *stroke)
    answer = said(page)
    assert words in answer
    assert "One LeNet says" in answer
    if what == "leaving":
        expect(page.locator(".strokes path")).to_have_count(
            2
        )  # cut where it left, begun anew where it came back
        numbers = re.findall(r"[\d.-]+", page.locator(".strokes").inner_html())
        assert all(0 <= float(number) <= 28 for number in numbers if re.fullmatch(r"-?\d+\.\d+", number))


def test_empty_field_has_a_sentence_and_no_answer(visit: Visit) -> None:
    page = visit.page
    said(page)
    page.get_by_role("button", name="Clear").click()
    assert (
        said(page).strip() == "Nothing to answer yet: draw a digit in the field, or take one of those below."
    )
    assert not page.locator(".bars").get_attribute("d")
    assert page.locator(".cloud path[d]").count() == 0
    page.get_by_role("button", name="Turn all the way").click()
    expect(page.get_by_role("button", name="Turn all the way")).to_be_visible()


@pytest.mark.parametrize("damage", ["missing", "cut off", "changed", "another script"])
def test_missing_or_damaged_data_is_spoken_of_and_nothing_freezes(
    damage: str, browser: Browser, site: Path, tmp_path: Path
) -> None:
    shutil.copytree(site, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "instrument-data.js"
    text = file.read_text()
    if damage == "missing":
        file.unlink()
    else:
        file.write_text(
            {"cut off": text[:90_000], "changed": text.replace("AB", "BA", 1), "another script": ""}[damage]
        )
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    wanted = "missing" if damage == "missing" else "damaged"
    expect(page.locator(".said")).to_contain_text(f"No network can answer: instrument-data.js is {wanted}")
    drag(page, *ONE)
    expect(page.locator(".strokes path")).to_have_count(1)
    page.close()


def test_no_canvas_is_needed(browser: Browser, site: Path) -> None:
    visit = Visit(browser)
    visit.page.add_init_script(
        "delete window.HTMLCanvasElement; document.createElement = ((create) => (name) => "
        "{ if (name === 'canvas') throw Error('no canvas'); return create.call(document, name); })"
        "(document.createElement)"
    )
    visit.page.goto((site / "index.html").as_uri())
    assert "One LeNet says" in said(visit.page)
    assert visit.complaints == []
    visit.page.close()


def test_answers_come_in_slices_and_the_first_at_once(browser: Browser, site: Path) -> None:
    page = browser.new_page()
    page.add_init_script(  # a clock on which two networks fill a slice, and a screen that counts its frames
        """let now = 0, frames = 0;
        performance.now = () => (now += 7);
        const request = requestAnimationFrame;
        window.seen = [];
        window.requestAnimationFrame = (callback) => {
          const bars = document.querySelector(".bars[d^=M]") !== null;
          seen.push([document.querySelectorAll(".cloud path[d]").length, bars]);
          return request(callback);
        };"""
    )
    page.goto((site / "index.html").as_uri())
    said(page)
    assert page.evaluate("seen") == [[0, False], [2, True], [4, True], [6, True]]
    page.close()


def test_everything_has_a_name_and_answers_are_announced_at_rest(visit: Visit) -> None:
    page = visit.page
    words = said(page)
    unnamed = page.locator("button, input, [tabindex], [role=group]").evaluate_all(
        """all => all.filter(e => !(e.ariaLabel || e.labels?.[0]?.textContent || e.textContent).trim())
            .map(e => e.outerHTML)"""
    )
    assert unnamed == []
    status = page.get_by_role("status")
    expect(status).to_contain_text("One LeNet says")
    assert status.inner_text().split() == words.split()


@pytest.mark.parametrize("width", [PHONE, 1920])
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("large", [False, True], ids=["small", "large"])
def test_all_of_it_fits_and_can_be_read(
    width: int, theme: str, large: bool, site: Path, tmp_path: Path, browser: Browser
) -> None:
    shutil.copytree(site, tmp_path, dirs_exist_ok=True)
    page = browser.new_page(viewport={"width": width, "height": 900})
    text = (tmp_path / "index.html").read_text().replace('data-theme="light"', f'data-theme="{theme}"')
    (tmp_path / "index.html").write_text(
        text.replace('"instrument"', '"instrument large"') if large else text
    )
    page.goto((tmp_path / "index.html").as_uri())
    said(page)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width
    overlapping = page.evaluate(
        """() => {
          const parts = [...document.querySelectorAll('.pad > *, .page > figure, .turn, .said')];
          const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1
            && a.top < b.bottom - 1 && b.top < a.bottom - 1;
          const boxes = parts.map(part => [part.outerHTML.slice(0, 40), part.getBoundingClientRect()]);
          return boxes.flatMap(([name, a], i) => boxes.slice(i + 1)
            .filter(([, b]) => over(a, b)).map(([other]) => [name, other]));
        }"""
    )
    assert overlapping == []
    colours = page.evaluate(
        """names => names.map(name => {
          const part = document.querySelector(name), style = getComputedStyle(part);
          let paper = part;
          while (getComputedStyle(paper).backgroundColor === 'rgba(0, 0, 0, 0)') paper = paper.parentElement;
          const ink = part.matches('text') ? style.fill : style.color;
          return [name, ink, getComputedStyle(paper).backgroundColor];
        })""",
        [".said p", "figcaption", ".one b", ".hundred b", ".turn p", "button.undo", "text.digit"],
    )
    for what, ink, paper in colours:
        assert contrast(ink, paper) >= 4.5, f"{what}: {ink} on {paper}"
    page.close()


def contrast(*colours: str) -> float:
    """WCAG's contrast of two colours such as rgb(0, 0, 0)."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else math.pow((c + 0.055) / 1.055, 2.4) for c in channels]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)
