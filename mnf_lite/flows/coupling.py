"""Coupling flows: some coordinates stay as they are and tell the others how to move."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.flows.base import Flow
from mnf_lite.nets import MLP


class GatedCoupling(Flow):
    r"""RealNVP with the gated update of IAF, the flow inside multiplicative normalizing flow layers.

    With a fixed alternating mask :math:`m`, 1 where a coordinate is kept, and :math:`(\mu, a) = \mathrm{net}(m z)`,

    .. math:: x = m z + (1-m)\,\bigl(\sigma(a)\, z + (1-\sigma(a))\,\mu\bigr), \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i (1-m_i) \log\sigma(a_i).

    The gate starts almost open (bias +2), so a fresh flow is near the identity. The network reads and writes all
    ``dim`` coordinates, as published; the mask leaves the weights of the other half without effect.

    Args:
        dim: number of coordinates. With ``dim = 1`` the one coordinate moves and the network reads a zero.
        parity: the coordinates of this parity (counted from 0) are kept.
        hidden: sizes of the conditioner's hidden layers, each followed by tanh.

    Source:
        Louizos & Welling (2017), eq. 11; the gate is that of Kingma et al. (2016), eq. 14.
    """

    mask: Tensor

    def __init__(self, dim: int, parity: int = 0, hidden: Sequence[int] = (50,)) -> None:
        super().__init__(dim)
        kept = torch.arange(dim) % 2 == check_parity(parity)
        self.register_buffer("mask", kept & (dim > 1))
        self.net = MLP(dim, hidden, 2 * dim, nn.Tanh)
        nn.init.constant_(self.net[-1].bias[dim:], 2.0)  # type: ignore[union-attr,index,arg-type]

    def conditioner(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(mu, log gate, 1 - gate)`` of every coordinate, each ``[..., dim]``; kept ones have an open gate."""
        mu, a = self.net(z.masked_fill(~self.mask, 0)).chunk(2, -1)
        return mu, F.logsigmoid(a).masked_fill(self.mask, 0), torch.sigmoid(-a).masked_fill(self.mask, 0)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_gate, closed = self.conditioner(self.check(z))
        return z + closed * (mu - z), log_gate.sum(-1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_gate, closed = self.conditioner(self.check(x))
        return (x - closed * mu) * torch.exp(-log_gate), -log_gate.sum(-1)


def check_parity(parity: int) -> int:
    """Return ``parity`` if it is 0 or 1."""
    if parity not in (0, 1):
        raise ValueError(f"parity must be 0 or 1, got {parity!r}")
    return parity
