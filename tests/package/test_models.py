"""The networks of the book: sizes, shapes, what they refuse, and their files."""

import pytest
import torch
from torch import nn

from mnf_lite import layers, likelihoods, models, predict
from mnf_lite.files import save_tensors

KINDS = [models.LeNet, models.MNFLeNet, models.MeanFieldLeNet, models.DropoutLeNet]
SMALL = (2, 3, 4, 5)


def trainable(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def test_parameter_counts_are_the_published_ones():
    assert trainable(models.LeNet()) == 258_582
    assert trainable(models.MNFLeNet(auxiliary="published")) == 697_020
    assert trainable(models.MNFLeNet()) == 416_020  # no flow in r(z|W)


@pytest.mark.parametrize("kind", KINDS)
def test_lenet_maps_images_to_logits_at_any_widths(kind):
    for widths in (SMALL, (2, 3, 5), (2, 3, 4, 4, 5)):
        assert kind(widths)(torch.rand(6, 1, 28, 28)).shape == (6, 5)


def test_mnf_lenet_takes_the_widths_of_the_paper():
    model = models.MNFLeNet((20, 50, 500, 10))
    assert [layer.out_features for layer in model.dense] == [500, 10]
    assert all(isinstance(layer, layers.MNFLinear) for layer in model.dense)


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_gets_a_gradient(kind):
    model = kind((4, 8, 16, 5))  # wide enough that no layer is dead for all images, whatever was drawn
    (model(torch.rand(64, 1, 28, 28)).square().mean() + layers.kl_divergence(model)).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.rand(2, 3, 28, 28), ValueError, r"\[B, 1, 28, 28\], got \[2, 3, 28, 28\]"),
        (torch.rand(2, 1, 32, 32), ValueError, r"got \[2, 1, 32, 32\]"),
        (torch.rand(28, 28), ValueError, r"got \[28, 28\]"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), TypeError, "uint8"),
    ],
)
def test_lenet_says_what_images_it_expected(kind, x, error, message):
    with pytest.raises(error, match=message):
        kind(SMALL)(x)


def test_pooling_is_the_same_with_and_without_gradients():
    model, x = models.LeNet(SMALL), torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        quick = model(x)
    torch.testing.assert_close(model(x), quick)  # with gradients the channels lie last: other rounding


@pytest.mark.parametrize("widths", [(2, 3), (2, 0, 4, 5), (2, 3, 4.0, 5)])
def test_lenet_refuses_widths_that_make_no_network(widths):
    with pytest.raises(ValueError, match="widths must be at least three positive integers"):
        models.LeNet(widths)


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_dropout_probability_is_checked(p):
    with pytest.raises(ValueError, match="in \\[0, 1\\)"):
        models.DropoutLeNet(SMALL, p=p)


def test_dropout_stays_on_in_evaluation_mode_with_a_mask_for_every_image():
    model = models.DropoutLeNet((8, 16, 32, 10), p=0.5).eval()
    y = model(torch.rand(1, 1, 28, 28).expand(2, -1, -1, -1))
    assert not torch.allclose(y[0], y[1])


def test_dropout_keeps_the_mean_and_drops_the_stated_fraction():
    z = models.DropoutLinear(50, 2, p=0.3).sample_z(20_000)
    assert z.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert (z == 0).double().mean().item() == pytest.approx(0.3, abs=0.005)
    assert z.mean().item() == pytest.approx(1, abs=0.01)


def test_dropout_weights_are_the_masked_columns():
    layer = models.DropoutConv2d(6, 2, 3, p=0.5)
    w, b = layer.sample_weights(4)
    ratio = w / layer.weight  # [n, out, in, k, k]
    assert torch.allclose(ratio, ratio[:, :1, :, :1, :1].expand_as(ratio))
    assert sorted(ratio.round().unique().tolist()) == [0, 2]
    assert torch.equal(b, layer.bias.expand(4, -1))


def test_dropout_in_training_is_the_same_distribution_as_drawn_weights():
    torch.manual_seed(0)
    layer, x = models.DropoutLinear(5, 1, p=0.4), torch.rand(5)
    by_mask = layer(x.expand(40_000, -1))[:, 0]
    w, b = layer.sample_weights(40_000)
    by_weights = (w @ x + b)[:, 0]
    assert by_mask.mean().item() == pytest.approx(by_weights.mean().item(), abs=0.02)
    assert by_mask.var().item() == pytest.approx(by_weights.var().item(), rel=0.05)


def test_mnf_mlp_has_a_noise_for_every_output_or_none():
    model = models.MNFMLP((3, 4, 2), noise_std=0.5)
    assert model.noise_std.tolist() == pytest.approx([0.5, 0.5])
    assert model.noise_log_var.requires_grad
    assert model(torch.rand(7, 3)).shape == (7, 2)
    assert models.MNFMLP((3, 4, 2), noise_std=None).noise_std is None
    assert repr(model.likelihood) == "Gaussian(outputs=2)"
    assert model.likelihood.noise_log_var is model.noise_log_var
    assert next(iter(model.state_dict())) == "noise_log_var"
    assert repr(models.MNFMLP((3, 2), noise_std=None).likelihood) == "Categorical()"


@pytest.mark.parametrize(
    "arguments", [{"sizes": (3,)}, {"sizes": (3, 0)}, {"sizes": (3, 2), "noise_std": 0.0}]
)
def test_mnf_mlp_refuses_what_makes_no_network(arguments):
    with pytest.raises(ValueError, match="must be"):
        models.MNFMLP(**arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_the_likelihood_of_an_image_model_is_categorical_and_no_layer(kind):
    model = kind(SMALL)
    assert isinstance(model.likelihood, likelihoods.Categorical)
    assert "Categorical" not in repr(model)
    model.likelihood = likelihoods.Bernoulli()  # one may say otherwise
    assert isinstance(model.likelihood, likelihoods.Bernoulli)


@pytest.mark.parametrize("geometry", [(2,), (1, 1), (1, 0, 2), (2, 1, 1, 2), (3, 2, 2, 1, False, "circular")])
def test_the_plain_twin_of_a_dropout_convolution_has_its_geometry(geometry):
    bias = not isinstance(geometry[-1], str)
    named = dict(
        zip(("stride", "padding", "dilation", "groups", "bias", "padding_mode"), geometry, strict=False)
    )
    layer, x = models.DropoutConv2d(2, 4, 3, **named, p=0.5), torch.rand(1, 2, 9, 9)
    assert (layer.bias is not None) is bias
    for z in torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]], [[2.0, 2.0]]]):
        layer.sample_z = lambda n, z=z: z
        assert torch.allclose(layer.plain()(x), layer(x), atol=1e-6)


def test_a_dropout_convolution_with_a_stride_has_the_plain_size():
    layer = models.DropoutConv2d(2, 3, 3, 2, p=0.5)
    assert layer(torch.rand(1, 2, 9, 9)).shape == layer.plain()(torch.rand(1, 2, 9, 9)).shape == (1, 3, 4, 4)


def test_dropout_without_a_bias_has_plain_twins_and_predictions():
    layer = models.DropoutLinear(3, 2, bias=False, p=0.5)
    assert layer.plain().bias is None
    assert layer.sample_weights(4)[1] is None
    assert predict(layer, torch.rand(5, 3), 7, likelihoods.Gaussian()).shape == (7, 5, 2)


def test_dropout_drops_features_along_their_own_axis():
    layer = models.DropoutLinear(4, 4, bias=False, p=0.5)
    nn.init.eye_(layer.weight)
    y = layer(torch.ones(2, 4, 4))  # [batch, time, features]: one mask for all times of an example
    assert torch.equal(y, y[:, :1].expand_as(y))


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_loads_with_its_options(kind, tmp_path):
    options = {models.DropoutLeNet: {"p": 0.4}, models.LeNet: {}}.get(kind, {"prior_std": 0.7})
    model = kind(SMALL, **options)
    models.save(model, tmp_path / "m.safetensors")
    loaded = models.load(tmp_path / "m.safetensors")
    assert repr(loaded) == repr(model)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_a_saved_perceptron_loads_with_its_noise_and_activation(tmp_path):
    model = models.MNFMLP((1, 4, 2), noise_std=0.3, activation=nn.Tanh, hidden=(7,))
    models.save(model, tmp_path / "m.safetensors")
    loaded = models.load(tmp_path / "m.safetensors")
    assert repr(loaded) == repr(model)
    assert torch.equal(loaded.noise_log_var, model.noise_log_var)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(3, 2),
        lambda: layers.bayesian(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten())),
        lambda: models.MNFMLP((3, 2), activation=lambda: nn.Softplus(2.0)),
        lambda: nn.Sequential(nn.Linear(3, 2), likelihoods.Gaussian(2)),
    ],
)
def test_any_network_is_saved_and_loaded_into_one_made_in_the_same_way(make, tmp_path):
    model, path = make(), tmp_path / "m.safetensors"
    models.save(model, path)
    with pytest.raises(ValueError, match=rf"weights of a {type(model).__name__}.*, into=network\)"):
        models.load(path)
    into = make()
    assert models.load(path, into=into) is into
    assert not into.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(into.state_dict()[name], tensor), name
    with pytest.raises(ValueError, match="another model's than those of LeNet"):
        models.load(path, into=models.LeNet(SMALL))


def test_load_says_what_is_wrong_with_a_file(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        models.load(path)
    models.save(models.LeNet(SMALL), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        models.load(path)
    path.write_bytes(b"not weights at all")
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        models.load(path)
    save_tensors(path, {"a": torch.ones(1)}, {"run": 1})
    with pytest.raises(ValueError, match="does not hold the weights of one of lenet"):
        models.load(path)
    save_tensors(
        path, models.LeNet(SMALL).state_dict(), {"model": "mnf-lenet", "settings": {"widths": SMALL}}
    )
    with pytest.raises(ValueError, match="another model"):
        models.load(path)


def test_mean_network_of_dropout_drops_nothing():
    model = models.DropoutLeNet((4, 8, 16, 5), p=0.5)
    mean = layers.mean_network(model)
    x = torch.rand(3, 1, 28, 28)
    assert not any(isinstance(m, models.DropoutLinear | models.DropoutConv2d) for m in mean.modules())
    torch.testing.assert_close(mean(x), mean(x), rtol=0, atol=0)
    torch.testing.assert_close(mean.dense[0].weight, model.dense[0].weight, rtol=0, atol=0)
