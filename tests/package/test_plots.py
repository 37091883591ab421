"""`mnf_lite.plots`: what a figure draws is what came in, and wrong shapes are refused with a sentence."""

import math
from collections.abc import Iterator

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from torch import Tensor, nn

from mnf_lite import flows, plots
from mnf_lite.training import History

plt.switch_backend("Agg")


@pytest.fixture(autouse=True)
def no_figure_left_and_no_style() -> Iterator[None]:
    with mpl.rc_context():
        yield
    plt.close("all")


class Shear(flows.Flow):
    """x = (z1, z2 + slope z1): the smallest flow that moves a grid."""

    def __init__(self, slope: float) -> None:
        super().__init__(2)
        self.slope = nn.Parameter(torch.tensor(slope))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack((z[..., 0], z[..., 1] + self.slope * z[..., 0]), -1), z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack((x[..., 0], x[..., 1] - self.slope * x[..., 0]), -1), x.new_zeros(x.shape[:-1])


@pytest.fixture
def flow() -> flows.Compose:
    return flows.Compose([Shear(1.0), Shear(0.5), Shear(-2.0)])


@pytest.fixture
def samples() -> Tensor:
    """Probabilities of 9 angles, 40 samples and 10 classes."""
    return torch.randn(9, 40, 10, generator=torch.Generator().manual_seed(0)).softmax(-1)


def violins(ax: plt.Axes) -> int:
    return sum(not isinstance(c, LineCollection) for c in ax.collections)


# rotate


def test_a_turn_by_nothing_changes_nothing_and_a_half_turn_flips_both_axes():
    image = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    same, half, full = plots.rotate(image, [0, 180, 360])
    assert torch.equal(same, image)
    torch.testing.assert_close(half, image.flip(-1, -2), atol=1e-6, rtol=0)
    torch.testing.assert_close(full, image, atol=1e-6, rtol=0)


def test_a_quarter_turn_is_counter_clockwise_as_seen():
    image = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(plots.rotate(image, [90])[0], image.rot90(1, (-2, -1)), atol=1e-6, rtol=0)


def test_half_way_turns_stay_in_range_and_come_back():
    image = torch.zeros(1, 28, 28)
    image[:, 8:20, 12:16] = 1
    turned = plots.rotate(image, [45])[0]
    assert turned.min() >= 0
    assert turned.max() <= 1
    assert abs(turned.sum() - image.sum()) < 0.02 * image.sum()
    assert (plots.rotate(turned, [-45])[0] - image).abs().mean() < 0.02


def test_a_batch_turns_as_each_image_alone_and_keeps_its_dtype():
    images = torch.rand(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = plots.rotate(images, [30, 70])
    assert turned.shape == (2, 3, 1, 8, 8)
    assert turned.dtype == torch.float64
    torch.testing.assert_close(turned[1, 2], plots.rotate(images[2], [70])[0])


def test_an_image_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"square.*\[1, 28, 27\]"):
        plots.rotate(torch.zeros(1, 28, 27), [0])


# densities and flows


def test_the_heat_map_is_the_density_with_x1_to_the_right_and_x2_upwards():
    mean = torch.tensor([1.0, -0.5])
    normal = torch.distributions.Independent(torch.distributions.Normal(mean, torch.tensor([0.3, 0.6])), 1)
    _, ax = plt.subplots()
    plots.density(ax, normal.log_prob, bounds=((-2, 3), (-3, 2)), resolution=100)
    heat = np.asarray(ax.images[0].get_array())
    assert heat.sum() * (5 / 100) ** 2 == pytest.approx(1, abs=1e-3)
    row, column = np.unravel_index(heat.argmax(), heat.shape)
    assert -2 + 5 * (column + 0.5) / 100 == pytest.approx(1.0, abs=0.05)
    assert -3 + 5 * (row + 0.5) / 100 == pytest.approx(-0.5, abs=0.05)
    assert ax.images[0].origin == "lower"
    assert list(ax.images[0].get_extent()) == [-2, 3, -3, 2]


def test_a_density_that_keeps_the_axis_of_coordinates_is_refused():
    _, ax = plt.subplots()
    with pytest.raises(
        ValueError, match=r"log_prob of the grid must not be empty and have 1 axes; got shape \[16, 2\]"
    ):
        plots.density(ax, lambda x: x, resolution=4)


def test_point_flow_shows_every_state_in_the_colours_of_the_start(flow):
    z = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    states = [*flow.trace(z), z.flip(-1)]
    axes = plots.point_flow(states).axes[:5]
    assert [ax.get_title() for ax in axes] == ["start", "layer 1", "layer 2", "layer 3", "layer 4"]
    for ax, state in zip(axes, states, strict=True):
        np.testing.assert_allclose(ax.collections[0].get_offsets(), state.detach(), rtol=1e-6)
        np.testing.assert_allclose(ax.collections[0].get_array(), z[:, 0], rtol=1e-6)
        assert ax.get_xlim() == axes[0].get_xlim()


def test_point_flow_takes_the_readers_names_and_colours(flow):
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    figure = plots.point_flow(flow.trace_inverse(x), names=list("abcd"), colour=torch.arange(50))
    assert [ax.get_title() for ax in figure.axes[:4]] == list("abcd")
    np.testing.assert_array_equal(figure.axes[3].collections[0].get_array(), np.arange(50))


def test_point_flow_refuses_three_dimensions_and_missing_names(flow):
    with pytest.raises(ValueError, match=r"last of length 2; got shape \[5, 3\]"):
        plots.point_flow([torch.zeros(5, 3)])
    with pytest.raises(ValueError, match="got 4 and 1 names"):
        plots.point_flow(flow.trace(torch.zeros(5, 2)), names=["start"])


def test_points_refuse_colours_of_another_length():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="each of the 5 points; got 4"):
        plots.points(ax, torch.zeros(5, 2), colour=torch.zeros(4))


def test_grid_flow_bends_the_grid_of_z_forward_and_that_of_x_back(flow):
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    left, right = plots.grid_flow(flow, x, bound=2.0, lines=5).axes
    slope = 1.0 + 0.5 - 2.0
    for ax, expected in ((left, slope), (right, -slope)):
        upright, level = (c for c in ax.collections if isinstance(c, LineCollection))
        assert len(upright.get_segments()) == len(level.get_segments()) == 5
        for line in upright.get_segments():
            np.testing.assert_allclose(line[:, 0], line[0, 0], atol=1e-6)
        for line in level.get_segments():
            np.testing.assert_allclose(np.diff(line[:, 1]) / np.diff(line[:, 0]), expected, atol=1e-3)
    z = flow.inverse(x)[0].detach()
    np.testing.assert_allclose(left.collections[-1].get_offsets(), x, rtol=1e-6)
    np.testing.assert_allclose(right.collections[-1].get_offsets(), z, rtol=1e-6)
    assert right.get_xlim() == (-2, 2)


# predictions


def test_rotation_draws_a_violin_for_each_class_and_the_image_for_each_angle(samples):
    images = torch.rand(9, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    angles = list(range(0, 180, 20))
    panels = plots.rotation(samples, images, angles).axes[:9]
    assert [ax.get_title() for ax in panels] == [f"{angle}°" for angle in angles]
    assert [violins(ax) for ax in panels] == [10] * 9
    assert not any(ax.containers for ax in panels)
    for ax, image in zip(panels, images, strict=True):
        np.testing.assert_array_equal(ax.child_axes[0].images[0].get_array(), image[0])


def test_a_violin_reaches_from_the_smallest_to_the_largest_sample(samples):
    ax = plots.rotation(samples[:1], torch.zeros(1, 28, 28), [0]).axes[0]
    for k, violin in enumerate(ax.collections):
        heights = violin.get_paths()[0].vertices[:, 1]
        assert heights.min() == pytest.approx(samples[0, :, k].min().item(), abs=1e-6)
        assert heights.max() == pytest.approx(samples[0, :, k].max().item(), abs=1e-6)


@pytest.mark.parametrize("shape", ["identical samples", "no samples"])
def test_a_model_that_does_not_sample_is_drawn_as_bars(samples, shape):
    p = samples[:, :1].expand(9, 40, 10) if shape == "identical samples" else samples[:, 0]
    axes = plots.rotation(p, torch.zeros(9, 28, 28), range(9)).axes[:9]
    for ax, angle in zip(axes, range(9), strict=True):
        assert violins(ax) == 0
        heights = [bar.get_height() for bar in ax.containers[0]]
        np.testing.assert_allclose(heights, samples[angle, 0], rtol=1e-6)


def test_saturated_predictions_still_make_a_figure():
    p = torch.zeros(1, 500, 10)
    p[..., 3] = 1
    p[0, 0] = torch.nn.functional.one_hot(torch.tensor(5), 10)
    assert violins(plots.rotation(p, torch.zeros(1, 28, 28), [0]).axes[0]) > 0


def test_rotation_frame_shows_the_image_and_every_model_with_its_colour(samples):
    models = {"LeNet": samples[0, 0], "MNF-LeNet": samples[1], "dropout": samples[2], "ensemble": samples[3]}
    picture, *panels = plots.rotation_frame(models, torch.ones(1, 28, 28), true_label=9).axes
    assert picture.images[0].get_array().shape == (28, 28)
    assert [ax.get_title() for ax in panels] == list(models)
    assert len(panels[0].containers[0]) == 10
    assert to_hex(panels[0].patches[1].get_facecolor()).upper() == plots.PALETTE[0]
    assert [violins(ax) for ax in panels[1:]] == [10] * 3
    assert all(ax.get_ylim() == panels[0].get_ylim() for ax in panels)


def test_the_true_label_is_shaded_and_classes_carry_their_names(samples):
    names = [f"class {k}" for k in range(10)]
    ax = plots.rotation_frame({"LeNet": samples[0, 0]}, torch.ones(28, 28), true_label=4, labels=names).axes[
        1
    ]
    assert [text.get_text() for text in ax.get_xticklabels()] == names
    assert ax.patches[0].get_x() == pytest.approx(3.5)
    assert ax.patches[0].get_width() == pytest.approx(1)


def test_predictions_of_wrong_shape_or_kind_are_refused(samples):
    images = torch.zeros(9, 28, 28)
    with pytest.raises(ValueError, match="got 9, 9 and 8"):
        plots.rotation(samples, images, range(8))
    with pytest.raises(ValueError, match=r"2 or 3 axes; got shape \[10\]"):
        plots.rotation(samples[0, 0], images, range(9))
    with pytest.raises(ValueError, match="logits"):
        plots.rotation(samples.log(), images, range(9))
    with pytest.raises(ValueError, match="10 classes; got 2"):
        plots.rotation(samples, images, range(9), labels=["a", "b"])
    with pytest.raises(ValueError, match="true_label must be one of the 10 classes; got 10"):
        plots.rotation(samples, images, range(9), true_label=10)
    with pytest.raises(ValueError, match="1 to 7 models; got 0"):
        plots.rotation_frame({}, images[0])


# curves and scores


def test_curves_draw_the_mean_of_the_runs_and_a_band_of_one_standard_deviation():
    runs = torch.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 4.0]], requires_grad=True)
    _, ax = plt.subplots()
    x = [0, 20, 40]
    plots.curves(ax, x, {"one": [3, 4, 5], "two": runs}, xlabel="angle (degrees)", ylabel="entropy (nats)")
    one, two = ax.lines
    np.testing.assert_allclose(one.get_ydata(), [3, 4, 5])
    np.testing.assert_allclose(two.get_ydata(), [1, 1, 3])
    (band,) = ax.collections
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(1 - math.sqrt(2))
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(3 + math.sqrt(2))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    assert ax.get_ylabel() == "entropy (nats)"


def test_curves_refuse_values_that_do_not_fit_x():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"values of LeNet must .* length 3; got shape \[2\]"):
        plots.curves(ax, [0, 1, 2], {"LeNet": [0, 1]}, xlabel="", ylabel="")


def test_history_has_a_panel_for_whatever_was_recorded():
    bayesian = History(loss=[2, 1], nll=[1.5, 0.5], kl=[10, 9], accuracy=[0.5, 0.8], val_nll=[1.2, 0.4])
    plain = History(loss=[3, 2], nll=[3, 2], kl=[0, 0], accuracy=[0.4, 0.6])
    axes = {ax.get_ylabel(): ax for ax in plots.history({"MNF": bayesian, "LeNet": plain}).axes}
    assert len(axes) == 4
    assert [list(line.get_ydata()) for line in axes["KL divergence (nats)"].lines] == [[10, 9]]
    likelihood = axes["− log-likelihood (nats)"].lines
    assert [(line.get_label(), line.get_linestyle()) for line in likelihood] == [
        ("MNF", "-"),
        ("MNF, validation", "--"),
        ("LeNet", "-"),
    ]
    assert [list(line.get_xdata()) for line in likelihood] == [[1, 2]] * 3


def test_history_takes_one_run_without_a_name():
    ax = plots.history(History(loss=[3, 2], nll=[3, 2], val_nll=[4, 3])).axes[1]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["this run", "this run, validation"]


def test_history_of_a_plain_regression_has_no_panel_for_kl_or_accuracy():
    figure = plots.history({"MLP": History(loss=[3, 2], nll=[3, 2], kl=[0, 0])})
    assert [ax.get_ylabel() for ax in figure.axes] == ["loss (nats per example)", "− log-likelihood (nats)"]
    with pytest.raises(ValueError, match="at least one epoch"):
        plots.history({"MLP": History()})


def test_reliability_is_the_accuracy_of_each_bin_of_confidence():
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.35, 0.65], [0.3, 0.7], [0.7, 0.3]])
    labels = torch.tensor([0, 1, 1, 1, 0, 0])
    _, ax = plt.subplots()
    plots.reliability(ax, p, labels, "LeNet", bins=4)
    diagonal, line = ax.lines
    np.testing.assert_allclose(line.get_xdata(), [(0.6 + 0.65 + 0.7 + 0.7) / 4, 0.9], rtol=1e-6)
    np.testing.assert_allclose(line.get_ydata(), [3 / 4, 1 / 2])
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 1]


def test_reliability_of_samples_is_that_of_their_mean(samples):
    labels = torch.arange(40) % 10
    _, (one, other) = plt.subplots(1, 2)
    plots.reliability(one, samples, labels)
    plots.reliability(other, samples.mean(0), labels)
    np.testing.assert_allclose(one.lines[1].get_xydata(), other.lines[1].get_xydata(), rtol=1e-5)


def test_full_confidence_belongs_to_the_last_bin():
    _, ax = plt.subplots()
    plots.reliability(ax, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.02, 0, 0.98]]), torch.tensor([0, 1, 1]))
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[2.98 / 3, 2 / 3]], rtol=1e-6)


def test_reliability_refuses_labels_of_another_number():
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"labels must be .*\[3\].*\[2\]"):
        plots.reliability(ax, torch.eye(3), torch.arange(2))


def test_cumulative_entropy_is_the_fraction_of_images_at_or_below():
    _, ax = plt.subplots()
    plots.cumulative_entropy(ax, {"MNIST": torch.tensor([0.1, 0.2, 0.3, 1.0])})
    x, y = ax.lines[0].get_data()
    assert [y[x <= at].max() for at in (0.1, 0.35, 1.0)] == [0.25, 0.75, 1.0]
    assert ax.get_xlabel().endswith("(nats)")


# looks


def test_style_makes_white_cards_in_the_books_palette():
    plots.style()
    figure, ax = plt.subplots()
    assert to_hex(figure.get_facecolor()) == "#ffffff"
    assert to_hex(ax.plot([0, 1])[0].get_color()).upper() == plots.PALETTE[0]


def test_palette_and_position_colours_stand_out_from_white():
    def luminance(colour: str) -> float:
        channels = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)
        ]
        return float(np.dot(channels, [0.2126, 0.7152, 0.0722]))

    colours = [*plots.PALETTE, *map(to_hex, plots.POSITION(np.linspace(0, 1, 16)))]
    assert min(1.05 / (luminance(colour) + 0.05) for colour in colours) > 1.8


def test_history_draws_the_parts_of_one_runs_kl_and_the_price_of_z_of_several():
    run = History(loss=[2], nll=[1], kl=[8], kl_weights=[6], kl_bias=[1], log_q=[-3], log_r=[-4])
    parts = plots.history(run).axes[-1]
    assert parts.get_ylabel() == "parts of the KL (nats)"
    assert [list(line.get_ydata()) for line in parts.lines] == [[6], [1], [-3], [4]]
    plain = History(loss=[3], nll=[3], kl=[2], kl_weights=[2], kl_bias=[0], log_q=[0], log_r=[0])
    price = plots.history({"MNF": run, "mean-field": plain, "again": run}).axes[-1]
    assert price.get_ylabel() == "log q(z) − log r(z|W) (nats)"
    assert [(line.get_label(), list(line.get_ydata())) for line in price.lines] == [
        ("MNF", [1]),
        ("again", [1]),
    ]
