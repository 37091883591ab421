"""`widgets.frames`: every frame is there, the controls are joined to it in the page, and it is small."""

import base64
import html
import io
import json
import re
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pytest
from ipywidgets import HTML, Dropdown, Play, SelectionSlider, Stack, VBox, Widget
from matplotlib.figure import Figure
from PIL import Image

from mnf_lite import plots, widgets

plt.switch_backend("Agg")
ANGLES = {f"{angle}°": angle for angle in (0, 20, 40)}
CHOICES = {"angle": ANGLES, "digit": [6, 9], "model": ["LeNet", "MNF-LeNet"]}


def draw(angle: float, digit: int = 9, model: str = "LeNet") -> Figure:
    figure, ax = plt.subplots(figsize=(4, 2))
    x = np.linspace(0, digit, 50)
    ax.plot(x, np.sin(x + np.radians(angle)), color="C0" if model == "LeNet" else "C1")
    return figure


def describe(angle: float, digit: int = 9, model: str = "LeNet") -> str:
    return f'{model} on a "{digit}" turned by {angle} < 360 degrees'


@pytest.fixture(scope="module")
def box() -> VBox:
    """Slider and two menus; whoever moves them sets all of them, by `follow_links`."""
    return widgets.frames(draw, CHOICES, alt=describe, colours=256)


def controls(box: VBox) -> list[SelectionSlider | Dropdown]:
    return [control for control in box.children[0].children if not isinstance(control, Play)]


def shown(widget: Widget) -> HTML:
    """The frame that a stack shows: follow the selected children."""
    while isinstance(widget, Stack):
        widget = widget.children[widget.selected_index]
    return widget


def alt_text(frame: HTML) -> str:
    match = re.search(r'alt="([^"]*)"', frame.value)
    assert match is not None
    return html.unescape(match[1])


def picture(frame: HTML) -> Image.Image:
    match = re.search(r'src="data:image/png;base64,([^"]*)"', frame.value)
    assert match is not None
    return Image.open(io.BytesIO(base64.b64decode(match[1])))


def links_of(control: Widget) -> list[tuple[str, str, str]]:
    """(attribute of the control, id of the other widget, its attribute) for every link stored in the page."""
    states = Widget.get_manager_state()["state"].values()
    links = [model["state"] for model in states if model["model_name"] == "LinkModel"]
    return [
        (link["source"][1], link["target"][0].removeprefix("IPY_MODEL_"), link["target"][1])
        for link in links
        if link["source"][0] == f"IPY_MODEL_{control.model_id}"
    ]


def follow_links(box: VBox, indices: Sequence[int]) -> HTML:
    """Do in Python what `jslink` does in the page: set the controls, copy along the links, see the frame."""
    for control, index in zip(controls(box), indices, strict=True):
        control.index = index
        for source, target, attribute in links_of(control):
            stacks = [stack for stack in all_stacks(box.children[-1]) if stack.model_id == target]
            assert stacks, "a control is joined to a widget that is not in the figure"
            setattr(stacks[0], attribute, getattr(control, source))
    return shown(box.children[-1])


def all_stacks(widget: Widget) -> list[Stack]:
    if not isinstance(widget, Stack):
        return []
    return [widget, *(stack for child in widget.children for stack in all_stacks(child))]


def renumbered(box: VBox) -> str:
    """The state of a widget and all below it, ids replaced by their order."""
    seen: dict[str, int] = {}
    text = json.dumps(Widget.get_manager_state()["state"])

    def walk(model_id: str) -> None:
        if model_id not in seen:
            seen[model_id] = len(seen)
            for child in re.findall(r"IPY_MODEL_([0-9a-f]{32})", json.dumps(state[model_id])):
                walk(child)

    state = json.loads(text)
    walk(box.model_id)
    own = {str(number): state[model_id] for model_id, number in seen.items()}
    return re.sub(r"[0-9a-f]{32}", lambda match: f"id{seen[match[0]]}", json.dumps(own))


def test_every_position_of_slider_and_menus_shows_the_frame_of_its_values(box):
    assert [type(control) for control in controls(box)] == [SelectionSlider, Dropdown, Dropdown]
    for a, angle in enumerate(ANGLES.values()):
        for d, digit in enumerate((6, 9)):
            for m, model in enumerate(("LeNet", "MNF-LeNet")):
                assert alt_text(follow_links(box, (a, d, m))) == describe(angle, digit, model)


def test_frames_hold_the_figure_of_their_values(box):
    buffer = io.BytesIO()
    draw(40, 6, "MNF-LeNet").savefig(buffer, dpi=plots.DPI)
    plt.close("all")
    expected = np.asarray(Image.open(buffer).convert("RGB"), float)
    frame = np.asarray(picture(follow_links(box, (2, 0, 1))).convert("RGB"), float)
    other = np.asarray(picture(follow_links(box, (0, 0, 1))).convert("RGB"), float)
    assert np.abs(frame - expected).max() < 8
    assert np.abs(other - expected).max() > 100


def test_the_slider_keeps_its_value_when_a_menu_changes(box):
    assert alt_text(follow_links(box, (2, 0, 0))) == describe(40, 6, "LeNet")
    controls(box)[1].index = 1
    for _, target, _ in links_of(controls(box)[1]):
        next(stack for stack in all_stacks(box.children[-1]) if stack.model_id == target).selected_index = 1
    assert alt_text(shown(box.children[-1])) == describe(40, 9, "LeNet")


def test_the_current_value_is_written_beside_the_slider():
    slider = controls(widgets.frames(draw, {"angle": [0, 0.1 + 0.2]}, alt=describe))[0]
    assert slider.readout
    assert slider.options == ("0", "0.3")
    assert slider.description == "angle"


def test_play_drives_the_slider():
    box = widgets.frames(draw, {"angle": ANGLES}, alt=describe, play=True)
    button = box.children[0].children[0]
    assert (button.min, button.max) == (0, 2)
    assert ("value", controls(box)[0].model_id, "index") in links_of(button)


def test_a_figure_opens_where_start_says():
    box = widgets.frames(draw, {"angle": ANGLES, "digit": [6, 9]}, alt=describe, play=True, start=2)
    button, slider, _ = box.children[0].children
    assert (button.value, slider.value) == (2, "40°")
    assert alt_text(shown(box.children[-1])) == describe(40, 6)
    for start in (-1, 3):
        with pytest.raises(ValueError, match=rf"positions 0 to 2; got start={start}"):
            widgets.frames(draw, {"angle": ANGLES}, alt=describe, start=start)


def test_a_frame_is_a_palette_picture_without_metadata_and_scales_with_the_page():
    frame = shown(widgets.frames(draw, {"angle": ANGLES}, alt=describe, colours=16).children[-1])
    image = picture(frame)
    assert image.mode == "P"
    assert image.size == (4 * plots.DPI, 2 * plots.DPI)
    assert len(image.getcolors()) <= 16
    assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    assert image.info == {}
    assert 'width="384" height="192"' in frame.value
    assert "max-width: 100%" in frame.value


def test_nineteen_frames_of_violins_stay_under_half_a_megabyte():
    samples = np.random.default_rng(0).beta(2, np.arange(2, 12), size=(500, 10))

    def violins(angle: float) -> Figure:
        figure, (left, right) = plt.subplots(1, 2, figsize=(6, 2.6))
        left.imshow(np.random.default_rng(int(angle)).random((28, 28)), cmap="gray")
        right.violinplot(samples ** (1 + angle / 180))
        return figure

    box = widgets.frames(violins, {"angle": range(0, 181, 10)}, alt=lambda angle: f"{angle} degrees")
    assert len(renumbered(box)) < 500_000


def test_two_calls_give_the_same_state_and_leave_no_figure_open():
    first, second = (widgets.frames(draw, {"angle": ANGLES, "digit": [6, 9]}, alt=describe) for _ in range(2))
    assert renumbered(first) == renumbered(second)
    assert plt.get_fignums() == []


def test_finer_values_appear_only_when_a_kernel_sees_the_slider_move():
    box = widgets.frames(draw, {"angle": ANGLES, "digit": [6, 9]}, alt=describe, live=range(41))
    stacks = box.children[-1]
    assert len(box.children) == 2
    slider, menu = controls(box)
    slider.index = 1
    _, fine, _ = box.children
    fine.index = 33
    assert alt_text(box.children[-1]) == describe(33, 6)
    menu.index = 1
    assert alt_text(box.children[-1]) == describe(33, 9)
    slider.index = 2
    assert box.children[-1] is stacks
    assert len(box.children) == 3


def test_without_finer_values_nothing_is_added_when_the_slider_moves():
    box = widgets.frames(draw, {"angle": ANGLES}, alt=describe)
    controls(box)[0].index = 1
    assert len(box.children) == 2


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({}, "at least one choice"),
        ({"angle": []}, "'angle' needs at least one value"),
        ({"angle": {}}, "'angle' needs at least one value"),
        ({"angle": [0]}, "'angle' needs two values or more"),
        ({"angle": [0, 20], "digit": []}, "'digit' needs at least one value"),
        ({"angle": [1.0, 1.00000001]}, "label of its own"),
    ],
)
def test_choices_that_cannot_be_shown_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        widgets.frames(draw, choices, alt=describe)


def test_a_frame_without_alternative_text_is_refused():
    with pytest.raises(ValueError, match="alternative text"):
        widgets.frames(draw, {"angle": ANGLES}, alt=lambda angle: "  ")


def test_frames_of_different_sizes_are_refused():
    def growing(angle: float) -> Figure:
        return plt.figure(figsize=(4 + angle / 20, 2))

    with pytest.raises(ValueError, match="one size"):
        widgets.frames(growing, {"angle": ANGLES}, alt=describe)
    assert plt.get_fignums() == []


def test_a_draw_that_returns_no_figure_is_refused():
    with pytest.raises(TypeError, match="Figure; got NoneType"):
        widgets.frames(lambda angle: None, {"angle": ANGLES}, alt=describe)
