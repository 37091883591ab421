"""The bound of the layers is a bound: against integrals, closed forms and exact evidence."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from mnf_lite import flows, layers
from tests.package.layer_zoo import Inverse, Quadrature, assert_mean, log_abs_det, log_normal, set_, stir

DENSE = [(1, 1), (2, 1), (1, 2)]
CONV = [(1, 1, 1), (1, 2, 1), (2, 1, 1), (1, 1, (1, 2))]
TINY = [(layers.MNFLinear, args) for args in DENSE] + [(layers.MNFConv2d, args) for args in CONV]
AUXILIARY = ("published", "conjugate")
NO_FLOW = {"n_flows_q": 0, "n_flows_r": 0, "auxiliary": "published"}
tiny = pytest.mark.parametrize(("kind", "args"), TINY)
ALL = [
    (layers.MNFLinear, (4, 3)),
    (layers.MNFConv2d, (2, 3, 3)),
    (layers.MeanFieldLinear, (4, 3)),
    (layers.MeanFieldConv2d, (2, 3, 3)),
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("prior_std", [1.0, 0.3, 5.0])
@pytest.mark.parametrize(("kind", "args"), ALL)
def test_every_draw_is_zero_where_posterior_and_prior_agree(kind, args, prior_std, bias):
    options = {"n_flows_q": 0, "n_flows_r": 0} if "MNF" in kind.__name__ else {}
    layer = kind(*args, bias=bias, prior_std=prior_std, **options).double()
    at_the_prior(layer)
    assert layer.kl_samples(50).abs().max() < 1e-12


@pytest.mark.parametrize("prior_std", [1.0, 0.3])
@pytest.mark.parametrize(("kind", "args"), ALL[:2])
def test_every_draw_is_zero_where_the_flows_of_q_and_r_undo_each_other(kind, args, prior_std):
    layer = stir(kind(*args, prior_std=prior_std, auxiliary="published"))
    layer.flow_r = flows.Compose([Inverse(flow) for flow in reversed(list(layer.flow_q))])
    at_the_prior(layer)
    torch.manual_seed(0)
    z, _ = layer.sample_z(50)
    assert (layer.flow_q(z)[0] - z).abs().max() > 0.1
    assert layer.kl_samples(50).abs().max() < 1e-9  # rounding, divided by gates that are nearly shut


@pytest.mark.parametrize(
    ("kind", "args"), [(layers.MNFLinear, (300, 200)), (layers.MeanFieldConv2d, (40, 60, 5))]
)
def test_zero_reads_zero_in_float32_however_many_weights(kind, args):
    options = {"n_flows_q": 0, "n_flows_r": 0} if kind is layers.MNFLinear else {}
    layer = kind(*args, prior_std=0.37, **options)
    at_the_prior(layer)
    assert layer.float().kl_samples(20).abs().max() < 1e-3


def at_the_prior(layer):
    values = dict.fromkeys(("weight_mean", "bias_mean", "q0_mean", "q0_log_var", "r_b1", "r_b2"), 0.0)
    values |= dict.fromkeys(("weight_log_var", "bias_log_var"), 2 * math.log(layer.prior_std))
    set_(layer, **{name: v for name, v in values.items() if getattr(layer, name, None) is not None})


both_r = pytest.mark.parametrize("auxiliary", AUXILIARY)


@both_r
@pytest.mark.parametrize("seed", [0, 1])
@tiny
def test_mean_of_kl_samples_equals_quadrature_and_bounds_the_true_kl(kind, args, seed, auxiliary):
    layer = stir(kind(*args, prior_std=0.8, hidden=(6,), auxiliary=auxiliary), seed)
    with torch.no_grad():
        integral = Quadrature(layer)
        torch.manual_seed(seed)
        assert_mean(layer.kl_samples(200_000), integral.bound())
        assert integral.bound() > integral.true_kl() + 1e-5


@both_r
@tiny
def test_gradient_of_kl_equals_gradient_of_quadrature(kind, args, auxiliary):
    layer = stir(kind(*args, prior_std=0.8, hidden=(3,), auxiliary=auxiliary))
    names, parameters = zip(*layer.named_parameters(), strict=True)
    exact = torch.autograd.grad(Quadrature(layer).bound(), parameters, materialize_grads=True)
    torch.manual_seed(0)
    estimates = [torch.autograd.grad(layer.kl(3000), parameters, materialize_grads=True) for _ in range(60)]
    for name, g, draws in zip(names, exact, zip(*estimates, strict=True), strict=True):
        error = (torch.stack(draws).mean(0) - g).abs()
        allowed = 6 * torch.stack(draws).std(0) / math.sqrt(len(draws)) + 1e-7
        assert (error <= allowed).all(), f"{name}: {error.max()} against {allowed.max()}"


# the conjugate auxiliary posterior


@pytest.mark.parametrize("seed", [0, 1])
@tiny
@torch.no_grad()
def test_gap_of_the_conjugate_r_is_what_theory_says_and_at_most_what_the_flow_did(kind, args, seed):
    layer = stir(kind(*args, prior_std=0.8, hidden=(6,), auxiliary="conjugate"), seed)
    integral = Quadrature(layer)
    gap, most = integral.bound() - integral.true_kl(), integral.divergence_from_g()
    assert 0 < gap < most
    assert torch.isclose(gap, most - integral.divergence_of_weights_from_g(), atol=1e-6)


@tiny
@torch.no_grad()
def test_conjugate_r_without_a_flow_leaves_no_gap_on_any_grid(kind, args):
    layer = stir(kind(*args, n_flows_q=0, prior_std=0.8, auxiliary="conjugate"))
    integral = Quadrature(layer)
    assert torch.isclose(integral.bound(), integral.true_kl(), atol=1e-7)


@torch.no_grad()
def test_conjugate_r_is_tighter_than_the_published_one_for_the_same_bent_z():
    layer, other = (
        stir(layers.MNFLinear(1, 1, prior_std=0.8, hidden=(6,), auxiliary=kind)) for kind in AUXILIARY
    )
    other.load_state_dict(
        {k: v for k, v in layer.state_dict().items() if k in other.state_dict()}, strict=False
    )
    assert torch.equal(other.flow_q[0].net[0].weight, layer.flow_q[0].net[0].weight)
    true, bounds = Quadrature(layer).true_kl(), [Quadrature(one).bound() for one in (layer, other)]
    assert true < bounds[1] < bounds[0] - 0.1


def rank_one_kl(layer) -> Tensor:
    """KL(q(W, b) || p(W, b)): a unit's weights are Gaussian, of covariance diag(var) + s^2 mu mu^T."""
    p = layer.prior_std**2
    units = [w.movedim(layer.z_axis, 0).flatten(1) for w in (layer.weight_mean, layer.weight_log_var.exp())]
    total = torch.zeros(()).double()
    for mu, var, m0, s0_square in zip(*units, layer.q0_mean, layer.q0_log_var.exp(), strict=True):
        square = (var + (m0**2 + s0_square) * mu**2) / p
        total += (square - 1 - var.log() + math.log(p)).sum() / 2
        total -= (1 + s0_square * (mu**2 / var).sum()).log() / 2
    q = Normal(layer.bias_mean, (layer.bias_log_var / 2).exp())
    return total + kl_divergence(q, Normal(torch.zeros(()).double(), layer.prior_std)).sum()


SEVERAL = [
    (layers.MNFLinear, (4, 3)),
    (layers.MNFConv2d, (2, 3, 2)),
    (layers.MNFConv1d, (2, 3, 2)),
    (layers.MNFConvTranspose2d, (2, 3, 2)),
]


@pytest.mark.parametrize(("kind", "args"), SEVERAL)
@torch.no_grad()
def test_conjugate_bound_without_a_flow_is_the_closed_form_kl_of_a_rank_one_gaussian(kind, args):
    layer = stir(kind(*args, n_flows_q=0, prior_std=0.8, auxiliary="conjugate"))
    expected = rank_one_kl(layer)
    torch.manual_seed(0)
    assert_mean(layer.kl_samples(200_000), expected)
    units = [w.movedim(layer.z_axis, 0).flatten(1) for w in (layer.weight_mean, layer.weight_log_var.exp())]
    whole = sum(  # the same from torch, from the whole covariance
        kl_divergence(MultivariateNormal(m0 * mu, var.diag() + s * mu.outer(mu)), prior(len(mu), 0.8))
        for mu, var, m0, s in zip(*units, layer.q0_mean, layer.q0_log_var.exp(), strict=True)
    )
    q = Normal(layer.bias_mean, (layer.bias_log_var / 2).exp())
    whole += kl_divergence(q, Normal(0.0, 0.8)).sum()
    assert torch.isclose(whole, expected)


@pytest.mark.parametrize(("kind", "args"), SEVERAL)
def test_gradient_of_the_conjugate_bound_is_that_of_the_closed_form(kind, args):
    layer = stir(kind(*args, n_flows_q=0, prior_std=0.8, auxiliary="conjugate"))
    parameters = list(layer.parameters())
    exact = torch.autograd.grad(rank_one_kl(layer), parameters)
    torch.manual_seed(0)
    draws = [torch.autograd.grad(layer.kl(3000), parameters) for _ in range(40)]
    for g, of_draws in zip(exact, zip(*draws, strict=True), strict=True):
        assert_mean(torch.stack(of_draws), g, sigmas=6)


@pytest.mark.parametrize(("kind", "args"), SEVERAL)
def test_gradient_of_the_conjugate_kl_agrees_with_finite_differences(kind, args):
    layer = stir(kind(*args, prior_std=0.8, hidden=(5,), auxiliary="conjugate"))
    torch.manual_seed(0)
    direction = [torch.randn_like(p) for p in layer.parameters()]

    def move(step: float) -> None:
        with torch.no_grad():
            for p, d in zip(layer.parameters(), direction, strict=True):
                p.add_(step * d)

    def kl() -> Tensor:
        torch.manual_seed(1)
        return layer.kl(5)

    slopes = torch.autograd.grad(kl(), list(layer.parameters()))
    slope = sum((g * d).sum() for g, d in zip(slopes, direction, strict=True))
    move(1e-6)
    above = kl()
    move(-2e-6)
    assert torch.isclose(slope, (above - kl()) / 2e-6, rtol=1e-6)


@pytest.mark.parametrize(("kind", "args"), SEVERAL)
def test_order_within_a_unit_is_indifferent_to_the_conjugate_kl(kind, args):
    layer = stir(kind(*args, auxiliary="conjugate"))
    torch.manual_seed(1)
    before = layer.kl_samples(20)
    for axis in layer.other_axes():
        permute(layer, axis)
        torch.manual_seed(1)
        assert (layer.kl_samples(20) - before).abs().max() < 1e-10
    permute(layer, layer.z_axis)
    torch.manual_seed(1)
    assert (layer.kl_samples(20) - before).abs().max() > 1e-3


def test_a_limited_precision_of_the_weights_loosens_the_conjugate_bound_and_never_tightens_it():
    layer = stir(layers.MNFLinear(3, 4, n_flows_q=0, prior_std=0.8, auxiliary="conjugate"))
    torch.manual_seed(0)
    with torch.no_grad():
        layer.max_log_var = 1.0  # variances below 1/e are taken for 1/e
        assert (layer.weight_log_var < -1).any()
        draws = layer.kl_samples(200_000)
        assert draws.mean() - rank_one_kl(layer) > 5 * draws.std() / math.sqrt(len(draws))


@pytest.mark.parametrize(
    ("kind", "args"), [(layers.MNFLinear, (1, 1)), (layers.MNFLinear, (1, 2)), (layers.MNFConv2d, (2, 1, 1))]
)
def test_bound_exceeds_true_kl_by_the_mutual_information_where_r_ignores_the_weights(kind, args):
    layer = stir(kind(*args, prior_std=0.8, hidden=(6,), auxiliary="published"))
    layer.flow_r = flows.Compose([Inverse(flow) for flow in reversed(list(layer.flow_q))])
    set_(layer, q0_mean=0.0, q0_log_var=0.0, r_b1=0.0, r_b2=0.0)  # r(z|W) = q(z)
    with torch.no_grad():
        integral = Quadrature(layer)
        torch.manual_seed(0)
        assert integral.information() > 0.05
        assert_mean(layer.kl_samples(200_000), integral.true_kl() + integral.information())


@pytest.mark.parametrize(("out", "inp"), [(1, 4), (4, 1), (3, 2)])
def test_mutual_information_of_a_gaussian_z_in_closed_form(out, inp):
    layer = stir(layers.MNFLinear(inp, out, bias=False, **NO_FLOW, prior_std=0.8))
    set_(layer, q0_mean=0.0, q0_log_var=0.0, r_b1=0.0, r_b2=0.0)  # r(z|W) = q(z)
    with torch.no_grad():
        mu, var = layer.weight_mean, layer.weight_log_var.exp()
        information = (1 + (mu**2 / var).sum(0)).log().sum() / 2
        true_kl = sum(  # columns are independent, each of covariance diag(var) + mu mu^T
            kl_divergence(MultivariateNormal(m.new_zeros(out), v.diag() + m.outer(m)), prior(out, 0.8))
            for m, v in zip(mu.T, var.T, strict=True)
        )
        torch.manual_seed(0)
        assert_mean(layer.kl_samples(200_000), true_kl + information)


@pytest.mark.parametrize("in_channels", [1, 3])
@pytest.mark.parametrize("kernel_size", [1, (2, 3)])
@pytest.mark.parametrize("gate", [None, 0.8])
def test_bound_is_the_true_kl_where_r_is_the_exact_posterior_of_z(in_channels, kernel_size, gate):
    """With one output and no flow in q: q(z|W) is Gaussian, its mean linear in W."""
    layer = layers.MNFConv2d(
        in_channels, 1, kernel_size, bias=False, **(NO_FLOW | {"n_flows_r": int(gate is not None)})
    )
    torch.manual_seed(0)
    set_(layer, weight_mean=torch.rand_like(layer.weight_mean) + 0.3)
    with torch.no_grad():
        mu, ratio = (
            layer.weight_mean.flatten(),
            0.4 / layer.weight_mean.numel(),
        )  # ratio = mu / sigma^2, for all weights
        layer.weight_log_var.copy_((layer.weight_mean / ratio).log())
        g, m0 = (1.0, 0.0) if gate is None else (gate, 0.7)
        s0_square = 1 / (g**2 - ratio * mu.sum())  # so that the precision 1/s0^2 + sum mu^2/sigma^2 is g^2
        assert s0_square > 0
        set_(
            layer, q0_mean=m0, q0_log_var=s0_square.log(), r_c=0.5, r_b2=0.0, r_b1=2 * mu.numel() * ratio / g
        )
        if gate is not None:
            constant_gate(layer.flow_r[0], g, shift=-m0 / s0_square / g / (1 - g))
        q = MultivariateNormal(m0 * mu, (mu / ratio).diag() + s0_square * mu.outer(mu))
        draws = layer.kl_samples(200_000)
        assert_mean(draws, kl_divergence(q, prior(mu.numel(), 1.0)))


def prior(dim: int, std: float) -> MultivariateNormal:
    return MultivariateNormal(torch.zeros(dim).double(), std**2 * torch.eye(dim).double())


def constant_gate(flow, gate: float, shift: Tensor) -> None:
    """Make a gated coupling of one coordinate the affine map ``gate z + (1 - gate) shift``."""
    with torch.no_grad():
        for p in flow.parameters():
            p.zero_()
        flow.net[-1].bias.copy_(torch.stack([torch.as_tensor(shift), torch.tensor(gate / (1 - gate)).log()]))
    z = torch.randn(5, 1).double()
    assert (flow(z)[0] - gate * z - (1 - gate) * shift).abs().max() < 1e-6


@pytest.mark.parametrize(("kind", "args"), [(layers.MNFLinear, (2, 3)), (layers.MNFConv2d, (2, 3, 2))])
def test_r_that_cannot_know_more_is_exact_where_z_has_no_effect(kind, args):
    layer = stir(kind(*args, **NO_FLOW, prior_std=0.8))
    set_(layer, weight_mean=0.0, q0_mean=0.0, q0_log_var=0.0, r_b1=0.0, r_b2=0.0)
    q = Normal(torch.zeros_like(layer.weight_mean), (layer.weight_log_var / 2).exp())
    true_kl = kl_divergence(q, Normal(0.0, 0.8)).sum()
    true_kl += kl_divergence(Normal(layer.bias_mean, (layer.bias_log_var / 2).exp()), Normal(0.0, 0.8)).sum()
    assert (layer.kl_samples(20) - true_kl).abs().max() < 1e-6


@pytest.mark.parametrize(("kind", "args"), ALL[2:])
def test_mean_field_kl_is_the_closed_form_of_torch_distributions(kind, args):
    layer = stir(kind(*args, prior_std=0.8))
    p = Normal(torch.zeros(()).double(), 0.8 * torch.ones(()).double())
    expected = kl_divergence(Normal(layer.weight_mean, (layer.weight_log_var / 2).exp()), p).sum()
    expected = expected + kl_divergence(Normal(layer.bias_mean, (layer.bias_log_var / 2).exp()), p).sum()
    assert (layer.kl_samples(3) - expected).abs().max() < 1e-10
    assert layer.kl() == layer.kl(5)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("auxiliary", AUXILIARY)
def test_order_of_a_convolutions_inputs_and_positions_is_indifferent_to_its_kl(axis, auxiliary):
    layer = stir(layers.MNFConv2d(3, 2, (3, 4), auxiliary=auxiliary))
    torch.manual_seed(1)
    before = layer.kl_samples(20)
    permute(layer, axis)
    torch.manual_seed(1)
    assert (layer.kl_samples(20) - before).abs().max() < 1e-10


@pytest.mark.parametrize("auxiliary", AUXILIARY)
def test_order_of_a_dense_layers_outputs_is_indifferent_to_its_kl(auxiliary):
    layer = stir(layers.MNFLinear(2, 3, auxiliary=auxiliary))
    torch.manual_seed(1)
    with torch.no_grad():
        before = layer.kl_samples(200_000)
        permute(layer, 0)
        after = layer.kl_samples(200_000)
    assert_mean(after - before, 0.0)
    assert_mean(after.square() - before.square(), 0.0)


@pytest.mark.parametrize(
    ("kind", "args", "axis"), [(layers.MNFLinear, (3, 2), 1), (layers.MNFConv2d, (2, 3, 2), 0)]
)
@pytest.mark.parametrize("auxiliary", AUXILIARY)
def test_order_along_the_axis_that_z_scales_matters(kind, args, axis, auxiliary):
    layer = stir(kind(*args, auxiliary=auxiliary))
    torch.manual_seed(1)
    before = layer.kl_samples(20)
    permute(layer, axis)
    torch.manual_seed(1)
    assert (layer.kl_samples(20) - before).abs().max() > 1e-3


def permute(layer, axis):
    order = torch.arange(layer.weight_mean.shape[axis]).roll(1)
    with torch.no_grad():
        for p in (layer.weight_mean, layer.weight_log_var):
            p.copy_(p.index_select(axis, order))


@pytest.mark.parametrize(("kind", "args"), ALL[:2])
@pytest.mark.parametrize("auxiliary", AUXILIARY)
def test_kl_is_the_mean_of_independent_draws(kind, args, auxiliary):
    layer = stir(kind(*args, auxiliary=auxiliary))
    torch.manual_seed(0)
    draws = layer.kl_samples(16)
    torch.manual_seed(0)
    assert layer.kl(16) == draws.mean()
    assert draws.shape == (16,)
    assert layer.kl().shape == ()
    assert len(draws.unique()) == 16
    with torch.no_grad():
        means = torch.stack([layer.kl(16) for _ in range(600)])
        single = layer.kl_samples(100_000)
    assert 0.6 < 16 * means.var() / single.var() < 1.6
    assert_mean(single[1:] * single[:-1] - single.mean() ** 2, 0.0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kind", "args"), ALL)
def test_parts_of_the_kl_add_up_to_it_draw_for_draw(kind, args, bias):
    layer = stir(kind(*args, bias=bias))
    torch.manual_seed(0)
    expected = layer.kl(7)
    torch.manual_seed(0)
    parts = layer.kl_parts(7)
    assert list(parts) == ["weights", "bias", "log_q", "log_r"]
    assert {part.shape for part in parts.values()} == {()}
    total = parts["weights"] + parts["bias"] + parts["log_q"] - parts["log_r"]
    assert torch.allclose(total, expected, rtol=1e-12)
    assert (parts["bias"] == 0) == (not bias)
    assert (parts["log_q"] == 0) == (parts["log_r"] == 0) == ("MNF" not in kind.__name__)


@pytest.mark.parametrize(("kind", "args"), ALL)
def test_parts_of_the_kl_are_what_their_names_say(kind, args):
    layer = stir(kind(*args, prior_std=0.8))
    prior = Normal(0.0, 0.8)
    torch.manual_seed(0)
    parts = layer.kl_parts(20_000)
    of_bias = kl_divergence(Normal(layer.bias_mean, (layer.bias_log_var / 2).exp()), prior).sum()
    assert torch.allclose(parts["bias"], of_bias)
    if "MNF" in kind.__name__:
        torch.manual_seed(0)
        z, log_q = layer.sample_z(20_000)
        assert torch.allclose(parts["log_q"], log_q.mean())
        assert_mean(layer.log_r(z), parts["log_r"], sigmas=8)


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("kind", [layers.MNFLinear, layers.MNFConv2d])
def test_log_q_of_sample_z_is_the_change_of_variables(kind, dim):
    layer = stir(kind(dim, 2) if kind is layers.MNFLinear else kind(2, dim, 3))
    torch.manual_seed(0)
    with torch.no_grad():
        z, log_q = layer.sample_z(30)
        z0 = layer.flow_q.inverse(z)[0]
        expected = log_normal(z0, layer.q0_mean, layer.q0_log_var.exp()).sum(-1)
        expected -= log_abs_det(lambda z: layer.flow_q(z)[0], z0)
    assert z.shape == (30, dim)
    assert (log_q - expected).abs().max() < 1e-8


def test_density_of_sample_z_integrates_to_one():
    layer = stir(layers.MNFLinear(2, 1, auxiliary="published"))
    torch.manual_seed(0)
    with torch.no_grad():
        z, log_q = layer.sample_z(200_000)
    inside = log_normal(z, z.mean(0), 0.05).sum(-1)  # a narrow density well inside q
    assert_mean((inside - log_q).exp(), 1.0)


@pytest.mark.parametrize(("kind", "args"), [(layers.MNFLinear, (3, 4)), (layers.MNFConv2d, (2, 4, 2))])
def test_flows_are_deterministic_and_their_log_determinants_are_those_of_autograd(kind, args):
    layer = stir(kind(*args, auxiliary="published"))
    z = torch.randn(20, len(layer.q0_mean)).double()
    with torch.no_grad():
        for flow in (layer.flow_q, layer.flow_r):
            assert isinstance(flow, flows.Compose)
            x, log_det = flow(z)
            again, log_det_again = flow(z)
            assert torch.equal(x, again)
            assert torch.equal(log_det, log_det_again)
            assert (log_det - log_abs_det(lambda z, flow=flow: flow(z)[0], z)).abs().max() < 1e-10
            assert (flow.inverse(x)[0] - z).abs().max() < 1e-9


def test_conditioners_of_the_flows_are_not_linear():
    layer = stir(layers.MNFLinear(2, 1, auxiliary="published"))
    z = torch.tensor([0.3, -0.4]).double()
    for coupling in (*layer.flow_q, *layer.flow_r):
        curvature = torch.func.hessian(coupling.net)(z)  # [outputs, 2, 2]
        assert (curvature.abs().amax((-1, -2)) > 1e-2).all()


@pytest.mark.parametrize(("kind", "args"), [(layers.MNFLinear, (3, 2)), (layers.MNFConv2d, (2, 3, 2))])
@pytest.mark.parametrize("auxiliary", AUXILIARY)
def test_kl_alone_trains_to_zero_and_never_below(kind, args, auxiliary):
    torch.manual_seed(0)
    layer = stir(kind(*args, hidden=(5,), prior_std=0.7, auxiliary=auxiliary))
    assert layer.kl(100) > 1
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
    for _ in range(300):
        optimiser.zero_grad()
        layer.kl(16).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        draws = layer.kl_samples(50_000)
    error = 5 * float(draws.std()) / math.sqrt(len(draws))
    assert -error < draws.mean() < 0.03 + error


class TestConjugateRegression:
    """y = X w + noise: the evidence p(y) is a Gaussian density, and no ELBO may exceed it."""

    noise, prior_std = 0.5, 0.9

    def data(self, inp: int) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(3)
        x = torch.randn(15, inp).double()
        y = x @ torch.linspace(-1, 1.5, inp).double() + self.noise * torch.randn(15).double()
        gram = x @ x.T + 1  # the bias has a prior too
        cov = self.prior_std**2 * gram + self.noise**2 * torch.eye(15).double()
        return x, y, MultivariateNormal(torch.zeros(15).double(), cov).log_prob(y)

    def elbo(self, layer, x: Tensor, y: Tensor, n: int) -> Tensor:
        out = layer(x.expand(n, *x.shape))[..., 0]  # [n, N]
        return Normal(out, self.noise).log_prob(y).sum(-1) - layer.kl_samples(n)

    @pytest.mark.parametrize(
        ("kind", "options"), [(layers.MNFLinear, {"hidden": (5,)}), (layers.MeanFieldLinear, {})]
    )
    def test_trained_elbo_is_close_below_the_exact_evidence(self, kind, options):
        x, y, evidence = self.data(3)
        layer = kind(3, 1, prior_std=self.prior_std, **options).double()
        torch.manual_seed(0)
        optimiser = torch.optim.Adam(layer.parameters(), lr=0.05)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 300)
        for _ in range(300):
            optimiser.zero_grad()
            (-self.elbo(layer, x, y, 8).mean()).backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            elbo = self.elbo(layer, x, y, 20_000)
        error = 5 * float(elbo.std()) / math.sqrt(len(elbo))
        assert evidence - 0.6 < elbo.mean() < evidence + error

    def test_mean_field_of_one_weight_reaches_the_evidence(self):
        x, y, _ = self.data(1)
        cov = self.prior_std**2 * x @ x.T + self.noise**2 * torch.eye(15).double()
        evidence = MultivariateNormal(torch.zeros(15).double(), cov).log_prob(y)
        precision = 1 / self.prior_std**2 + x.square().sum() / self.noise**2
        mean = (x[:, 0] @ y) / self.noise**2 / precision
        layer = layers.MeanFieldLinear(1, 1, bias=False, prior_std=self.prior_std)
        set_(layer, weight_mean=mean, weight_log_var=-precision.log())
        with torch.no_grad():
            assert_mean(self.elbo(layer, x, y, 200_000), evidence)
