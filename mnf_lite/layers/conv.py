"""Convolutions with random weights."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional as F

from mnf_lite.layers.base import (
    BayesianLayer,
    MeanField,
    Multiplicative,
    add_noise,
    filled,
    one_of,
    sample_gaussian,
    sqrt,
)
from mnf_lite.nets import positive_int

Size = int | tuple[int, ...]
Sampling = Literal["outputs", "weights", "explicit", "flipped", "shared"]
SAMPLING = ("outputs", "weights", "explicit", "flipped", "shared")
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


def _sizes(size: Any, axes: int, name: str, least: int = 1) -> tuple[int, ...]:
    """Return a size for each axis of an image; one number stands for all."""
    sizes = tuple(size) if isinstance(size, Sequence) and not isinstance(size, str) else (size,) * axes
    if len(sizes) != axes:
        raise ValueError(f"{name} must be an integer or {axes} of them, got {size!r}")
    return tuple(positive_int(s, name, least) for s in sizes)


class _Conv(BayesianLayer):
    """The geometry of ``nn.Conv2d`` and its kin, whatever the posterior of the weights."""

    twin: ClassVar[Any] = nn.Conv2d  # torch's layer of this geometry
    convolution: ClassVar[Callable[..., Tensor]] = staticmethod(F.conv2d)
    pixels: ClassVar[tuple[str, ...]] = ("height", "width")
    layout = torch.channels_last

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
        groups: int = 1,
        padding_mode: str = "zeros",
        sampling: Sampling = "weights",
        prior_std: float | Literal["learned"] = 1.0,
    ) -> None:
        axes = len(self.pixels)
        channels = positive_int(in_channels, "in_channels"), positive_int(out_channels, "out_channels")
        if any(c % positive_int(groups, "groups") for c in channels):
            raise ValueError(f"groups must divide the numbers of channels {channels}, got {groups}")
        kernel = _sizes(kernel_size, axes, "kernel_size")
        super().__init__(self.weight_shape(*channels, kernel, groups), bias, prior_std)
        self.in_channels, self.out_channels, self.kernel_size = *channels, kernel
        self.stride, self.dilation = _sizes(stride, axes, "stride"), _sizes(dilation, axes, "dilation")
        self.padding: Any = (
            one_of(padding, ("same", "valid"), "padding")
            if isinstance(padding, str)
            else _sizes(padding, axes, "padding", least=0)
        )
        if self.padding == "same" and set(self.stride) != {1}:
            raise ValueError(f"padding='same' needs a stride of 1, got stride={stride}")
        self.groups, self.padding_mode = groups, one_of(padding_mode, PADDING_MODES, "padding_mode")
        self.sampling = one_of(sampling, SAMPLING, "sampling")

    def weight_shape(
        self, inputs: int, outputs: int, kernel: tuple[int, ...], groups: int
    ) -> tuple[int, ...]:
        return outputs, inputs // groups, *kernel

    def options(self) -> dict[str, Any]:
        """Return what torch's layer is made with beside its channels and its kernel."""
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        return {name: getattr(self, name) for name in names}

    def layer_of(self, weight: Tensor | None, bias: Tensor | None) -> nn.Module:
        sizes = self.in_channels, self.out_channels, self.kernel_size
        layer: nn.Module = self.twin(*sizes, **self.options(), bias=bias is not None, device="meta")
        return layer if weight is None else filled(layer, weight, bias)

    def extra_repr(self) -> str:
        how = f", sampling={self.sampling!r}" if self.sampling != "weights" else ""
        return f"{self.layer_of(None, self.bias_mean).extra_repr()}{how}, {self.prior_repr()}"

    def edges(self) -> list[tuple[int, int]]:
        """Return how many pixels are padded before and after each axis."""
        if self.padding == "same":  # as torch shares them out
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            return [(total // 2, total - total // 2) for total in totals]
        return [(p, p) for p in ([0] * len(self.pixels) if self.padding == "valid" else self.padding)]

    def check_image(self, x: Tensor) -> None:
        """Raise unless ``x`` is ``[batch, in, *pixels]`` or one image that a kernel fits in."""
        axes = len(self.pixels)
        self.check_input(x, ("batch", self.in_channels, *self.pixels), -axes - 1, (axes + 1, axes + 2))
        self.check_pixels(x)

    def check_pixels(self, x: Tensor) -> None:
        """Raise unless the padded image holds the kernel, and the image what its padding repeats."""
        name = type(self).__name__
        for k, (where, size) in enumerate(zip(self.pixels, x.shape[-len(self.pixels) :], strict=True)):
            edge, reach = self.edges()[k], self.dilation[k] * (self.kernel_size[k] - 1) + 1
            if (came := size + sum(edge)) < reach:
                raise ValueError(f"{name} expects a padded {where} of at least {reach} pixels, got {came}")
            most = {"reflect": size - 1, "circular": size}.get(self.padding_mode, max(edge))
            if max(edge) > most:
                raise ValueError(
                    f"{name} can pad a {where} of {size} pixels by {most} at most with "
                    f"padding_mode={self.padding_mode!r}, got padding={self.padding}"
                )

    def pad(self, x: Tensor) -> Tensor:
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        return F.pad(x, [size for edge in reversed(self.edges()) for size in edge], mode)

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            x, padding = self.pad(x), 0
        return self.convolution(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def patches(self, x: Tensor) -> Tensor:
        """Return what each pixel of the output sees: ``[B, in, *pixels] -> [B, in k k, *pixels']``."""
        x, axes = self.pad(x), len(self.pixels)
        for axis, k, stride, d in zip(
            range(2, 2 + axes), self.kernel_size, self.stride, self.dilation, strict=True
        ):
            x = x.unfold(axis, d * (k - 1) + 1, stride)[..., ::d]
        # [B, in, H', W', k, k] -> [B, in, k, k, H', W']
        return x.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes)).flatten(1, 1 + axes)

    def product(self, patches: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Convolve by matrix products, with one weight for all examples or ``[B, out, in, k, k]``."""
        weight = weight.flatten(-1 - len(self.pixels)).expand(len(patches), -1, -1)
        bias = weight.new_zeros(()) if bias is None else bias
        y = torch.baddbmm(bias, patches.flatten(2).mT, weight.mT)  # [B, H' W', out]
        return y.mT.view(*y.mT.shape[:2], *patches.shape[2:])

    def has_small_patches(self) -> bool:
        """Whether a patch is small beside the outputs it gives, as in the first convolution of a network.

        There products of patches take a third of a convolution's time, and filters for every example a fifth.
        """
        return self.groups == 1 and self.weight_mean[0].numel() <= 2 * self.out_channels

    def by_map(self, t: Tensor) -> Tensor:
        """Shape ``[..., channels]`` so that it multiplies, or is added to, whole feature maps."""
        return t.view(*t.shape, *[1] * len(self.pixels))

    def moments(self, x: Tensor, z: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return means ``z (x * mu) + m`` and variances ``x**2 * var + v`` of the pixels; z is ``[B, out]``.

        The channels of both are last in memory, where sums over pixels, and pools, are faster.
        """
        mu: Tensor = self.weight_mean
        var = self.weight_log_var.exp()
        if self.has_small_patches():
            patches = self.patches(x)
            mu = mu if z is None else self.by_map(z[..., None]) * mu
            variance = self.product(patches.square(), var, self.bias_var())
            return self.product(patches, mu, self.bias_mean), variance
        x = x.contiguous(memory_format=self.layout)
        mean, variance = self.convolve(x, mu), self.convolve(x.square(), var, self.bias_var())
        mean = mean if z is None else self.by_map(z) * mean
        return mean if self.bias_mean is None else mean + self.by_map(self.bias_mean), variance

    def sample_multiplier(self, n: int) -> Tensor | None:
        """Draw z ``[n, out]``, for posteriors that have one."""

    def sample_outputs(self, x: Tensor) -> Tensor:
        """Draw each pixel by itself from its own Gaussian: local reparametrisation."""
        mean, variance = self.moments(x, self.sample_multiplier(len(x)) if len(x) else None)
        # drawn in the order in which the channels of both lie in memory
        noise = torch.randn_like(mean.new_empty(len(x), *mean.shape[2:], mean.shape[1])).movedim(-1, 1)
        return add_noise(mean, variance, noise)

    def sample_explicit(self, x: Tensor) -> Tensor:
        """Draw filters for every example and convolve it with them."""
        w, b = self.sample_weights(len(x))
        if self.has_small_patches():
            y = self.product(self.patches(x), w, None)
        else:
            y = vmap(lambda x, w: self.convolve(x[None], w)[0])(x, w)
        return y if b is None else y + self.by_map(b)

    def sample_flipped(self, x: Tensor) -> Tensor:
        """Draw one noise of the filters for the batch, with random signs on every example's channels."""
        n, z = len(x), self.sample_multiplier(len(x))
        noise = sample_gaussian(torch.zeros_like(self.weight_mean), self.weight_log_var, 1)[0]
        s, r = (
            self.by_map(torch.randint(2, (n, channels), device=x.device).to(x.dtype) * 2 - 1)
            for channels in (self.in_channels, self.out_channels)
        )
        mean, b = self.convolve(x, self.weight_mean), self.sample_bias(n)
        mean = mean if z is None else self.by_map(z) * mean
        y = torch.addcmul(mean, self.convolve(s * x, noise), r)
        return y if b is None else y + self.by_map(b)

    def sample_shared(self, x: Tensor) -> Tensor:
        """Draw filters once for the whole batch."""
        w, b = self.sample_weights(1)
        return self.convolve(x, w[0], None if b is None else b[0])

    def forward(self, x: Tensor) -> Tensor:
        """Draw one sample per example, in the way that ``sampling`` names."""
        self.check_image(x)
        if x.ndim == 1 + len(self.pixels):
            return self.forward(x[None])[0]
        how = self.sampling if len(x) else "outputs"  # of no example there is nothing to draw
        if how == "weights":
            how = "explicit" if self.has_small_patches() else "flipped"
        y: Tensor = getattr(self, f"sample_{how}")(x)
        # memory laid out as that of the input
        return y.movedim(1, -1).contiguous().movedim(-1, 1) if x.stride(1) == 1 else y.contiguous()


class _MNFConv(Multiplicative, _Conv):
    """A convolution whose feature maps z scales."""

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
        groups: int = 1,
        padding_mode: str = "zeros",
        n_flows_q: int = 2,
        n_flows_r: int = 2,
        hidden: Sequence[int] = (50,),
        prior_std: float | Literal["learned"] = 1.0,
        auxiliary: Literal["published", "conjugate"] = "conjugate",
        sampling: Sampling = "weights",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            bias,
            groups=groups,
            padding_mode=padding_mode,
            sampling=sampling,
            prior_std=prior_std,
        )
        self.init_multiplier(n_flows_q, n_flows_r, hidden, auxiliary)

    def sample_multiplier(self, n: int) -> Tensor | None:
        return self.sample_z(n)[0]

    def statistic(self, z: Tensor) -> Tensor:
        r"""Draw :math:`s = \mathrm{mean}_{ihw} \sum_o c_o W_{oihw}`, Gaussian given z: ``[n, 1]``.

        Linear, where the dense layer has a tanh: the authors found that better for convolutions.
        """
        mu, var = (
            w.movedim(self.z_axis, 0).flatten(1) for w in (self.weight_mean, self.weight_log_var.exp())
        )
        mean = (z * self.r_c) @ mu.mean(-1)  # [n, out] -> [n]
        variance = self.r_c.square() @ var.sum(-1) / mu.shape[1] ** 2
        s: Tensor = mean + sqrt(variance) * torch.randn_like(mean)
        return s[:, None]


class _MeanFieldConv(MeanField, _Conv):
    """A convolution whose weights are independent."""


class MeanFieldConv2d(_MeanFieldConv):
    r"""Convolution with independent Gaussian weights.

    ``forward`` gives one sample per example, drawn in one of five ways. With :math:`*` the convolution of
    ``nn.Conv2d``, :math:`\varepsilon` standard normal and b the draw of the bias,

    .. math::
        \texttt{outputs}: \quad & y = x * \mu + m + \sqrt{x^2 * \sigma^2 + v}\;\varepsilon \\
        \texttt{explicit}: \quad & y = x * (\mu + \sigma\varepsilon) + b
            \qquad\text{with an } \varepsilon \text{ for every example} \\
        \texttt{flipped}: \quad & y = x * \mu + r \circ \bigl((s \circ x) * (\sigma\varepsilon)\bigr) + b
            \qquad\text{with random signs } s, r \text{ for every example} \\
        \texttt{shared}: \quad & y = x * (\mu + \sigma\varepsilon) + b
            \qquad\text{with one } \varepsilon \text{ and one } b \text{ for the batch}

    What is exact: each pixel alone has the right distribution in every way. ``"outputs"`` draws noise for
    every pixel, as if each had filters of its own, where in truth all pixels share one draw: the training
    objective is an approximation, no bound. In the other three every example is convolved with one exact
    draw of the filters, and the objective is a bound. Examples of a batch are independent in ``"outputs"``
    and ``"explicit"``, uncorrelated in ``"flipped"``, and judged by the same filters in ``"shared"``.
    ``predict`` always uses one draw of the weights for all inputs.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias, groups, padding_mode: as in
            ``nn.Conv2d``.
        sampling: one of the four ways, or ``"weights"``: explicit filters where patches are small beside the
            outputs they give, as in the first convolution of a network, and flipped signs elsewhere.
        prior_std: standard deviation of the prior ``N(0, prior_std**2)``, or ``"learned"``.

    Shape:
        ``[batch, in_channels, height, width] -> [batch, out_channels, height', width']``, batch optional.

    Raises:
        TypeError: an input that is no floating-point tensor of the weights' dtype.
        ValueError: an unknown option, another number of channels or axes, fewer pixels than the kernel needs.

    Source:
        Kingma et al. (2015), section 2.3, https://arxiv.org/abs/1506.02557, for ``"outputs"``; Wen et al.
        (2018), section 3.1, https://arxiv.org/abs/1803.04386, for ``"flipped"``

    Example:
        >>> import torch
        >>> from mnf_lite import layers
        >>> layer = layers.MeanFieldConv2d(1, 4, 3, sampling="weights")
        >>> layer(torch.ones(5, 1, 8, 8)).shape
        torch.Size([5, 4, 6, 6])
    """


class MNFConv2d(_MNFConv):
    r"""Convolution with a multiplicative normalizing flow posterior; z scales the feature maps it gives.

    ``forward`` draws a fresh z for every example, :math:`W_{oihw} | z \sim \mathcal N(z_o \mu_{oihw},
    \sigma^2_{oihw})`, and the rest in one of the ways of :class:`MeanFieldConv2d`:

    .. math::
        \texttt{outputs}: \quad & y = z \circ (x * \mu) + m + \sqrt{x^2 * \sigma^2 + v}\;\varepsilon \\
        \texttt{explicit}: \quad & y = x * (z \mu + \sigma\varepsilon) + b \\
        \texttt{flipped}: \quad & y = z \circ (x * \mu)
            + r \circ \bigl((s \circ x) * (\sigma\varepsilon)\bigr) + b

    What is exact: given z, ``"outputs"`` draws every pixel as if it had filters of its own, so the training
    objective is an approximation, no bound; ``"explicit"`` and ``"flipped"`` give every example one exact
    draw of the weights, and ``"shared"`` gives one draw of z and the weights to the whole batch. The
    divergence (``kl``) concerns the weights alone and is a bound in all of them.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, bias, groups, padding_mode: as in
            ``nn.Conv2d``; the bias is independent of z, which has ``out_channels`` entries.
        n_flows_q: number of flows that shape q(z).
        n_flows_r: number of flows in the published r(z|W); the conjugate one has none, whatever is said.
        hidden: hidden layers of the flows' networks.
        prior_std: standard deviation of the prior ``N(0, prior_std**2)``, or ``"learned"``.
        auxiliary: ``"published"`` or ``"conjugate"``, the kind of r(z|W).
        sampling: ``"outputs"``, ``"explicit"``, ``"flipped"``, ``"shared"``, or ``"weights"`` for the cheaper
            of explicit and flipped.

    Shape:
        ``[batch, in_channels, height, width] -> [batch, out_channels, height', width']``, batch optional.

    Raises:
        TypeError: an input that is no floating-point tensor of the weights' dtype.
        ValueError: an unknown option, another number of channels or axes, fewer pixels than the kernel needs.

    Source:
        Louizos & Welling (2017), algorithm 2, https://arxiv.org/abs/1703.01961, for ``"outputs"``; Wen et al.
        (2018), section 3.1, https://arxiv.org/abs/1803.04386, for ``"flipped"``

    Example:
        >>> import torch
        >>> from mnf_lite import layers
        >>> layer = layers.MNFConv2d(1, 4, 3, auxiliary="conjugate", sampling="weights")
        >>> layer(torch.ones(5, 1, 8, 8)).shape
        torch.Size([5, 4, 6, 6])
    """


class _Geometry1d(_Conv):
    """The geometry of ``nn.Conv1d``."""

    twin = nn.Conv1d
    convolution = staticmethod(F.conv1d)
    pixels = ("length",)
    layout = torch.contiguous_format


class _Geometry3d(_Conv):
    """The geometry of ``nn.Conv3d``."""

    twin = nn.Conv3d
    convolution = staticmethod(F.conv3d)
    pixels = ("depth", "height", "width")
    layout = torch.contiguous_format


class _Transposed2d(_Conv):
    """The geometry of ``nn.ConvTranspose2d``, whose weights are ``[in, out, k, k]``."""

    twin = nn.ConvTranspose2d
    out_axis = 1

    def __init__(self, *sizes: Any, output_padding: Size = 0, **options: Any) -> None:
        super().__init__(*sizes, **options)
        if self.groups != 1 or self.padding_mode != "zeros" or isinstance(self.padding, str):
            raise ValueError(
                f"{type(self).__name__} takes groups=1, padding_mode='zeros' and padding in pixels, got "
                f"groups={self.groups}, padding_mode={self.padding_mode!r}, padding={self.padding!r}"
            )
        self.output_padding = _sizes(output_padding, 2, "output_padding", least=0)
        if any(
            o >= max(s, d) for o, s, d in zip(self.output_padding, self.stride, self.dilation, strict=True)
        ):
            raise ValueError(f"output_padding must be less than stride or dilation, got {output_padding!r}")

    def weight_shape(
        self, inputs: int, outputs: int, kernel: tuple[int, ...], groups: int
    ) -> tuple[int, ...]:
        return inputs, outputs, *kernel

    def options(self) -> dict[str, Any]:
        return super().options() | {"output_padding": self.output_padding}

    def check_pixels(self, x: Tensor) -> None:
        """Raise unless something is left of the output when its padding is cut off."""
        for k, (where, size) in enumerate(zip(self.pixels, x.shape[-2:], strict=True)):
            reach = self.dilation[k] * (self.kernel_size[k] - 1) + 1 + self.output_padding[k]
            if (size - 1) * self.stride[k] + reach <= 2 * self.padding[k]:
                name = type(self).__name__
                raise ValueError(f"{name} leaves no {where} of {size} pixels after padding={self.padding}")

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.conv_transpose2d(
            x, weight, bias, self.stride, self.padding, self.output_padding, dilation=self.dilation
        )

    def has_small_patches(self) -> bool:
        return False


class MeanFieldConv1d(_Geometry1d, _MeanFieldConv):
    """Convolution over one axis with independent Gaussian weights, as :class:`MeanFieldConv2d`.

    Shape:
        ``[batch, in_channels, length] -> [batch, out_channels, length']``, batch optional.

    Example:
        >>> MeanFieldConv1d(2, 4, 3)(torch.zeros(5, 2, 10)).shape
        torch.Size([5, 4, 8])
    """


class MeanFieldConv3d(_Geometry3d, _MeanFieldConv):
    """Convolution over three axes with independent Gaussian weights, as :class:`MeanFieldConv2d`.

    Shape:
        ``[batch, in_channels, depth, height, width] -> [batch, out_channels, depth', height', width']``,
        batch optional.

    Example:
        >>> MeanFieldConv3d(1, 2, 3)(torch.zeros(5, 1, 4, 6, 8)).shape
        torch.Size([5, 2, 2, 4, 6])
    """


class MeanFieldConvTranspose2d(_Transposed2d, _MeanFieldConv):
    """Transposed convolution with independent Gaussian weights, otherwise as :class:`MeanFieldConv2d`.

    Args:
        sizes, options: as of :class:`MeanFieldConv2d`, without groups and with a padding in pixels.
        output_padding: as in ``nn.ConvTranspose2d``.

    Shape:
        ``[batch, in_channels, height, width] -> [batch, out_channels, height', width']``, batch optional.

    Example:
        >>> MeanFieldConvTranspose2d(3, 2, 2, stride=2)(torch.zeros(5, 3, 4, 4)).shape
        torch.Size([5, 2, 8, 8])
    """


class MNFConv1d(_Geometry1d, _MNFConv):
    """Convolution over one axis with a multiplicative posterior, as :class:`MNFConv2d`.

    Shape:
        ``[batch, in_channels, length] -> [batch, out_channels, length']``, batch optional.

    Example:
        >>> import torch
        >>> from mnf_lite import layers
        >>> layers.MNFConv1d(2, 4, 3, groups=2)(torch.ones(5, 2, 8)).shape
        torch.Size([5, 4, 6])
    """


class MNFConv3d(_Geometry3d, _MNFConv):
    """Convolution over three axes with a multiplicative posterior, as :class:`MNFConv2d`.

    Shape:
        ``[batch, in_channels, depth, height, width] -> [batch, out_channels, depth', height', width']``,
        batch optional.

    Example:
        >>> import torch
        >>> from mnf_lite import layers
        >>> layers.MNFConv3d(1, 2, 3)(torch.ones(5, 1, 4, 5, 6)).shape
        torch.Size([5, 2, 2, 3, 4])
    """


class MNFConvTranspose2d(_Transposed2d, _MNFConv):
    """Transposed convolution with a multiplicative posterior, otherwise as :class:`MNFConv2d`.

    Args:
        sizes, options: as of :class:`MNFConv2d`, without groups and with a padding in pixels.
        output_padding: as in ``nn.ConvTranspose2d``.

    Shape:
        ``[batch, in_channels, height, width] -> [batch, out_channels, height', width']``, batch optional.

    Example:
        >>> import torch
        >>> from mnf_lite import layers
        >>> layers.MNFConvTranspose2d(2, 1, 3, stride=2)(torch.ones(5, 2, 4, 4)).shape
        torch.Size([5, 1, 9, 9])
    """

    z_axis = 1
