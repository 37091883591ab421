"""What the tests of the layers share: parameters that hide nothing, and integrals done on grids."""

import inspect
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from mnf_lite import flows, layers

Layer = layers.MNFLinear | layers.MNFConv2d | layers.MeanFieldLinear | layers.MeanFieldConv2d


def every_kind() -> list[type[layers.BayesianLayer]]:
    """All layers that the package offers, so that a new one needs no line in the tests that hold for all."""
    offered = [getattr(layers, name) for name in layers.__all__]
    kinds = [kind for kind in offered if inspect.isclass(kind) and issubclass(kind, layers.BayesianLayer)]
    return [kind for kind in kinds if not inspect.isabstract(kind)]


def stir(layer: Layer, seed: int = 0) -> Layer:
    """Float64 parameters that are all different, none of them 0, 1 or the value a layer starts with."""
    layer.double()
    generator = torch.Generator().manual_seed(seed)
    centres = {"weight_log_var": -1.0, "bias_log_var": -0.5, "q0_mean": 0.6, "q0_log_var": -0.7}
    centres |= {"r_c": 1.0, "r_b1": 1.2, "r_b2": 0.4}  # large enough for the statistic to be felt
    centres |= {"r_mean": 0.5, "r_log_var": -0.4}
    spreads = {
        "weight_mean": 0.8,
        "weight_log_var": 0.4,
        "q0_log_var": 0.3,
        "r_mean": 0.3,
        "r_log_var": 0.3,
        "r_c": 0.3,
        "r_b1": 0.2,
        "r_b2": 0.1,
    }
    with torch.no_grad():
        for name, p in layer.named_parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            if "flow" in name:
                p.add_(0.6 * noise)
            else:
                p.copy_(centres.get(name, 0.0) + spreads.get(name, 0.6) * noise)
    return layer


def set_(layer: Layer, **values: float | list[float] | Tensor) -> Layer:
    """Fill the named parameters of a layer, which becomes float64."""
    layer.double()
    with torch.no_grad():
        for name, value in values.items():
            p = getattr(layer, name)
            p.copy_(torch.as_tensor(value, dtype=p.dtype).expand_as(p))
    return layer


class Inverse(flows.Flow):
    """A flow run backwards."""

    def __init__(self, flow: flows.Flow) -> None:
        super().__init__(flow.dim)
        self.flow = flow

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.inverse(z)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.flow.forward(x)


def assert_mean(samples: Tensor, expected: Tensor | float, sigmas: float = 5) -> None:
    """The mean over axis 0 is ``expected`` to within so many standard errors."""
    error = (samples.mean(0) - expected).abs()
    allowed = sigmas * samples.std(0) / math.sqrt(len(samples)) + 1e-9
    assert (error <= allowed).all(), f"off by {(error / allowed * sigmas).max():.1f} standard errors"


def log_normal(x: Tensor, mean: Tensor | float, var: Tensor | float) -> Tensor:
    var = torch.as_tensor(var, dtype=x.dtype)
    return -((x - mean).square() / var + var.log() + math.log(2 * math.pi)) / 2


def log_abs_det(f: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """log|det df/dz| at each row of ``z [n, D]``, from the Jacobian that autograd gives."""
    return torch.linalg.slogdet(vmap(jacrev(f))(z)).logabsdet


def grid(dim: int, step: float = 0.25, reach: float = 7.0) -> tuple[Tensor, Tensor]:
    """Points ``[n, dim]`` and weights ``[n]`` that integrate against a standard normal to about 1e-11."""
    axis = torch.arange(-reach, reach + step / 2, step, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * dim).view(-1, dim)
    return points, (log_normal(points, 0.0, 1.0).sum(-1) + dim * math.log(step)).exp()


class Quadrature:
    """Integrals over z and W of a layer of one or two weights, from public parameters and flows alone.

    The flows' log-determinants are not asked: they come from autograd.
    """

    def __init__(self, layer: layers.MNFLinear | layers.MNFConv2d, step: float = 0.25) -> None:
        self.layer, self.p = layer, layer.prior_std**2
        self.eps, self.weight = grid(len(layer.q0_mean), step)
        z0 = layer.q0_mean + self.eps * (layer.q0_log_var / 2).exp()
        self.z = layer.flow_q(z0)[0]  # [G, D]
        self.log_q = log_normal(z0, layer.q0_mean, layer.q0_log_var.exp()).sum(-1)
        self.log_q = self.log_q - log_abs_det(lambda z: layer.flow_q(z)[0], z0)
        self.dims = layer.weight_mean.ndim
        self.dense = self.dims == 2
        factor = self.z[:, None, :] if self.dense else self.z.view(len(self.z), -1, *[1] * 3)
        self.mean = (factor * layer.weight_mean).flatten(1)  # E[W|z]: [G, weights]
        self.var = layer.weight_log_var.exp().flatten()  # [weights]

    def mean_of(self, values: Tensor) -> Tensor:
        """Expectation over z of values at the grid's points."""
        return self.weight @ values

    def kl_bias(self) -> Tensor:
        if self.layer.bias_mean is None:
            return torch.zeros((), dtype=torch.float64)
        q = torch.distributions.Normal(self.layer.bias_mean, (self.layer.bias_log_var / 2).exp())
        p = torch.distributions.Normal(torch.zeros_like(q.mean), self.p**0.5)
        return torch.distributions.kl_divergence(q, p).sum()

    def masses(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of each cell of a grid over all weights: mass under q(W), log mass under p(W), log size."""
        axes, factors = [], []
        for mean, var in zip(self.mean.T, self.var, strict=True):
            reach = 7 * float(var.sqrt())
            ends = float(mean.min()) - reach, float(mean.max()) + reach
            axes.append(torch.linspace(*ends, int((ends[1] - ends[0]) / reach * 30), dtype=torch.float64))
            factors.append(log_normal(axes[-1], mean[:, None], var).exp())  # q(w|z): [G, N]
        log_p = [log_normal(axis, 0.0, self.p) for axis in axes]
        log_cell = torch.stack([(axis[1] - axis[0]).log() for axis in axes]).sum()
        if len(axes) == 1:
            q, log_density = self.weight @ factors[0], log_p[0]
        else:
            q, log_density = (self.weight[:, None] * factors[0]).T @ factors[1], log_p[0][:, None] + log_p[1]
        q = q * log_cell.exp()
        assert abs(q.sum() - 1) < 1e-8
        self.points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)  # [N, ..., weights]
        return q, log_density + log_cell, log_cell

    def true_kl(self) -> Tensor:
        """KL(q(W, b) || p(W, b)) itself, by integrating over all W."""
        q, log_p, _ = self.masses()
        return (torch.xlogy(q, q) - q * log_p).sum() + self.kl_bias()

    def information(self) -> Tensor:
        """I(z; W) = H(W) - H(W|z): how much the weights tell of z."""
        q, _, log_cell = self.masses()
        entropy = log_cell - torch.xlogy(q, q).sum()
        return entropy - (self.var.log() + math.log(2 * math.pi) + 1).sum() / 2

    def bound(self) -> Tensor:
        """K = E[KL_W + KL_b + log q(z) - log r(z|W)], by integrals over z and a statistic of W."""
        kl_w = ((self.var + self.mean**2) / self.p - 1 - self.var.log() + math.log(self.p)).sum(-1) / 2
        log_r = self.published_r() if self.layer.auxiliary == "published" else self.conjugate_r()
        return self.mean_of(kl_w + self.log_q - log_r) + self.kl_bias()

    def g(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of the Gaussian behind the conjugate r; q(z) itself where it has no flow."""
        layer = self.layer
        if layer.r_mean is None:
            return layer.q0_mean, layer.q0_log_var.exp()
        return layer.r_mean, layer.r_log_var.exp()

    def divergence_from_g(self) -> Tensor:
        """KL(q(z) || g(z))."""
        return self.mean_of(self.log_q - log_normal(self.z, *self.g()).sum(-1))

    def divergence_of_weights_from_g(self) -> Tensor:
        """KL(q(W) || g(W)), where g(W) has the same weights given z and z from g."""
        mean, var = self.g()
        mu = self.layer.weight_mean.detach()
        unit = torch.eye(len(mean), dtype=mu.dtype)  # the weights that go with each entry of z
        shape = [len(mean), *[-1 if axis == self.layer.z_axis else 1 for axis in range(mu.ndim)]]
        along = (unit.view(shape) * mu).flatten(1)  # [D, weights]
        cov = self.var.diag() + along.T @ (var[:, None] * along)
        g = torch.distributions.MultivariateNormal(mean @ along, cov)
        q, _, log_cell = self.masses()
        return (torch.xlogy(q, q) - q * (g.log_prob(self.points) + log_cell)).sum()

    def conjugate_r(self) -> Tensor:
        """E[log r(z|W) | z] at the grid's points, by integrating over t, unit by unit."""
        mean, var = self.g()
        mu, others = self.layer.weight_mean, [a for a in range(self.dims) if a != self.layer.z_axis]
        A = (mu**2 / self.layer.weight_log_var.exp()).sum(others)  # [D]
        P = 1 / var + A
        noise, weight = grid(1)
        t = A * self.z[:, None] + A.sqrt() * noise  # [G, S, D]
        return log_normal(self.z[:, None], (mean / var + t) / P, 1 / P).sum(-1) @ weight

    def published_r(self) -> Tensor:
        """E[log r(z|W) | z] at the grid's points, by integrating over the statistic s."""
        layer = self.layer
        noise, weight = grid(layer.weight_mean.shape[0] if self.dense else 1, step=0.3)
        if self.dense:
            mean = torch.einsum("i,goi->go", layer.r_c, self.mean.unflatten(1, layer.weight_mean.shape))
            var = layer.weight_log_var.exp() @ layer.r_c**2  # [out]
            s = (mean[:, None] + noise * var.sqrt()).tanh().mean(-1)  # [G, S]
        else:
            c = (
                layer.r_c[:, None, None, None].expand_as(layer.weight_mean).flatten()
                / layer.weight_mean[0].numel()
            )
            s = (self.mean @ c)[:, None] + noise[:, 0] * (self.var @ c**2).sqrt()
        z_b = layer.flow_r(self.z)[0][:, None]  # [G, 1, D]
        precision = (s[..., None] * layer.r_b2).exp()
        log_r = log_normal(z_b, layer.r_b1 * s[..., None], 1 / precision).sum(-1) @ weight
        return log_r + log_abs_det(lambda z: layer.flow_r(z)[0], self.z)
