"""Autoregressive flows: every coordinate moves by parameters computed from the coordinates before it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mnf_lite.flows.base import Flow, check_parity, soft_bound
from mnf_lite.nets import MADE


class MAF(Flow):
    r"""Masked autoregressive flow: scale and shift every coordinate by functions of the data before it.

    .. math:: x_i = e^{s_i} z_i + t_i, \qquad (s_i, t_i) = \mathrm{MADE}(x)_i \ \text{of}\ x_{<i}, \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i s_i

    ``inverse`` is one pass of the network, ``forward`` finds x coordinate by coordinate in dim passes: fast
    to score, slow to sample. :func:`.soft_bound` keeps the log-scales within ±7.

    Args:
        dim: number of coordinates; with ``dim = 1`` the one coordinate is scaled and shifted by constants.
        parity: 0 takes the coordinates in their order, 1 in the reverse.
        hidden: sizes of the hidden layers of the network, each followed by a ReLU.

    Source:
        Papamakarios et al. (2017), eqs. 3-4.
    """

    def __init__(self, dim: int, parity: int = 0, hidden: Sequence[int] = (24, 24, 24)) -> None:
        super().__init__(dim)
        self.parity = check_parity(parity)
        self.net = MADE(dim, hidden, outputs=2, parity=parity)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x_i = e^s_i z_i + t_i``, one coordinate after the other."""

        def step(z_i: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
            a, t = outputs.unbind(-1)
            s = soft_bound(a)
            return torch.addcmul(t, z_i, torch.exp(s)), s

        x, s = self.net.solve(self.check(z), step)
        return x, s.sum(-1)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z_i = (x_i - t_i) e^-s_i``, all coordinates at once."""
        a, t = self.net(self.check(x)).unbind(-1)
        minus_s = soft_bound(a, -1)
        return (x - t) * torch.exp(minus_s), minus_s.sum(-1)

    def extra_repr(self) -> str:
        """Show what the printed module is made with."""
        return f"dim={self.dim}, parity={self.parity}"


class IAF(MAF):
    r"""Inverse autoregressive flow: a :class:`MAF` run the other way.

    .. math:: x_i = (z_i - t_i)\, e^{-s_i}, \qquad (s_i, t_i) = \mathrm{MADE}(z)_i \ \text{of}\ z_{<i}

    ``forward`` is one pass of the network, ``inverse`` takes dim passes: fast to sample, slow to score.

    Args:
        dim: number of coordinates; with ``dim = 1`` the one coordinate is scaled and shifted by constants.
        parity: 0 takes the coordinates in their order, 1 in the reverse.
        hidden: sizes of the hidden layers of the network, each followed by a ReLU.

    Source:
        Kingma et al. (2016), section 3.
    """

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x_i = (z_i - t_i) e^-s_i``, all coordinates at once."""
        return super().inverse(z)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z_i = e^s_i x_i + t_i``, one coordinate after the other."""
        return super().forward(x)
