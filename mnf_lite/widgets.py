"""Figures that move without a kernel: every frame is drawn beforehand and a control shows one of them."""

from __future__ import annotations

import html
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from mnf_lite._extras import extra
from mnf_lite.plots import png

with extra("plots", "mnf_lite.widgets"):
    import matplotlib.pyplot as plt
    from ipywidgets import HTML, Dropdown, HBox, Layout, Play, SelectionSlider, Stack, VBox, Widget, jslink
    from ipywidgets.widgets.widget_string import HTMLStyle
    from matplotlib.figure import Figure

CSS_DPI = 96  # a CSS inch: frames appear at the size that matplotlib was asked for
LABEL = {"description_width": "initial"}  # as wide as its text: the default cuts long names

Values = Iterable[Any] | Mapping[str, Any]


def frames(
    draw: Callable[..., Figure],
    choices: Mapping[str, Values],
    *,
    alt: Callable[..., str],
    colours: int = 32,
    play: bool = False,
    start: int = 0,
    live: Values | None = None,
) -> VBox:
    """Draw one figure for every combination of values and join them to a slider and menus.

    The first choice becomes a slider, every further one a menu.
    One slider drives the frames of all menus, so its value stays when a menu changes.
    The join is made by `jslink` to `Stack.selected_index`: it lives in the page and needs no kernel.

    Args:
        draw: ``draw(*values) -> Figure``, one value per choice, in their order; all figures of one size.
        choices: name of each choice -> its values, or a mapping of label -> value.
        alt: ``alt(*values) -> str``, what a reader who cannot see the frame should know.
        colours: size of each frame's palette, 2 to 256; fewer is smaller.
        play: add a button that runs the slider by itself.
        start: position, counted from 0, at which the slider stands when the page opens.
        live: finer values of the first choice. With a kernel behind the page a second slider appears at the
            first move and draws them on demand; on a page without one it never appears.

    Raises:
        ValueError: no choice, a slider of fewer than two values or that starts beyond them, a menu without
            any, a label twice, an empty alternative text, figures of different sizes.
        TypeError: `draw` returned something that is not a `Figure`.

    Example:
        >>> frames(turn, {"angle": {"0°": 0, "90°": 90}, "digit": [6, 9]},
        ...        alt=lambda angle, digit: f"A {digit} turned by {angle} degrees")
    """
    if not choices:
        raise ValueError("frames needs at least one choice, such as {'angle': [0, 90, 180]}; got none")
    values = [_labelled(name, options) for name, options in choices.items()]
    slider_name, *menu_names = choices
    if len(values[0]) < 2:
        raise ValueError(f"the slider {slider_name!r} needs two values or more; got {list(values[0])}")
    if not 0 <= start < len(values[0]):
        raise ValueError(
            f"the slider {slider_name!r} has positions 0 to {len(values[0]) - 1}; got start={start}"
        )
    slider = _slider(slider_name, values[0], start)
    menus = [
        Dropdown(options=list(labels), description=name, style=LABEL, layout=Layout(width="max-content"))
        for name, labels in zip(menu_names, values[1:], strict=True)
    ]
    sizes: set[tuple[int, int]] = set()
    # Layout and style are models of their own in the page: one pair for all frames saves a kilobyte a frame.
    layout, style = Layout(max_width="100%"), HTMLStyle()

    def image(*chosen: Any) -> str:
        text = alt(*chosen)
        if not text.strip():
            raise ValueError(f"every frame needs an alternative text; got {text!r} for {chosen}")
        figure = draw(*chosen)
        if not isinstance(figure, Figure):
            raise TypeError(f"draw must return a matplotlib Figure; got {type(figure).__name__} for {chosen}")
        width, height = figure.get_size_inches() * CSS_DPI
        sizes.add((round(width), round(height)))
        if len(sizes) > 1:
            plt.close(figure)
            raise ValueError(f"all frames must have one size; got {sorted(sizes)} CSS pixels")
        return (
            f'<img alt="{html.escape(text)}" width="{width:.0f}" height="{height:.0f}"'
            ' style="max-width: 100%; height: auto; background: white"'
            f' src="data:image/png;base64,{b64encode(png(figure, colours)).decode()}">'
        )

    def stack(free: Sequence[Mapping[str, Any]], *chosen: Any) -> Widget:
        if not free:
            return HTML(image(*chosen), layout=layout, style=style)
        *inner, labels = free
        control = [slider, *menus][len(inner)]
        shown = [stack(inner, value, *chosen) for value in labels.values()]
        pictures = Stack(shown, selected_index=control.index)
        jslink((control, "index"), (pictures, "selected_index"))
        return pictures

    pictures = stack(values)
    controls: list[Widget] = [slider, *menus]
    if play:
        button = Play(value=start, min=0, max=len(values[0]) - 1, interval=700, show_repeat=False)
        jslink((button, "value"), (slider, "index"))
        controls.insert(0, button)
    box = VBox([HBox(controls, layout=Layout(flex_flow="row wrap")), pictures])
    if live is not None:
        finer = _labelled(slider_name, live)
        fine, picture = _slider(f"any {slider_name}", finer, 0), HTML(layout=layout, style=style)

        def answer(change: dict[str, Any]) -> None:
            on_demand = change["owner"] is fine or (change["owner"] is not slider and picture in box.children)
            if on_demand:
                chosen = [labels[menu.value] for labels, menu in zip(values[1:], menus, strict=True)]
                picture.value = image(finer[fine.value], *chosen)
            box.children = (box.children[0], fine, picture if on_demand else pictures)

        for control in (slider, fine, *menus):
            control.observe(answer, "index")
    return box


def _labelled(name: str, values: Values) -> dict[str, Any]:
    """Label -> value, numbers written as short as they can be read."""
    if not isinstance(values, Mapping):
        values = list(values)
        labels = [value if isinstance(value, str) else f"{value:g}" for value in values]
        if len(set(labels)) < len(labels):
            raise ValueError(f"every value of {name!r} needs a label of its own; got {labels}")
        values = dict(zip(labels, values, strict=True))
    if not values:
        raise ValueError(f"{name!r} needs at least one value; got none")
    return dict(values)


def _slider(name: str, labels: Mapping[str, Any], start: int) -> SelectionSlider:
    return SelectionSlider(
        options=list(labels),
        index=start,
        description=name,
        style=LABEL,
        layout=Layout(width="28em", max_width="100%"),
    )
