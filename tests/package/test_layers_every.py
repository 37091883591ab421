"""What every layer promises. A new layer is found here by itself."""

import pytest
import torch
from torch import Tensor, nn

from mnf_lite import layers
from tests.package.layer_zoo import assert_mean, every_kind, set_

WAYS = ("outputs", "weights", "explicit", "flipped", "shared")
CERTAIN = -200.0  # a log variance of hardly any variance
EACH = [
    pytest.param(kind, way, id=f"{kind.__name__}-{way}")
    for kind in every_kind()
    for way in (WAYS if hasattr(kind, "pixels") else (None,))
]


def made(kind: type[layers.BayesianLayer], way: str | None) -> layers.BayesianLayer:
    """Any layer, with a bias that is not 0 and an odd geometry where it has one."""
    torch.manual_seed(0)
    sizes = (2, 3, 2) if hasattr(kind, "pixels") else (2, 3)
    options = {} if way is None else {"sampling": way, "stride": 2, "padding": 1}
    options |= {"n_flows_q": 0} if "MNF" in kind.__name__ else {}
    options |= {"output_padding": 1} if "Transpose" in kind.__name__ else {}
    layer = kind(*sizes, **options)
    return set_(layer, bias_mean=torch.linspace(-1, 1, 3), weight_log_var=CERTAIN, bias_log_var=CERTAIN)


def image(layer: layers.BayesianLayer, n: int) -> Tensor:
    """One input, ``n`` times."""
    torch.manual_seed(1)
    shape = (2, *[5 + k for k in range(len(getattr(layer, "pixels", ())))])
    return torch.randn(shape, dtype=torch.double).expand(n, *shape)


def twin(layer: layers.BayesianLayer, weight: Tensor) -> nn.Module:
    """Torch's own layer with this weight and the bias's mean, its geometry named anew."""
    name = type(layer).__name__.removeprefix("MNF").removeprefix("MeanField")
    options = {"stride": 2, "padding": 1} if "Conv" in name else {}
    options |= {"output_padding": 1} if "Transpose" in name else {}
    plain = getattr(nn, name)(*((2, 3, 2) if "Conv" in name else (2, 3)), **options).double()
    plain.load_state_dict({"weight": weight, "bias": layer.bias_mean})
    return plain


@pytest.mark.parametrize(("kind", "way"), EACH)
@torch.no_grad()
def test_a_layer_that_is_certain_computes_what_torchs_layer_computes(kind, way):
    layer = made(kind, way)
    weight = layer.weight_mean
    if "MNF" in kind.__name__:
        set_(layer, q0_mean=torch.arange(1.0, 1 + len(layer.q0_mean)), q0_log_var=CERTAIN)
        # z scales the inputs of a dense layer and the maps that a convolution gives
        axis = 1 if "Linear" in kind.__name__ or "Transpose" in kind.__name__ else 0
        shape = [1] * weight.ndim
        shape[axis] = -1
        assert layer.q0_mean.numel() == weight.shape[axis]
        weight = weight * layer.q0_mean.view(shape)
    x = image(layer, 3)
    torch.testing.assert_close(layer(x), twin(layer, weight)(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "way"), EACH)
@torch.no_grad()
def test_the_noise_of_weights_and_bias_is_in_every_output(kind, way):
    layer = made(kind, way)
    weights = torch.linspace(-2, 0, layer.weight_log_var.numel()).view(layer.weight_log_var.shape)
    set_(layer, weight_mean=0.0, weight_log_var=weights, bias_log_var=torch.linspace(-1, 1, 3))
    if "MNF" in kind.__name__:
        set_(layer, q0_log_var=CERTAIN)
    n = 3000
    x = image(layer, n)
    # some ways draw one noise for all examples of a call
    y = layer(x) if way in (None, "outputs", "explicit") else torch.cat([layer(x[:1]) for _ in range(n)])
    # the variance of a sum of independent numbers, by torch's layer on squares
    squares = twin(layer, layer.weight_log_var.exp())
    squares.bias.copy_(layer.bias_log_var.exp())
    expected = squares(x[:1].square())[0]
    assert_mean(y, twin(layer, layer.weight_mean)(x[:1])[0])
    assert_mean((y - y.mean(0)).square(), expected, sigmas=6)
