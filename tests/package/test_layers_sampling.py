"""Five ways to sample a convolution: what each keeps of explicit weights, and whose objective is a bound."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal
from torch.func import vmap
from torch.nn import functional as F

from mnf_lite import layers
from tests.package.layer_zoo import assert_mean, set_, stir

EXACT = ["explicit", "flipped", "shared"]
WAYS = ["outputs", *EXACT]
CONV = [layers.MNFConv2d, layers.MeanFieldConv2d]
ways = pytest.mark.parametrize("sampling", WAYS)
conv = pytest.mark.parametrize("kind", CONV)


def repeated(layer, image: Tensor, n: int, batch: int = 1) -> Tensor:
    """``n`` calls on a batch of one image: ``[n, batch, outputs]``."""
    x = image.expand(batch, *image.shape)
    return torch.stack([layer(x).flatten(1) for _ in range(n)])


def draws(layer, image: Tensor, n: int) -> Tensor:
    """``n`` draws of the outputs ``[n, outputs]``, of which "shared" and "flipped" need a call each."""
    if layer.sampling in ("outputs", "explicit"):
        return layer(image.expand(n, *image.shape)).flatten(1)
    return vmap(lambda _: layer(image[None]).flatten(), randomness="different")(torch.arange(n))


def by_explicit_weights(layer, image: Tensor, n: int) -> Tensor:
    w, b = layer.sample_weights(n)
    one = lambda w, b: layer.convolve(image[None], w, b).flatten()  # noqa: E731
    return vmap(one)(w, b)


GEOMETRIES = [
    (layers.MNFConv2d, {"stride": 2, "padding": 1}, (2, 3, 3)),
    (layers.MeanFieldConv2d, {"dilation": 2, "padding": (0, 1)}, (2, 4, 3)),
    (layers.MNFConv2d, {"groups": 2, "padding_mode": "circular", "padding": 1}, (2, 2, 3)),
    (layers.MNFConv1d, {"padding": "same"}, (2, 4)),
    (layers.MNFConvTranspose2d, {"stride": 2, "padding": 1}, (2, 2, 2)),
]


@ways
@pytest.mark.parametrize(("kind", "options", "shape"), GEOMETRIES, ids=str)
@torch.no_grad()
def test_every_way_has_the_mean_and_variance_of_explicit_weights(kind, options, shape, sampling):
    layer = stir(kind(2, 2, 2, sampling=sampling, **options))
    torch.manual_seed(0)
    image, n = torch.randn(shape).double(), 15_000
    ours, theirs = draws(layer, image, n), by_explicit_weights(layer, image, n)
    assert_mean(ours - theirs, 0.0)
    centre = theirs.mean(0)
    assert_mean((ours - centre).square() - (theirs - centre).square(), 0.0)


@pytest.mark.parametrize("sampling", EXACT)
@conv
@torch.no_grad()
def test_exact_ways_have_the_covariance_between_pixels_of_explicit_weights(kind, sampling):
    layer = stir(kind(2, 2, 2, padding=1, sampling=sampling))
    torch.manual_seed(0)
    image, n = torch.randn(2, 2, 2).double(), 20_000
    ours, theirs = draws(layer, image, n), by_explicit_weights(layer, image, n)
    centre = theirs.mean(0)
    products = [(y - centre)[:, :, None] * (y - centre)[:, None] for y in (ours, theirs)]
    assert_mean(products[0] - products[1], 0.0)


@ways
@conv
@torch.no_grad()
def test_neighbouring_pixels_of_a_smooth_image_move_together_where_weights_are_exact(kind, sampling):
    layer = set_(kind(1, 1, 3, bias=False, sampling=sampling), weight_mean=0.0, weight_log_var=0.0)
    torch.manual_seed(0)
    pixels = draws(layer, torch.ones(1, 3, 4).double(), 20_000)
    correlation = torch.corrcoef(pixels.T)[0, 1]
    assert (correlation.abs() < 5 / math.sqrt(20_000)) if sampling == "outputs" else (correlation > 0.999)


@ways
@conv
@torch.no_grad()
def test_examples_are_uncorrelated_unless_they_share_their_weights(kind, sampling):
    layer = stir(kind(2, 2, 2, sampling=sampling))
    torch.manual_seed(0)
    pairs = repeated(layer, torch.randn(2, 3, 3).double(), 1500, batch=2)[..., 0]
    correlation = torch.corrcoef(pairs.T)[0, 1]
    assert (correlation > 0.999) if sampling == "shared" else (correlation.abs() < 5 / math.sqrt(1500))


@torch.no_grad()
def test_examples_of_a_flipped_batch_are_uncorrelated_but_not_independent():
    squares = {}
    for sampling in ("explicit", "flipped"):
        layer = layers.MeanFieldConv2d(1, 1, 1, bias=False, sampling=sampling)
        set_(layer, weight_mean=0.0, weight_log_var=0.0)
        torch.manual_seed(0)
        pairs = repeated(layer, torch.ones(1, 1, 1).double(), 2000, batch=2)[..., 0]
        assert torch.corrcoef(pairs.T)[0, 1].abs() < 5 / math.sqrt(2000)
        squares[sampling] = torch.corrcoef(pairs.square().T)[0, 1]
    assert squares["explicit"].abs() < 0.15  # one weight: |W| is that of the whole batch
    assert squares["flipped"] > 0.999


@torch.no_grad()
def test_flipped_signs_are_drawn_for_inputs_and_for_outputs():
    """What the examples of a batch still share grows weaker with each kind of sign."""
    torch.manual_seed(0)
    for channels, maps in ((1, 2), (2, 1)):
        layer = layers.MeanFieldConv2d(channels, maps, 1, bias=False, sampling="flipped")
        set_(layer, weight_mean=0.0, weight_log_var=0.0)
        pairs = repeated(layer, torch.ones(channels, 1, 1).double(), 2000, batch=2)  # [n, 2, maps]
        if maps == 2:  # W_1 W_2, whose sign is the outputs' alone
            assert torch.corrcoef(pairs.prod(-1).T)[0, 1].abs() < 0.2
        else:  # (W_1 + W_2)^2, half of whose variance is in the inputs' signs
            assert 0.2 < torch.corrcoef(pairs[..., 0].square().T)[0, 1] < 0.8


@ways
@conv
@torch.no_grad()
def test_bias_has_its_noise_in_every_way(kind, sampling):
    layer = stir(kind(2, 3, 2, sampling=sampling))
    torch.manual_seed(0)
    bias = draws(layer, torch.zeros(2, 2, 2).double(), 20_000)  # [n, 3]: one pixel a map
    assert_mean(bias, layer.bias_mean)
    assert_mean((bias - layer.bias_mean).square(), layer.bias_log_var.exp())
    pairs = repeated(layer, torch.zeros(2, 2, 2).double(), 400, batch=2)[..., 0]
    assert (torch.corrcoef(pairs.T)[0, 1] > 0.999) == (sampling == "shared")
    assert sampling == "shared" or torch.corrcoef(pairs.T)[0, 1].abs() < 0.25


@ways
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("maps", [3, 20])
@torch.no_grad()
def test_layout_of_memory_is_the_inputs(maps, layout, sampling):
    layer = layers.MNFConv2d(2, maps, 3, sampling=sampling)
    x = torch.rand(4, 2, 6, 7).to(memory_format=layout)
    y = layer(x)
    assert y.shape == (4, maps, 4, 5)
    assert y.is_contiguous(memory_format=layout)
    assert layer(x[0]).shape == (maps, 4, 5)
    assert layer(x[:0]).shape == (0, maps, 4, 5)


@pytest.mark.parametrize(("maps", "how"), [(20, "explicit"), (3, "flipped")])
@conv
@torch.no_grad()
def test_weights_takes_the_cheaper_exact_way(kind, maps, how):
    layer, same = kind(2, maps, 3, sampling="weights"), kind(2, maps, 3, sampling=how)
    same.load_state_dict(layer.state_dict())
    x = torch.rand(4, 2, 6, 6)
    torch.manual_seed(0)
    y = layer(x)
    torch.manual_seed(0)
    assert torch.equal(y, same(x))


@ways
@conv
def test_every_parameter_of_the_output_gets_a_gradient(kind, sampling):
    for maps in (3, 20):
        layer = kind(2, maps, 3, sampling=sampling)
        layer(torch.rand(4, 2, 6, 6)).square().mean().backward()
        for name, p in layer.named_parameters():
            if not name.startswith(("r_", "flow_r")):
                assert p.grad.abs().max() > 0, name


@ways
def test_samples_of_every_way_can_be_mapped(sampling):
    layer, x = layers.MNFConv2d(2, 3, 3, sampling=sampling), torch.ones(4, 2, 5, 5)
    first, second = vmap(lambda _: layer(x), randomness="different")(torch.arange(2))
    assert first.shape == (4, 3, 3, 3)
    assert not torch.equal(first, second)


def test_repr_names_a_way_that_is_not_the_default():
    assert "sampling" not in repr(layers.MNFConv2d(1, 2, 3))
    assert "sampling='flipped'" in repr(layers.MNFConv2d(1, 2, 3, sampling="flipped"))


# whose objective is a bound


class TestObjective:
    """One filter weight on an image of P equal pixels, whose mean, with noise, is the observation.

    Explicit weights: every pixel is W, so y = W + noise and the evidence is Gaussian. Local reparametrisation
    optimises another model's bound, with a term too few: ELBO_untied + (P - 1) KL_W, P filters untied.
    """

    P, noise, y = 4, 0.3, 1.5

    def layer(self, sampling: str) -> layers.MeanFieldConv2d:
        layer = layers.MeanFieldConv2d(1, 1, 1, bias=False, sampling=sampling)
        return set_(layer, weight_mean=1.2, weight_log_var=-0.4)

    def log_likelihood(self, pixels: Tensor) -> Tensor:
        return Normal(pixels.mean(-1), self.noise).log_prob(torch.tensor(self.y).double())

    def objective(self, sampling: str, n: int = 100_000) -> Tensor:
        layer = self.layer(sampling)
        pixels = draws(layer, torch.ones(1, 2, self.P // 2).double(), n)
        return self.log_likelihood(pixels) - layer.kl()

    @torch.no_grad()
    def test_local_reparametrisation_optimises_untied_filters_with_p_minus_1_divergences_missing(self):
        torch.manual_seed(0)
        layer, n = self.layer("outputs"), 100_000
        untied = layer.sample_weights(n * self.P)[0].view(n, self.P)  # a filter for every pixel
        elbo_untied = self.log_likelihood(untied) - self.P * layer.kl()
        assert_mean(self.objective("outputs") - elbo_untied, (self.P - 1) * layer.kl())

    @torch.no_grad()
    def test_only_exact_weights_stay_below_the_evidence(self):
        evidence = Normal(0.0, math.sqrt(1 + self.noise**2)).log_prob(torch.tensor(self.y).double())
        torch.manual_seed(0)
        for sampling in EXACT:
            elbo = self.objective(sampling)
            assert elbo.mean() + 5 * elbo.std() / math.sqrt(len(elbo)) < evidence
        exact = self.exact_elbo()
        assert_mean(self.objective("explicit"), exact)
        assert self.objective("outputs").mean() > exact + 1  # too high by far more than its error

    def exact_elbo(self) -> Tensor:
        layer = self.layer("explicit")
        mean, var = layer.weight_mean.squeeze(), layer.weight_log_var.exp().squeeze()
        expected = Normal(mean, self.noise).log_prob(torch.tensor(self.y).double())
        return expected - var / self.noise**2 / 2 - layer.kl()

    @torch.no_grad()
    def test_objective_of_untied_pixels_can_exceed_the_evidence_itself(self):
        """With a broad posterior: the mean of many independent pixels hardly varies, and costs one KL."""
        p = 64
        layer = layers.MeanFieldConv2d(1, 1, 1, bias=False, sampling="outputs")
        set_(layer, weight_mean=1.0, weight_log_var=0.0)
        torch.manual_seed(0)
        likelihood = MultivariateNormal(torch.zeros(3).double(), (1 + 0.09 * torch.eye(3)).double())
        y = torch.full((3,), 1.0).double()  # three observations of one weight
        pixels = draws(layer, torch.ones(1, 8, 8).double(), 20_000).view(-1, p)
        objective = Normal(pixels.mean(-1, keepdim=True), 0.3).log_prob(y).sum(-1) - layer.kl()
        evidence = likelihood.log_prob(y)
        assert objective.mean() - 5 * objective.std() / math.sqrt(len(objective)) > evidence


# geometry of the other convolutions


@pytest.mark.parametrize("sampling", ["outputs", "explicit", "flipped", "shared"])
@pytest.mark.parametrize(
    ("ours", "theirs", "options", "shape"),
    [
        ((layers.MNFConv1d, layers.MeanFieldConv1d), nn.Conv1d, {"stride": 2, "padding": 1}, (9,)),
        ((layers.MNFConv1d, layers.MeanFieldConv1d), nn.Conv1d, {"padding": "same", "dilation": 2}, (9,)),
        ((layers.MNFConv3d, layers.MeanFieldConv3d), nn.Conv3d, {"padding": (0, 1, 2)}, (4, 5, 4)),
        ((layers.MNFConv2d, layers.MeanFieldConv2d), nn.Conv2d, {"groups": 2, "dilation": 2}, (7, 6)),
        (
            (layers.MNFConv2d, layers.MeanFieldConv2d),
            nn.Conv2d,
            {"padding": 2, "padding_mode": "reflect"},
            (5, 6),
        ),
        (
            (layers.MNFConv2d, layers.MeanFieldConv2d),
            nn.Conv2d,
            {"padding": "same", "padding_mode": "circular"},
            (5, 6),
        ),
        (
            (layers.MNFConvTranspose2d, layers.MeanFieldConvTranspose2d),
            nn.ConvTranspose2d,
            {"stride": 2, "padding": 1, "output_padding": 1},
            (4, 5),
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("maps", [4, 24])
@torch.no_grad()
def test_other_geometries_without_noise_are_those_of_torch(ours, theirs, options, shape, maps, sampling):
    torch.manual_seed(0)
    reference = theirs(2, maps, 3, **options).double()
    x = torch.randn(3, 2, *shape).double()
    for kind in ours:
        without = {"n_flows_q": 0} if "MNF" in kind.__name__ else {}
        layer = kind(2, maps, 3, sampling=sampling, **options, **without)
        set_(layer, weight_mean=reference.weight, bias_mean=reference.bias)
        set_(layer, weight_log_var=-200.0, bias_log_var=-200.0)
        if without:
            set_(layer, q0_mean=1.0, q0_log_var=-200.0)
        assert (layer(x) - reference(x)).abs().max() < 1e-12
        assert (layer(x[0]) - reference(x[0])).abs().max() < 1e-12
        assert (layer.plain()(x) - reference(x)).abs().max() < 1e-12
        assert (layer.mean_layer()(x) - reference(x)).abs().max() < 1e-12
        assert reference.extra_repr() in repr(layer)


@torch.no_grad()
def test_z_scales_whole_feature_maps_of_every_convolution():
    kinds = [(layers.MNFConv1d, (9,)), (layers.MNFConv3d, (4, 4, 4)), (layers.MNFConvTranspose2d, (4, 4))]
    for kind, shape in kinds:
        layer = set_(kind(2, 3, 2, bias=False), weight_log_var=-200.0)
        assert len(layer.q0_mean) == 3
        one, other = (layer(torch.ones(1, 2, *shape).double()).flatten(2)[0] for _ in range(2))
        ratio = one / other
        assert (ratio - ratio[:, :1]).abs().max() < 1e-9
        assert len(ratio[:, 0].unique()) == 3


def test_transposed_filters_start_scaled_by_what_an_output_reads():
    torch.manual_seed(0)
    layer = layers.MNFConvTranspose2d(40, 100, 3)
    assert abs(layer.weight_mean.std() / math.sqrt(2 / (40 * 9)) - 1) < 0.05
    assert layer.bias_mean.shape == (100,)
    assert F.conv_transpose2d(torch.ones(1, 40, 4, 4), layer.weight_mean).shape == (1, 100, 6, 6)
