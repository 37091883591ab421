"""Whole networks: Bayesian twins, the plain networks that are draws from them, sums of divergences."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from mnf_lite import layers
from tests.package.layer_zoo import assert_mean, stir

TWINS = {
    "mnf": (layers.MNFLinear, layers.MNFConv2d),
    "mean-field": (layers.MeanFieldLinear, layers.MeanFieldConv2d),
}
both = pytest.mark.parametrize("posterior", TWINS)


class Net(nn.Module):
    """A layer in two places, a nested block, and modules that stay what they are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, (3, 2), stride=2, padding=1, dilation=(1, 2), bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.block = nn.ModuleDict({"shared": nn.Linear(4, 4), "list": nn.ModuleList([nn.Dropout(0.5)])})
        self.again = self.block["shared"]
        self.head = nn.Linear(4, 2, bias=False)

    def forward(self, x):
        h = self.norm(self.conv(x)).mean((-1, -2))
        h = self.block["list"][0](self.block["shared"](h))
        return self.head(self.again(h))


@both
def test_twin_takes_over_means_geometry_and_everything_else(posterior):
    net = Net().double().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    twin = layers.bayesian(net, posterior, prior_std=0.5)
    linear, conv = TWINS[posterior]
    assert type(twin) is Net
    assert type(twin.conv) is conv
    assert type(twin.head) is linear
    assert twin.conv.extra_repr() == net.conv.extra_repr() + ", prior_std=0.5"
    assert twin.again is twin.block["shared"]
    assert type(twin.again) is linear
    for ours, theirs in ((twin.conv, net.conv), (twin.again, net.again), (twin.head, net.head)):
        assert torch.equal(ours.weight_mean, theirs.weight)
        assert ours.weight_mean.data_ptr() != theirs.weight.data_ptr()
        assert (ours.bias_mean is None) == (theirs.bias is None)
        assert ours.weight_log_var.dtype == torch.float64
        assert not ours.training
    assert torch.equal(twin.again.bias_mean, net.again.bias)
    assert torch.equal(twin.norm.weight, net.norm.weight)
    assert twin.norm is not net.norm
    assert twin(torch.randn(5, 1, 8, 8).double()).shape == (5, 2)
    after = net.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_twin_passes_options_on():
    twin = layers.bayesian(
        nn.Linear(3, 2), "mnf", n_flows_q=1, n_flows_r=3, hidden=(7,), auxiliary="published"
    )
    assert isinstance(twin, layers.MNFLinear)
    assert len(twin.flow_q) == 1
    assert len(twin.flow_r) == 3


@both
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), (9,)),
        (nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular"), (5, 6)),
        (nn.Conv2d(4, 4, 3, padding="same", groups=4, bias=False), (5, 6)),
        (nn.Conv3d(2, 4, 2), (4, 4, 4)),
        (nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, dilation=2), (4, 5)),
    ],
    ids=str,
)
@torch.no_grad()
def test_twin_of_any_convolution_has_its_geometry_and_its_means(layer, shape, posterior):
    twin = layers.bayesian(layer, posterior)
    assert torch.equal(twin.weight_mean, layer.weight)
    assert layer.extra_repr() in twin.extra_repr()
    twin.weight_log_var.fill_(-200.0)
    if layer.bias is not None:
        assert torch.equal(twin.bias_mean, layer.bias)
        twin.bias_log_var.fill_(-200.0)
    if posterior == "mnf":
        twin.q0_log_var.fill_(-200.0)
        z = twin.sample_z(1)[0][0]
        twin.weight_mean.div_(twin.along_z(z))
    x = torch.randn(3, layer.in_channels, *shape)
    assert torch.allclose(twin(x), layer(x), atol=1e-5)
    assert torch.allclose(layers.mean_network(twin)(x), layer(x), atol=1e-5)


def test_twin_of_a_subclass_that_computes_what_torch_does_is_random():
    class Named(nn.Linear):
        """A linear layer with a name of its own."""

    twin = layers.bayesian(nn.Sequential(Named(3, 2)))
    assert isinstance(twin[0], layers.MNFLinear)


class Doubled(nn.Linear):
    """A linear layer that computes something else."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_twin_refuses_a_subclass_that_computes_something_else_and_says_its_name():
    net = nn.Sequential(nn.Linear(2, 3), nn.Sequential(Doubled(3, 2)))
    with pytest.raises(
        ValueError, match=r"1\.0 \(Doubled\) .* its forward is not that of nn\.Linear; .* only="
    ):
        layers.bayesian(net)
    twin = layers.bayesian(net, only=lambda name, layer: type(layer) is nn.Linear)
    assert layers.summary(twin) == {"random": {"0": "MNFLinear"}, "deterministic": {"1.0": "Doubled"}}


def test_layers_are_chosen_by_name_by_block_or_by_a_function():
    net = Net()
    assert layers.summary(layers.bayesian(net, only="head"))["random"] == {"head": "MNFLinear"}
    chosen = layers.summary(layers.bayesian(net, "mean-field", only=["block", "conv"]))["random"]
    assert chosen == {"conv": "MeanFieldConv2d", "block.shared": "MeanFieldLinear"}
    by_size = layers.bayesian(net, only=lambda name, layer: getattr(layer, "out_features", 0) == 2)
    assert layers.summary(by_size)["random"] == {"head": "MNFLinear"}
    by_its_other_name = layers.bayesian(net, only="again")  # one layer in two places
    assert by_its_other_name.again is by_its_other_name.block["shared"]
    assert isinstance(by_its_other_name.again, layers.MNFLinear)
    with pytest.raises(ValueError, match=r"only names \['heart'\], but the module has \['conv'"):
        layers.bayesian(net, only=["head", "heart"])


def test_summary_says_what_stayed_deterministic():
    found = layers.summary(layers.bayesian(Net()))
    assert found["random"] == {"conv": "MNFConv2d", "block.shared": "MNFLinear", "head": "MNFLinear"}
    assert found["deterministic"] == {"norm": "BatchNorm2d"}
    assert layers.summary(nn.LSTM(2, 2)) == {"random": {}, "deterministic": {"": "LSTM"}}


@pytest.mark.parametrize("net", [nn.Sequential(nn.ReLU()), nn.LSTM(2, 2), layers.MNFLinear(2, 2)], ids=str)
def test_twin_of_what_has_nothing_to_convert_is_refused(net):
    with pytest.raises(ValueError, match=r"nothing to convert in .* nn\.Linear, nn\.Conv1d"):
        layers.bayesian(net)


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (nn.LazyLinear(2), r"the module \(LazyLinear\) .* run one batch through the network first"),
        (nn.Sequential(nn.LazyConv2d(2, 3)), r"0 \(LazyConv2d\) .* run one batch"),
        (nn.Sequential(nn.ConvTranspose1d(2, 2, 3)), r"0 \(ConvTranspose1d\) .* only nn\.ConvTranspose2d"),
        (nn.ConvTranspose2d(2, 4, 3, groups=2), r"needs groups=1, got 2"),
        (nn.MultiheadAttention(4, 2), r"MultiheadAttention\) .* as bare parameters"),
        (nn.TransformerEncoderLayer(4, 2, 8), r"self_attn \(MultiheadAttention\)"),
    ],
    ids=str,
)
def test_twin_refuses_by_name_what_it_cannot_convert(net, said):
    with pytest.raises(ValueError, match=said):
        layers.bayesian(net)


def test_layers_that_a_transformer_reads_without_calling_are_refused_even_if_chosen():
    net = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8), nn.Linear(4, 2))
    for name, reader in (("0.linear1", "TransformerEncoderLayer"), ("0.self_attn.out_proj", "Multihead")):
        with pytest.raises(ValueError, match=f"{name} .* nn.{reader}.* reads its weights without calling it"):
            layers.bayesian(net, only=name)
    twin = layers.bayesian(net, only="1")
    for mode in (True, False):
        with torch.no_grad():
            assert twin.train(mode)(torch.ones(3, 5, 4)).shape == (3, 5, 2)


@both
def test_options_go_to_the_layers_that_have_them(posterior):
    twin = layers.bayesian(Net(), posterior, sampling="flipped", prior_std="learned")
    assert twin.conv.sampling == "flipped"
    assert isinstance(twin.head.prior_std, torch.Tensor)
    with pytest.raises(
        TypeError, match=r"take the options \[.*'prior_std', 'sampling'.*\], got \['samples'\]"
    ):
        layers.bayesian(Net(), posterior, samples="flipped")
    if posterior == "mean-field":
        with pytest.raises(TypeError, match=r"got \['n_flows_q'\]"):
            layers.bayesian(Net(), posterior, n_flows_q=0)


# the mean network


@both
@torch.no_grad()
def test_mean_network_has_the_means_of_drawn_weights(posterior):
    options = {"n_flows_q": 0} if posterior == "mnf" else {}
    layer = stir(layers.bayesian(nn.Linear(3, 2), posterior, **options))
    mean, (w, b) = layers.mean_network(layer), layer.sample_weights(100_000)
    assert_mean(w, mean.weight)
    assert_mean(b, mean.bias)


@torch.no_grad()
def test_mean_network_of_bent_z_is_made_of_draws_that_the_seed_fixes():
    layer = stir(layers.MNFLinear(3, 2))
    torch.manual_seed(0)
    mean = layers.mean_network(layer, 50_000)
    torch.manual_seed(0)
    assert torch.equal(layers.mean_network(layer, 50_000).weight, mean.weight)
    torch.manual_seed(0)
    assert torch.allclose(mean.weight, layer.sample_z(50_000)[0].mean(0) * layer.weight_mean)
    assert_mean(layer.sample_weights(50_000)[0], mean.weight, sigmas=8)


@both
def test_mean_network_is_plain_keeps_the_mode_and_leaves_the_model_as_it_was(posterior):
    model = layers.bayesian(Net().eval(), posterior)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    mean = layers.mean_network(model)
    assert repr(mean) == repr(Net())
    assert not any(m.training for m in mean.modules())
    assert mean.again is mean.block["shared"]
    with torch.no_grad():
        for p in mean.parameters():
            p.zero_()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert set(layers.summary(mean)["random"]) == set()


@both
def test_mean_network_can_be_traced_and_exported(posterior):
    net = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    mean = layers.mean_network(layers.bayesian(net, posterior)).eval()
    x = torch.randn(4, 1, 3, 3)
    exported = torch.export.export(mean, (x,)).module()
    assert torch.allclose(exported(x), mean(x))
    operations = {str(node.target) for node in torch.export.export(mean, (x,)).graph.nodes}
    assert not any("rand" in operation for operation in operations)


def test_twin_of_a_network_that_is_bayesian_already_is_a_copy():
    model = nn.Sequential(layers.MNFLinear(3, 2), nn.Linear(2, 2))
    twin = layers.bayesian(model, "mean-field")
    assert isinstance(twin[0], layers.MNFLinear)
    assert twin[0] is not model[0]
    assert torch.equal(twin[0].weight_mean, model[0].weight_mean)
    assert isinstance(twin[1], layers.MeanFieldLinear)


def test_twin_refuses_unknown_posteriors():
    with pytest.raises(ValueError, match="one of 'mean-field', 'mnf', got 'full'"):
        layers.bayesian(nn.Linear(2, 2), "full")


def test_twin_refuses_what_is_no_module():
    with pytest.raises(TypeError, match=r"module must be an nn\.Module, got list"):
        layers.bayesian([nn.Linear(2, 2)])


@both
def test_plain_is_a_draw_that_owns_its_weights(posterior):
    model = layers.bayesian(Net().double().eval(), posterior)
    torch.manual_seed(0)
    one, two = layers.plain(model), layers.plain(model)
    assert type(one.conv) is nn.Conv2d
    assert type(one.head) is nn.Linear
    assert one.again is one.block["shared"]
    assert repr(one) == repr(Net())
    assert not any(isinstance(m, layers.BayesianLayer) for m in one.modules())
    assert not any(m.training for m in one.modules())
    assert {p.dtype for p in one.parameters()} == {torch.float64}
    assert all(p.requires_grad and p.is_leaf for p in one.parameters())
    for a, b in ((one.conv, two.conv), (one.head, two.head), (one.again, two.again)):
        assert not torch.equal(a.weight, b.weight)
    x = torch.randn(3, 1, 8, 8).double()
    assert torch.equal(one(x), one(x))
    assert not torch.equal(one(x), two(x))


@both
def test_plain_is_the_draw_that_sample_weights_gives(posterior):
    model = stir(layers.bayesian(nn.Linear(3, 2), posterior))
    torch.manual_seed(4)
    drawn = layers.plain(model)
    torch.manual_seed(4)
    w, b = model.sample_weights(1)
    assert torch.equal(drawn.weight, w[0])
    assert torch.equal(drawn.bias, b[0])


@both
@torch.no_grad()
def test_stacked_draws_run_through_a_plain_twin(posterior):
    model = nn.Sequential(
        layers.bayesian(nn.Conv2d(1, 3, 2), posterior), nn.Flatten(), nn.Linear(12, 2)
    ).double()
    x, (w, b) = torch.randn(4, 1, 3, 3).double(), model[0].sample_weights(5)
    network = layers.plain(model)
    y = vmap(lambda w, b: functional_call(network, {"0.weight": w, "0.bias": b}, (x,)))(w, b)
    assert y.shape == (5, 4, 2)
    expected = model[2](nn.functional.conv2d(x, w[3], b[3]).flatten(1))
    assert torch.allclose(y[3], expected)


def test_kl_divergence_sums_over_layers_and_counts_a_shared_one_once():
    shared = layers.MeanFieldLinear(3, 3)
    model = nn.Sequential(
        shared, nn.ReLU(), nn.Sequential(shared, layers.MeanFieldConv2d(1, 2, 3)), nn.Linear(2, 2)
    )
    assert torch.isclose(layers.kl_divergence(model), shared.kl() + model[2][1].kl())
    assert torch.equal(layers.kl_divergence(shared), shared.kl())


@torch.no_grad()
def test_kl_divergence_draws_every_layer_for_itself():
    model = nn.Sequential(layers.MNFLinear(3, 3), layers.MNFConv2d(1, 2, 3)).double()
    torch.manual_seed(0)
    total = torch.stack([layers.kl_divergence(model) for _ in range(500)])
    parts = [layer.kl_samples(50_000) for layer in model]
    assert_mean(total, sum(part.mean() for part in parts))
    assert 0.6 < total.var() / sum(part.var() for part in parts) < 1.6


def test_parts_of_the_kl_sum_over_layers_to_the_whole():
    model = nn.Sequential(layers.MNFLinear(3, 3), nn.ReLU(), layers.MeanFieldLinear(3, 2)).double()
    torch.manual_seed(0)
    whole = layers.kl_divergence(model)
    torch.manual_seed(0)
    parts = layers.kl_parts(model)
    total = parts["weights"] + parts["bias"] + parts["log_q"] - parts["log_r"]
    assert torch.allclose(total, whole, rtol=1e-12)
    assert {part.dtype for part in parts.values()} == {torch.float64}
    assert [part.item() for part in layers.kl_parts(nn.Linear(2, 2)).values()] == [0, 0, 0, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_divergence_is_a_scalar_of_the_models_dtype_with_gradient(dtype):
    model = nn.Sequential(layers.MNFLinear(3, 3), layers.MeanFieldLinear(3, 2)).to(dtype)
    kl = layers.kl_divergence(model)
    assert kl.shape == ()
    assert kl.dtype == dtype
    kl.backward()
    assert model[1].weight_mean.grad is not None
    none = layers.kl_divergence(nn.Linear(2, 2).to(dtype))
    assert none == 0
    assert none.dtype == dtype
    assert layers.kl_divergence(nn.ReLU()) == 0
