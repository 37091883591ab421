"""Priors learned in closed form: the best for the posterior as it stands, in the KL from the next step on."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mnf_lite import layers
from tests.package.layer_zoo import stir

MEAN_FIELD = [(layers.MeanFieldLinear, (4, 3)), (layers.MeanFieldConv2d, (2, 3, 3))]
MNF = [(layers.MNFLinear, (4, 3)), (layers.MNFConv2d, (2, 3, 3)), (layers.MNFConvTranspose2d, (2, 3, 2))]
every = pytest.mark.parametrize(("kind", "args"), MEAN_FIELD + MNF)


def slope(layer, n: int) -> float:
    """d K / d log p, the mean of n draws: per weight it is of order 1 away from the optimum."""
    std = layer.prior_std.clone().requires_grad_()
    layer._buffers["prior_std"] = std
    (gradient,) = torch.autograd.grad(layer.kl(n), std)
    layer._buffers["prior_std"] = std.detach()
    return float(gradient * std.detach() / 2)


@pytest.mark.parametrize("bias", [True, False])
@every
def test_derivative_of_the_bound_in_the_prior_is_zero_after_an_update(kind, args, bias):
    layer = stir(kind(*args, bias=bias, prior_std="learned"))
    layer.prior_std.fill_(3.0)
    assert abs(slope(layer, 64)) > 0.1
    torch.manual_seed(0)
    layer.update_prior(64)
    torch.manual_seed(0)  # the same z for the bound
    assert abs(slope(layer, 64)) < 1e-10


@pytest.mark.parametrize(("kind", "args"), MNF)
def test_second_moment_of_z_is_exact_without_a_flow_and_draws_nothing(kind, args):
    layer = stir(kind(*args, n_flows_q=0, prior_std="learned"))
    before = torch.get_rng_state()
    layer.update_prior()
    assert torch.equal(torch.get_rng_state(), before)
    with torch.no_grad():
        w, b = layer.sample_weights(100_000)
    mean_square = (w.square().sum() + b.square().sum()) / (w.numel() + b.numel())
    assert torch.isclose(layer.prior_std.square(), mean_square, rtol=0.02)


@every
def test_learned_prior_is_the_mean_square_of_drawn_weights_and_biases(kind, args):
    layer = stir(kind(*args, prior_std="learned"))
    torch.manual_seed(0)
    layer.update_prior(50_000)
    with torch.no_grad():
        w, b = layer.sample_weights(50_000)
    mean_square = (w.square().sum() + b.square().sum()) / (w.numel() + b.numel())
    assert torch.isclose(layer.prior_std.square(), mean_square, rtol=0.05)


@every
def test_learned_prior_starts_at_one_and_then_counts_in_the_kl(kind, args):
    layer, fixed = stir(kind(*args, prior_std="learned")), stir(kind(*args, prior_std=1.0))
    fixed.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "prior_std"})
    assert layer.prior_std == 1
    for prior_std in (1.0, 0.3):
        layer.prior_std.fill_(prior_std)
        fixed.prior_std = prior_std
        torch.manual_seed(0)
        ours = layer.kl_samples(5)
        torch.manual_seed(0)
        assert torch.allclose(ours, fixed.kl_samples(5), rtol=1e-12)


@every
def test_learned_prior_is_saved_moves_with_the_layer_and_is_shown(kind, args, tmp_path):
    layer, other = stir(kind(*args, prior_std="learned")), kind(*args, prior_std="learned").double()
    layer.update_prior()
    assert layer.prior_std.dtype == torch.float64
    assert kind(*args, prior_std="learned").to("meta").prior_std.is_meta
    save_file(layer.state_dict(), tmp_path / "state.safetensors")
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert torch.equal(other.prior_std, layer.prior_std)
    assert f"prior_std={layer.prior_std:g}, learned" in repr(other)
    assert "prior_std" not in dict(layer.named_parameters())


@every
def test_fixed_prior_is_a_plain_number_that_no_update_touches(kind, args):
    layer = kind(*args, prior_std=0.5)
    assert type(layer.prior_std) is float
    assert "prior_std" not in layer.state_dict()
    assert "prior_std=0.5" in repr(layer)
    assert "learned" not in repr(layer)
    layers.update_priors(layer)
    assert layer.prior_std == 0.5
    with pytest.raises(ValueError, match=r"has the fixed prior_std=0\.5"):
        layer.update_prior()


def test_priors_of_a_network_are_updated_in_all_depths():
    model = nn.Sequential(
        layers.MNFLinear(3, 3, prior_std="learned"),
        nn.Sequential(layers.MeanFieldConv2d(1, 2, 3, prior_std="learned")),
        layers.MNFLinear(3, 3),
    )
    layers.update_priors(model)
    assert model[0].prior_std != 1
    assert model[1][0].prior_std != 1
    assert model[2].prior_std == 1


@every
def test_a_posterior_of_zeros_has_a_finite_kl_under_its_learned_prior(kind, args):
    layer = kind(*args, prior_std="learned")
    with torch.no_grad():
        for name, p in layer.named_parameters(recurse=False):
            p.fill_(-200.0 if "log_var" in name else 0.0)
    layer.update_prior()
    assert layer.prior_std > 0
    layer.kl().backward()
    for name, p in layer.named_parameters():
        assert p.grad is None or p.grad.isfinite().all(), name


def test_a_better_prior_never_raises_the_exact_kl():
    for seed in range(5):
        layer = stir(layers.MeanFieldLinear(4, 3, prior_std="learned"), seed)
        before = layer.kl()
        layer.update_prior()
        assert layer.kl() < before
        best = layer.kl()
        for factor in (0.99, 1.01):
            layer.prior_std.mul_(factor)
            assert layer.kl() > best
            layer.prior_std.div_(factor)
    assert math.isfinite(best)
