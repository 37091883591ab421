"""The networks of the book: one LeNet in four readings of its weights, and a multilayer perceptron."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite._inputs import unwrapped
from mnf_lite.files import load_tensors, save_tensors
from mnf_lite.layers import MeanFieldConv2d, MeanFieldLinear, MNFConv2d, MNFLinear
from mnf_lite.layers.base import filled
from mnf_lite.layers.conv import Sampling
from mnf_lite.likelihoods import Categorical, Gaussian, Likelihood

SIDE = 28  # pixels; 28 -> 24 -> 12 -> 8 -> 4 through two 5x5 convolutions and two 2x2 pools


class _LeNet(nn.Module):
    """Two 5x5 convolutions with 2x2 max pools, then dense layers; subclasses say what a layer is."""

    def __init__(
        self,
        widths: Sequence[int],
        conv: Callable[..., nn.Module],
        linear: Callable[..., nn.Module],
    ) -> None:
        super().__init__()
        _check_sizes(
            widths,
            "widths",
            3,
            "at least three positive integers (two convolutions, then dense layers, the last one the number "
            "of classes)",
        )
        # what the constructor needs to make this model again
        self.settings: dict[str, Any] = {"widths": list(widths)}
        # beside the layers, not among them: it has no place in the repr or in a file of weights
        self.__dict__["likelihood"] = Categorical()
        maps_1, maps_2, *dense = widths
        self.conv1 = conv(1, maps_1, 5)
        self.conv2 = conv(maps_1, maps_2, 5)
        self.dense = nn.ModuleList(linear(i, o) for i, o in pairwise([maps_2 * 4 * 4, *dense]))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1:] != (1, SIDE, SIDE):
            raise ValueError(f"images must have shape [B, 1, {SIDE}, {SIDE}], got {list(x.shape)}")
        if not x.is_floating_point():
            raise TypeError(f"images must be floating point in [0, 1], got {x.dtype}")
        if torch.is_grad_enabled():  # a pool that keeps track of gradients is faster with channels last
            x = x.clone(memory_format=torch.channels_last)
        # The pool before the ReLU: the same numbers (both are monotone), a quarter of the work.
        h = F.relu(_max_pool(self.conv1(x)))  # [B, 1, 28, 28] -> [B, C1, 12, 12]
        h = F.relu(_max_pool(self.conv2(h)))  # -> [B, C2, 4, 4]
        h = h.flatten(1)  # -> [B, 16 C2]
        for layer in self.dense[:-1]:
            h = F.relu(layer(h))
        logits: Tensor = self.dense[-1](h)
        return logits


def _max_pool(x: Tensor) -> Tensor:
    """Maxima over squares of 2x2 pixels."""
    if torch.is_grad_enabled():
        return F.max_pool2d(x, 2)
    # Ten times as fast on a CPU, but only without a gradient: half of a prediction was spent in max_pool2d.
    x = torch.maximum(x[..., ::2, :], x[..., 1::2, :])
    return torch.maximum(x[..., ::2], x[..., 1::2])


class LeNet(_LeNet):
    """LeNet-5 with ReLUs: one set of weights, and so one opinion.

    Args:
        widths: feature maps of the two convolutions, then sizes of the dense layers, the last of them the
            number of classes. The default has 258,582 trainable parameters.

    Shape:
        ``[B, 1, 28, 28] -> [B, classes]`` logits

    Raises:
        ValueError: fewer than three widths, a width below 1, images of another shape.
        TypeError: integer images.

    Source:
        LeCun et al. (1998), https://doi.org/10.1109/5.726791.

    Example:
        >>> LeNet()(torch.zeros(4, 1, 28, 28)).shape
        torch.Size([4, 10])
    """

    def __init__(self, widths: Sequence[int] = (32, 48, 256, 84, 10)) -> None:
        super().__init__(widths, nn.Conv2d, nn.Linear)


class MNFLeNet(_LeNet):
    """LeNet with a multiplicative normalizing flow posterior over every weight.

    Args:
        widths: as in ``LeNet``. The paper's is (20, 50, 500, 10).
        n_flows_q, n_flows_r, hidden, prior_std, auxiliary: as in ``layers.MNFLinear``.
        sampling: of the convolutions, as in ``layers.MNFConv2d``.

    Shape:
        ``[B, 1, 28, 28] -> [B, classes]`` logits, with weights of its own for every image (see ``sampling``)

    Raises:
        ValueError, TypeError: as ``LeNet`` and ``layers.MNFLinear``.

    Source:
        Louizos and Welling (2017), https://arxiv.org/abs/1703.01961.

    Example:
        >>> network = MNFLeNet(auxiliary="published")  # with the paper's r(z|W)
        >>> sum(parameter.numel() for parameter in network.parameters())
        697020
    """

    def __init__(
        self,
        widths: Sequence[int] = (20, 50, 50, 10),
        *,
        n_flows_q: int = 2,
        n_flows_r: int = 2,
        hidden: Sequence[int] = (50,),
        prior_std: float | Literal["learned"] = 1.0,
        auxiliary: Literal["published", "conjugate"] = "conjugate",
        sampling: Sampling = "weights",
    ) -> None:
        options = _multiplicative(n_flows_q, n_flows_r, hidden, prior_std, auxiliary)
        conv = partial(MNFConv2d, **options, sampling=sampling)
        super().__init__(widths, conv, partial(MNFLinear, **options))
        self.settings |= options | {"sampling": sampling}


class MeanFieldLeNet(_LeNet):
    """LeNet with an independent Gaussian posterior for every weight: ``MNFLeNet`` without z.

    Args:
        widths: as in ``LeNet``.
        prior_std, sampling: as in ``layers.MeanFieldConv2d``.

    Shape:
        ``[B, 1, 28, 28] -> [B, classes]`` logits, with weights of its own for every image (see ``sampling``)

    Raises:
        ValueError, TypeError: as ``LeNet`` and ``layers.MeanFieldLinear``.

    Source:
        Blundell et al. (2015), https://arxiv.org/abs/1505.05424.

    Example:
        >>> MeanFieldLeNet()(torch.zeros(4, 1, 28, 28)).shape
        torch.Size([4, 10])
    """

    def __init__(
        self,
        widths: Sequence[int] = (20, 50, 50, 10),
        *,
        prior_std: float | Literal["learned"] = 1.0,
        sampling: Sampling = "weights",
    ) -> None:
        super().__init__(
            widths,
            partial(MeanFieldConv2d, prior_std=prior_std, sampling=sampling),
            partial(MeanFieldLinear, prior_std=prior_std),
        )
        self.settings |= {"prior_std": prior_std, "sampling": sampling}


class _Dropout(nn.Module):
    r"""Drops each input feature with probability p and divides the rest by 1 - p, whatever the mode.

    A dropped feature is a column of weights times 0, so a mask is a draw from a distribution over weights:

    .. math:: W = M \operatorname{diag}(z), \qquad z_i \sim \operatorname{Bernoulli}(1 - p) / (1 - p)

    Source:
        Gal and Ghahramani (2016), section 3, https://arxiv.org/abs/1506.02142.
    """

    weight: Any  # of nn.Linear or nn.Conv2d, which subclasses inherit as well
    bias: Any
    features: Any  # number of features of the input, each of which is dropped or kept
    axis: int  # along which they lie
    layer_of: Any  # makes torch's own layer of this geometry with the weights and the bias given
    groups = 1  # of a convolution

    def __init__(self, *shape: Any, p: float, **options: Any) -> None:
        super().__init__(*shape, **options)
        if not isinstance(p, int | float) or not 0 <= p < 1:
            raise ValueError(f"dropout probability must be in [0, 1), got {p!r}")
        self.p = p

    def sample_z(self, n: int) -> Tensor:
        """Draw n masks: ``[n, in]``, 0 or 1 / (1 - p)."""
        z: Tensor = self.weight.new_empty(n, self.features).bernoulli_(1 - self.p) / (1 - self.p)
        return z

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of each example under a mask of its own."""
        fits = x.ndim >= 2 if self.axis == -1 else x.ndim == 4
        if not fits or x.shape[self.axis] != self.features:
            shape = "[batch, ..., {}]" if self.axis == -1 else "[batch, {}, height, width]"
            expected = shape.format(self.features)
            raise ValueError(f"{type(self).__name__} expects input of shape {expected}, got {list(x.shape)}")
        shape_z = [len(x)] + [1] * (x.ndim - 1)
        shape_z[self.axis] = self.features
        y: Tensor = super().forward(x * self.sample_z(len(x)).view(shape_z))
        return y

    def sample_weights(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw n networks: ``(W [n, out, in, ...], b [n, out])``; no bias: b is None."""
        out, fan_in = self.weight.shape[:2]
        z = self.sample_z(n).view(n, self.groups, 1, fan_in)
        if self.groups > 1:  # each group of outputs sees the features of its own group
            z = z.expand(-1, -1, out // self.groups, -1).reshape(n, 1, out, fan_in)
        w = self.weight * z[:, 0].view(n, -1, fan_in, *[1] * (self.weight.ndim - 2))
        return w, None if self.bias is None else self.bias.expand(n, -1)

    def plain(self) -> nn.Module:
        """Make torch's own layer, whose weights are one draw."""
        w, b = self.sample_weights(1)
        layer: nn.Module = self.layer_of(w[0], None if b is None else b[0])
        return layer

    @torch.no_grad()
    def mean_layer(self, n: int = 1) -> nn.Module:
        """Make torch's own layer with the mean of the weights, which is exact whatever ``n``."""
        bias = None if self.bias is None else self.bias.clone()
        layer: nn.Module = self.layer_of(self.weight.clone(), bias)
        return layer

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"


class DropoutLinear(_Dropout, nn.Linear):
    """Dropout of input features, then a dense layer; in ``train()`` and ``eval()`` alike.

    Args:
        in_features, out_features, bias: as in ``nn.Linear``.
        p: probability that a feature is dropped.

    Shape:
        ``[batch, ..., in_features] -> [batch, ..., out_features]``, one mask for each example.

    Raises:
        ValueError: p outside [0, 1), input of another shape.

    Source:
        Gal and Ghahramani (2016), https://arxiv.org/abs/1506.02142.

    Example:
        >>> DropoutLinear(3, 2, p=0.5)(torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """

    axis = -1

    @property
    def features(self) -> int:
        """Number of input features."""
        return self.in_features

    def layer_of(self, weight: Tensor, bias: Tensor | None) -> nn.Linear:
        layer = nn.Linear(self.in_features, self.out_features, bias is not None, device="meta")
        return filled(layer, weight, bias)


class DropoutConv2d(_Dropout, nn.Conv2d):
    """Dropout of whole input feature maps, then a convolution; in ``train()`` and ``eval()`` alike.

    Args:
        in_channels, out_channels, kernel_size, and all that follows: as in ``nn.Conv2d``.
        p: probability that a feature map is dropped.

    Shape:
        ``[batch, in_channels, height, width] -> [batch, out_channels, height', width']``, one mask for each
        example.

    Raises:
        ValueError: p outside [0, 1), input of another shape.

    Source:
        Gal and Ghahramani (2016), https://arxiv.org/abs/1506.02142.

    Example:
        >>> DropoutConv2d(2, 4, 3, padding=1, p=0.5)(torch.zeros(1, 2, 5, 5)).shape
        torch.Size([1, 4, 5, 5])
    """

    axis = 1

    @property
    def features(self) -> int:
        """Number of input feature maps."""
        return self.in_channels

    def layer_of(self, weight: Tensor, bias: Tensor | None) -> nn.Conv2d:
        names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups")
        options: dict[str, Any] = {name: getattr(self, name) for name in (*names, "padding_mode")}
        layer = nn.Conv2d(**options, bias=bias is not None, device="meta")
        return filled(layer, weight, bias)


class DropoutLeNet(_LeNet):
    """LeNet with dropout before every layer but the first, in training and in prediction alike.

    Args:
        widths: as in ``LeNet``.
        p: probability that a feature, or before the second convolution a feature map, is dropped.

    Shape:
        ``[B, 1, 28, 28] -> [B, classes]`` logits, with a fresh mask for every image

    Raises:
        ValueError, TypeError: as ``LeNet``; p outside [0, 1).

    Source:
        Gal and Ghahramani (2016), https://arxiv.org/abs/1506.02142.

    Example:
        >>> network = DropoutLeNet(p=0.5).eval()
        >>> x = torch.ones(1, 1, 28, 28)
        >>> torch.equal(network(x), network(x))  # a mask of its own each time, in eval() too
        False
    """

    def __init__(self, widths: Sequence[int] = (32, 48, 256, 84, 10), p: float = 0.25) -> None:
        super().__init__(widths, partial(DropoutConv2d, p=p), partial(DropoutLinear, p=p))
        self.settings["p"] = p
        self.conv1 = nn.Conv2d(1, widths[0], 5)  # a dropped input map would be the whole image


class MNFMLP(nn.Sequential):
    r"""Multilayer perceptron with MNF posteriors, for regression with learned noise or for classification.

    .. math:: p(y \mid x, W) = \prod_o \mathcal N(y_o;\; f_o(x, W),\; e^{\lambda_o})

    ``fit`` learns the log variances λ (``noise_log_var``, a point estimate without a prior) together with the
    posterior. ``predict`` gives draws of the function f alone: the variance of a new observation is that of
    the draws plus the square of ``noise_std``.

    Args:
        sizes: features of the input, of the hidden layers and of the output.
        noise_std: standard deviation of the noise on every output at the start, in the units of y; None makes
            a classifier, whose outputs are logits.
        activation: makes the nonlinearity after every layer but the last.
        n_flows_q, n_flows_r, hidden, prior_std, auxiliary: as in ``layers.MNFLinear``.

    Shape:
        ``[..., sizes[0]] -> [..., sizes[-1]]``

    Raises:
        ValueError: fewer than two sizes, a size below 1, a noise that is not positive.

    Source:
        Louizos and Welling (2017), section 4.1, https://arxiv.org/abs/1703.01961.

    Example:
        >>> network = MNFMLP((1, 20, 2), noise_std=0.5)
        >>> network(torch.zeros(4, 1)).shape
        torch.Size([4, 2])
        >>> network.likelihood
        Gaussian(outputs=2)
        >>> MNFMLP((1, 20, 2), noise_std=None).likelihood
        Categorical()
    """

    noise_log_var: nn.Parameter | None

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        noise_std: float | None = 1.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        n_flows_q: int = 2,
        n_flows_r: int = 2,
        hidden: Sequence[int] = (50,),
        prior_std: float | Literal["learned"] = 1.0,
        auxiliary: Literal["published", "conjugate"] = "conjugate",
    ) -> None:
        _check_sizes(sizes, "sizes", 2, "at least two positive integers")
        if noise_std is not None and not (isinstance(noise_std, int | float) and noise_std > 0):
            raise ValueError(f"noise_std must be positive, or None for a classifier, got {noise_std!r}")
        if not callable(activation):
            raise TypeError(f"activation must make a module, such as nn.ReLU, got {activation!r}")
        options = _multiplicative(n_flows_q, n_flows_r, hidden, prior_std, auxiliary)
        modules: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            modules += [MNFLinear(fan_in, fan_out, **options), activation()]
        super().__init__(*modules[:-1])
        noise = None if noise_std is None else torch.full((sizes[-1],), float(noise_std)).log() * 2
        self.register_parameter("noise_log_var", None if noise is None else nn.Parameter(noise))
        self.settings: dict[str, Any] = {"sizes": list(sizes), "noise_std": noise_std, **options}
        self.settings["activation"] = getattr(activation, "__name__", repr(activation))

    @property
    def noise_std(self) -> Tensor | None:
        """Standard deviation of the noise on every output, ``[out]``; None for a classifier."""
        return None if self.noise_log_var is None else (self.noise_log_var / 2).exp()

    @property
    def likelihood(self) -> Likelihood:
        """What the outputs mean: the means of Gaussians with the noise ``noise_log_var``, or logits."""
        return Categorical() if self.noise_log_var is None else Gaussian.of(self.noise_log_var)


IMAGE_MODELS: dict[str, type[_LeNet]] = {
    "lenet": LeNet,
    "mnf-lenet": MNFLeNet,
    "mean-field-lenet": MeanFieldLeNet,
    "dropout-lenet": DropoutLeNet,
}
# What files of the first edition do not say, since there was no choice.
UNSAID = {
    "mnf-lenet": {"auxiliary": "published", "sampling": "outputs"},
    "mean-field-lenet": {"sampling": "outputs"},
}
MODELS: dict[str, Callable[..., nn.Module]] = {**IMAGE_MODELS, "mnf-mlp": MNFMLP}


def save(model: nn.Module, path: str | Path) -> None:
    """Write the weights of a network to a safetensors file, and for one of this module how to make it again.

    Args:
        model: any network.
        path: the file to write, atomically.

    Raises:
        TypeError: no network, or one whose state is not all tensors.
        OSError: the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save(LeNet((2, 3, 4, 10)), f"{folder}/lenet.safetensors")
        ...     network = load(f"{folder}/lenet.safetensors")
        >>> network.settings
        {'widths': [2, 3, 4, 10]}
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"save expects a network, got {type(model).__name__}")
    model = unwrapped(model)
    name = next((name for name, kind in MODELS.items() if type(model) is kind), None)
    if getattr(nn, str(getattr(model, "settings", {}).get("activation", "ReLU")), None) is None:
        name = None  # an activation of one's own: such a network is made by hand
    state = model.state_dict()
    if wrong := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise TypeError(f"save writes tensors alone, but {wrong[0]} is {type(state[wrong[0]]).__name__}")
    how = {"class": type(model).__name__} if name is None else {"model": name, "settings": model.settings}
    save_tensors(path, state, how)


def load(path: str | Path, into: nn.Module | None = None) -> nn.Module:
    """Read a network that ``save`` wrote, in evaluation mode.

    Args:
        path: a file written by ``save``.
        into: a network that was made in the same way as the one saved, whose weights are replaced; needed for
            all but the networks of this module.

    Returns:
        The network; if it was made here, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: ``into`` is not a network.
        ValueError: the file is cut off, or holds something else.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(MNFMLP((3, 5, 2)), f"{folder}/network.safetensors")
        ...     print(type(load(f"{folder}/network.safetensors")).__name__)
        MNFMLP
    """
    if into is not None and not isinstance(into, nn.Module):
        raise TypeError(f"into must be a network, got {type(into).__name__}")
    tensors, metadata = load_tensors(path)
    known = metadata.get("model", metadata.get("class"))
    if known is None:
        raise ValueError(
            f"{path} does not hold the weights of one of {', '.join(MODELS)} or of another network"
        )
    if into is not None:
        model = unwrapped(into)
    elif known in MODELS:
        settings = UNSAID.get(known, {}) | metadata["settings"]
        if "activation" in settings:
            settings["activation"] = getattr(nn, settings["activation"])
        model = MODELS[known](**settings)
    else:
        raise ValueError(
            f"{path} holds the weights of a {known}, which load cannot make: make the network as before, "
            f"then load({str(path)!r}, into=network)"
        )
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"{path} says {known}, but its tensors are another model's than those of {type(model).__name__}"
        ) from error
    return (model if into is None else into).eval()


def _multiplicative(
    n_flows_q: int, n_flows_r: int, hidden: Any, prior_std: Any, auxiliary: str
) -> dict[str, Any]:
    """Return the options of MNF layers by name, as a file can hold them."""
    if not isinstance(hidden, list | tuple):
        raise TypeError(f"hidden must be a list or tuple of sizes, got {hidden!r}")
    return {
        "n_flows_q": n_flows_q,
        "n_flows_r": n_flows_r,
        "hidden": list(hidden),
        "prior_std": prior_std,
        "auxiliary": auxiliary,
    }


def _check_sizes(sizes: Any, name: str, least: int, expected: str) -> None:
    """Raise unless there are ``least`` positive integers."""
    whole = isinstance(sizes, Sequence) and not isinstance(sizes, str) and len(sizes) >= least
    if not whole or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise ValueError(f"{name} must be {expected}, got {sizes!r}")
