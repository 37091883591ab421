"""Figures of the book: densities, flows layer by layer, predictions under rotation, scores.

What draws one panel takes the axes first and returns nothing; what lays out several returns the figure.
Tensors (with or without a gradient) and arrays are welcome. Figures are dark ink on a white card, which
reads in a light page and in a dark one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from mnf_lite._extras import extra
from mnf_lite.flows import Flow
from mnf_lite.metrics import reliability_curve
from mnf_lite.training import History

with extra("plots", "mnf_lite.plots"):
    import matplotlib.pyplot as plt
    import seaborn as sns
    from cycler import cycler
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from PIL import Image

# Okabe and Ito (2008), Color universal design, in an order that keeps neighbours apart; without the yellow,
# which fades on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DENSITY = "mako_r"  # perceptually uniform, from near white to dark: mass is ink
POSITION = LinearSegmentedColormap.from_list("position", plt.get_cmap("viridis")(np.linspace(0, 0.8, 256)))
PAPER, FAINT = "#FFFFFF", "#B5B5B5"
DPI = 120  # sharp enough for a phone, and a frame of 6 x 3 inches stays near 15 kB

Bounds = tuple[tuple[float, float], tuple[float, float]]


def style() -> None:
    """Set the book's look for every figure that follows; a chapter calls it once.

    Example:
        >>> style()
        >>> plt.rcParams["figure.facecolor"]
        '#FFFFFF'
    """
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=PALETTE),
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 11,
            "figure.constrained_layout.use": True,
            "figure.dpi": 110,
            "figure.facecolor": PAPER,
            "figure.figsize": (6, 3.4),
            "image.cmap": DENSITY,
            "legend.frameon": False,
            "lines.linewidth": 1.8,
        }
    )


def rotate(images: Tensor, angles: Sequence[float]) -> Tensor:
    """Turn images counter-clockwise about their centre, bilinearly, with zeros from outside.

    Args:
        images: ``[..., H, H]``, square.
        angles: degrees, ``A`` of them.

    Returns:
        ``[A, ..., H, H]``, dtype of the images; turns by multiples of 90° only move pixels.

    Raises:
        ValueError: the images are not square.

    Example:
        >>> rotate(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), [90]).round()
        tensor([[[2., 4.],
                 [1., 3.]]])
    """
    if images.ndim < 2 or images.shape[-1] != images.shape[-2]:
        raise ValueError(f"images must be square, [..., H, H]; got shape {list(images.shape)}")
    size = images.shape[-1]
    stack = images.reshape(1, -1, size, size).double()
    turned = []
    for angle in angles:
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        theta = stack.new_tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]])
        grid = F.affine_grid(theta, list(stack.shape), align_corners=False)  # [1, H, H, 2], in [-1, 1]
        turned.append(F.grid_sample(stack, grid, align_corners=False).reshape(images.shape))
    return torch.stack(turned).to(images.dtype)


def density(
    ax: Axes, log_prob: Callable[[Tensor], Tensor], bounds: Bounds = ((-3, 3), (-3, 3)), resolution: int = 200
) -> None:
    """Draw a density on the plane as a heat map.

    Args:
        ax: the panel.
        log_prob: ``[n, 2] -> [n]``, nats.
        bounds: ``((x1 from, to), (x2 from, to))``.
        resolution: cells along each side.

    Raises:
        ValueError: ``log_prob`` does not answer with one number for each point.

    Example:
        >>> density(plt.subplots()[1], lambda x: -x.square().sum(-1), resolution=20)
    """
    sides = [low + (high - low) * (torch.arange(resolution) + 0.5) / resolution for low, high in bounds]
    cells = torch.cartesian_prod(*sides)  # [resolution², 2], x1 slowest
    with torch.no_grad():
        log_p = _array(log_prob(cells), "log_prob of the grid", 1)
    if log_p.shape != cells.shape[:1]:
        raise ValueError(f"log_prob must map {list(cells.shape)} to {[len(cells)]}; got {list(log_p.shape)}")
    heat = np.exp(log_p).reshape(resolution, resolution).T
    ax.imshow(heat, origin="lower", extent=(*bounds[0], *bounds[1]), cmap=DENSITY, vmin=0, aspect="equal")
    ax.set(xlabel="$x_1$", ylabel="$x_2$")


def points(
    ax: Axes, x: ArrayLike | Tensor, colour: ArrayLike | Tensor | None = None, size: float = 4
) -> None:
    """Scatter points of the plane, each in a colour of its own.

    Args:
        ax: the panel.
        x: ``[n, 2]``.
        colour: ``[n]``, by default the first coordinate.
        size: of a point, in square points.

    Raises:
        ValueError: not one value of colour for each point.

    Example:
        >>> points(plt.subplots()[1], torch.randn(10, 2))
    """
    x = _array(x, "x", 2, last=2)
    shade = x[:, 0] if colour is None else _array(colour, "colour", 1)
    if len(shade) != len(x):
        raise ValueError(f"colour must hold one value for each of the {len(x)} points; got {len(shade)}")
    ax.scatter(x[:, 0], x[:, 1], c=shade, s=size, cmap=POSITION, linewidths=0, rasterized=True)
    ax.set_aspect("equal")


def point_flow(
    states: Sequence[Tensor], names: Sequence[str] | None = None, colour: ArrayLike | Tensor | None = None
) -> Figure:
    """Draw points carried through a flow, one panel after each layer: every point keeps its colour.

    All panels share their limits, which hold 99 % of all points along each side.

    Args:
        states: ``[n, 2]`` each, from ``Compose.trace(z)`` or ``Compose.trace_inverse(x)``.
        names: title of each panel; by default *start*, *layer 1*, ...
        colour: ``[n]``, by default the first coordinate at the start.

    Raises:
        ValueError: no state, a state that is not ``[n, 2]``, or not a name for each.

    Example:
        >>> z = torch.randn(10, 2)
        >>> [ax.get_title() for ax in point_flow([z, 2 * z]).axes]
        ['start', 'layer 1']
    """
    arrays = [_array(state, "every state", 2, last=2) for state in states]
    if names is None:
        names = ["start", *(f"layer {k}" for k in range(1, len(arrays)))]
    if not arrays or len(names) != len(arrays):
        raise ValueError(
            f"point_flow needs states and a name for each; got {len(arrays)} and {len(names)} names"
        )
    colour = arrays[0][:, 0] if colour is None else colour
    low, high = np.quantile(np.concatenate(arrays), [0.005, 0.995], axis=0)
    low, high = low - 0.15 * (high - low), high + 0.15 * (high - low)
    figure, axes = _panels(len(arrays), columns=5, width=1.6, height=1.75, sharex=True, sharey=True)
    for ax, x, name in zip(axes, arrays, names, strict=True):
        points(ax, x, colour, size=3)
        ax.set(title=name, xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    return figure


def grid_flow(flow: Flow, x: Tensor, bound: float = 3.0, lines: int = 25) -> Figure:
    """Draw a grid of z bent by ``forward`` into data space, beside a grid of x bent by ``inverse``.

    Args:
        flow: of two dimensions.
        x: data ``[n, 2]``, black in both panels: as they are on the left, as z on the right.
        bound: the grid of z covers ``[-bound, bound]²``; that of x is the square around the data.
        lines: lines of the grid in each direction.

    Example:
        >>> from mnf_lite.flows import AffineCoupling
        >>> [ax.get_title() for ax in grid_flow(AffineCoupling(2), torch.randn(10, 2), lines=3).axes]
        ['z → x', 'x → z']
    """
    data = _array(x, "x", 2, last=2)
    with torch.no_grad():
        z = flow.inverse(x)[0]
    middle, half = (data.min(axis=0) + data.max(axis=0)) / 2, 0.55 * np.ptp(data, axis=0).max()
    figure, (left, right) = _panels(2, columns=2, width=3.3, height=3.3)
    for ax, bend, shown, centre, reach in (
        (left, flow.forward, data, (0.0, 0.0), bound),
        (right, flow.inverse, _array(z, "z", 2, last=2), middle, half),
    ):
        for axis in (0, 1):
            across = torch.linspace(-reach, reach, lines, dtype=x.dtype, device=x.device) + centre[axis]
            along = torch.linspace(-reach, reach, 300, dtype=x.dtype, device=x.device) + centre[1 - axis]
            first, second = torch.meshgrid(across, along, indexing="ij")  # [lines, 300] each
            grid = torch.stack((first, second) if axis == 0 else (second, first), dim=-1)  # [lines, 300, 2]
            with torch.no_grad():
                bent = _array(bend(grid)[0], "the bent grid", 3, last=2)
            colours = POSITION(np.linspace(0, 1, lines))
            ax.add_collection(LineCollection(list(bent), colors=colours, linewidths=0.8))
        ax.scatter(shown[:, 0], shown[:, 1], s=2, color="black", alpha=0.4, linewidths=0, zorder=3)
        ax.set_aspect("equal")
    left.set(title="z → x", xlabel="$x_1$", ylabel="$x_2$")
    left.set(xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half))
    right.set(title="x → z", xlabel="$z_1$", ylabel="$z_2$", xlim=(-bound, bound), ylim=(-bound, bound))
    return figure


def rotation(
    probabilities: ArrayLike | Tensor,
    images: ArrayLike | Tensor,
    angles: Sequence[float],
    *,
    true_label: int | None = None,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Draw a panel for each angle: class probabilities as violins over the samples, or bars.

    The image that was shown stands inset.

    Args:
        probabilities: ``[A, S, C]``, or ``[A, C]`` for a model that does not sample. Where all samples are
            equal the panel shows bars.
        images: ``[A, 1, H, H]`` or ``[A, H, H]``, as :func:`rotate` returns them.
        angles: degrees, ``A`` of them.
        true_label: class to shade.
        labels: names of the classes, by default their numbers.

    Raises:
        ValueError: not as many probabilities and images as angles, or no probabilities.

    Example:
        >>> images = rotate(torch.rand(28, 28), [0, 90])
        >>> figure = rotation(torch.rand(2, 50, 10).softmax(-1), images, [0, 90], true_label=9)
        >>> [ax.get_title() for ax in figure.axes if ax.get_title()]
        ['0°', '90°']
    """
    p = _array(probabilities, "probabilities", 2, 3)
    pictures = _array(images, "images", 3, 4)
    if not len(p) == len(pictures) == len(angles):
        raise ValueError(
            "rotation needs as many probabilities and images as angles; "
            f"got {len(p)}, {len(pictures)} and {len(angles)}"
        )
    figure, axes = _panels(len(p), columns=3, width=2.4, height=1.7, sharey=True)
    for ax, p_angle, picture, angle in zip(axes, p, pictures, angles, strict=True):
        classes = _classes(ax, p_angle, PALETTE[0], true_label, labels)
        ax.set(title=f"{angle:g}°", xlim=(-0.7, 1.4 * classes))  # room for the image beside the last class
        _image(ax.inset_axes((0.73, 0.3, 0.26, 0.65)), picture)
    figure.supylabel("probability")
    return figure


def rotation_frame(
    probabilities: Mapping[str, ArrayLike | Tensor],
    image: ArrayLike | Tensor,
    *,
    true_label: int | None = None,
    labels: Sequence[str] | None = None,
) -> Figure:
    """Draw one image and what several models say of it, side by side: a frame for a slider.

    Args:
        probabilities: name of each model -> ``[S, C]`` or ``[C]``, drawn as in :func:`rotation`.
        image: ``[1, H, H]`` or ``[H, H]``.
        true_label: class to shade.
        labels: names of the classes, by default their numbers.

    Raises:
        ValueError: no model, more than there are colours, or no probabilities.

    Example:
        >>> p = {"LeNet": torch.ones(10) / 10, "MNF-LeNet": torch.rand(50, 10).softmax(-1)}
        >>> [ax.get_title() for ax in rotation_frame(p, torch.rand(28, 28)).axes]
        ['', 'LeNet', 'MNF-LeNet']
    """
    if not 1 <= len(probabilities) <= len(PALETTE):
        raise ValueError(f"rotation_frame shows 1 to {len(PALETTE)} models; got {len(probabilities)}")
    columns = min(len(probabilities), 3)
    rows = math.ceil(len(probabilities) / columns)
    figure = plt.figure(figsize=(1.4 + 2.3 * columns, 2.1 * rows), layout="constrained")
    cells = figure.add_gridspec(rows, 1 + columns, width_ratios=[1.4] + [2.3] * columns)
    _image(figure.add_subplot(cells[:, 0]), _array(image, "image", 2, 3))
    for k, (name, p) in enumerate(probabilities.items()):
        ax = figure.add_subplot(cells[k // columns, 1 + k % columns])
        _classes(ax, _array(p, f"probabilities of {name}", 1, 2), PALETTE[k], true_label, labels)
        ax.set_title(name)
        if k % columns == 0:
            ax.set_ylabel("probability")
        else:
            ax.tick_params(labelleft=False)
    return figure


def curves(
    ax: Axes, x: ArrayLike | Tensor, values: Mapping[str, ArrayLike | Tensor], *, xlabel: str, ylabel: str
) -> None:
    """Draw a line for each name; over several runs their mean, with a band of one standard deviation.

    Args:
        ax: the panel.
        x: ``[N]``.
        values: name -> ``[N]``, or ``[runs, N]``.
        xlabel: quantity and unit, such as *angle (degrees)*.
        ylabel: quantity and unit, such as *entropy (nats)*.

    Raises:
        ValueError: values that do not fit ``x``.

    Example:
        >>> ax = plt.subplots()[1]
        >>> curves(ax, [0, 90], {"LeNet": [0.1, 1.0]}, xlabel="angle (degrees)", ylabel="entropy (nats)")
        >>> len(ax.lines)
        1
    """
    x = _array(x, "x", 1)
    for (name, y), colour in zip(values.items(), PALETTE, strict=False):
        runs = np.atleast_2d(_array(y, f"values of {name}", 1, 2, last=len(x)))
        ax.plot(x, runs.mean(axis=0), color=colour, label=name)
        if len(runs) > 1:
            mean, spread = runs.mean(axis=0), runs.std(axis=0, ddof=1)
            ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.2, linewidth=0)
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()


def history(histories: Mapping[str, History] | History) -> Figure:
    r"""Draw the training curves of one run, or of runs by name, as far as they were recorded.

    Networks with a multiplicative posterior have a panel of the parts of their KL divergence,

    .. math:: K = \mathrm{KL}_W + \mathrm{KL}_b + \mathbb E \log q(z) - \mathbb E \log r(z|W)

    all four of one run, and of several runs the last two together, the price of z.

    Args:
        histories: what :func:`.fit` returned; validation is dashed.

    Raises:
        ValueError: no run of at least one epoch.

    Example:
        >>> from mnf_lite import data, fit, models
        >>> run = fit(models.LeNet((2, 2, 8, 10)), data.digits("test"), epochs=1, progress=False)
        >>> [ax.get_ylabel() for ax in history(run).axes if ax.get_ylabel()]
        ['loss (nats per example)', '− log-likelihood (nats)', 'accuracy']
    """
    histories = {"this run": histories} if isinstance(histories, History) else histories
    panels = {
        "loss": "loss (nats per example)",
        "nll": "− log-likelihood (nats)",
        "kl": "KL divergence (nats)",
        "accuracy": "accuracy",
    }
    used = [name for name in panels if any(np.any(getattr(run, name)) for run in histories.values())]
    if not used:
        raise ValueError(f"history needs a run of at least one epoch; got {dict(histories)}")
    multiplied = {name: run for name, run in histories.items() if np.any(run.log_q)}
    figure, axes = _panels(len(used) + bool(multiplied), columns=2, width=3.4, height=2.4)
    if multiplied:
        _parts(axes[-1], multiplied)
    for ax, name in zip(axes, used, strict=False):
        for (run_name, run), colour in zip(histories.items(), PALETTE, strict=False):
            for figures, dash, label in (
                (getattr(run, name), "-", run_name),
                (getattr(run, f"val_{name}", []), "--", f"{run_name}, validation"),
            ):
                if np.any(figures):
                    ax.plot(range(1, len(figures) + 1), figures, dash, color=colour, label=label, marker=".")
        ax.set(xlabel="epoch", ylabel=panels[name])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[min(1, len(axes) - 1)].legend(fontsize="small", handlelength=3)
    return figure


def _parts(ax: Axes, runs: Mapping[str, History]) -> None:
    """Draw the parts of the KL divergence: of one run all, of several runs those that concern z."""
    for colour, (name, run) in zip(PALETTE, runs.items(), strict=False):
        price = np.subtract(run.log_q, run.log_r)
        parts = {r"$\mathrm{KL}_W$": run.kl_weights, r"$\mathrm{KL}_b$": run.kl_bias}
        parts |= {r"$\log q(z)$": run.log_q, r"$-\log r(z|W)$": [-part for part in run.log_r]}
        alone = len(runs) == 1
        for k, (label, part) in enumerate(parts.items() if alone else [(name, price)]):
            ax.plot(
                range(1, len(price) + 1), part, color=PALETTE[k] if alone else colour, label=label, marker="."
            )
    ax.set(
        xlabel="epoch", ylabel="parts of the KL (nats)" if len(runs) == 1 else "log q(z) − log r(z|W) (nats)"
    )
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize="small")


def reliability(
    ax: Axes, probabilities: ArrayLike | Tensor, labels: ArrayLike | Tensor, name: str = "", bins: int = 15
) -> None:
    """Draw accuracy against confidence; on the diagonal a model is calibrated.

    Args:
        ax: the panel.
        probabilities: ``[S, B, C]``, whose mean is the prediction, or ``[B, C]``.
        labels: ``[B]``, the true classes.
        name: of the model, for the legend of several calls on one panel.
        bins: equal parts of [0, 1].

    Source:
        Guo et al. (2017), figure 1, https://arxiv.org/abs/1706.04599

    Example:
        >>> reliability(plt.subplots()[1], torch.rand(20, 3).softmax(-1), torch.arange(20) % 3)
    """
    curve = reliability_curve(torch.as_tensor(probabilities), torch.as_tensor(labels), bins)
    used, shares = curve.counts > 0, curve.counts / curve.counts.sum()
    if not ax.lines:
        ax.plot([0, 1], [0, 1], color=FAINT, linestyle="--", linewidth=1)
    confidence, accuracy = curve.confidence[used].cpu(), curve.accuracy[used].cpu()
    line = ax.plot(confidence, accuracy, marker="o", markersize=3, label=name or None)[0]
    ax.scatter(confidence, accuracy, s=150 * shares[used].sqrt().cpu(), color=line.get_color(), alpha=0.3)
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    if name:
        ax.legend()


def cumulative_entropy(ax: Axes, entropies: Mapping[str, ArrayLike | Tensor]) -> None:
    """Draw the fraction of images whose predictive entropy is at most the value below.

    The curve of unfamiliar images should lie to the right.

    Args:
        ax: the panel.
        entropies: name of each data set or model -> ``[N]``, nats.

    Source:
        Louizos and Welling (2017), figure 3, https://arxiv.org/abs/1703.01961

    Example:
        >>> cumulative_entropy(plt.subplots()[1], {"MNIST": torch.rand(10), "KMNIST": 1 + torch.rand(10)})
    """
    for (name, values), colour in zip(entropies.items(), PALETTE, strict=False):
        ax.ecdf(_array(values, f"entropies of {name}", 1), color=colour, label=name)
    ax.set(xlabel="predictive entropy (nats)", ylabel="fraction of images", ylim=(0, 1.01))
    ax.legend()


def png(figure: Figure, colours: int = 32, dpi: int = DPI) -> bytes:
    """Return a figure as a palette PNG, a third of the size of full colour, and close it.

    The same drawing gives the same bytes.

    Args:
        figure: to be drawn.
        colours: size of the palette, 2 to 256; fewer is smaller.
        dpi: pixels an inch.

    Returns:
        The content of a ``.png`` file.

    Example:
        >>> figure, ax = plt.subplots()
        >>> png(figure)[1:4]
        b'PNG'
    """
    full, small = BytesIO(), BytesIO()
    figure.savefig(full, format="png", dpi=dpi, pil_kwargs={"compress_level": 1})
    plt.close(figure)
    picture = Image.open(full).convert("RGB")
    # Maximum coverage keeps rare colours, such as thin lines; k-means then moves each to its mean.
    palette = picture.quantize(colours, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    palette.save(small, format="PNG", optimize=True)
    return small.getvalue()


def _classes(
    ax: Axes, p: NDArray[Any], colour: str, true_label: int | None, labels: Sequence[str] | None
) -> int:
    """Violins of ``p [S, C]``, bars of ``p [C]`` or of equal samples; returns C."""
    p = np.atleast_2d(_simplex(p, "probabilities"))
    classes = int(p.shape[-1])
    labels = labels or [str(k) for k in range(classes)]
    if len(labels) != classes:
        raise ValueError(f"labels must name the {classes} classes; got {len(labels)}")
    if true_label is not None:
        if not 0 <= true_label < classes:
            raise ValueError(f"true_label must be one of the {classes} classes; got {true_label}")
        ax.axvspan(true_label - 0.5, true_label + 0.5, color=FAINT, alpha=0.35, linewidth=0, zorder=0)
    if np.ptp(p, axis=0).max() < 1e-6:
        ax.bar(range(classes), p[0], color=colour)
    else:
        sns.violinplot(
            p,
            ax=ax,
            color=colour,
            saturation=1,
            cut=0,
            bw_adjust=0.6,
            density_norm="width",
            inner=None,
            linewidth=0.6,
        )
    ax.set(xlim=(-0.7, classes - 0.3), ylim=(-0.02, 1.02), xticks=range(classes), xticklabels=labels)
    return classes


def _image(ax: Axes, image: NDArray[Any]) -> None:
    ax.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
    ax.set_axis_off()


def _panels(
    n: int, columns: int, width: float, height: float, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure of n panels, at most ``columns`` side by side, each so many inches wide and high."""
    columns = min(n, columns)
    rows = math.ceil(n / columns)
    figure, axes = plt.subplots(
        rows, columns, squeeze=False, sharex=sharex, sharey=sharey, layout="constrained"
    )
    figure.set_size_inches(width * columns, height * rows)
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    return figure, list(axes.flat[:n])


def _simplex(p: NDArray[Any], name: str) -> NDArray[Any]:
    if p.min() < 0 or not np.allclose(p.sum(axis=-1), 1, atol=1e-3):
        raise ValueError(f"{name} must be non-negative and sum to 1 over the classes; are these logits?")
    return p


def _array(values: ArrayLike | Tensor, name: str, *ndims: int, last: int | None = None) -> NDArray[Any]:
    """The values as a NumPy array of one of these numbers of axes, the last of this length."""
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    if array.ndim not in ndims or not array.size or (last is not None and array.shape[-1] != last):
        axes = " or ".join(map(str, ndims)) + " axes" + (f", the last of length {last}" if last else "")
        raise ValueError(f"{name} must not be empty and have {axes}; got shape {list(array.shape)}")
    return array
