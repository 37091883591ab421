"""Dense layers with random weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.layers.base import BayesianLayer, MeanField, Multiplicative, add_noise, positive_int, sqrt


class _Linear(BayesianLayer):
    """The geometry of ``nn.Linear``, whatever the posterior of its weights."""

    def __init__(self, in_features: int, out_features: int, bias: bool, prior_std: float) -> None:
        shape = (positive_int(out_features, "out_features"), positive_int(in_features, "in_features"))
        super().__init__(shape, bias, prior_std)
        self.in_features, self.out_features = in_features, out_features

    def plain(self) -> nn.Linear:
        w, b = self.sample_weights(1)
        # made on "meta", where initial values that nobody would see cost nothing
        layer = nn.Linear(self.in_features, self.out_features, b is not None, device="meta")
        layer.load_state_dict({"weight": w[0]} | ({} if b is None else {"bias": b[0]}), assign=True)
        return layer

    def sample_output(self, x_mean: Tensor, x: Tensor) -> Tensor:
        """Local reparametrisation: mean ``x_mean @ mu.T + m``, variance ``x**2 @ var.T + v``."""
        mean = F.linear(x_mean, self.weight_mean, self.bias_mean)
        variance = F.linear(x.square(), self.weight_log_var.exp(), self.bias_var())
        return add_noise(mean, variance, torch.randn_like(mean))

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias_mean is not None}, prior_std={self.prior_std:g}"
        )


class MeanFieldLinear(MeanField, _Linear):
    r"""Dense layer with independent Gaussian weights.

    One sample for every example by local reparametrisation (Kingma et al., 2015), exact for dense layers:

    .. math:: y = x\mu^\top + m + \sqrt{x^2 {\sigma^2}^\top + v}\;\varepsilon

    Args:
        in_features: size of the last axis of the input.
        out_features: size of the last axis of the output.
        bias: whether to add a bias.
        prior_std: standard deviation of the prior ``N(0, prior_std**2)``.

    Shape:
        ``[..., in_features] -> [..., out_features]``

    Raises:
        TypeError, ValueError: integers, or a last axis of another size.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, prior_std: float = 1.0
    ) -> None:
        super().__init__(in_features, out_features, bias, prior_std)

    def forward(self, x: Tensor) -> Tensor:
        """One sample per example; every row of any leading axes is one."""
        self.check_input(x, self.in_features, -1)
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
        n_flows_r: number of flows in the auxiliary posterior r(z|W).
        hidden: hidden layers of the flows' networks.
        prior_std: standard deviation of the prior ``N(0, prior_std**2)``.

    Shape:
        ``[..., in_features] -> [..., out_features]``

    Raises:
        TypeError, ValueError: integers, or a last axis of another size.

    Source:
        Louizos & Welling (2017), algorithm 1.
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
        prior_std: float = 1.0,
    ) -> None:
        super().__init__(in_features, out_features, bias, prior_std)
        self.init_multiplier(n_flows_q, n_flows_r, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """One sample per example; every row of any leading axes is one."""
        self.check_input(x, self.in_features, -1)
        if x.numel() == 0:
            return F.linear(x, self.weight_mean)
        z, _ = self.sample_z(x[..., 0].numel())
        return self.sample_output(x * z.view_as(x), x)

    def statistic(self, z: Tensor) -> Tensor:
        r""":math:`s = \mathrm{mean}_o \tanh(\sum_i c_i W_{oi})`, the sums Gaussian given z: drawn exactly."""
        mean = (z * self.r_c) @ self.weight_mean.T  # [n, in] -> [n, out]
        std = sqrt(self.weight_log_var.exp() @ self.r_c.square())  # [out]
        return torch.addcmul(mean, std, torch.randn_like(mean)).tanh().mean(-1, keepdim=True)
