"""Every known mistake, made in our own flows and networks on purpose, turns a named test red.

First those that were found in public code, then slips that the formulas invite.
"""

import importlib
from typing import Any

import pytest
import torch

from tests.mutants.harness import mutated

DOUBLE, SINGLE = torch.float64, torch.float32
NETS = "mnf_lite.nets"
BASE, AFFINE, PLANAR, COUPLING, AUTOREGRESSIVE, LINEAR, SPLINE = (
    f"mnf_lite.flows.{name}"
    for name in ("base", "affine", "planar", "coupling", "autoregressive", "linear", "spline")
)

EVERY = "test_flows::TestEveryFlow::"
UNDONE = EVERY + "test_each_direction_undoes_the_other"
LOG_DET = EVERY + "test_log_det_equals_autograd"
SAVED = EVERY + "test_a_saved_state_in_a_fresh_flow_gives_the_same_bits"
SATURATED = EVERY + "test_saturated_parameters_give_finite_values_and_gradients"
SHAPES = EVERY + "test_shapes_and_dtypes_follow_the_input"
ACTNORM, PLANE, RADIUS = "test_flows::TestActNorm::", "test_flows::TestPlanar::", "test_flows::TestRadial::"
HALVES, ORDER = "test_flows::TestCoupling::", "test_flows::TestAutoregressive::"
CURVE, CHAIN = "test_flows::TestSpline::", "test_flows::TestCompose::"
KNOTS = CURVE + "test_a_curve_goes_through_its_knots_with_its_slopes"
MADE, STACK = "test_nets::TestMADE::", "test_nets::TestStackedMLP::"
ANY_BASE, SAMPLING = "test_flows_density::TestAnyBase::", "test_flows_density::TestSampling::"

# name: (module, what is right, what is wrong, test, its arguments)
MUTANTS: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    # Found in public code.
    "shift added to the coordinates that are kept": (
        COUPLING,
        "z + torch.expm1(log_gate) * (z - mu)",
        "z + torch.expm1(log_gate) * (z - mu) + self.mask * mu",
        UNDONE,
        {"name": "GatedCoupling", "dim": 3, "dtype": DOUBLE},
    ),
    "slopes through softplus twice": (
        SPLINE,
        "nn.functional.softplus(a + UNIT_SLOPE)",
        "nn.functional.softplus(nn.functional.softplus(a + UNIT_SLOPE))",
        KNOTS,
        {},
    ),
    "widths through softmax twice": (SPLINE, ".softmax(-1)", ".softmax(-1).softmax(-1)", KNOTS, {}),
    "ActNorm's flag is not saved": (
        AFFINE,
        'self.register_buffer("initialised", torch.tensor(False))',
        "self.initialised = torch.tensor(False)",
        ACTNORM + "test_a_loaded_flow_is_not_initialised_anew",
        {},
    ),
    "ActNorm's shift is the mean of the scaled points": (
        AFFINE,
        "self.t.copy_(mean)",
        "self.t.copy_(mean * self.s.exp())",
        ACTNORM + "test_the_first_batch_scored_comes_out_normalised",
        {},
    ),
    "the permutation is not saved": (
        LINEAR,
        'self.register_buffer("permutation", P.argmax(0))',
        "self.permutation = P.argmax(0)",
        SAVED,
        {"name": "InvertibleLinear", "dim": 5},
    ),
    "d in place of d - 1": (
        PLANAR,
        "(self.dim - 1) * tangential",
        "self.dim * tangential",
        LOG_DET,
        {"name": "Radial", "dim": 3},
    ),
    "the base's tensors are plain attributes": (
        BASE,
        "module.register_buffer(name, ",
        "setattr(module, name, ",
        ANY_BASE + "test_it_casts_with_the_model_even_after_use",
        {"base": "Independent"},
    ),
    "u is not constrained": (
        PLANAR,
        "return self.u + (c - a) * self.w / norm2, c",
        "return self.u, c",
        LOG_DET,
        {"name": "Planar", "dim": 3},
    ),
    # Signs and sums of log-determinants.
    "sign of AffineConstant's log-determinant": (
        AFFINE,
        "return x, self.s.sum()",
        "return x, -self.s.sum()",
        LOG_DET,
        {"name": "AffineConstant", "dim": 2},
    ),
    "sign of AffineCoupling's inverse log-determinant": (
        COUPLING,
        ", minus_s.sum(-1)",
        ", -minus_s.sum(-1)",
        LOG_DET,
        {"name": "AffineCoupling", "dim": 2},
    ),
    "sign of GatedCoupling's inverse log-determinant": (
        COUPLING,
        "-log_gate.sum(-1)",
        "log_gate.sum(-1)",
        LOG_DET,
        {"name": "GatedCoupling", "dim": 2},
    ),
    "sign of MAF's log-determinant": (
        AUTOREGRESSIVE,
        "return x, s.sum(-1)",
        "return x, -s.sum(-1)",
        LOG_DET,
        {"name": "MAF", "dim": 2},
    ),
    "sign of the linear map's inverse log-determinant": (
        LINEAR,
        "-self.log_diag.sum()",
        "self.log_diag.sum()",
        LOG_DET,
        {"name": "InvertibleLinear", "dim": 2},
    ),
    "sign of Planar's inverse log-determinant": (
        PLANAR,
        "-torch.log1p(",
        "torch.log1p(",
        LOG_DET,
        {"name": "Planar", "dim": 2},
    ),
    "sign of the spline's inverse slope": (
        SPLINE,
        "return torch.addcmul(x_0, xi, w), -log_slope",
        "return torch.addcmul(x_0, xi, w), log_slope",
        LOG_DET,
        {"name": "SplineCoupling", "dim": 2},
    ),
    "a log-determinant is averaged": (
        AUTOREGRESSIVE,
        "minus_s.sum(-1)",
        "minus_s.mean(-1)",
        LOG_DET,
        {"name": "MAF", "dim": 3},
    ),
    "the chain counts its last log-determinant alone": (
        BASE,
        "x, step = flow(x)\n            log_det = step if log_det is None else log_det + step",
        "x, step = flow(x)\n            log_det = step",
        CHAIN + "test_forward_applies_the_first_flow_first",
        {},
    ),
    "log_prob subtracts the log-determinant": (
        BASE,
        "return log_prob + log_det",
        "return log_prob - log_det",
        ANY_BASE + "test_log_prob_is_that_of_the_base_plus_the_log_determinant",
        {"base": "Independent"},
    ),
    "log 2 pi is dropped": (
        BASE,
        " + value.shape[-1] * math.log(2 * math.pi))",
        ")",
        "test_flows_density::TestDefaultBase::test_constants_are_kept",
        {},
    ),
    # Directions.
    "the chain is undone first flow first": (
        BASE,
        "for flow in reversed(list(self)):\n            z, step",
        "for flow in self:\n            z, step",
        CHAIN + "test_a_chain_is_a_flow",
        {},
    ),
    "NICE's inverse adds the shift": (
        COUPLING,
        "moved - t), ",
        "moved + t), ",
        UNDONE,
        {"name": "AdditiveCoupling", "dim": 2, "dtype": DOUBLE},
    ),
    "the log-scale is bounded in one direction only": (
        AUTOREGRESSIVE,
        "minus_s = soft_bound(a, -1)",
        "minus_s = -a",
        UNDONE,
        {"name": "MAF", "dim": 3, "dtype": DOUBLE},
    ),
    "the permutation is not undone": (
        LINEAR,
        "self.permutation.argsort()",
        "self.permutation",
        UNDONE,
        {"name": "InvertibleLinear", "dim": 16, "dtype": DOUBLE},
    ),
    "IAF is MAF": (
        AUTOREGRESSIVE,
        "return super().inverse(z)",
        "return super().forward(z)",
        ORDER + "test_iaf_is_maf_run_the_other_way",
        {},
    ),
    "the inverse spline looks for its bin among the widths": (
        SPLINE,
        "axis=1 if inverse else 0",
        "axis=0",
        UNDONE,
        {"name": "SplineCoupling", "dim": 2, "dtype": DOUBLE},
    ),
    "parity moves the same half": (
        COUPLING,
        "self.swap = parity == 1 and dim > 1",
        "self.swap = False",
        HALVES + "test_one_half_moves_as_the_other_says",
        {"make_flow": "AffineCoupling", "dim": 2, "parity": 1},
    ),
    # Masks and networks.
    "outputs see their own coordinate": (
        NETS,
        "[:, None] < inputs",
        "[:, None] <= inputs",
        MADE + "test_outputs_depend_on_earlier_coordinates_alone",
        {"dim": 3, "hidden": (24, 24, 24), "parity": 0},
    ),
    "hidden units do not see their own degree": (
        NETS,
        "read[:, None] <= reader",
        "read[:, None] < reader",
        MADE + "test_with_a_hidden_unit_of_each_degree_every_earlier_coordinate_is_read",
        {"dim": 3, "hidden": (24, 24, 24)},
    ),
    "hidden degrees are rounded down": (
        NETS,
        ").ceil().long()",
        ").long()",
        "test_flows::TestParameterCounts::test_three_autoregressive_splines_counting_what_the_mask_leaves",
        {},
    ),
    "weights are not masked": (
        NETS,
        "self.unpack(self.mask * self.theta)",
        "self.unpack(self.theta)",
        MADE + "test_outputs_depend_on_earlier_coordinates_alone",
        {"dim": 3, "hidden": (24, 24, 24), "parity": 0},
    ),
    "the mask is not saved": (
        NETS,
        'self.register_buffer("mask", torch.ones_like(self.theta))',
        "self.mask = torch.ones_like(self.theta.data)",
        MADE + "test_the_mask_is_saved_and_not_trained",
        {},
    ),
    "the order is never reversed": (
        NETS,
        "[:: -1 if parity else 1]",
        "[::1]",
        MADE + "test_outputs_depend_on_earlier_coordinates_alone",
        {"dim": 3, "hidden": (24, 24, 24), "parity": 1},
    ),
    "a pass of sampling leaves out the newest units": (
        NETS,
        "(degree <= k).sum()",
        "(degree < k).sum()",
        MADE + "test_solve_finds_the_fixed_point",
        {"dim": 5, "hidden": (24, 24, 24), "parity": 0},
    ),
    "every pass of sampling is a whole one and more": (
        NETS,
        "slice(i * self.outputs, (i + 1) * self.outputs)]",
        "slice(i * self.outputs, (i + 1) * self.outputs)]\n            self(z), self(z)",
        ORDER + "test_sampling_costs_no_more_than_dim_passes",
        {"make_flow": "MAF"},
    ),
    "the first hidden layer is not bent": (
        NETS,
        "h.relu_() if k else h",
        "h.relu_() if k > 1 else h",
        STACK + "test_it_computes_n_separate_networks",
        {"n": 2, "hidden": (3, 2)},
    ),
    "the nonlinearity of an MLP's only hidden layer is dropped": (
        NETS,
        "layers += [nn.Linear(fan_in, fan_out), activation()]",
        "layers += [nn.Linear(fan_in, fan_out)]",
        "test_nets::TestMLP::test_one_hidden_layer_already_bends",
        {},
    ),
    "an empty batch has no size": (
        NETS,
        "return y.view(self.n, *x.shape[:-1], y.shape[-1])",
        "return y.view(self.n, *x.shape[:-1], -1)",
        SHAPES,
        {"name": "AffineCoupling", "dim": 2, "dtype": DOUBLE},
    ),
    # Roots, constraints and their gradients.
    "m without its offset": (
        PLANAR,
        "a + math.log(math.e - 1)",
        "a",
        PLANE + "test_u_of_zero_is_the_identity",
        {},
    ),
    "no gradient through Planar's root": (
        PLANAR,
        "for _ in range(2):",
        "for _ in range(0):",
        LOG_DET,
        {"name": "Planar", "dim": 2},
    ),
    "no second gradient through Planar's root": (
        PLANAR,
        "for _ in range(2):",
        "for _ in range(1):",
        PLANE + "test_the_root_has_first_and_second_derivatives",
        {},
    ),
    "Newton's method stops early": (
        PLANAR,
        "for _ in range(6):",
        "for _ in range(2):",
        PLANE + "test_the_root_is_exact_in_the_hardest_cases",
        {"dtype": DOUBLE},
    ),
    "Newton's method starts without the bound for large c": (
        PLANAR,
        ").maximum(late)",
        ")",
        PLANE + "test_the_root_is_exact_in_the_hardest_cases",
        {"dtype": DOUBLE},
    ),
    "Newton's method starts without the bound for c near -1": (
        PLANAR,
        ".minimum(torch.where(cubic < 1, cubic, torch.inf))",
        "",
        PLANE + "test_the_root_is_exact_in_the_hardest_cases",
        {"dtype": DOUBLE},
    ),
    "Radial takes the other root": (
        PLANAR,
        "torch.where(q > 0, larger, alpha * R / larger)",
        "alpha * R / larger",
        UNDONE,
        {"name": "Radial", "dim": 3, "dtype": DOUBLE},
    ),
    "w of zero divides by zero": (
        PLANAR,
        ".clamp(min=torch.finfo(a.dtype).tiny)",
        "",
        PLANE + "test_w_of_zero_is_a_translation",
        {},
    ),
    "a closed gate is closed for good": (
        COUPLING,
        "a.clamp(min=LEAST_LOGIT)",
        "a",
        SATURATED,
        {"name": "GatedCoupling", "dim": 5, "dtype": SINGLE, "direction": "inverse"},
    ),
    "log-scales are not bounded": (
        BASE,
        "a / torch.rsub(a.abs(), sign, alpha=-sign / BOUND)",
        "sign * a",
        SATURATED,
        {"name": "AffineCoupling", "dim": 5, "dtype": SINGLE, "direction": "forward"},
    ),
    "slopes are not bounded": (
        SPLINE,
        ".clamp(max=STEEPEST)",
        "",
        SATURATED,
        {"name": "SplineCoupling", "dim": 5, "dtype": SINGLE, "direction": "forward"},
    ),
    # Splines.
    "outer slopes are free": (
        SPLINE,
        "nn.functional.pad(slopes, (1, 1))",
        "nn.functional.pad(slopes, (1, 1), value=0.5)",
        CURVE + "test_zeros_are_the_identity",
        {},
    ),
    "the spline goes on outside its box": (
        SPLINE,
        "torch.where(inside, y, x)",
        "y",
        CURVE + "test_outside_the_box_nothing_moves",
        {"inverse": False},
    ),
    "the bins have no least width": (
        SPLINE,
        "EPSILON * j + (1 - bins * EPSILON) * (k < j)",
        "1.0 * (k < j)",
        CURVE + "test_curves_rise",
        {},
    ),
    "too many bins are let through": (
        SPLINE,
        "if bins * EPSILON >= 1:",
        "if bins * EPSILON > 2:",
        CURVE + "test_impossible_bins_are_refused",
        {"bins": 1000, "match": "got 1000 bins"},
    ),
    # ActNorm, linear, density.
    "ActNorm's scale is a variance": (
        AFFINE,
        "torch.std_mean(x, 0)",
        "torch.var_mean(x, 0)",
        ACTNORM + "test_the_first_batch_scored_comes_out_normalised",
        {},
    ),
    "ActNorm does not ask a loaded flag": (
        AFFINE,
        "        self._ready = False\n        super()._load",
        "        super()._load",
        ACTNORM + "test_a_flow_that_loads_an_uninitialised_state_is",
        {},
    ),
    "ActNorm takes a batch of one": (
        AFFINE,
        "if len(x) < 2:",
        "if len(x) < 1:",
        ACTNORM + "test_a_first_batch_of_one_point_is_refused",
        {},
    ),
    "ActNorm's log-determinant has the parameters' dtype": (
        AFFINE,
        "return x, self.s.sum().to(x.dtype)",
        "return x, self.s.sum()",
        "test_flows::TestAffineConstant::test_float64_points_through_a_float32_flow_stay_float64",
        {},
    ),
    "signs of the diagonal are lost": (
        LINEAR,
        "self.sign * torch.exp",
        "torch.exp",
        "test_flows::TestInvertibleLinear::test_it_starts_as_a_rotation_or_reflection",
        {"dim": 5},
    ),
    "sample keeps a graph": (
        BASE,
        "@torch.no_grad()\n    def sample",
        "def sample",
        SAMPLING + "test_sample_has_no_gradient_and_rsample_reaches_flow_and_base",
        {},
    ),
    "a shared parameter is registered twice": (
        BASE,
        "if parameter is source:",
        "if False:",
        "test_flows_density::TestTrainedBase::test_a_shared_parameter_is_registered_once",
        {},
    ),
    "shapes are not checked": (
        BASE,
        "x.shape[-1] != self.dim",
        "False",
        EVERY + "test_wrong_inputs_are_named",
        {"name": "AffineConstant"},
    ),
}


def call(check: str, arguments: dict[str, Any]) -> None:
    """Call a test by name; flows and bases among the arguments are named, since a mutant has its own."""
    file, *names = check.split("::")
    tests: Any = importlib.import_module(f"tests.package.{file}")
    test = getattr(getattr(tests, names[0])(), names[1])
    if "make_flow" in arguments:
        arguments = arguments | {"make_flow": getattr(tests, arguments["make_flow"])}
    if "base" in arguments:
        arguments = {"make_base": tests.BASES[arguments["base"]]}
    torch.manual_seed(0)
    test(**arguments)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mistake_turns_its_test_red(name, tmp_path_factory):
    module, old, new, check, arguments = MUTANTS[name]
    arguments = arguments | ({"tmp_path_factory": tmp_path_factory} if check == SAVED else {})
    call(check, arguments)
    with mutated(module, old, new), pytest.raises((Exception, pytest.fail.Exception)) as caught:
        call(check, arguments)
    # A test that could not be called has not looked at the mistake.
    assert not isinstance(caught.value, ImportError | SyntaxError | NameError | TypeError)
