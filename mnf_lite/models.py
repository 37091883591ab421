"""The networks of the book: one LeNet in four readings of its weights, and a regression network."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.files import load_tensors, save_tensors
from mnf_lite.layers import MeanFieldConv2d, MeanFieldLinear, MNFConv2d, MNFLinear

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
        if len(widths) < 3 or any(not isinstance(width, int) or width < 1 for width in widths):
            raise ValueError(
                "widths must be at least three positive integers (two convolutions, then dense layers, "
                f"the last one the number of classes), got {widths}"
            )
        # what the constructor needs to make this model again
        self.settings: dict[str, Any] = {"widths": list(widths)}
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

    References:
        LeCun et al. (1998), Gradient-based learning applied to document recognition.
    """

    def __init__(self, widths: Sequence[int] = (32, 48, 256, 84, 10)) -> None:
        super().__init__(widths, nn.Conv2d, nn.Linear)


class MNFLeNet(_LeNet):
    """LeNet with a multiplicative normalizing flow posterior over every weight.

    Args:
        widths: as in `LeNet`.  The default has 697,020 trainable parameters; the paper's is
            (20, 50, 500, 10).
        n_flows_q, n_flows_r, hidden, prior_std: as in `layers.MNFLinear`.

    Shape:
        ``[B, 1, 28, 28] -> [B, classes]`` logits, with fresh weights for every image

    Raises:
        ValueError, TypeError: as `LeNet` and `layers.MNFLinear`.

    References:
        Louizos and Welling (2017), Multiplicative normalizing flows for variational Bayesian neural networks.
    """

    def __init__(
        self,
        widths: Sequence[int] = (20, 50, 50, 10),
        *,
        n_flows_q: int = 2,
        n_flows_r: int = 2,
        hidden: Sequence[int] = (50,),
        prior_std: float = 1.0,
    ) -> None:
        options: dict[str, Any] = {
            "n_flows_q": n_flows_q,
            "n_flows_r": n_flows_r,
            "hidden": list(hidden),
            "prior_std": prior_std,
        }
        super().__init__(widths, partial(MNFConv2d, **options), partial(MNFLinear, **options))
        self.settings |= options


class MeanFieldLeNet(_LeNet):
    """LeNet with an independent Gaussian posterior for every weight: `MNFLeNet` without z.

    Args:
        widths: as in `LeNet`.
        prior_std: standard deviation of the Gaussian prior.

    Shape:
        ``[B, 1, 28, 28] -> [B, classes]`` logits, with fresh weights for every image

    Raises:
        ValueError, TypeError: as `LeNet` and `layers.MeanFieldLinear`.

    References:
        Blundell et al. (2015), Weight uncertainty in neural networks.
    """

    def __init__(self, widths: Sequence[int] = (20, 50, 50, 10), *, prior_std: float = 1.0) -> None:
        super().__init__(
            widths,
            partial(MeanFieldConv2d, prior_std=prior_std),
            partial(MeanFieldLinear, prior_std=prior_std),
        )
        self.settings["prior_std"] = prior_std


class _Dropout(nn.Module):
    r"""Drops each input feature with probability p and divides the rest by 1 - p, whatever the mode.

    A dropped feature is a column of weights times 0, so a mask is a draw from a distribution over weights:
    :math:`W = M \operatorname{diag}(z)`, :math:`z_i \sim \operatorname{Bernoulli}(1 - p) / (1 - p)`
    (Gal and Ghahramani 2016, Dropout as a Bayesian approximation, section 3).
    """

    weight: Any  # of nn.Linear or nn.Conv2d, which subclasses inherit as well
    bias: Any

    def __init__(self, *shape: int, p: float) -> None:
        super().__init__(*shape)
        if not 0 <= p < 1:
            raise ValueError(f"dropout probability must be in [0, 1), got {p}")
        self.p = p

    def sample_z(self, n: int) -> Tensor:
        """Draws n masks: ``[n, in]``, 0 or 1 / (1 - p)."""
        z: Tensor = self.weight.new_empty(n, self.weight.shape[1]).bernoulli_(1 - self.p) / (1 - self.p)
        return z

    def forward(self, x: Tensor) -> Tensor:
        z = self.sample_z(len(x))  # [B, in]: a mask for every example
        y: Tensor = super().forward(x * z.reshape(*z.shape, *[1] * (x.ndim - 2)))
        return y

    def sample_weights(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws n networks: ``(W [n, out, in, ...], b [n, out])``."""
        z = self.sample_z(n)
        return self.weight * z.reshape(n, 1, -1, *[1] * (self.weight.ndim - 2)), self.bias.expand(n, -1)

    def draw(self, layer: nn.Module) -> nn.Module:
        """The plain `layer`, of the same shape, with weights drawn."""
        w, b = self.sample_weights(1)
        layer.to(w).load_state_dict({"weight": w[0], "bias": b[0]})
        return layer

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, p={self.p}"


class DropoutLinear(_Dropout, nn.Linear):
    """Dropout of input features, then a dense layer."""

    def plain(self) -> nn.Module:
        """An ``nn.Linear`` whose weights are one draw."""
        return self.draw(nn.Linear(self.in_features, self.out_features))


class DropoutConv2d(_Dropout, nn.Conv2d):
    """Dropout of whole input feature maps, then a convolution."""

    def plain(self) -> nn.Module:
        """An ``nn.Conv2d`` whose weights are one draw."""
        return self.draw(nn.Conv2d(self.in_channels, self.out_channels, self.kernel_size))  # type: ignore[arg-type]


class DropoutLeNet(_LeNet):
    """LeNet with dropout before every layer but the first, in training and in prediction alike.

    Args:
        widths: as in `LeNet`.
        p: probability that a feature, or before the second convolution a feature map, is dropped.

    Shape:
        ``[B, 1, 28, 28] -> [B, classes]`` logits, with a fresh mask for every image

    Raises:
        ValueError, TypeError: as `LeNet`; p outside [0, 1).

    References:
        Gal and Ghahramani (2016), Dropout as a Bayesian approximation.
    """

    def __init__(self, widths: Sequence[int] = (32, 48, 256, 84, 10), p: float = 0.25) -> None:
        super().__init__(widths, partial(DropoutConv2d, p=p), partial(DropoutLinear, p=p))
        self.settings["p"] = p
        self.conv1 = nn.Conv2d(1, widths[0], 5)  # a dropped input map would be the whole image


class MNFMLP(nn.Sequential):
    r"""Multilayer perceptron with MNF posteriors, for regression with learned noise or for classification.

    .. math:: p(y \mid x, W) = \prod_o \mathcal N(y_o;\; f_o(x, W),\; e^{\lambda_o})

    `fit` learns the log variances λ (`noise_log_var`, a point estimate without a prior) together with the
    posterior. `predict` gives draws of the function f alone: the variance of a new observation is that of the
    draws plus the square of `noise_std`.

    Args:
        sizes: features of the input, of the hidden layers and of the output.
        noise_std: initial standard deviation of the noise on every output, in the units of y; None makes a
            classifier, whose outputs are logits.
        activation: makes the nonlinearity after every layer but the last.
        n_flows_q, n_flows_r, hidden, prior_std: as in `layers.MNFLinear`.

    Shape:
        ``[..., sizes[0]] -> [..., sizes[-1]]``

    Raises:
        ValueError: fewer than two sizes, a size below 1, a noise that is not positive.
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
        prior_std: float = 1.0,
    ) -> None:
        if len(sizes) < 2 or any(not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(f"sizes must be at least two positive integers, got {sizes}")
        if noise_std is not None and not noise_std > 0:
            raise ValueError(f"noise_std must be positive, or None for a classifier, got {noise_std}")
        modules: list[nn.Module] = []
        for fan_in, fan_out in pairwise(sizes):
            modules += [
                MNFLinear(
                    fan_in,
                    fan_out,
                    n_flows_q=n_flows_q,
                    n_flows_r=n_flows_r,
                    hidden=hidden,
                    prior_std=prior_std,
                ),
                activation(),
            ]
        super().__init__(*modules[:-1])
        noise = None if noise_std is None else torch.full((sizes[-1],), noise_std).log() * 2
        self.register_parameter("noise_log_var", None if noise is None else nn.Parameter(noise))

    @property
    def noise_std(self) -> Tensor | None:
        """Standard deviation of the noise on every output, ``[out]``; None for a classifier."""
        return None if self.noise_log_var is None else (self.noise_log_var / 2).exp()


def is_regression(model: nn.Module) -> bool:
    """Whether the outputs of `model` are means of a Gaussian (it has a `noise_log_var`) and not logits."""
    return getattr(model, "noise_log_var", None) is not None


IMAGE_MODELS: dict[str, type[_LeNet]] = {
    "lenet": LeNet,
    "mnf-lenet": MNFLeNet,
    "mean-field-lenet": MeanFieldLeNet,
    "dropout-lenet": DropoutLeNet,
}


def save(model: nn.Module, path: str | Path) -> None:
    """Writes the weights of one of the LeNets to a safetensors file that says which one it is.

    Args:
        model: one of `IMAGE_MODELS`.
        path: the file to write, atomically.

    Raises:
        TypeError: a model that is none of these.
        OSError: the file cannot be written.
    """
    name = next((name for name, kind in IMAGE_MODELS.items() if type(model) is kind), None)
    if name is None or not isinstance(model, _LeNet):
        raise TypeError(f"save knows {', '.join(IMAGE_MODELS)}; got {type(model).__name__}")
    save_tensors(path, model.state_dict(), {"model": name, "settings": model.settings})


def load(path: str | Path) -> nn.Module:
    """Builds the model that `save` wrote, in evaluation mode.

    Args:
        path: a file written by `save`.

    Returns:
        The model, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut off, or holds something else.
    """
    tensors, metadata = load_tensors(path)
    if metadata.get("model") not in IMAGE_MODELS:
        raise ValueError(f"{path} does not hold the weights of one of {', '.join(IMAGE_MODELS)}")
    model = IMAGE_MODELS[metadata["model"]](**metadata["settings"])
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} says {metadata['model']}, but its tensors are another model's") from error
    return model.eval()
