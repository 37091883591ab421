"""Outputs of the layers: moments against explicit weights, shapes, extremes, errors."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from mnf_lite import flows, layers
from mnf_lite.layers.base import add_noise
from tests.package.layer_zoo import Quadrature, assert_mean, set_, stir

DENSE = [layers.MNFLinear, layers.MeanFieldLinear]
CONV = [layers.MNFConv2d, layers.MeanFieldConv2d]
MNF = [(layers.MNFLinear, (3, 2)), (layers.MNFConv2d, (2, 3, 2))]
ALL = [(kind, (3, 2)) for kind in DENSE] + [(kind, (3, 2, 3)) for kind in CONV]
every_layer = pytest.mark.parametrize(("kind", "args"), ALL)


class Conjugate(layers.MNFLinear):
    """The dense layer with the conjugate auxiliary posterior and a learned prior."""

    def __init__(self, *args, **options):
        super().__init__(*args, auxiliary="conjugate", prior_std="learned", **options)


class ConjugateConv(layers.MNFConv2d):
    """The convolution with the conjugate auxiliary posterior, a learned prior and exact weights."""

    def __init__(self, *args, **options):
        super().__init__(*args, auxiliary="conjugate", prior_std="learned", sampling="flipped", **options)


NEW = [(Conjugate, (3, 2)), (ConjugateConv, (3, 2, 3))]
old_and_new = pytest.mark.parametrize(("kind", "args"), ALL + NEW)
mnf_layer = pytest.mark.parametrize(("kind", "args"), MNF)


def inputs(layer: nn.Module, batch: int = 4) -> Tensor:
    """Standard normal inputs of the layer's dtype: ``[batch, in]`` or ``[batch, in, 5, 5]``."""
    shape = [layer.weight_mean.shape[1], *[5] * (layer.weight_mean.ndim - 2)]
    return torch.randn(batch, *shape, dtype=layer.weight_mean.dtype)


def central_products(y: Tensor) -> Tensor:
    """``[n, d] -> [n, d, d]``: their mean is the covariance."""
    centred = y - y.mean(0)
    return centred[:, :, None] * centred[:, None, :]


# moments


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", DENSE)
@torch.no_grad()
def test_dense_outputs_have_mean_and_covariance_of_explicit_weights(kind, bias):
    layer = stir(kind(3, 4, bias=bias))
    torch.manual_seed(0)
    n, x = 100_000, torch.tensor([0.7, -1.2, 0.4]).double()
    w, b = layer.sample_weights(n)
    explicit = w @ x + (0 if b is None else b)
    implicit = layer(x.expand(n, 3))
    assert_mean(implicit - explicit, 0.0)
    assert_mean(central_products(implicit) - central_products(explicit), 0.0)


@torch.no_grad()
def test_dense_mean_and_covariance_equal_an_integral_over_z():
    layer = stir(layers.MNFLinear(2, 3))
    torch.manual_seed(0)
    x = torch.tensor([0.5, -2.0]).double()
    integral = Quadrature(layer)
    given_z = (integral.z * x) @ layer.weight_mean.T + layer.bias_mean  # E[y|z]: [G, out]
    mean = integral.mean_of(given_z)
    noise = layer.weight_log_var.exp() @ x**2 + layer.bias_log_var.exp()
    cov = torch.einsum("g,go,gp->op", integral.weight, given_z - mean, given_z - mean) + noise.diag()
    y = layer(x.expand(200_000, 2))
    assert_mean(y, mean)
    assert_mean((y - mean)[:, :, None] * (y - mean)[:, None, :], cov)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", CONV)
@torch.no_grad()
def test_conv_outputs_have_mean_and_covariance_of_explicit_weights_in_each_pixel(kind, bias):
    layer = stir(kind(2, 3, 2, stride=2, padding=1, bias=bias, sampling="outputs"))
    torch.manual_seed(0)
    n, image = 40_000, torch.randn(2, 3, 3).double()
    w, b = layer.sample_weights(n)
    explicit = F.conv2d(image[None], w.flatten(0, 1), None if b is None else b.flatten(), 2, 1)
    explicit = explicit.view(n, 3, 4)
    implicit = layer(image.expand(n, 2, 3, 3)).flatten(2)  # [n, out, pixels]
    for pixel in range(4):
        assert_mean(implicit[..., pixel] - explicit[..., pixel], 0.0)
        products = (central_products(y[..., pixel]) for y in (implicit, explicit))
        assert_mean(next(products) - next(products), 0.0)


@torch.no_grad()
def test_local_reparametrisation_leaves_out_that_neighbouring_pixels_share_their_weights():
    layer = set_(
        layers.MNFConv2d(1, 1, 3, bias=False, sampling="outputs"), weight_mean=0.0, weight_log_var=0.0
    )
    torch.manual_seed(0)
    n, image = 20_000, torch.ones(1, 3, 4).double()  # a smooth image: two pixels out
    explicit = torch.cat([F.conv2d(image, w) for w in layer.sample_weights(n)[0]]).view(n, 2)
    implicit = layer(image.expand(n, 1, 3, 4)).view(n, 2)
    assert torch.corrcoef(explicit.T)[0, 1] > 0.999
    assert torch.corrcoef(implicit.T)[0, 1].abs() < 5 / math.sqrt(n)
    assert (
        explicit.amax(-1).mean().abs() < 0.1 < 1.5 < implicit.amax(-1).mean()
    )  # a max-pool sees the difference


@mnf_layer
@torch.no_grad()
def test_pixels_of_one_example_share_z_and_the_rows_of_a_batch_do_not(kind, args):
    layer = set_(kind(*args, bias=False), weight_log_var=-200.0)  # no noise but that of z
    torch.manual_seed(0)
    x = inputs(layer, 1)
    y = layer(x.expand(16 * 500, *x.shape[1:])).view(500, 16, -1)
    ratio = 16 * y.mean(1).var(0) / y.flatten(0, 1).var(0)
    assert ((ratio > 0.6) & (ratio < 1.5)).all()
    calls = torch.stack([layer(x.expand(16, *x.shape[1:])).mean(0).flatten() for _ in range(500)])
    ratio = 16 * calls.var(0) / y.flatten(0, 1).var(0)
    assert ((ratio > 0.6) & (ratio < 1.5)).all()
    if kind is layers.MNFConv2d:  # all that a map's pixels vary by is one factor
        one, other = layer(x).flatten(2)[0], layer(x).flatten(2)[0]
        assert (one / other - (one / other)[:, :1]).abs().max() < 1e-9


@every_layer
@torch.no_grad()
def test_rows_of_a_batch_are_independent(kind, args):
    layer = stir(kind(*args))
    torch.manual_seed(0)
    x = inputs(layer, 1)
    pairs = torch.stack([layer(x.expand(2, *x.shape[1:])).flatten(1)[:, 0] for _ in range(800)])
    assert torch.corrcoef(pairs.T)[0, 1].abs() < 5 / math.sqrt(800)


@every_layer
@torch.no_grad()
def test_joint_draws_of_the_weights_have_the_posteriors_moments(kind, args):
    layer = stir(kind(*args))
    torch.manual_seed(0)
    n = 60_000
    w, b = layer.sample_weights(n)
    assert w.shape == (n, *layer.weight_mean.shape)
    assert b.shape == (n, 2)
    assert_mean(b, layer.bias_mean)
    assert_mean((b - layer.bias_mean) ** 2, layer.bias_log_var.exp())
    z = layer.sample_z(n)[0] if "MNF" in kind.__name__ else torch.ones(n, 1).double()
    axis = 0 if kind is layers.MNFConv2d else 1
    z = z.view(n, *[-1 if a == axis else 1 for a in range(layer.weight_mean.ndim)])
    assert_mean(w - z * layer.weight_mean, 0.0)
    second = (z * layer.weight_mean) ** 2 + layer.weight_log_var.exp()
    assert_mean(w**2 - second, 0.0)
    assert_mean((w.flatten(1)[:, :1] - w.flatten(1)[:, :1].mean(0)) * (b - layer.bias_mean), 0.0)
    assert_mean((w[1:] - w.mean(0)) * (w[:-1] - w.mean(0)), 0.0)  # a z for each draw


@every_layer
@torch.no_grad()
def test_output_at_zero_is_the_bias(kind, args):
    layer = stir(kind(*args))
    torch.manual_seed(0)
    x = torch.zeros_like(inputs(layer, 1))
    y = layer(x.expand(40_000, *x.shape[1:])).flatten(2)[..., 0] if x.ndim > 2 else layer(x.expand(40_000, 3))
    assert_mean(y, layer.bias_mean)
    assert_mean((y - layer.bias_mean) ** 2, layer.bias_log_var.exp())
    set_(layer, bias_log_var=-200.0, **({"q0_log_var": 3.0} if "MNF" in kind.__name__ else {}))
    y = layer(x.expand(50, *x.shape[1:]))
    assert (y - layer.bias_mean.view(-1, *[1] * (x.ndim - 2))).abs().max() < 1e-12  # z does not touch it


@torch.no_grad()
def test_bias_mean_and_kl_know_of_each_other():
    layer = stir(layers.MNFLinear(2, 2))
    torch.manual_seed(0)
    before = layer.kl_samples(5)
    mean, shift = layer.bias_mean.clone(), torch.tensor([0.5, -2.0]).double()
    layer.bias_mean += shift
    torch.manual_seed(0)
    assert torch.allclose(layer.kl_samples(5) - before, ((mean + shift) ** 2 - mean**2).sum() / 2)


# geometry


GEOMETRIES = [
    {"kernel_size": 3},
    {"kernel_size": (2, 3), "stride": 2},
    {"kernel_size": 3, "stride": (1, 2), "padding": 1},
    {"kernel_size": 2, "padding": (2, 0), "dilation": (1, 2)},
    {"kernel_size": 3, "dilation": 2},
    {"kernel_size": (3, 2), "padding": "same", "dilation": 2},
    {"kernel_size": 3, "padding": "valid"},
]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
@pytest.mark.parametrize("maps", [3, 20])  # by convolutions, by products of matrices
@pytest.mark.parametrize("kind", CONV)
@torch.no_grad()
def test_convolution_without_noise_is_the_one_of_torch(kind, maps, geometry, bias):
    torch.manual_seed(0)
    reference = nn.Conv2d(2, maps, **geometry, bias=bias).double()
    without = {"n_flows_q": 0} if kind is layers.MNFConv2d else {}
    layer = kind(2, maps, **geometry, bias=bias, **without)
    set_(layer, weight_mean=reference.weight, weight_log_var=-200.0)
    if bias:
        set_(layer, bias_mean=reference.bias, bias_log_var=-200.0)
    if kind is layers.MNFConv2d:
        set_(layer, q0_mean=1.0, q0_log_var=-200.0)
    x = torch.randn(4, 2, 7, 9).double()
    assert (layer(x) - reference(x)).abs().max() < 1e-12
    assert (layer(x[0]) - reference(x[0])).abs().max() < 1e-12  # one image without a batch
    assert (layer.plain()(x) - reference(x)).abs().max() < 1e-12
    assert layer(x[:0]).shape == reference(x[:0]).shape
    for like in (x, x.to(memory_format=torch.channels_last)):  # memory as torch lays it out
        assert layer(like).stride() == reference(like).stride()


def test_products_and_convolutions_have_the_same_moments_and_gradients():
    layer = stir(layers.MNFConv2d(2, 12, (2, 3)))  # by a product, as 2 * 2 * 3 <= 2 * 12
    torch.manual_seed(0)
    x, z = inputs(layer).requires_grad_(), layer.sample_z(4)[0]
    mean = z[..., None, None] * F.conv2d(x, layer.weight_mean) + layer.bias_mean[:, None, None]
    variance = F.conv2d(x.square(), layer.weight_log_var.exp(), layer.bias_log_var.exp())
    given = layer.moments(x, z)
    wanted = [x, *(p for name, p in layer.named_parameters() if "flow_r" not in name and "r_" not in name)]
    for ours, expected in zip(given, (mean, variance), strict=True):
        assert torch.allclose(ours, expected)
        weight = torch.randn_like(expected)
        both = (
            torch.autograd.grad((y * weight).sum(), wanted, None, True, allow_unused=True)
            for y in (ours, expected)
        )
        for one, other in zip(*both, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other)


def test_noise_has_first_and_second_derivatives_one_by_one_or_mapped():
    torch.manual_seed(0)
    mean, variance, noise = (
        torch.randn(3, 4).double(),
        torch.rand(3, 4).double() + 0.1,
        torch.randn(3, 4).double(),
    )
    moments = mean.requires_grad_(), variance.requires_grad_()
    assert torch.autograd.gradcheck(lambda m, v: add_noise(m, v, noise), moments, raise_exception=False)
    assert torch.autograd.gradgradcheck(lambda m, v: add_noise(m, v, noise), moments, raise_exception=False)
    assert torch.equal(vmap(add_noise)(mean, variance, noise), add_noise(mean, variance, noise))


@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 3), (2, 1, 3), (2, 0)])
@pytest.mark.parametrize("kind", DENSE)
@torch.no_grad()
def test_dense_layer_without_noise_is_the_one_of_torch_for_any_leading_axes(kind, shape):
    torch.manual_seed(0)
    reference = nn.Linear(3, 2).double()
    without = {"n_flows_q": 0} if kind is layers.MNFLinear else {}
    layer = set_(kind(3, 2, **without), weight_mean=reference.weight, bias_mean=reference.bias)
    set_(layer, weight_log_var=-200.0, bias_log_var=-200.0)
    if kind is layers.MNFLinear:
        set_(layer, q0_mean=1.0, q0_log_var=-200.0)
    x = torch.randn(*shape, 3).double()
    assert layer(x).shape == reference(x).shape
    assert torch.allclose(layer(x), reference(x), atol=1e-12)


@torch.no_grad()
def test_every_row_of_any_leading_axes_has_its_own_z():
    layer = set_(layers.MNFLinear(3, 2), weight_log_var=-200.0, bias_log_var=-200.0)
    y = layer(torch.ones(4, 5, 3).double())
    assert len(y.view(20, 2).unique(dim=0)) == 20


@pytest.mark.parametrize("kind", [*DENSE, *CONV])
def test_repr_reads_like_that_of_torch(kind):
    if kind in DENSE:
        ours, theirs = kind(3, 2), nn.Linear(3, 2)
    else:
        ours = kind(3, 2, 3, padding=1, bias=False)
        theirs = nn.Conv2d(3, 2, 3, padding=1, bias=False)
    assert repr(ours).startswith(kind.__name__ + "(")
    assert theirs.extra_repr() in repr(ours)
    assert "prior_std=1" in repr(ours)
    assert ("flow_q" in repr(ours)) == ("MNF" in kind.__name__)


# parameters and state


@every_layer
@pytest.mark.parametrize("bias", [True, False])
def test_members_have_the_shapes_of_the_contract(kind, args, bias):
    layer = kind(*args, bias=bias)
    weight = (2, 3) if len(args) == 2 else (2, 3, 3, 3)
    d = 3 if kind is layers.MNFLinear else 2
    expected = {"weight_mean": weight, "weight_log_var": weight}
    if bias:
        expected |= {"bias_mean": (2,), "bias_log_var": (2,)}
    if "MNF" in kind.__name__:
        published = kind(*args, bias=bias, auxiliary="published")
        names = ("q0_mean", "q0_log_var", "r_c", "r_b1", "r_b2")
        assert own_shapes(published) == expected | dict.fromkeys(names, (d,))
        assert published.flow_q.dim == published.flow_r.dim == d
        assert len(published.flow_q) == len(published.flow_r) == 2
        expected |= dict.fromkeys(("q0_mean", "q0_log_var", "r_mean", "r_log_var"), (d,))
        assert isinstance(layer.flow_q, flows.Compose)
        assert layer.flow_q.dim == d
        assert len(layer.flow_q) == 2
        assert not hasattr(layer, "flow_r")
    assert own_shapes(layer) == expected
    if not bias:
        assert layer.bias_mean is None
        assert layer.sample_weights(2)[1] is None


def own_shapes(layer):
    return {name: tuple(p.shape) for name, p in layer.named_parameters() if "." not in name}


@every_layer
def test_layer_starts_where_it_trains(kind, args):
    torch.manual_seed(0)
    layer = kind(200, 100) if len(args) == 2 else kind(40, 100, 3)
    fan_in = layer.weight_mean[0].numel()
    assert abs(layer.weight_mean.std() / math.sqrt(2 / fan_in) - 1) < 0.05
    assert (layer.weight_log_var == -9).all()
    if "MNF" in kind.__name__:
        assert (layer.q0_mean == 1).all()
        assert torch.allclose(layer.q0_log_var, torch.tensor(0.1).log())
        z = layer.sample_z(2000)[0]
        assert 0.6 < z.mean() < 1.1


@old_and_new
def test_every_parameter_gets_a_gradient(kind, args):
    torch.manual_seed(0)
    layer = kind(*args)
    (layer(inputs(layer)).square().mean() + layer.kl(4)).backward()
    for name, p in layer.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all(), name
        assert p.grad.abs().max() > 0, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@old_and_new
def test_dtype_follows_the_parameters(kind, args, dtype):
    layer = kind(*args).to(dtype)
    outputs = [layer(inputs(layer)), layer.kl(), layer.kl_samples(3), *layer.sample_weights(2)]
    outputs += layer.sample_z(2) if hasattr(layer, "sample_z") else []
    assert {y.dtype for y in outputs} == {dtype}
    assert {p.dtype for p in layer.plain().parameters()} == {dtype}


@old_and_new
def test_state_goes_round_and_copies_agree(kind, args, tmp_path):
    from safetensors.torch import load_file, save_file

    layer, other = stir(kind(*args)), kind(*args).double()
    save_file(layer.state_dict(), tmp_path / "state.safetensors")
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    x = inputs(layer)
    for twin in (other, copy.deepcopy(layer)):
        for f in (lambda m: m(x), lambda m: m.kl(3), lambda m: m.sample_weights(2)[0]):
            torch.manual_seed(0)
            expected = f(layer)
            torch.manual_seed(0)
            assert torch.equal(f(twin), expected)


# extremes


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("x_scale", [0.0, 1.0, 1e-30, 1e4])
@pytest.mark.parametrize("case", ["log_var=-200", "log_var=+20", "flows*1000", "all*1000"])
@old_and_new
def test_extreme_parameters_keep_values_and_gradients_finite(kind, args, case, x_scale, bias):
    torch.manual_seed(0)
    layer = kind(*args, bias=bias)
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if case.startswith("log_var") and "log_var" in name:
                p.fill_(float(case.split("=")[1]))
            elif (case == "flows*1000" and "flow" in name) or (case == "all*1000" and "log_var" not in name):
                p.mul_(1000)
    x = (x_scale * inputs(layer)).requires_grad_()
    y, kl = layer(x), layer.kl_samples(10)
    assert y.isfinite().all()
    assert kl.isfinite().all()
    (y.sum() + kl.sum()).backward()
    assert x.grad.isfinite().all()
    for name, p in layer.named_parameters():
        assert p.grad is None or p.grad.isfinite().all(), name


@every_layer
def test_gradient_of_the_noise_is_right_down_to_the_smallest_variances(kind, args):
    """Deviations fall with their log variance l as e^(l/2) until the smallest number of the dtype."""
    layer = kind(*args, bias=False).double()
    x, outputs = inputs(layer), []
    for log_var in (-9.0, -100.0, -600.0):
        set_(layer, weight_mean=0.0, weight_log_var=log_var)
        layer.zero_grad()
        torch.manual_seed(0)
        y = layer(x)
        outputs.append(y.detach() * math.exp(-log_var / 2))
        assert torch.allclose(outputs[-1], outputs[0], rtol=1e-9, atol=0)
        y.square().sum().sqrt().backward()
        # |y| is homogeneous of degree 1/2 in the variances, so the gradients in their logs sum to |y| / 2
        assert torch.allclose(layer.weight_log_var.grad.sum(), y.norm() / 2, rtol=1e-9, atol=0)
        assert y.norm() > 0


# errors


@pytest.mark.parametrize("shape", [(4, 5), (), (3, 2)])
@pytest.mark.parametrize("kind", DENSE)
def test_wrong_features_are_named(kind, shape):
    with pytest.raises(ValueError, match=r"expects input of shape \[\.\.\., 3\], got \["):
        kind(3, 2)(torch.ones(shape))


@pytest.mark.parametrize("shape", [(4, 5, 9, 9), (3, 9), (9,), (1, 1, 3, 9, 9), ()])
@pytest.mark.parametrize("kind", CONV)
def test_wrong_channels_are_named(kind, shape):
    with pytest.raises(ValueError, match=r"expects input of shape \[batch, 3, height, width\], got \["):
        kind(3, 2, 3)(torch.ones(shape))


@every_layer
def test_second_derivatives_stay_finite_where_a_variance_is_zero(kind, args):
    layer = kind(*args, bias=False)
    x = torch.zeros(2, 3) if kind in DENSE else torch.zeros(2, 3, 5, 5)
    (slope,) = torch.autograd.grad(layer(x.requires_grad_()).square().sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert layer.weight_log_var.grad.isfinite().all()


@pytest.mark.parametrize("maps", [2, 20])  # by convolutions, by products of matrices
@pytest.mark.parametrize("kind", CONV)
def test_images_smaller_than_the_kernel_are_named(kind, maps):
    layer = kind(3, maps, 2, dilation=3, padding=(0, 1))
    assert layer(torch.rand(1, 3, 4, 2)).shape == (1, maps, 1, 1)
    for height, width, said in (
        (3, 2, "height of at least 4 pixels, got 3"),
        (4, 1, "width .* 4 pixels, got 3"),
    ):
        with pytest.raises((ValueError, RuntimeError), match=f"{said}|Kernel size can't be greater than"):
            layer(torch.rand(1, 3, height, width))


@old_and_new
def test_samples_can_be_mapped(kind, args):
    layer = kind(*args)
    x = torch.ones_like(inputs(layer, 2))
    for draw in (
        lambda _: layer(x),
        lambda _: layer.sample_weights(2)[0],
        lambda _: layer.sample_weights(2)[1],
    ):
        first, second = torch.vmap(draw, randomness="different")(torch.arange(2))
        assert first.shape == draw(None).shape
        assert not torch.equal(first, second)
    assert torch.vmap(lambda _: layer.kl(), randomness="different")(torch.arange(4)).shape == (4,)


@every_layer
def test_other_types_of_input_are_named(kind, args):
    layer = kind(*args)
    with pytest.raises(TypeError, match=r"floating-point tensor, got a torch.int64 tensor"):
        layer(inputs(layer).long())
    with pytest.raises(TypeError, match=r"floating-point tensor, got ndarray"):
        layer(inputs(layer).numpy())
    with pytest.raises(TypeError, match=r"weights of torch.float32, got a torch.float64 tensor"):
        layer(inputs(layer).double())


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "3", None])
@every_layer
def test_numbers_of_draws_are_checked(kind, args, n):
    layer = kind(*args)
    methods = [layer.kl, layer.kl_samples, layer.sample_weights]
    methods += [layer.sample_z] if "MNF" in kind.__name__ else []
    for method in methods:
        with pytest.raises(ValueError, match="n must be an integer of at least 1, got"):
            method(n)


@pytest.mark.parametrize("prior_std", [0, -1.0, math.nan, math.inf, "1", None])
@every_layer
def test_prior_std_is_checked(kind, args, prior_std):
    with pytest.raises(ValueError, match="prior_std must be a positive finite number or 'learned', got"):
        kind(*args, prior_std=prior_std)


@pytest.mark.parametrize("name", ["n_flows_q", "n_flows_r"])
@pytest.mark.parametrize("n", [-1, 1.5, "2"])
@mnf_layer
def test_numbers_of_flows_are_checked(kind, args, name, n):
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 0, got"):
        kind(*args, **{name: n})


@pytest.mark.parametrize("kind", DENSE)
def test_sizes_of_dense_layers_are_checked(kind):
    with pytest.raises(ValueError, match="in_features must be an integer of at least 1, got 0"):
        kind(0, 2)
    with pytest.raises(ValueError, match=r"out_features must be an integer of at least 1, got 2\.5"):
        kind(3, 2.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"in_channels": 0},
        {"out_channels": -1},
        {"kernel_size": 0},
        {"kernel_size": (3, 3, 3)},
        {"stride": 0},
        {"stride": 1.5},
        {"padding": -1},
        {"padding": "most"},
        {"dilation": 0},
        {"stride": 2, "padding": "same"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", CONV)
def test_geometry_of_convolutions_is_checked(kind, wrong):
    name = "padding" if "padding" in wrong else next(iter(wrong))
    with pytest.raises(ValueError, match=name):
        kind(**({"in_channels": 3, "out_channels": 2, "kernel_size": 3} | wrong))
