"""Convolutions with random weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.layers.base import BayesianLayer, MeanField, Multiplicative, add_noise, positive_int, sqrt

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

    def patches(self, x: Tensor) -> Tensor:
        """What each pixel of the output sees: ``[B, in, H, W] -> [B, in k k, H', W']``."""
        x = F.pad(x, [size for size in reversed(self.padding) for _ in range(2)])  # type: ignore[misc]
        for axis, k, stride, d in zip((2, 3), self.kernel_size, self.stride, self.dilation, strict=True):
            if (came := x.shape[axis]) < (reach := d * (k - 1) + 1):
                name, where = type(self).__name__, "height" if axis == 2 else "width"
                raise ValueError(f"{name} expects a padded {where} of at least {reach} pixels, got {came}")
            x = x.unfold(axis, reach, stride)[..., ::d]
        return x.permute(0, 1, 4, 5, 2, 3).flatten(1, 3)

    def product(self, patches: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolution by matrix products, with a weight for all examples or ``[B, out, in, k, k]``."""
        weight = weight.flatten(-3).expand(len(patches), -1, -1)
        bias = weight.new_zeros(()) if bias is None else bias
        y = torch.baddbmm(bias, patches.flatten(2).mT, weight.mT)  # [B, H' W', out]
        return y.mT.view(*y.mT.shape[:2], *patches.shape[2:])

    def moments(self, x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """Means ``z (x * mu) + m`` and variances ``x**2 * var + v`` of the pixels; z is ``[B, out]`` or None.

        The channels of both are last in memory, where sums over pixels, and pools, are faster.
        """
        mu: Tensor = self.weight_mean
        var = self.weight_log_var.exp()
        # Where patches are small beside the output, products take a third of a convolution's time.
        if mu[0].numel() <= 2 * len(mu) and not isinstance(self.padding, str):
            patches = self.patches(x)
            mu = mu if z is None else z[..., None, None, None] * mu
            variance = self.product(patches.square(), var, self.bias_var())
            return self.product(patches, mu, self.bias_mean), variance
        x = x.contiguous(memory_format=torch.channels_last)
        mean, variance = self.convolve(x, mu, None), self.convolve(x.square(), var, self.bias_var())
        mean = mean if z is None else z[..., None, None] * mean
        return mean if self.bias_mean is None else mean + self.bias_mean[:, None, None], variance

    def sample_multiplier(self, n: int) -> Tensor | None:
        """Draws of z ``[n, out]``, for posteriors that have one."""

    def forward(self, x: Tensor) -> Tensor:
        """One sample per example; the weights' noise is drawn for each pixel by itself."""
        self.check_input(x, self.in_channels, -3, ndims=(3, 4))
        if x.ndim == 3:
            return self.forward(x[None])[0]
        # Memory is laid out as that of the input.
        mean, variance = self.moments(x, self.sample_multiplier(len(x)))
        batch, out, height, width = mean.shape
        noise = torch.randn_like(mean.new_empty(batch, height, width, out)).permute(0, 3, 1, 2)
        y = add_noise(mean, variance, noise)
        return y if x.stride(1) == 1 else y.contiguous()

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
        prior_std: standard deviation of the prior ``N(0, prior_std**2)``.

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
        prior_std: standard deviation of the prior ``N(0, prior_std**2)``.

    Shape:
        ``[batch, in_channels, height, width] -> [batch, out_channels, height', width']``, batch optional.

    Raises:
        TypeError, ValueError: integers, another number of channels or of axes, fewer pixels than the kernel.

    Source:
        Louizos & Welling (2017), algorithm 2.
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

    def sample_multiplier(self, n: int) -> Tensor | None:
        return self.sample_z(n)[0] if n else None

    def statistic(self, z: Tensor) -> Tensor:
        r""":math:`s = \mathrm{mean}_{ihw} \sum_o c_o W_{oihw}`, Gaussian given z: drawn exactly, ``[n, 1]``.

        Linear, where the dense layer has a tanh: the authors found that better for convolutions.
        """
        positions = self.weight_mean[0].numel()
        mean = (z * self.r_c) @ self.weight_mean.flatten(1).mean(-1)  # [n, out] -> [n]
        variance = self.r_c.square() @ self.weight_log_var.exp().flatten(1).sum(-1) / positions**2
        s: Tensor = mean + sqrt(variance) * torch.randn_like(mean)
        return s[:, None]
