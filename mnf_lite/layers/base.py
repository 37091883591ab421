r"""What Bayesian layers have in common: Gaussian weights, their divergence from the prior, and draws of them.

Every layer has the prior :math:`p(W, b)`: all weights and biases independent :math:`\mathcal N(0, p)`, where
:math:`p` is the square of ``prior_std``. Two posteriors are offered. ``MeanField``: independent Gaussians.
``Multiplicative``: the same Gaussians, their means multiplied by a random variable z that a flow shapes.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.flows import Compose, GatedCoupling
from mnf_lite.nets import positive_int, positive_number

LOG_2PI = math.log(2 * math.pi)


def sqrt(variance: Tensor) -> Tensor:
    """Square root with a finite gradient where a variance has underflowed to 0: the gradient there is 0."""
    tiny = torch.finfo(variance.dtype).tiny
    return F.threshold(variance, tiny, tiny).sqrt_()  # clamp(min=tiny), with a cheaper gradient


class _AddNoise(torch.autograd.Function):
    """``y = mean + sqrt(variance) * noise``, and its slope in the variance, which is all the way back needs.

    Autograd would make six more tensors of this size, and fresh memory costs more time than their arithmetic.
    Written plainly, a step of ``MNFLeNet`` takes 8 % longer at batch 128 and 20 % at 512, all of it in the
    convolutions; dense layers are as fast either way.
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
    """Draw ``[n, *log_var.shape]`` around ``mean``, which broadcasts to that shape."""
    noise = torch.randn_like(log_var.new_empty(n, *log_var.shape))
    return torch.addcmul(mean, noise, (log_var / 2).exp())


Made = TypeVar("Made", bound=nn.Module)


def filled(layer: Made, weight: Tensor, bias: Tensor | None) -> Made:
    """Give a layer its weights; on "meta" it is made without initial values that nobody would see."""
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}), assign=True)
    return layer


def one_of(value: Any, options: Sequence[str], name: str) -> str:
    """Return ``value`` if it is one of the options."""
    if not isinstance(value, str) or value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")
    return value


class BayesianLayer(nn.Module, ABC):
    r"""A layer whose weights and biases are random variables with a Gaussian prior.

    Means start as He et al. (2015) scale them, log variances at -9, biases at 0.

    Args:
        weight_shape: ``[out, in]`` or ``[out, in, k, k]``.
        bias: whether the layer adds a bias.
        prior_std: standard deviation of the prior of every weight and bias, or ``"learned"``: it starts at 1
            and ``update_prior`` sets it to what fits the posterior best.

    Raises:
        ValueError: a size that is not a positive integer, a deviation that is not a positive number.

    Source:
        He et al. (2015), eq. 14, https://arxiv.org/abs/1502.01852

    Example:
        >>> from mnf_lite import layers
        >>> isinstance(layers.MNFLinear(3, 2), layers.BayesianLayer)
        True
    """

    prior_std: float | Tensor  # a buffer where it is learned
    out_axis = 0  # of the weight
    weight_mean: nn.Parameter
    weight_log_var: nn.Parameter
    bias_mean: nn.Parameter | None
    bias_log_var: nn.Parameter | None

    def __init__(
        self, weight_shape: Sequence[int], bias: bool, prior_std: float | Literal["learned"]
    ) -> None:
        super().__init__()
        if not isinstance(bias, bool):
            raise TypeError(f"bias must be True or False, got {bias!r}")
        if isinstance(prior_std, str) and prior_std == "learned":
            self.register_buffer("prior_std", torch.ones(()))
        else:
            self.prior_std = positive_number(prior_std, "prior_std", "or 'learned'")
        out = weight_shape[self.out_axis]
        fan: Literal["fan_in", "fan_out"] = "fan_out" if self.out_axis else "fan_in"
        self.weight_mean = nn.Parameter(nn.init.kaiming_normal_(torch.empty(*weight_shape), mode=fan))
        self.weight_log_var = nn.Parameter(torch.full(tuple(weight_shape), -9.0))
        self.bias_mean = nn.Parameter(torch.zeros(out)) if bias else None
        self.bias_log_var = nn.Parameter(torch.full((out,), -9.0)) if bias else None

    @abstractmethod
    def layer_of(self, weight: Tensor, bias: Tensor | None) -> nn.Module:
        """Make torch's own layer of this geometry with the weights given."""

    @abstractmethod
    def kl_terms(self, n: int) -> dict[str, Tensor]:
        """Draw the four terms of the bound, each ``[n]`` in nats, under the names of ``kl_parts``."""

    @abstractmethod
    def sample_weights(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw ``(W [n, out, in, ...], b [n, out])`` jointly; ``b`` is None without a bias."""

    @abstractmethod
    def weight_moments(self, n: int) -> tuple[Tensor, Tensor]:
        """Return ``E[W]`` and ``E[W^2]``; where z runs through a flow, from ``n`` draws of z."""

    def plain(self) -> nn.Module:
        """Make torch's own layer, such as ``nn.Linear``, whose weights are one draw from the posterior."""
        w, b = self.sample_weights(1)
        return self.layer_of(w[0], None if b is None else b[0])

    @torch.no_grad()
    def mean_layer(self, n: int = 1000) -> nn.Module:
        """Make torch's own layer whose weights are the posterior's means; ``n`` as in ``weight_moments``."""
        positive_int(n, "n")
        bias = None if self.bias_mean is None else self.bias_mean.clone()
        return self.layer_of(self.weight_moments(n)[0].clone(), bias)

    @torch.no_grad()
    def update_prior(self, n: int = 64) -> None:
        r"""Set a learned prior to the one that makes the bound least for the posterior as it stands.

        Weights and biases share the layer's prior, so its variance is the mean of all their squares:

        .. math:: p = \operatorname{mean}_j \mathbb E\,w_j^2, \qquad
                  \mathbb E\,W_j^2 = \sigma_j^2 + \mathbb E[z^2]\,\mu_j^2, \qquad
                  \mathbb E\,b_j^2 = v_j + m_j^2

        Args:
            n: draws of z from which :math:`\mathbb E[z^2]` is taken where z runs through a flow.

        Raises:
            ValueError: the layer has a fixed prior.

        Example:
            >>> from mnf_lite import layers
            >>> layer = layers.MeanFieldLinear(3, 2, prior_std="learned")
            >>> with torch.no_grad():
            ...     _ = layer.weight_mean.fill_(0.5), layer.bias_mean.fill_(-0.5)
            >>> layer.update_prior()
            >>> round(layer.prior_std.item(), 3)  # the variances are small
            0.5
        """
        if not isinstance(self.prior_std, Tensor):
            raise ValueError(
                f"{type(self).__name__} has the fixed prior_std={self.prior_std:g}; "
                "make it with prior_std='learned' to learn it"
            )
        squares = self.weight_moments(n)[1].flatten()
        if self.bias_mean is not None and self.bias_log_var is not None:
            squares = torch.cat((squares, self.bias_mean.square() + self.bias_log_var.exp()))
        self.prior_std.copy_(sqrt(squares.mean()))

    def prior_repr(self) -> str:
        """Show the prior in the layer's repr."""
        learned = ", learned" if isinstance(self.prior_std, Tensor) else ""
        return f"prior_std={float(self.prior_std):g}{learned}"

    def kl_samples(self, n: int) -> Tensor:
        """Draw independent unbiased estimates ``[n]``, in nats, of the bound on KL(q(W, b) || p(W, b))."""
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
        r"""Return the KL from Gaussians to the prior, in nats.

        .. math:: \tfrac12 \sum \bigl[(\sigma^2 + \mu^2)/p - 1 - \log\sigma^2 + \log p\bigr]

        Args:
            mean_square: the sum of all squared means, of any shape ``[...]``, and so is the result.
            log_var: log variances, all of which are summed.
        """
        std = self.prior_std
        log_std = std.log() if isinstance(std, Tensor) else math.log(std)
        log_ratio = log_var - 2 * log_std  # of the variances: log(sigma^2 / p)
        # e^a - 1 - a as expm1(a) - a: exactly 0 where posterior and prior agree, not a sum of rounding errors
        kl: Tensor = ((log_ratio.expm1() - log_ratio).sum() + mean_square / std**2) / 2
        return kl

    def kl_bias(self) -> Tensor:
        """Return the KL of the biases, a scalar in nats; 0 for a layer that has none."""
        if self.bias_mean is None or self.bias_log_var is None:
            return self.weight_mean.new_zeros(())
        return self.kl_gaussian(self.bias_mean.square().sum(), self.bias_log_var)

    def bias_var(self) -> Tensor | None:
        """Return the variances of the biases ``[out]``, None for a layer that has none."""
        return None if self.bias_log_var is None else self.bias_log_var.exp()

    def sample_bias(self, n: int) -> Tensor | None:
        """Draw the bias ``[n, out]``, None for a layer that has none."""
        if self.bias_mean is None or self.bias_log_var is None:
            return None
        return sample_gaussian(self.bias_mean, self.bias_log_var, n)

    def check_input(
        self, x: Tensor, expected: Sequence[str | int], axis: int, ndims: Sequence[int] | None = None
    ) -> None:
        """Raise unless ``x`` is a floating-point tensor with the channels expected along ``axis``."""
        name = type(self).__name__
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = f"a {x.dtype} tensor" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{name} expects a floating-point tensor, got {came}")
        own = self.weight_mean
        if x.dtype != own.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"{name} has weights of {own.dtype}, got a {x.dtype} tensor")
        if x.device != own.device:
            raise ValueError(f"{name} has weights on {own.device}, got a tensor on {x.device}")
        if x.ndim < -axis or x.shape[axis] != expected[axis] or (ndims and x.ndim not in ndims):
            shape = ", ".join(map(str, expected))
            raise ValueError(f"{name} expects input of shape [{shape}], got {list(x.shape)}")


class MeanField(BayesianLayer):
    r"""The posterior of independent Gaussians.

    .. math:: q(W, b) = \prod \mathcal N(\mu, \sigma^2) \prod \mathcal N(m, v)

    Its divergence from the prior has a closed form, so all draws of ``kl_samples`` are equal.

    Source:
        Blundell et al. (2015), section 3.2, https://arxiv.org/abs/1505.05424
    """

    def kl_terms(self, n: int) -> dict[str, Tensor]:
        """Return ``KL(q(W, b) || p(W, b))`` in nats, exact and so the same ``n`` times; there is no z."""
        weights = self.kl_gaussian(self.weight_mean.square().sum(), self.weight_log_var)
        bias, none = self.kl_bias(), weights.new_zeros(())
        terms = {"weights": weights, "bias": bias, "log_q": none, "log_r": none}
        return {name: term.expand(positive_int(n, "n")) for name, term in terms.items()}

    def sample_weights(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw ``(W [n, out, in, ...], b [n, out])``, all independent; ``b`` is None without a bias."""
        w = sample_gaussian(self.weight_mean, self.weight_log_var, positive_int(n, "n"))
        return w, self.sample_bias(n)

    def weight_moments(self, n: int) -> tuple[Tensor, Tensor]:
        """Return ``E[W]`` and ``E[W^2]``, exact whatever ``n``."""
        return self.weight_mean, self.weight_mean.square() + self.weight_log_var.exp()


AUXILIARY = ("published", "conjugate")


class Multiplicative(BayesianLayer):
    r"""The multiplicative normalizing flow posterior.

    .. math::
        z_0 \sim \mathcal N(m_0, \operatorname{diag} s_0^2), \quad z = f_q(z_0), \quad
        W \mid z \sim \mathcal N(z\,\mu, \sigma^2), \quad b \sim \mathcal N(m, v)

    :math:`q(W) = \int q(W|z)\, q(z)\, dz` has no closed form. With an auxiliary posterior :math:`r(z|W)`,

    .. math::
        \mathrm{KL}(q(W, b) \,\|\, p(W, b)) \le
        \mathbb E\bigl[\mathrm{KL}_W(z) + \mathrm{KL}_b + \log q(z) - \log r(z|W)\bigr],

    where the expectation is over z and W. The gap of the bound is
    :math:`\mathbb E\,\mathrm{KL}(q(z|W) \,\|\, r(z|W))`. Two kinds of r are offered. With the published one
    (``log_published_r``) the gap is about the mutual information of z and W unless r learns to read W. With
    the conjugate one (``log_conjugate_r``) it is at most :math:`\mathrm{KL}(q(z) \,\|\, g(z))`, where g is a
    Gaussian that is learned, and 0 where q(z) has no flow. Flows are only ever run forward.

    Source:
        Louizos & Welling (2017), https://arxiv.org/abs/1703.01961; the bound is that of Ranganath et al.
        (2016), section 3, https://arxiv.org/abs/1511.02386
    """

    z_axis: int  # the axis of the weight that z multiplies
    max_log_precision = 10.0  # of the published r
    max_log_var = 30.0  # of g, and of the inverse variances that the conjugate r knows of
    r_mean: nn.Parameter | None
    r_log_var: nn.Parameter | None

    def init_multiplier(self, n_flows_q: int, n_flows_r: int, hidden: Sequence[int], auxiliary: str) -> None:
        """Add the parameters of q(z) and r(z|W): z starts at 1 with variance 0.1, and so does g."""
        if not isinstance(hidden, list | tuple):
            raise TypeError(f"hidden must be a list or tuple of sizes, got {hidden!r}")
        hidden = [positive_int(size, "every size in hidden") for size in hidden]
        positive_int(n_flows_q, "n_flows_q", least=0)
        positive_int(n_flows_r, "n_flows_r", least=0)
        self.auxiliary = one_of(auxiliary, AUXILIARY, "auxiliary")
        dim = self.weight_mean.shape[self.z_axis]

        def chain(n: int) -> Compose:
            return Compose([GatedCoupling(dim, k % 2, hidden) for k in range(n)], dim)

        self.q0_mean = nn.Parameter(torch.ones(dim))
        self.q0_log_var = nn.Parameter(torch.full((dim,), math.log(0.1)))
        if auxiliary == "published":
            self.r_c = nn.Parameter(torch.randn(dim))
            self.r_b1 = nn.Parameter(0.1 * torch.randn(dim))
            self.r_b2 = nn.Parameter(0.1 * torch.randn(dim))
            self.flow_q, self.flow_r = chain(n_flows_q), chain(n_flows_r)
            return
        flow = n_flows_q > 0  # without one g is q(z) itself
        self.r_mean = nn.Parameter(self.q0_mean.detach().clone()) if flow else None
        self.r_log_var = nn.Parameter(self.q0_log_var.detach().clone()) if flow else None
        self.flow_q = chain(n_flows_q)

    @abstractmethod
    def statistic(self, z: Tensor) -> Tensor:
        """Draw the statistic s of the weights exactly for each ``z [n, D]``: ``[n, 1]``."""

    def other_axes(self) -> list[int]:
        """Return the axes of the weight that z does not run along."""
        return [axis for axis in range(self.weight_mean.ndim) if axis != self.z_axis]

    def along_z(self, z: Tensor) -> Tensor:
        """Shape ``z [..., D]`` so that it multiplies the weights."""
        shape = [1] * self.weight_mean.ndim
        shape[self.z_axis] = -1
        return z.view(*z.shape[:-1], *shape)

    def sample_z(self, n: int) -> tuple[Tensor, Tensor]:
        """Draw from q(z), with log densities in nats: ``(z [n, D], log_q [n])``."""
        noise = torch.randn_like(self.q0_mean.new_empty(positive_int(n, "n"), len(self.q0_mean)))
        z, log_det = self.flow_q(torch.addcmul(self.q0_mean, noise, (self.q0_log_var / 2).exp()))
        return z, -((noise.square() + LOG_2PI).sum(-1) + self.q0_log_var.sum()) / 2 - log_det

    def log_r(self, z: Tensor) -> Tensor:
        """Return ``log r(z|W)`` in nats ``[n]`` at ``z [n, D]``, for weights drawn given z."""
        return self.log_published_r(z) if self.auxiliary == "published" else self.log_conjugate_r(z)

    def log_published_r(self, z: Tensor) -> Tensor:
        r"""Return the log density of the paper's r(z|W), a Gaussian in :math:`z_b = f_r(z)`.

        .. math:: \tfrac12 \sum_d \bigl[-\log 2\pi + \lambda - e^\lambda (z_b - b_1 s)^2\bigr]
                  + \log\Bigl|\det\frac{\partial z_b}{\partial z}\Bigr|, \qquad
                  \lambda = b_2 s

        The scalar :math:`s` is a statistic of the weights (see ``statistic``), drawn anew for each z;
        :math:`\lambda` is a log **precision**, clamped to [-10, 10].

        Args:
            z: ``[n, D]``.

        Returns:
            Log densities in nats, ``[n]``.

        Source:
            Louizos & Welling (2017), eqs. 9 to 11, https://arxiv.org/abs/1703.01961
        """
        s = self.statistic(z)  # [n, 1]
        z_b, log_det = self.flow_r(z)
        # r stays a density wherever lambda is limited; far out its exponential has tails too heavy to average
        log_precision = (self.r_b2 * s).clamp(-self.max_log_precision, self.max_log_precision)  # [n, D]
        distance = log_precision.exp() * (z_b - self.r_b1 * s).square()
        log_density: Tensor = (log_precision - LOG_2PI - distance).sum(-1) / 2 + log_det
        return log_density

    def log_conjugate_r(self, z: Tensor) -> Tensor:
        r"""Return the mean, over the weights given z, of the log density of the conjugate r(z|W).

        For a Gaussian :math:`g(z) = \mathcal N(m_r, \operatorname{diag} s_r^2)` it is the posterior of z that
        Bayes' rule gives, :math:`r(z|W) = g(z)\, p(W|z) / g(W)`. The weights of unit d tell of z through one
        number, Gaussian given z:

        .. math::
            t_d = \sum_{j \in d} \frac{W_j \mu_j}{\sigma_j^2} \sim \mathcal N(A_d z_d, A_d), \quad
            A_d = \sum_{j \in d} \frac{\mu_j^2}{\sigma_j^2}, \qquad
            r(z|W) = \prod_d \mathcal N\Bigl(z_d;\; \frac{m_r / s_r^2 + t_d}{P_d},\; \frac1{P_d}\Bigr), \quad
            P_d = \frac1{s_r^2} + A_d

        The mean over t has a closed form, and so no noise:

        .. math:: \mathbb E[\log r(z|W) \mid z] = \tfrac12 \sum_d \Bigl[\log P_d - \log 2\pi
                  - \frac{u^2 + q}{1 + q}\Bigr], \qquad u = \frac{z_d - m_r}{s_r}, \quad q = s_r^2 A_d

        Args:
            z: ``[n, D]``.

        Returns:
            Means of log densities in nats, ``[n]``.
        """
        mean = self.q0_mean if self.r_mean is None else self.r_mean
        log_var: Tensor = self.q0_log_var if self.r_log_var is None else self.r_log_var
        # Any g makes r a density, and so does a variance of the weights that r takes for larger than it is.
        log_var = log_var.clamp(-self.max_log_var, self.max_log_var)
        precision = (-self.weight_log_var).clamp(max=self.max_log_var).exp()
        q = log_var.exp() * (self.weight_mean.square() * precision).sum(self.other_axes())  # [D]
        u_square = (z - mean).square() * (-log_var).exp()  # [n, D]
        log_p = q.log1p() - log_var
        return (log_p - LOG_2PI - (u_square + q) / (1 + q)).sum(-1) / 2

    def kl_terms(self, n: int) -> dict[str, Tensor]:
        """Draw ``KL_W(z)``, ``KL_b``, ``log q(z)`` and ``log r(z|W)``, ``[n]`` each, in nats."""
        z, log_q = self.sample_z(n)
        mean_square = z.square() @ self.weight_mean.square().sum(self.other_axes())  # [n]
        weights = self.kl_gaussian(mean_square, self.weight_log_var)
        return {"weights": weights, "bias": self.kl_bias().expand(n), "log_q": log_q, "log_r": self.log_r(z)}

    def sample_weights(self, n: int) -> tuple[Tensor, Tensor | None]:
        """Draw ``(W [n, out, in, ...], b [n, out])``, z anew for each; ``b`` is None without a bias."""
        z, _ = self.sample_z(n)
        w = sample_gaussian(self.along_z(z) * self.weight_mean, self.weight_log_var, n)
        return w, self.sample_bias(n)

    def weight_moments(self, n: int) -> tuple[Tensor, Tensor]:
        """Return ``E[W]`` and ``E[W^2]``: exact where q(z) has no flow, else from ``n`` draws of z."""
        if len(self.flow_q):
            z, _ = self.sample_z(n)
            z_mean, z_square = z.mean(0), z.square().mean(0)
        else:
            z_mean, z_square = self.q0_mean, self.q0_mean.square() + self.q0_log_var.exp()
        squares = self.along_z(z_square) * self.weight_mean.square() + self.weight_log_var.exp()
        return self.along_z(z_mean) * self.weight_mean, squares
