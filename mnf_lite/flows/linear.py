"""Invertible linear maps: rotations and shears that mix all coordinates."""

import torch
from torch import Tensor, nn

from mnf_lite.flows.base import Flow


class InvertibleLinear(Flow):
    r"""Glow's invertible linear map, kept in factors that cannot become singular.

    .. math:: x = W z, \qquad W = P L (U + \mathrm{diag}(\sigma e^{d})), \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i d_i

    P is a permutation and σ are signs, both fixed buffers; L is unit lower and U strictly upper triangular.
    Only those parts of ``lower`` and ``upper [dim, dim]`` are read. It starts as a random rotation or
    reflection.

    Args:
        dim: number of coordinates.

    Shape:
        ``[..., dim] -> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: ``dim`` is no integer of at least 1.

    Source:
        Kingma & Dhariwal (2018), section 3.2, https://arxiv.org/abs/1807.03039

    Example:
        >>> flow = InvertibleLinear(3)
        >>> W = flow(torch.eye(3))[0].T
        >>> torch.allclose(W @ W.T, torch.eye(3), atol=1e-5)  # at the start
        True
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        rotation = torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64))[0]
        P, L, U = (factor.to(torch.get_default_dtype()) for factor in torch.linalg.lu(rotation))
        self.lower = nn.Parameter(L)
        self.upper = nn.Parameter(U)
        self.log_diag = nn.Parameter(U.diagonal().abs().log())
        self.register_buffer("sign", U.diagonal().sign())
        self.register_buffer("permutation", P.argmax(0))  # (P y)_permutation = y

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return the unit lower triangular and the upper triangular factor, ``[dim, dim]`` each."""
        L = self.lower.tril(-1).diagonal_scatter(torch.ones_like(self.sign))
        return L, self.upper.triu(1).diagonal_scatter(self.sign * torch.exp(self.log_diag))

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x = P L U z``."""
        L, U = self.factors()
        y = self.check(z, self.lower, context) @ U.t() @ L.t()
        return y[..., self.permutation.argsort()], self.log_diag.sum().expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z = U^-1 L^-1 P^T x`` by two triangular solves."""
        L, U = self.factors()
        y = (
            self.check(x, self.lower, context).reshape(-1, self.dim)[:, self.permutation].t()
        )  # [..., dim] -> [dim, B]
        y = torch.linalg.solve_triangular(L, y, upper=False, unitriangular=True)
        z = torch.linalg.solve_triangular(U, y, upper=True)
        return z.t().reshape(x.shape), -self.log_diag.sum().expand(x.shape[:-1])
