"""Coupling flows: some coordinates stay as they are and tell the others how to move."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.flows.base import Flow, check_parity, soft_bound
from mnf_lite.nets import MLP, StackedMLP


class Coupling(Flow):
    """Keep one half of the coordinates, and move the other by what networks say about the first.

    Args:
        dim: number of coordinates. The halves are the first ``dim // 2`` and the rest; with ``dim = 1`` the
            one coordinate moves, by parameters that are constants.
        parity: 0 moves the second half, 1 the first.
        hidden: sizes of the conditioner's hidden layers, each followed by a ReLU.
        nets: number of networks of which the conditioner is made.
        outputs: number of outputs of each network for every coordinate that moves.
    """

    def __init__(self, dim: int, parity: int, hidden: Sequence[int], nets: int, outputs: int = 1) -> None:
        super().__init__(dim)
        self.parity = check_parity(parity)
        self.swap = parity == 1 and dim > 1
        kept, moved = (dim - dim // 2, dim // 2) if self.swap else (dim // 2, dim - dim // 2)
        self.net = StackedMLP(nets, kept, hidden, outputs * moved)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``x [..., dim]`` as the half that is kept and the half that moves."""
        first, second = self.check(x).tensor_split((self.dim // 2,), -1)
        return (second, first) if self.swap else (first, second)

    def join(self, kept: Tensor, moved: Tensor) -> Tensor:
        """The two halves in their places, ``[..., dim]``."""
        return torch.cat((moved, kept) if self.swap else (kept, moved), -1)

    def extra_repr(self) -> str:
        """Show what the printed module is made with."""
        return f"dim={self.dim}, parity={self.parity}"


class AdditiveCoupling(Coupling):
    r"""NICE: shift one half of the coordinates by a function of the other; volumes are preserved.

    .. math:: x_1 = z_1, \qquad x_2 = z_2 + t(z_1), \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = 0

    Args:
        dim: number of coordinates. The halves are the first ``dim // 2`` and the rest; with ``dim = 1`` the
            one coordinate moves by a learned constant.
        parity: 0 moves the second half, 1 the first.
        hidden: sizes of the hidden layers of the network t, each followed by a ReLU.

    Source:
        Dinh et al. (2014), section 3.2.
    """

    def __init__(self, dim: int, parity: int = 0, hidden: Sequence[int] = (24, 24, 24)) -> None:
        super().__init__(dim, parity, hidden, nets=1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x_2 = z_2 + t(z_1)``."""
        kept, moving = self.split(z)
        (t,) = self.net(kept)
        return self.join(kept, moving + t), z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z_2 = x_2 - t(x_1)``."""
        kept, moved = self.split(x)
        (t,) = self.net(kept)
        return self.join(kept, moved - t), x.new_zeros(x.shape[:-1])


class AffineCoupling(Coupling):
    r"""RealNVP: scale and shift one half of the coordinates by functions of the other.

    .. math:: x_1 = z_1, \qquad x_2 = e^{s(z_1)} z_2 + t(z_1), \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i s_i(z_1)

    One network gives t and one gives the raw log-scale, which :func:`.soft_bound` keeps within ±7: whatever
    the networks answer far from the data, both directions stay finite.

    Args:
        dim: number of coordinates. The halves are the first ``dim // 2`` and the rest; with ``dim = 1`` the
            one coordinate is scaled and shifted by learned constants.
        parity: 0 moves the second half, 1 the first.
        hidden: sizes of the hidden layers of the networks s and t, each followed by a ReLU.
        shared: whether one network gives both s and t; two give more freedom for twice the work.

    Source:
        Dinh et al. (2017), section 3.2.
    """

    def __init__(
        self, dim: int, parity: int = 0, hidden: Sequence[int] = (24, 24, 24), *, shared: bool = False
    ) -> None:
        super().__init__(dim, parity, hidden, *((1, 2) if shared else (2, 1)))
        self.shared = shared

    def conditioner(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """Raw log-scale and shift of the coordinates that move, ``[..., moved]`` each."""
        outputs: Tensor = self.net(kept)
        s, t = outputs[0].chunk(2, -1) if self.shared else outputs
        return s, t

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x_2 = e^s z_2 + t``."""
        kept, moving = self.split(z)
        s, t = self.conditioner(kept)
        s = soft_bound(s)
        return self.join(kept, torch.addcmul(t, moving, torch.exp(s))), s.sum(-1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z_2 = (x_2 - t) e^-s``."""
        kept, moved = self.split(x)
        s, t = self.conditioner(kept)
        minus_s = soft_bound(s, -1)
        return self.join(kept, (moved - t) * torch.exp(minus_s)), minus_s.sum(-1)


LEAST_LOGIT = -7.0  # a gate is never closed beyond a thousandth, so that it can be undone


class GatedCoupling(Flow):
    r"""RealNVP with the gated update of IAF, the flow inside multiplicative normalizing flow layers.

    With a fixed alternating mask m, 1 where a coordinate is kept, and :math:`(\mu, a) = \mathrm{net}(m z)`,

    .. math:: x = m z + (1-m)\,\bigl(\sigma(a)\, z + (1-\sigma(a))\,\mu\bigr), \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i (1-m_i) \log\sigma(a_i).

    The gate starts almost open (bias +2), so a fresh flow is near the identity. The network reads and writes
    all ``dim`` coordinates, as published; the mask leaves the weights of the other half without effect. The
    logit a is floored at -7, where the gate is a thousandth: a closed gate has no inverse.

    Args:
        dim: number of coordinates. With ``dim = 1`` the one coordinate moves and the network reads a zero.
        parity: the coordinates of this parity (counted from 0) are kept.
        hidden: sizes of the conditioner's hidden layers, each followed by tanh.

    Source:
        Louizos & Welling (2017); the gate is that of Kingma et al. (2016), eq. 14.
    """

    mask: Tensor

    def __init__(self, dim: int, parity: int = 0, hidden: Sequence[int] = (50,)) -> None:
        super().__init__(dim)
        kept = torch.arange(dim) % 2 == check_parity(parity)
        self.register_buffer("mask", (kept & (dim > 1)).to(torch.get_default_dtype()))
        self.net = MLP(dim, hidden, 2 * dim, nn.Tanh)
        nn.init.constant_(self.net[-1].bias[dim:], 2.0)  # type: ignore[index]

    def conditioner(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``(mu, log gate)``, each ``[..., dim]``; coordinates that are kept have an open gate."""
        mu, a = self.net(self.mask * z).chunk(2, -1)
        a = F.threshold(a, LEAST_LOGIT, LEAST_LOGIT)  # clamp(min=LEAST_LOGIT), with a cheaper gradient
        return mu, (1 - self.mask) * F.logsigmoid(a)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x = z - (1 - gate)(z - mu)``."""
        mu, log_gate = self.conditioner(self.check(z))
        return z + torch.expm1(log_gate) * (z - mu), log_gate.sum(-1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z = x + (1 / gate - 1)(x - mu)``."""
        mu, log_gate = self.conditioner(self.check(x))
        return x + torch.expm1(-log_gate) * (x - mu), -log_gate.sum(-1)
