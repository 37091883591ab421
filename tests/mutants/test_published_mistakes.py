"""Mistakes that were found in public code, made again in our classes: each turns a named test red.

The chapters link the places under *In the wild*. A mistake takes the place of one method and is written as
the formula that is wrong, in terms of the right method and of public members. The named test is *red* if it
raises AssertionError; without the mistake it is not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from inspect import isclass, signature
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mnf_lite import flows, layers
from mnf_lite.flows.spline import UNIT_SLOPE, Spline
from tests.package import test_training


@dataclass
class Mistake:
    """What takes the place of a method, where it was seen, and the test that notices it.

    Attributes:
        wrong: called with the right method, then as the method is.
        test: ``file::test`` or ``file::Class::test`` of tests/package.
        only: values of the test's parameters; without them all are tried.
    """

    where: Any
    method: str
    seen: str
    test: str
    wrong: Callable[..., Any]
    only: dict[str, Any] = field(default_factory=dict)


MISTAKES: dict[str, Mistake] = {}


def mistake(where: Any, method: str, seen: str, test: str, **only: Any) -> Callable[..., Any]:
    def keep(wrong: Callable[..., Any]) -> Callable[..., Any]:
        MISTAKES[wrong.__name__] = Mistake(where, method, seen, test, wrong, only)
        return wrong

    return keep


def is_red(test: str, request: pytest.FixtureRequest, only: dict[str, Any]) -> bool:
    """Whether the named test raises AssertionError with some of its parameters."""
    file, *names = test.split("::")
    found: Any = import_module(f"tests.package.{file}")
    for name in names:
        found = getattr(found() if isclass(found) else found, name)
    choices = [
        [
            dict(zip(names, values if len(names) > 1 else [values], strict=True))
            for values in (value.values if hasattr(value, "marks") else value for value in mark.args[1])
            for names in [parameter_names(mark)]
        ]
        for mark in getattr(found, "pytestmark", [])
        if mark.name == "parametrize"
    ]
    every = [
        {name: value for values in choice for name, value in values.items()} for choice in product(*choices)
    ]
    chosen = [arguments for arguments in every if only.items() <= arguments.items()]
    if not chosen:
        raise LookupError(f"{test} has no parameters {only}")
    for arguments in chosen:
        fixtures = set(signature(found).parameters) - set(arguments)
        torch.manual_seed(0)
        try:
            found(**arguments, **{name: request.getfixturevalue(name) for name in fixtures})
        except AssertionError:
            return True
    return False


def parameter_names(mark: pytest.Mark) -> list[str]:
    names = mark.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


# Flows

EVERY, CURVE = "test_flows::TestEveryFlow::", "test_flows::TestSpline::"
LOG_DET = EVERY + "test_log_det_equals_autograd"
SAVED = EVERY + "test_a_saved_state_in_a_fresh_flow_gives_the_same_bits"
KNOTS = CURVE + "test_a_curve_goes_through_its_knots_with_its_slopes"
ACTNORM = "test_flows::TestActNorm::"


@mistake(flows.GatedCoupling, "forward", "torch-mnf, tf-mnf", LOG_DET, name="GatedCoupling")
def the_shift_is_added_to_the_coordinates_that_are_kept(right, flow, z, *context):
    mu, _ = flow.net(flow.mask * z).chunk(2, -1)
    x, log_det = right(flow, z, *context)
    return x + flow.mask * mu, log_det


@mistake(
    flows.Radial,
    "forward",
    "beside a tutorial's 1 + bh to the power d, minus one",
    LOG_DET,
    name="Radial",
)
def the_radial_determinant_has_d_in_place_of_d_minus_1(right, flow, z, *context):
    x, log_det = right(flow, z, *context)
    return x, log_det + ((x - flow.z_0).norm(dim=-1) / (z - flow.z_0).norm(dim=-1)).log()


@mistake(
    flows.Planar,
    "constrain",
    "variational-inference-with-normalizing-flows",
    "test_flows::TestPlanar::test_u_hat_meets_its_constraint_whatever_u_is",
)
def the_planar_u_is_not_constrained(right, flow):
    return flow.u, flow.w @ flow.u


@mistake(
    flows.Planar,
    "constrain",
    "Pyro, normalizing-flows (tonyduan)",
    "test_flows::TestPlanar::test_u_hat_meets_its_constraint_whatever_u_is",
)
def the_planar_constraint_divides_by_the_norm_without_its_square(right, flow):
    u_hat, c = right(flow)
    return flow.u + (u_hat - flow.u) * flow.w.norm(), c


@mistake(Spline, "forward", "normalizing-flows (tonyduan), pytorch-normalizing-flows", KNOTS)
def widths_and_heights_go_through_softmax_twice(right, spline, x, raw, inverse=False):
    bars, slopes = raw.split([2 * spline.bins, spline.bins - 1], -1)
    bars = bars.unflatten(-1, (2, -1)).softmax(-1).flatten(-2)
    return right(spline, x, torch.cat((bars, slopes), -1), inverse)


@mistake(Spline, "forward", "normalizing-flows (tonyduan), pytorch-normalizing-flows", KNOTS)
def slopes_go_through_softplus_twice(right, spline, x, raw, inverse=False):
    bars, slopes = raw.split([2 * spline.bins, spline.bins - 1], -1)
    return right(spline, x, torch.cat((bars, nn.functional.softplus(slopes + UNIT_SLOPE)), -1), inverse)


@mistake(
    flows.ActNorm,
    "inverse",
    "nflows, FrEIA, normflows, glow-pytorch, torch-mnf",
    ACTNORM + "test_a_loaded_flow_is_not_initialised_anew",
)
def the_flag_of_actnorm_is_not_saved(right, flow, x, *context):
    if not hasattr(flow, "flag"):
        flow.initialise(x)
        flow.flag = True  # a plain attribute
    return right(flow, x, *context)


@mistake(
    flows.ActNorm, "initialise", "torch-mnf", ACTNORM + "test_the_first_batch_scored_comes_out_normalised"
)
def the_shift_of_actnorm_is_the_mean_of_the_scaled_points(right, flow, x):
    right(flow, x)
    with torch.no_grad():
        flow.t *= flow.s.exp()


@mistake(
    flows.InvertibleLinear,
    "__init__",
    "torch-mnf, pytorch-normalizing-flows",
    SAVED,
    name="InvertibleLinear",
)
def the_permutation_of_the_linear_map_is_not_saved(right, flow, dim):
    right(flow, dim)
    flow.register_buffer("permutation", flow.permutation, persistent=False)


@mistake(
    flows.ActNorm,
    "forward",
    "normflows",
    ACTNORM + "test_forward_before_is_the_identity_and_initialises_nothing",
)
def noise_initialises_actnorm(right, flow, z, *context):
    if not flow.initialised:
        flow.initialise(z)
    return right(flow, z, *context)


@mistake(
    flows.NormalizingFlow,
    "log_prob",
    "normflows",
    "test_flows_density::TestAnyBase::test_log_prob_is_that_of_the_base_plus_the_log_determinant",
)
def the_log_determinant_is_subtracted(right, density, x, *context):
    return right(density, x, *context) - 2 * density.flow.inverse(x, *context)[1]


# The layers' flows

BOUND, FORWARD = "test_layers_bound::", "test_layers_forward::"
FLOWS = BOUND + "test_flows_are_deterministic_and_their_log_determinants_are_those_of_autograd"


@mistake(flows.GatedCoupling, "forward", "torch-mnf, tf-mnf, MNF_VBNN", FLOWS)
def the_mask_is_drawn_anew_at_each_call(right, flow, z, *context):
    flow.mask.bernoulli_()
    return right(flow, z, *context)


@mistake(
    flows.GatedCoupling, "__init__", "torch-mnf", BOUND + "test_conditioners_of_the_flows_are_not_linear"
)
def the_conditioner_has_no_nonlinearity(right, flow, *args, **options):
    right(flow, *args, **options)
    flow.net = nn.Sequential(*(module for module in flow.net if isinstance(module, nn.Linear)))


# The bound

ZERO = BOUND + "test_every_draw_is_zero_where_posterior_and_prior_agree"
CANCEL = BOUND + "test_every_draw_is_zero_where_the_flows_of_q_and_r_undo_each_other"
QUADRATURE = BOUND + "test_mean_of_kl_samples_equals_quadrature_and_bounds_the_true_kl"
ORDER = BOUND + "test_order_of_a_convolutions_inputs_and_positions_is_indifferent_to_its_kl"


@mistake(layers.MNFConv2d, "statistic", "torch-mnf", QUADRATURE, kind=layers.MNFConv2d)
def the_spread_of_a_weighted_sum_is_the_weighted_sum_of_spreads(right, layer, z):
    positions = layer.weight_mean[0].numel()
    mean = (z * layer.r_c) @ layer.weight_mean.flatten(1).mean(-1)
    spread = layer.r_c @ (layer.weight_log_var / 2).exp().flatten(1).sum(-1) / positions
    return (mean + spread * torch.randn_like(mean))[:, None]


@mistake(layers.MNFConv2d, "statistic", "torch-mnf", ORDER)
def the_kernel_is_reshaped_across_its_axes(right, layer, z):
    positions = layer.weight_mean[0].numel()
    mean = (z * layer.r_c) @ layer.weight_mean.reshape(-1, len(layer.r_c)).mean(0)
    var = layer.r_c.square() @ layer.weight_log_var.exp().flatten(1).sum(-1) / positions**2
    return (mean + var.sqrt() * torch.randn_like(mean))[:, None]


@mistake(layers.MNFLinear, "log_r", "tf-mnf", CANCEL, kind=layers.MNFLinear)
def log_r_is_summed_over_every_state_of_its_flow(right, layer, z):
    return right(layer, z) - sum(state.square().sum(-1) / 2 for state in layer.flow_r.trace(z)[1:-1])


@mistake(layers.MNFConv2d, "kl_samples", "tf-mnf", ZERO, kind=layers.MNFConv2d)
def the_kl_has_log_sigma_in_place_of_2_log_sigma(right, layer, n):
    return right(layer, n) + layer.weight_log_var.sum() / 4


@mistake(layers.MNFLinear, "kl_samples", "torch-mnf", ZERO, kind=layers.MNFLinear)
def constants_of_half_a_nat_per_dimension_of_z_are_dropped(right, layer, n):
    return right(layer, n) + len(layer.q0_mean) / 2


@mistake(layers.MNFLinear, "kl_samples", "torch-mnf", FORWARD + "test_bias_mean_and_kl_know_of_each_other")
def the_bias_is_scaled_by_z_in_the_kl(right, layer, n):
    z, _ = layer.sample_z(n)
    return right(layer, n) + (z.square().mean(-1) - 1) * layer.bias_mean.square().sum() / 2


# The output

SHARED_Z = FORWARD + "test_pixels_of_one_example_share_z_and_the_rows_of_a_batch_do_not"
AT_ZERO = FORWARD + "test_output_at_zero_is_the_bias"
INTEGRAL = FORWARD + "test_dense_mean_and_covariance_equal_an_integral_over_z"
PIXELS = FORWARD + "test_conv_outputs_have_mean_and_covariance_of_explicit_weights_in_each_pixel"


@mistake(layers.MNFConv2d, "sample_z", "torch-mnf", SHARED_Z, kind=layers.MNFConv2d)
def z_is_shared_by_the_batch(right, layer, n):
    return tuple(drawn.expand(n, *drawn.shape[1:]) for drawn in right(layer, 1))


@mistake(layers.MNFConv2d, "forward", "torch-mnf", AT_ZERO, kind=layers.MNFConv2d)
def the_mean_of_the_bias_has_no_effect_on_the_output(right, layer, x):
    return right(layer, x) - layer.bias_mean[:, None, None]


def with_a_limit_on_sigma(right: Callable[..., Tensor], layer: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        kept = layer.weight_log_var.clone()
        layer.weight_log_var.clamp_(max=2 * math.log(0.5))
        y = right(layer, x)
        layer.weight_log_var.copy_(kept)
    return y


@mistake(layers.MNFLinear, "forward", "MNF_VBNN, tf-mnf", INTEGRAL)
def the_standard_deviation_is_limited_in_forward_alone(right, layer, x):
    return with_a_limit_on_sigma(right, layer, x)


@mistake(layers.MNFConv2d, "forward", "MNF_VBNN, tf-mnf", PIXELS, kind=layers.MNFConv2d)
def the_standard_deviation_is_limited_in_forward_alone_in_a_convolution(right, layer, x):
    return with_a_limit_on_sigma(right, layer, x)


# The training


@mistake(
    test_training,
    "fit",
    "torch-mnf's notebook",
    "test_training::test_the_kl_weight_is_one_over_the_number_of_examples",
)
def the_kl_is_divided_by_the_number_of_batches(right, model, dataset, *, batch_size, **options):
    kl_weight = options.pop("kl_weight", 1 / math.ceil(len(dataset) / batch_size))
    return right(model, dataset, batch_size=batch_size, kl_weight=kl_weight, **options)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_turns_its_test_red(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = MISTAKES[name]
    assert not is_red(m.test, request, m.only), f"{m.test} is red without a mistake"
    right = getattr(m.where, m.method)
    monkeypatch.setattr(m.where, m.method, lambda *args, **options: m.wrong(right, *args, **options))
    assert is_red(m.test, request, m.only), f"{m.test} does not notice: {name.replace('_', ' ')} ({m.seen})"
