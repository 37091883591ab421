"""What fresh flows and layers hold: slips in initial values leave formulas right and trainings wrong."""

import math

import pytest
import torch

from mnf_lite import flows, layers


@pytest.fixture(autouse=True)
def seeded(seed):
    """The same draws every time."""


@pytest.mark.parametrize(
    "make", [layers.MNFLinear, layers.MeanFieldLinear, lambda i, o: layers.MNFConv2d(i, o, 3)]
)
def test_a_fresh_layer_has_log_variances_of_minus_nine_and_he_means(make):
    layer = make(400, 300)
    assert (layer.weight_log_var == -9).all()
    assert (layer.bias_log_var == -9).all()
    assert (layer.bias_mean == 0).all()
    fan_in = layer.weight_mean[0].numel()
    assert layer.weight_mean.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.02)


def test_a_fresh_multiplier_starts_near_one_and_its_guess_near_constant():
    layer = layers.MNFLinear(4000, 2, hidden=(2,), auxiliary="published")
    assert (layer.q0_mean == 1).all()
    torch.testing.assert_close(layer.q0_log_var, torch.full((4000,), math.log(0.1)))
    assert layer.r_c.std().item() == pytest.approx(1, rel=0.1)
    assert layer.r_b1.std().item() == pytest.approx(0.1, rel=0.1)
    assert layer.r_b2.std().item() == pytest.approx(0.1, rel=0.1)


def test_the_gates_of_an_mnf_layer_have_one_hidden_layer_of_fifty():
    assert [m.out_features for m in flows.GatedCoupling(6).net if hasattr(m, "out_features")] == [50, 12]
    assert flows.GatedCoupling(1).mask.tolist() == [0.0]  # one coordinate has nothing to be kept for


@pytest.mark.parametrize("dim", [1, 2, 5, 16])
def test_a_fresh_linear_map_is_a_rotation_or_reflection(dim):
    flow = flows.InvertibleLinear(dim).double()
    W, log_det = flow(torch.eye(dim, dtype=torch.float64))
    torch.testing.assert_close(W @ W.T, torch.eye(dim, dtype=torch.float64), atol=1e-5, rtol=0)
    assert log_det.abs().max() < 1e-5


def test_a_fresh_planar_flow_has_directions_of_length_about_one():
    flow = flows.Planar(10_000)
    assert flow.u.norm().item() == pytest.approx(1, rel=0.05)


def test_a_drawn_convolution_has_the_bias_of_its_own_draw():
    layer = layers.MNFConv2d(2, 3, 3)
    torch.manual_seed(5)
    w, b = layer.sample_weights(1)
    torch.manual_seed(5)
    plain = layer.plain()
    assert torch.equal(plain.weight, w[0])
    assert torch.equal(plain.bias, b[0])


def test_a_sigmoid_gives_the_largest_number_below_one_and_the_smallest_above_zero():
    x, _ = flows.Sigmoid(2)(torch.tensor([100.0, -1000.0]))
    assert x[0] < 1
    assert torch.nextafter(x[0], torch.tensor(2.0)) == 1
    assert x[1] > 0
