"""Every known mistake, made in our own layers on purpose, is noticed by a test.

The first part holds those that were found in public code, the rest are slips that a formula invites.
"""

import pytest

from tests.mutants.harness import mutated, notices, run

BASE, LINEAR, CONV = (f"mnf_lite.layers.{name}" for name in ("base", "linear", "conv"))
NETWORK, COUPLING = "mnf_lite.layers.network", "mnf_lite.flows.coupling"

ZERO = "test_layers_bound::test_every_draw_is_zero_where_posterior_and_prior_agree"
CANCEL = "test_layers_bound::test_every_draw_is_zero_where_the_flows_of_q_and_r_undo_each_other"
QUADRATURE = "test_layers_bound::test_mean_of_kl_samples_equals_quadrature_and_bounds_the_true_kl"
GRADIENT = "test_layers_bound::test_gradient_of_kl_equals_gradient_of_quadrature"
EXACT_R = "test_layers_bound::test_bound_is_the_true_kl_where_r_is_the_exact_posterior_of_z"
INFORMATION = "test_layers_bound::test_mutual_information_of_a_gaussian_z_in_closed_form"
CLOSED_FORM = "test_layers_bound::test_mean_field_kl_is_the_closed_form_of_torch_distributions"
ORDER = "test_layers_bound::test_order_of_a_convolutions_inputs_and_positions_is_indifferent_to_its_kl"
LOG_Q = "test_layers_bound::test_log_q_of_sample_z_is_the_change_of_variables"
FLOWS = "test_layers_bound::test_flows_are_deterministic_and_their_log_determinants_are_those_of_autograd"
BEND = "test_layers_bound::test_conditioners_of_the_flows_are_not_linear"
DRAWS = "test_layers_bound::test_kl_is_the_mean_of_independent_draws"
DENSE = "test_layers_forward::test_dense_outputs_have_mean_and_covariance_of_explicit_weights"
INTEGRAL = "test_layers_forward::test_dense_mean_and_covariance_equal_an_integral_over_z"
PIXELS = "test_layers_forward::test_conv_outputs_have_mean_and_covariance_of_explicit_weights_in_each_pixel"
ROWS = "test_layers_forward::test_rows_of_a_batch_are_independent"
SHARED_Z = "test_layers_forward::test_pixels_of_one_example_share_z_and_the_rows_of_a_batch_do_not"
WEIGHTS = "test_layers_forward::test_joint_draws_of_the_weights_have_the_posteriors_moments"
BIAS = "test_layers_forward::test_output_at_zero_is_the_bias"
BIAS_KL = "test_layers_forward::test_bias_mean_and_kl_know_of_each_other"
EXTREMES = "test_layers_forward::test_extreme_parameters_keep_values_and_gradients_finite"
NOISE = "test_layers_forward::test_gradient_of_the_noise_is_right_down_to_the_smallest_variances"
FLAT = "test_layers_forward::test_second_derivatives_stay_finite_where_a_variance_is_zero"
PRODUCT = "test_layers_forward::test_products_and_convolutions_have_the_same_moments_and_gradients"
TORCH = "test_layers_forward::test_convolution_without_noise_is_the_one_of_torch"
SLOPE = "test_layers_forward::test_noise_has_first_and_second_derivatives_one_by_one_or_mapped"
TWIN = "test_layers_network::test_twin_takes_over_means_geometry_and_everything_else"
OWNS = "test_layers_network::test_plain_is_a_draw_that_owns_its_weights"
SUM = "test_layers_network::test_kl_divergence_sums_over_layers_and_counts_a_shared_one_once"

PUBLIC = {
    "shift added to kept coordinates": (
        COUPLING,
        "z + torch.expm1(log_gate) * (z - mu)",
        "z + torch.expm1(log_gate) * (z - mu) + mu * self.mask",
        FLOWS,
    ),
    "spread of sum c W is sum c sigma in a convolution": (
        CONV,
        "self.r_c.square() @ self.weight_log_var.exp().flatten(1).sum(-1) / positions**2",
        "(self.r_c @ (self.weight_log_var / 2).exp().flatten(1).sum(-1) / positions) ** 2",
        QUADRATURE,
    ),
    "kernel reshaped across its axes": (
        CONV,
        "(z * self.r_c) @ self.weight_mean.flatten(1).mean(-1)",
        "(z * self.r_c) @ self.weight_mean.reshape(-1, len(self.r_c)).mean(0)",
        ORDER,
    ),
    "log r summed over the states of its flow": (
        BASE,
        "/ 2 + log_det\n        return log_density",
        "/ 2 + log_det - sum(t.square().sum(-1) / 2 for t in self.flow_r.trace(z)[1:-1])\n"
        "        return log_density",
        CANCEL,
    ),
    "log sigma for 2 log sigma in the weights": (
        BASE,
        "(log_ratio.expm1() - log_ratio).sum()",
        "(log_ratio.expm1() - log_ratio / 2).sum()",
        CLOSED_FORM,
    ),
    "log sigma for 2 log sigma in q(z)": (
        BASE,
        "+ self.q0_log_var.sum())",
        "+ self.q0_log_var.sum() / 2)",
        LOG_Q,
    ),
    "constant of q(z) dropped": (BASE, "(noise.square() + LOG_2PI)", "noise.square()", ZERO),
    "constant of r dropped": (BASE, "log_precision - LOG_2PI - distance", "log_precision - distance", ZERO),
    "constant of the weights dropped": (
        BASE,
        "log_ratio.expm1() - log_ratio",
        "log_ratio.exp() - log_ratio",
        ZERO,
    ),
    "z shared by the batch of a convolution": (
        CONV,
        "self.sample_z(n)[0]",
        "self.sample_z(1)[0]",
        SHARED_Z,
    ),
    "z shared by the batch of a dense layer": (
        LINEAR,
        "z, _ = self.sample_z(x[..., 0].numel())",
        "z = self.sample_z(1)[0].expand(x[..., 0].numel(), -1)",
        SHARED_Z,
    ),
    "bias scaled by z in the KL": (
        BASE,
        "+ self.kl_bias() + log_q",
        "+ self.kl_bias() * z.square().mean(-1) + log_q",
        BIAS_KL,
    ),
    "bias scaled by z in the output": (
        CONV,
        "mean + self.bias_mean[:, None, None]",
        "mean + self.bias_mean[:, None, None] * self.sample_z(1)[0][0, :, None, None]",
        BIAS,
    ),
    "bias mean without effect on the output": (
        LINEAR,
        "self.weight_mean, self.bias_mean)",
        "self.weight_mean)",
        BIAS,
    ),
    "mask redrawn at each call": (
        COUPLING,
        "        mu, a = self.net(self.mask * z).chunk(2, -1)\n",
        "        self.mask = torch.empty_like(self.mask).bernoulli_()\n"
        "        mu, a = self.net(self.mask * z).chunk(2, -1)\n",
        FLOWS,
    ),
    "conditioner without a nonlinearity": (COUPLING, "2 * dim, nn.Tanh)", "2 * dim, nn.Identity)", BEND),
    "standard deviation limited in forward only, dense": (
        LINEAR,
        "add_noise(mean, variance,",
        "add_noise(mean, variance.clamp(max=0.49),",
        INTEGRAL,
    ),
    "standard deviation limited in forward only, convolution": (
        CONV,
        "add_noise(mean, variance,",
        "add_noise(mean, variance.clamp(max=0.49),",
        PIXELS,
    ),
}

SLIPS = {
    "sign of the log-determinant of f_q": (BASE, ".sum()) / 2 - log_det", ".sum()) / 2 + log_det", LOG_Q),
    "log-determinant of f_q forgotten": (BASE, ".sum()) / 2 - log_det", ".sum()) / 2", LOG_Q),
    "sign of the log-determinant of f_r": (BASE, ".sum(-1) / 2 + log_det", ".sum(-1) / 2 - log_det", CANCEL),
    "log-determinant of f_r forgotten": (BASE, ".sum(-1) / 2 + log_det", ".sum(-1) / 2", EXACT_R),
    "half of log r forgotten": (BASE, "- distance).sum(-1) / 2", "- distance).sum(-1)", ZERO),
    "half of the KL forgotten": (BASE, "/ self.prior_std**2) / 2", "/ self.prior_std**2)", CLOSED_FORM),
    "variance of q(z) for its log": (
        BASE,
        "self.q0_mean, noise, (self.q0_log_var / 2).exp()",
        "self.q0_mean, noise, self.q0_log_var.exp()",
        LOG_Q,
    ),
    "prior's deviation for its variance": (
        BASE,
        "mean_square / self.prior_std**2",
        "mean_square / self.prior_std",
        CLOSED_FORM,
    ),
    "prior's log deviation for its log variance": (
        BASE,
        "2 * math.log(self.prior_std)",
        "math.log(self.prior_std)",
        ZERO,
    ),
    "mean of r from z": (BASE, "z_b - self.r_b1 * s", "z_b - self.r_b1 * z", QUADRATURE),
    "flow of r forgotten in its density": (BASE, "(z_b - self.r_b1 * s)", "(z - self.r_b1 * s)", CANCEL),
    "log variance for log precision": (BASE, "log_precision.exp() *", "(-log_precision).exp() *", QUADRATURE),
    "log precision not halved": (
        BASE,
        "(log_precision - LOG_2PI",
        "(2 * log_precision - LOG_2PI",
        QUADRATURE,
    ),
    "log precision from b_1": (BASE, "(self.r_b2 * s).clamp", "(self.r_b1 * s).clamp", QUADRATURE),
    "z not squared in the KL": (BASE, "z.square() @", "z @", INFORMATION),
    "z forgotten in the KL": (BASE, "z.square() @", "torch.ones_like(z) @", QUADRATURE),
    "gradient of r cut": (BASE, "self.log_r(z)\n", "self.log_r(z.detach())\n", GRADIENT),
    "bias forgotten in the KL": (BASE, "+ self.kl_bias() + log_q", "+ log_q", QUADRATURE),
    "one z for all draws of the KL": (
        BASE,
        "        z, log_q = self.sample_z(n)\n",
        "        z, log_q = (t.expand(n, *t.shape[1:]) for t in self.sample_z(1))\n",
        DRAWS,
    ),
    "one z for all draws of the weights": (
        BASE,
        "        z, _ = self.sample_z(n)\n",
        "        z = self.sample_z(1)[0].expand(n, -1)\n",
        WEIGHTS,
    ),
    "sum of the draws for their mean": (BASE, "self.kl_samples(n).mean()", "self.kl_samples(n).sum()", DRAWS),
    "variance for deviation in a draw": (
        BASE,
        "addcmul(mean, noise, (log_var / 2).exp())",
        "addcmul(mean, noise, log_var.exp())",
        WEIGHTS,
    ),
    "no floor under the variance": (
        BASE,
        "F.threshold(variance, tiny, tiny).sqrt_()",
        "variance.sqrt()",
        EXTREMES,
    ),
    "a floor under the variance that is felt": (
        BASE,
        "torch.finfo(variance.dtype).tiny\n    return",
        "1e-8\n    return",
        NOISE,
    ),
    "second derivatives where a variance is 0": (
        BASE,
        "variance.masked_fill(variance < tiny, math.inf)",
        "variance",
        FLAT,
    ),
    "log precision without a limit": (
        BASE,
        ".clamp(-self.max_log_precision, self.max_log_precision)",
        "",
        EXTREMES,
    ),
    "c not squared, dense": (LINEAR, "@ self.r_c.square()", "@ self.r_c.abs()", QUADRATURE),
    "spread of sum c W is sum c sigma, dense": (
        LINEAR,
        "sqrt(self.weight_log_var.exp() @ self.r_c.square())",
        "(self.weight_log_var / 2).exp() @ self.r_c.abs()",
        QUADRATURE,
    ),
    "tanh forgotten": (LINEAR, ".tanh().mean(", ".mean(", QUADRATURE),
    "tanh after the mean": (
        LINEAR,
        ".tanh().mean(-1, keepdim=True)",
        ".mean(-1, keepdim=True).tanh()",
        QUADRATURE,
    ),
    "statistic summed over outputs": (LINEAR, ".tanh().mean(", ".tanh().sum(", QUADRATURE),
    "statistic without its noise, dense": (
        LINEAR,
        "torch.randn_like(mean)).tanh()",
        "torch.zeros_like(mean)).tanh()",
        QUADRATURE,
    ),
    "statistic without its noise, convolution": (
        CONV,
        "sqrt(variance) * torch.randn_like(mean)",
        "0 * sqrt(variance)",
        QUADRATURE,
    ),
    "statistic summed over positions": (
        CONV,
        "self.weight_mean.flatten(1).mean(-1)",
        "self.weight_mean.flatten(1).sum(-1)",
        EXACT_R,
    ),
    "variance of a mean not divided twice": (CONV, "/ positions**2", "/ positions", QUADRATURE),
    "statistic of the mean without z": (
        CONV,
        "(z * self.r_c) @",
        "(torch.ones_like(z) * self.r_c) @",
        EXACT_R,
    ),
    "z in the variance of the output": (LINEAR, "F.linear(x.square()", "F.linear(x_mean.square()", DENSE),
    "input not squared in the variance, dense": (LINEAR, "F.linear(x.square()", "F.linear(x.abs()", INTEGRAL),
    "input not squared in the variance, convolution": (
        CONV,
        "self.convolve(x.square()",
        "self.convolve(x.abs()",
        PIXELS,
    ),
    "deviation for variance, dense": (
        LINEAR,
        "F.linear(x.square(), self.weight_log_var.exp()",
        "F.linear(x.square(), (self.weight_log_var / 2).exp()",
        INTEGRAL,
    ),
    "deviation for variance, convolution": (
        CONV,
        "var = self.weight_log_var.exp()\n",
        "var = (self.weight_log_var / 2).exp()\n",
        PIXELS,
    ),
    "noise of the bias forgotten, dense": (
        LINEAR,
        "self.weight_log_var.exp(), self.bias_var())",
        "self.weight_log_var.exp())",
        BIAS,
    ),
    "noise of the bias forgotten, convolution": (
        CONV,
        "self.convolve(x.square(), var, self.bias_var())",
        "self.convolve(x.square(), var, None)",
        BIAS,
    ),
    "one noise for the whole batch": (
        LINEAR,
        "variance, torch.randn_like(mean))",
        "variance, torch.randn_like(mean[:1]))",
        ROWS,
    ),
    "z forgotten in the output": (
        CONV,
        "else z[..., None, None] * mean",
        "else mean",
        PIXELS,
    ),
    "positions of a patch out of order": (
        CONV,
        "permute(0, 1, 4, 5, 2, 3)",
        "permute(0, 1, 5, 4, 2, 3)",
        PRODUCT,
    ),
    "dilation of patches forgotten": (CONV, ", stride)[..., ::d]", ", stride)[..., :k]", TORCH),
    "z forgotten in a product": (CONV, "else z[..., None, None, None] * mu", "else mu", PRODUCT),
    "input not squared in the variance of a product": (CONV, "patches.square()", "patches.abs()", PRODUCT),
    "slope of the noise not halved": (BASE, "sqrt(variance).mul_(2)", "sqrt(variance)", INTEGRAL),
    "sign of the second derivative of the noise": (BASE, "(-2 * variance.", "(2 * variance.", SLOPE),
    "means not taken over": (NETWORK, "new.weight_mean.copy_(layer.weight)", "pass", TWIN),
    "biases not taken over": (NETWORK, "new.bias_mean.copy_(layer.bias)", "pass", TWIN),
    "one draw for every plain network": (
        LINEAR,
        "w, b = self.sample_weights(1)",
        "w, b = self.weight_mean[None], self.bias_mean if self.bias_mean is None else self.bias_mean[None]",
        OWNS,
    ),
    "inner layers forgotten": (NETWORK, "for m in model.modules()", "for m in model.children()", SUM),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_mistake_found_in_public_code_is_noticed(name):
    module, old, new, check = PUBLIC[name]
    assert notices(module, old, new, [check])


@pytest.mark.parametrize("name", SLIPS)
def test_slip_is_noticed(name):
    module, old, new, check = SLIPS[name]
    assert notices(module, old, new, [check])


@pytest.mark.parametrize("check", [ZERO, CLOSED_FORM, ORDER, LOG_Q, FLOWS, BEND, BIAS_KL, TWIN, OWNS, SUM])
def test_copy_without_a_mistake_passes(check):
    with mutated(BASE, "LOG_2PI = ", "LOG_2PI = 1 * "):
        run(check)
