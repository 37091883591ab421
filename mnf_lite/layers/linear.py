"""Dense layers with random weights."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.layers.base import BayesianLayer, MeanField, Multiplicative, add_noise, filled, sqrt
from mnf_lite.nets import positive_int


class _Linear(BayesianLayer):
    """The geometry of ``nn.Linear``, whatever the posterior of its weights."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        prior_std: float | Literal["learned"] = 1.0,
    ) -> None:
        shape = (positive_int(out_features, "out_features"), positive_int(in_features, "in_features"))
        super().__init__(shape, bias, prior_std)
        self.in_features, self.out_features = in_features, out_features

    def layer_of(self, weight: Tensor, bias: Tensor | None) -> nn.Linear:
        layer = nn.Linear(self.in_features, self.out_features, bias is not None, device="meta")
        return filled(layer, weight, bias)

    def sample_output(self, x_mean: Tensor, x: Tensor) -> Tensor:
        """Draw by local reparametrisation: mean ``x_mean @ mu.T + m``, variance ``x**2 @ var.T + v``."""
        mean = F.linear(x_mean, self.weight_mean, self.bias_mean)
        variance = F.linear(x.square(), self.weight_log_var.exp(), self.bias_var())
        return add_noise(mean, variance, torch.randn_like(mean))

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias_mean is not None}, {self.prior_repr()}"
        )


class MeanFieldLinear(MeanField, _Linear):
    r"""Dense layer with independent Gaussian weights.

    One sample for every example by local reparametrisation, which is exact for dense layers:

    .. math:: y = x\mu^\top + m + \sqrt{x^2 {\sigma^2}^\top + v}\;\varepsilon

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        bias: whether to add a bias.
        prior_std: standard deviation of the prior ``N(0, prior_std**2)``, or ``"learned"``.

    Shape:
        ``[..., in_features] -> [..., out_features]``

    Raises:
        TypeError: an input that is no floating-point tensor of the weights' dtype.
        ValueError: a size below 1, or an input whose last axis has another size.

    Source:
        Kingma et al. (2015), section 2.3, https://arxiv.org/abs/1506.02557

    Example:
        >>> import torch
        >>> from mnf_lite import layers
        >>> layer = layers.MeanFieldLinear(3, 2)
        >>> layer(torch.ones(5, 3)).shape
        torch.Size([5, 2])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Draw one sample per example; every row of any leading axes is one."""
        self.check_input(x, ("...", self.in_features), -1)
        return self.sample_output(x, x)


class MNFLinear(Multiplicative, _Linear):
    r"""Dense layer with a multiplicative normalizing flow posterior; z scales the inputs.

    ``forward`` draws a fresh z and fresh weights for every example, exactly, by local reparametrisation:

    .. math:: W_{oi} | z \sim \mathcal N(z_i \mu_{oi}, \sigma^2_{oi}), \qquad
              y = (x \circ z)\,\mu^\top + m + \sqrt{x^2 {\sigma^2}^\top + v}\;\varepsilon

    Args:
        in_features: size of the last axis of the input, and of z.
        out_features: size of the last axis of the output.
        bias: whether to add a bias; it is independent of z.
        n_flows_q: number of flows that shape q(z).
        n_flows_r: number of flows in the published r(z|W); the conjugate one has none, whatever is said.
        hidden: hidden layers of the flows' networks.
        prior_std: standard deviation of the prior ``N(0, prior_std**2)``, or ``"learned"``.
        auxiliary: ``"published"`` or ``"conjugate"``, the kind of r(z|W).

    Shape:
        ``[..., in_features] -> [..., out_features]``

    Raises:
        TypeError: an input that is no floating-point tensor of the weights' dtype.
        ValueError: a size below 1, an unknown option, or an input whose last axis has another size.

    Source:
        Louizos & Welling (2017), algorithm 1, https://arxiv.org/abs/1703.01961

    Example:
        >>> import torch
        >>> from mnf_lite import layers
        >>> layer = layers.MNFLinear(3, 2, auxiliary="conjugate")
        >>> layer(torch.ones(5, 3)).shape
        torch.Size([5, 2])
        >>> layer.kl().shape
        torch.Size([])
    """

    z_axis = 1

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        n_flows_q: int = 2,
        n_flows_r: int = 2,
        hidden: Sequence[int] = (50,),
        prior_std: float | Literal["learned"] = 1.0,
        auxiliary: Literal["published", "conjugate"] = "conjugate",
    ) -> None:
        super().__init__(in_features, out_features, bias, prior_std=prior_std)
        self.init_multiplier(n_flows_q, n_flows_r, hidden, auxiliary)

    def forward(self, x: Tensor) -> Tensor:
        """Draw one sample per example; every row of any leading axes is one."""
        self.check_input(x, ("...", self.in_features), -1)
        if x.numel() == 0:
            return F.linear(x, self.weight_mean)
        z, _ = self.sample_z(x[..., 0].numel())
        return self.sample_output(x * z.view_as(x), x)

    def statistic(self, z: Tensor) -> Tensor:
        r"""Draw :math:`s = \mathrm{mean}_o \tanh(\sum_i c_i W_{oi})` by its sums, Gaussian given z."""
        mean = (z * self.r_c) @ self.weight_mean.T  # [n, in] -> [n, out]
        std = sqrt(self.weight_log_var.exp() @ self.r_c.square())  # [out]
        return torch.addcmul(mean, std, torch.randn_like(mean)).tanh().mean(-1, keepdim=True)
