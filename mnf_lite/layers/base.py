r"""What Bayesian layers have in common: Gaussian weights, their divergence from the prior, and draws of them.

Every layer has the prior :math:`p(W, b)`: all weights and biases independent :math:`\mathcal N(0, p)`, where
:math:`p` is the square of ``prior_std``. Two posteriors are offered. ``MeanField``: independent Gaussians.
``Multiplicative``: the same Gaussians, their means multiplied by a random variable z that a flow shapes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.flows import Compose, GatedCoupling

LOG_2PI = math.log(2 * math.pi)


def sqrt(variance: Tensor) -> Tensor:
    """Square root with a finite gradient where a variance has underflowed to 0: the gradient there is 0."""
    tiny = torch.finfo(variance.dtype).tiny
    return F.threshold(variance, tiny, tiny).sqrt_()  # clamp(min=tiny), with a cheaper gradient


class _AddNoise(torch.autograd.Function):
    """``y = mean + sqrt(variance) * noise``, and its slope in the variance, which is all the way back needs.

    Autograd would make six more tensors of this size, and fresh memory costs more time than their arithmetic.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(mean: Tensor, variance: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        slope = noise / sqrt(variance).mul_(2)
        return torch.addcmul(mean, variance, slope, value=2), slope

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[1], output[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_slope: Tensor | None) -> tuple[Tensor | None, ...]:
        variance, slope = ctx.saved_tensors
        in_variance = None if grad is None else grad * slope
        if grad_slope is not None:  # second derivatives
            tiny = torch.finfo(variance.dtype).tiny
            bend = grad_slope * slope / (-2 * variance.masked_fill(variance < tiny, math.inf))
            in_variance = bend if in_variance is None else in_variance + bend
        return grad, in_variance, None


def add_noise(mean: Tensor, variance: Tensor, noise: Tensor) -> Tensor:
    """Local reparametrisation: ``mean + sqrt(variance) * noise``."""
    y: Tensor = _AddNoise.apply(mean, variance, noise)[0]  # type: ignore[no-untyped-call]
    return y


def sample_gaussian(mean: Tensor, log_var: Tensor, n: int) -> Tensor:
    """Draws ``[n, *log_var.shape]`` around ``mean``, which broadcasts to that shape."""
    noise = torch.randn_like(log_var.new_empty(n, *log_var.shape))
    return torch.addcmul(mean, noise, (log_var / 2).exp())


def positive_int(value: Any, name: str, least: int = 1) -> int:
    """Return ``value`` as an int if it is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def positive_number(value: Any, name: str) -> float:
    """Return ``value`` as a float if it is a positive finite number."""
    if not isinstance(value, Real) or not 0 < float(value) < math.inf:
        raise ValueError(f"{name} must be a positive finite number, got {value!r}")
    return float(value)


class BayesianLayer(nn.Module, ABC):
    """A layer whose weights and biases are random variables with a Gaussian prior.

    Args:
        weight_shape: ``[out, in]`` or ``[out, in, k, k]``.
        bias: whether the layer adds a bias.
        prior_std: standard deviation of the prior of every weight and bias.

    Means start as He et al. (2015) scale them, log variances at -9, biases at 0.

    Raises:
        ValueError: a size that is not a positive integer, a deviation that is not a positive number.
    """

    prior_std: float
    weight_mean: nn.Parameter
    weight_log_var: nn.Parameter
    bias_mean: nn.Parameter | None
    bias_log_var: nn.Parameter | None

    def __init__(self, weight_shape: Sequence[int], bias: bool, prior_std: float) -> None:
        super().__init__()
        self.prior_std = positive_number(prior_std, "prior_std")
        self.weight_mean = nn.Parameter(nn.init.kaiming_normal_(torch.empty(*weight_shape)))
        self.weight_log_var = nn.Parameter(torch.full(tuple(weight_shape), -9.0))
        self.bias_mean = nn.Parameter(torch.zeros(weight_shape[0])) if bias else None
        self.bias_log_var = nn.Parameter(torch.full((weight_shape[0],), -9.0)) if bias else None

    @abstractmethod
    def plain(self) -> nn.Module:
        """An ``nn.Linear`` or ``nn.Conv2d`` whose weights are one draw from the posterior."""

    @abstractmethod
    def kl_terms(self, n: int) -> dict[str, Tensor]:
        """Draw the four terms of the bound, each ``[n]`` in nats, under the names of ``kl_parts``."""

    @abstractmethod
    def sample_weights(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Joint draws ``(W [n, out, in, ...], b [n, out])`` from the posterior; no bias: b is None."""

    def kl_samples(self, n: int) -> Tensor:
        """Draw independent unbiased estimates ``[n]``, in nats, of the bound on ``KL(q(W, b) || p(W, b))``."""
        terms = self.kl_terms(n)
        return terms["weights"] + terms["bias"] + terms["log_q"] - terms["log_r"]

    def kl(self, n: int = 1) -> Tensor:
        """Return the mean of ``n`` draws of ``kl_samples``, a scalar in nats."""
        return self.kl_samples(n).mean()

    def kl_parts(self, n: int = 1) -> dict[str, Tensor]:
        r"""Return the four parts of the bound, each a mean over ``n`` draws in nats.

        .. math:: K = \mathrm{KL}_W + \mathrm{KL}_b + \mathbb E \log q(z) - \mathbb E \log r(z|W)

        Args:
            n: number of draws of z, as in ``kl``.

        Returns:
            Scalars by name: ``weights``, ``bias``, ``log_q`` and ``log_r``. The bound is
            ``weights + bias + log_q - log_r``; a layer without z has 0 for the last two.

        Example:
            >>> from mnf_lite import layers
            >>> parts = layers.MeanFieldLinear(3, 2).kl_parts()
            >>> {name: part.item() for name, part in parts.items() if name.startswith("log")}
            {'log_q': 0.0, 'log_r': 0.0}
        """
        return {name: draws.mean() for name, draws in self.kl_terms(n).items()}

    def kl_gaussian(self, mean_square: Tensor, log_var: Tensor) -> Tensor:
        r"""KL from Gaussians to the prior, in nats.

        .. math:: \tfrac12 \sum \bigl[(\sigma^2 + \mu^2)/p - 1 - \log\sigma^2 + \log p\bigr]

        Args:
            mean_square: the sum of all squared means, of any shape ``[...]``, and so is the result.
            log_var: log variances, all of which are summed.
        """
        log_ratio = log_var - 2 * math.log(self.prior_std)  # of the variances: log(sigma^2 / p)
        # e^a - 1 - a as expm1(a) - a: exactly 0 where posterior and prior agree, not a sum of rounding errors
        kl: Tensor = ((log_ratio.expm1() - log_ratio).sum() + mean_square / self.prior_std**2) / 2
        return kl

    def kl_bias(self) -> Tensor:
        """Return the KL of the biases, a scalar in nats; 0 for a layer that has none."""
        if self.bias_mean is None or self.bias_log_var is None:
            return self.weight_mean.new_zeros(())
        return self.kl_gaussian(self.bias_mean.square().sum(), self.bias_log_var)

    def bias_var(self) -> Tensor | None:
        """Variances of the biases ``[out]``, None for a layer that has none."""
        return None if self.bias_log_var is None else self.bias_log_var.exp()

    def sample_bias(self, n: int) -> Tensor | None:
        """Draws of the bias ``[n, out]``, None for a layer that has none."""
        if self.bias_mean is None or self.bias_log_var is None:
            return None
        return sample_gaussian(self.bias_mean, self.bias_log_var, n)

    def check_input(self, x: Tensor, channels: int, axis: int, ndims: Sequence[int] | None = None) -> None:
        """Raise unless ``x`` is a floating-point tensor with ``channels`` entries along ``axis``."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = f"a {x.dtype} tensor" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{type(self).__name__} expects a floating-point tensor, got {came}")
        if x.dtype != self.weight_mean.dtype and not torch.is_autocast_enabled(x.device.type):
            own = self.weight_mean.dtype
            raise TypeError(f"{type(self).__name__} has weights of {own}, got a {x.dtype} tensor")
        if x.ndim < -axis or x.shape[axis] != channels or (ndims and x.ndim not in ndims):
            shape = f"[..., {channels}]" if axis == -1 else f"[batch, {channels}, height, width]"
            raise ValueError(f"{type(self).__name__} expects input of shape {shape}, got {list(x.shape)}")


class MeanField(BayesianLayer):
    r"""The posterior of independent Gaussians.

    .. math:: q(W, b) = \prod \mathcal N(\mu, \sigma^2) \prod \mathcal N(m, v)

    Its divergence from the prior has a closed form, so all draws of ``kl_samples`` are equal.

    Source:
        Graves (2011); Blundell et al. (2015).
    """

    def kl_terms(self, n: int) -> dict[str, Tensor]:
        """Return ``KL(q(W, b) || p(W, b))`` in nats, exact and so the same ``n`` times; there is no z."""
        weights = self.kl_gaussian(self.weight_mean.square().sum(), self.weight_log_var)
        bias, none = self.kl_bias(), weights.new_zeros(())
        terms = {"weights": weights, "bias": bias, "log_q": none, "log_r": none}
        return {name: term.expand(positive_int(n, "n")) for name, term in terms.items()}

    def sample_weights(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Independent draws ``(W [n, out, in, ...], b [n, out])``; ``b`` is None without a bias."""
        w = sample_gaussian(self.weight_mean, self.weight_log_var, positive_int(n, "n"))
        return w, self.sample_bias(n)


class Multiplicative(BayesianLayer):
    r"""The multiplicative normalizing flow posterior.

    .. math::
        z_0 \sim \mathcal N(m_0, \operatorname{diag} s_0^2), \quad z = f_q(z_0), \quad
        W \mid z \sim \mathcal N(z\,\mu, \sigma^2), \quad b \sim \mathcal N(m, v)

    :math:`q(W) = \int q(W|z)\, q(z)\, dz` has no closed form. With an auxiliary posterior :math:`r(z|W)`,

    .. math::
        \mathrm{KL}(q(W, b) \,\|\, p(W, b)) \le
        \mathbb E\bigl[\mathrm{KL}_W(z) + \mathrm{KL}_b + \log q(z) - \log r(z|W)\bigr],

    where the expectation is over z and W. :math:`r(z|W)` is a Gaussian in :math:`z_b = f_r(z)`, of mean
    :math:`b_1 s` and log **precision** :math:`\lambda = b_2 s` clamped to [-10, 10], where the scalar
    :math:`s` is a statistic of the weights (see ``statistic``). Both flows are only ever run forward.

    The gap of the bound is :math:`\mathbb E\,\mathrm{KL}(q(z|W) \,\|\, r(z|W))`; where r ignores W it is at
    least the mutual information of z and W.

    Source:
        Louizos & Welling (2017); the bound is that of Ranganath et al. (2016).
    """

    z_axis: int  # the axis of the weight that z multiplies
    max_log_precision = 10.0

    def init_multiplier(self, n_flows_q: int, n_flows_r: int, hidden: Sequence[int]) -> None:
        """Add the parameters of q(z) and r(z|W): z starts at 1 with variance 0.1."""
        dim = self.weight_mean.shape[self.z_axis]
        self.q0_mean = nn.Parameter(torch.ones(dim))
        self.q0_log_var = nn.Parameter(torch.full((dim,), math.log(0.1)))
        self.r_c = nn.Parameter(torch.randn(dim))
        self.r_b1 = nn.Parameter(0.1 * torch.randn(dim))
        self.r_b2 = nn.Parameter(0.1 * torch.randn(dim))
        self.flow_q, self.flow_r = (
            Compose([GatedCoupling(dim, k % 2, hidden) for k in range(positive_int(n, name, least=0))], dim)
            for n, name in ((n_flows_q, "n_flows_q"), (n_flows_r, "n_flows_r"))
        )

    @abstractmethod
    def statistic(self, z: Tensor) -> Tensor:
        """One exact draw of the statistic s of the weights for each ``z [n, D]``: ``[n, 1]``."""

    def sample_z(self, n: int) -> tuple[Tensor, Tensor]:
        """Draws from q(z) with their log density in nats: ``(z [n, D], log_q [n])``."""
        noise = torch.randn_like(self.q0_mean.new_empty(positive_int(n, "n"), len(self.q0_mean)))
        z, log_det = self.flow_q(torch.addcmul(self.q0_mean, noise, (self.q0_log_var / 2).exp()))
        return z, -((noise.square() + LOG_2PI).sum(-1) + self.q0_log_var.sum()) / 2 - log_det

    def log_r(self, z: Tensor) -> Tensor:
        r"""Log density in nats ``[n]`` of the auxiliary posterior r(z|W) at ``z [n, D]``, W drawn given z.

        .. math:: \tfrac12 \sum_d \bigl[-\log 2\pi + \lambda - e^\lambda (z_b - b_1 s)^2\bigr]
                  + \log\Bigl|\det\frac{\partial z_b}{\partial z}\Bigr|, \qquad
                  \lambda = b_2 s
        """
        s = self.statistic(z)  # [n, 1]
        z_b, log_det = self.flow_r(z)
        # r stays a density wherever lambda is limited; far out its exponential has tails too heavy to average
        log_precision = (self.r_b2 * s).clamp(-self.max_log_precision, self.max_log_precision)  # [n, D]
        distance = log_precision.exp() * (z_b - self.r_b1 * s).square()
        log_density: Tensor = (log_precision - LOG_2PI - distance).sum(-1) / 2 + log_det
        return log_density

    def kl_terms(self, n: int) -> dict[str, Tensor]:
        """Draw ``KL_W(z)``, ``KL_b``, ``log q(z)`` and ``log r(z|W)``, ``[n]`` each, in nats."""
        z, log_q = self.sample_z(n)
        others = [axis for axis in range(self.weight_mean.ndim) if axis != self.z_axis]
        mean_square = z.square() @ self.weight_mean.square().sum(others)  # [n]
        weights = self.kl_gaussian(mean_square, self.weight_log_var)
        return {"weights": weights, "bias": self.kl_bias().expand(n), "log_q": log_q, "log_r": self.log_r(z)}

    def sample_weights(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Joint draws ``(W [n, out, in, ...], b [n, out])``, z drawn anew for each; no bias: b is None."""
        z, _ = self.sample_z(n)
        shape = [n] + [1] * self.weight_mean.ndim
        shape[1 + self.z_axis] = -1
        return sample_gaussian(z.view(shape) * self.weight_mean, self.weight_log_var, n), self.sample_bias(n)
