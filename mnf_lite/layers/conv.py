"""Convolutions with random weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.layers.base import BayesianLayer, MeanField, Multiplicative, positive_int, sqrt

Size = int | tuple[int, int]


def _pair(size: Size, name: str, least: int = 1) -> tuple[int, int]:
    """Sizes along height and width; one number stands for both."""
    sizes = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sizes) != 2:
        raise ValueError(f"{name} must be an integer or a pair of them, got {size!r}")
    return positive_int(sizes[0], name, least), positive_int(sizes[1], name, least)


class _Conv2d(BayesianLayer):
    """The geometry of ``nn.Conv2d``, whatever the posterior of its weights."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Size | str,
        dilation: Size,
        bias: bool,
        prior_std: float,
    ) -> None:
        channels = positive_int(in_channels, "in_channels"), positive_int(out_channels, "out_channels")
        kernel, steps, holes = (
            _pair(size, name)
            for size, name in ((kernel_size, "kernel_size"), (stride, "stride"), (dilation, "dilation"))
        )
        border = padding if isinstance(padding, str) else _pair(padding, "padding", least=0)
        nn.Conv2d(*channels, kernel, steps, border, holes, device="meta")  # torch knows which go together
        super().__init__((*reversed(channels), *kernel), bias, prior_std)
        self.in_channels, self.out_channels = channels
        self.kernel_size, self.stride, self.padding, self.dilation = kernel, steps, border, holes

    def plain(self) -> nn.Conv2d:
        w, b = self.sample_weights(1)
        layer = nn.Conv2d(
            self.in_channels,
            self.out_channels,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            bias=b is not None,
            device="meta",
        )
        layer.load_state_dict({"weight": w[0]} | ({} if b is None else {"bias": b[0]}), assign=True)
        return layer

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation)

    def sample_output(self, mean: Tensor, x: Tensor) -> Tensor:
        """Local reparametrisation of each pixel by itself: variance ``x**2 * var + v`` around ``mean``."""
        variance = self.convolve(x.square(), self.weight_log_var.exp(), self.bias_var())
        return torch.addcmul(mean, sqrt(variance), torch.randn_like(mean))

    def extra_repr(self) -> str:
        parts = [
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        ]
        parts += [f"padding={self.padding}"] * (self.padding != (0, 0))
        parts += [f"dilation={self.dilation}"] * (self.dilation != (1, 1))
        parts += ["bias=False"] * (self.bias_mean is None)
        return ", ".join([*parts, f"prior_std={self.prior_std:g}"])


class MeanFieldConv2d(MeanField, _Conv2d):
    r"""Convolution with independent Gaussian weights.

    ``forward`` samples by local reparametrisation, with :math:`*` the convolution of ``nn.Conv2d``:

    .. math:: y = x * \mu + m + \sqrt{x^2 * \sigma^2 + v}\;\varepsilon

    This is exact for each pixel alone, but leaves out that all pixels share one draw of the weights; explicit
    weights (``sample_weights``, ``predict``) keep it.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias: as in ``nn.Conv2d``.
        prior_std: standard deviation of the prior N(0, prior_std**2).

    Shape:
        ``[batch, in_channels, height, width] -> [batch, out_channels, height', width']``, batch optional.

    Raises:
        TypeError, ValueError: integers, another number of channels or of axes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        bias: bool = True,
        *,
        prior_std: float = 1.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias, prior_std)

    def forward(self, x: Tensor) -> Tensor:
        """One sample per example; the weights' noise is drawn for each pixel by itself."""
        self.check_input(x, self.in_channels, -3, ndims=(3, 4))
        return self.sample_output(self.convolve(x, self.weight_mean, self.bias_mean), x)


class MNFConv2d(Multiplicative, _Conv2d):
    r"""Convolution with a multiplicative normalizing flow posterior; z scales the feature maps it gives.

    ``forward`` draws a fresh z for every example:

    .. math:: W_{oihw} | z \sim \mathcal N(z_o \mu_{oihw}, \sigma^2_{oihw}), \qquad
              y = z \circ (x * \mu) + m + \sqrt{x^2 * \sigma^2 + v}\;\varepsilon

    This is exact for each pixel alone, but leaves out that all pixels share one draw of the weights: the
    training objective of a convolution is an approximation, no bound. Explicit weights (``sample_weights``,
    ``predict``) are exact. The divergence (``kl``) concerns the weights alone and is a bound all the same.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias: as in ``nn.Conv2d``; the bias
            is independent of z, which has ``out_channels`` entries.
        n_flows_q: number of flows that shape q(z).
        n_flows_r: number of flows in the auxiliary posterior r(z|W).
        hidden: hidden layers of the flows' networks.
        prior_std: standard deviation of the prior N(0, prior_std**2).

    Shape:
        ``[batch, in_channels, height, width] -> [batch, out_channels, height', width']``, batch optional.

    Raises:
        TypeError, ValueError: integers, another number of channels or of axes.

    Source: Louizos & Welling (2017), algorithm 2.
    """

    z_axis = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        bias: bool = True,
        *,
        n_flows_q: int = 2,
        n_flows_r: int = 2,
        hidden: Sequence[int] = (50,),
        prior_std: float = 1.0,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, bias, prior_std)
        self.init_multiplier(n_flows_q, n_flows_r, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """One sample per example; the weights' noise is drawn for each pixel by itself."""
        self.check_input(x, self.in_channels, -3, ndims=(3, 4))
        if x.ndim == 3:
            return self.forward(x[None])[0]
        mean = self.convolve(x, self.weight_mean, None)
        if len(x):
            mean = mean * self.sample_z(len(x))[0][..., None, None]
        if self.bias_mean is not None:
            mean = mean + self.bias_mean[:, None, None]
        return self.sample_output(mean, x)

    def statistic(self, z: Tensor) -> Tensor:
        r""":math:`s = \mathrm{mean}_{ihw} \sum_o c_o W_{oihw}`, Gaussian given z: drawn exactly, ``[n, 1]``.

        Linear, where the dense layer has a tanh: the authors found that better for convolutions.
        """
        positions = self.weight_mean[0].numel()
        mean = (z * self.r_c) @ self.weight_mean.flatten(1).mean(-1)  # [n, out] -> [n]
        variance = self.r_c.square() @ self.weight_log_var.exp().flatten(1).sum(-1) / positions**2
        s: Tensor = mean + sqrt(variance) * torch.randn_like(mean)
        return s[:, None]
