"""Planar and radial flows: one tanh across a plane, one bump around a point, and their exact inverses."""

import math

import torch
from torch import Tensor, nn

from mnf_lite.flows.base import Flow

MARGIN = 1e-3  # how far the smallest derivative of a constrained map stays from 0


class Planar(Flow):
    r"""Push points along a direction, by a tanh of their height over a plane.

    .. math:: x = z + \hat u \tanh(w^\top z + b), \qquad
              \det\frac{\partial x}{\partial z} = 1 + w^\top \hat u \, \bigl(1 - \tanh^2(w^\top z + b)\bigr)

    It is invertible if :math:`c = w^\top \hat u > -1`, which a shift of u along w ensures:
    :math:`\hat u = u + (m(w^\top u) - w^\top u)\, w / \|w\|^2` with
    :math:`m(a) = \mathrm{softplus}(a + \log(e - 1)) - 1`, floored at -0.999, so that u = 0 is the identity.

    ``inverse`` solves :math:`y + c \tanh y = w^\top x + b` for :math:`y = w^\top z + b`, to machine precision
    and with gradients (:func:`.solve_tanh`).

    Args:
        dim: number of coordinates.

    Shape:
        ``[..., dim] -> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: ``dim`` is no integer of at least 1.

    Source:
        Rezende & Mohamed (2015), eqs. 10-12 and appendix A.1, https://arxiv.org/abs/1505.05770

    Example:
        >>> flow, z = Planar(3), torch.randn(5, 3)
        >>> x, log_det = flow(z)
        >>> torch.allclose(flow.inverse(x)[0], z, atol=1e-4)
        True
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.w = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.u = nn.Parameter(torch.randn(dim) / math.sqrt(dim))
        self.b = nn.Parameter(torch.zeros(()))

    def constrain(self) -> tuple[Tensor, Tensor]:
        """Return ``(u_hat [dim], c [])``."""
        a = self.w @ self.u
        c = (nn.functional.softplus(a + math.log(math.e - 1)) - 1).clamp(min=MARGIN - 1)
        norm2 = self.w.square().sum().clamp(min=torch.finfo(a.dtype).tiny)
        return self.u + (c - a) * self.w / norm2, c

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x = z + u_hat tanh(w z + b)``."""
        z = self.check(z, self.w, context)
        u_hat, c = self.constrain()
        h = torch.tanh(z @ self.w + self.b)
        return z + h[..., None] * u_hat, torch.log1p(c * (1 - h * h))

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z = x - u_hat tanh(y)`` at the root y."""
        x = self.check(x, self.w, context)
        u_hat, c = self.constrain()
        h = torch.tanh(solve_tanh(c, x @ self.w + self.b))
        return x - h[..., None] * u_hat, -torch.log1p(c * (1 - h * h))


def solve_tanh(c: Tensor, k: Tensor) -> Tensor:
    r"""Solve :math:`y + c \tanh y = k` for y, where c > -1.

    The left side is odd, so take :math:`k \ge 0`. There it is concave if c > 0 and convex if c < 0: Newton's
    method, started on the right side of the root, runs towards it and never passes it. It starts from the
    best of three bounds on the root: from :math:`\tanh y \le y`, from :math:`\tanh y \le 1` and, for c near
    -1, from :math:`y - \tanh y \ge y^3/5` up to y = 1, or, for large c, from :math:`1 - \tanh y \ge e^{-2y}`.
    Then 6 steps reach machine precision. Two more run under autograd, from the detached root: by the implicit
    function theorem they give it exact first and second derivatives.

    Args:
        c: a scalar.
        k: any shape.

    Returns:
        y, of the shape of k. NaN stays NaN.

    Example:
        >>> c, y = torch.tensor(-0.5), torch.linspace(-3, 3, 7)
        >>> torch.allclose(solve_tanh(c, y + c * torch.tanh(y)), y, atol=1e-5)
        True
    """
    with torch.no_grad():
        size = k.abs()
        cubic = (5 * size / c.abs()) ** (1 / 3)
        above = torch.minimum(size / (1 + c), size - c).minimum(torch.where(cubic < 1, cubic, torch.inf))
        late = torch.log(c / (torch.log1p(2 * c) / 2 + (c - size).clamp(min=0))) / 2
        below = torch.maximum(size / (1 + c), size - c * torch.tanh(size)).maximum(late)
        y = torch.where(c > 0, below, above)
        for _ in range(6):
            h = torch.tanh(y)
            y = y - (y + c * h - size) / (1 + c * (1 - h * h))
        y = torch.copysign(y, k)
    for _ in range(2):
        h = torch.tanh(y)
        y = y - (y + c * h - k) / (1 + c * (1 - h * h))
    return y


class Radial(Flow):
    r"""Push points away from a centre or pull them towards it.

    .. math:: x = z + \hat\beta\, h\, (z - z_0), \qquad h = \frac{1}{\alpha + r}, \qquad r = \|z - z_0\|,

    .. math:: \det\frac{\partial x}{\partial z}
              = (1 + \hat\beta h)^{d-1}\, (1 + \hat\beta h - \hat\beta h^2 r)

    It is invertible with :math:`\hat\beta = \gamma - \alpha`, where :math:`\gamma = \mathrm{softplus}(\beta)`
    and :math:`\alpha`, the softplus of one more parameter, are floored at 0.001. ``inverse`` takes r from the
    quadratic :math:`r^2 + (\gamma - R)\, r - \alpha R = 0`, where :math:`R = \|x - z_0\|`.

    Args:
        dim: number of coordinates.

    Shape:
        ``[..., dim] -> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: ``dim`` is no integer of at least 1.

    Source:
        Rezende & Mohamed (2015), eqs. 13-14 and appendix A.2, https://arxiv.org/abs/1505.05770

    Example:
        >>> flow, z = Radial(3), torch.randn(5, 3)
        >>> x, log_det = flow(z)
        >>> torch.allclose(flow.inverse(x)[0], z, atol=1e-4)
        True
    """

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.z_0 = nn.Parameter(torch.randn(dim))
        self.raw_alpha = nn.Parameter(torch.full((), math.log(math.e - 1)))
        self.beta = nn.Parameter(math.log(math.e - 1) + torch.randn(()))

    def constrain(self) -> tuple[Tensor, Tensor]:
        """Return ``(alpha, gamma)``, scalars."""
        softplus = nn.functional.softplus
        return softplus(self.raw_alpha).clamp(min=MARGIN), softplus(self.beta).clamp(min=MARGIN)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x = z_0 + (z - z_0) (gamma + r) / (alpha + r)``."""
        alpha, gamma = self.constrain()
        away = self.check(z, self.z_0, context) - self.z_0
        r = torch.linalg.vector_norm(away, dim=-1)
        return self.z_0 + away * ((gamma + r) / (alpha + r))[..., None], self.log_det(r, alpha, gamma)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z = z_0 + (x - z_0) (alpha + r) / (gamma + r)`` at the root r."""
        alpha, gamma = self.constrain()
        away = self.check(x, self.z_0, context) - self.z_0
        R = torch.linalg.vector_norm(away, dim=-1)
        q = R - gamma
        larger = (q.abs() + torch.sqrt(q * q + 4 * alpha * R)) / 2  # in size, of the two roots
        r = torch.where(q > 0, larger, alpha * R / larger)  # their product is -alpha R: nothing cancels
        return self.z_0 + away * ((alpha + r) / (gamma + r))[..., None], -self.log_det(r, alpha, gamma)

    def log_det(self, r: Tensor, alpha: Tensor, gamma: Tensor) -> Tensor:
        """Return ``log det dx/dz`` at distance r, from logarithms of sums without a negative term."""
        log_alpha_r = torch.log(alpha + r)
        tangential = torch.log(gamma + r) - log_alpha_r  # 1 + beta h
        radial = torch.log(r * (r + 2 * alpha) + alpha * gamma) - 2 * log_alpha_r  # 1 + beta h - beta h^2 r
        return (self.dim - 1) * tangential + radial
