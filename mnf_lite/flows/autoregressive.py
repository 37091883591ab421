"""Autoregressive flows: every coordinate moves by parameters computed from the coordinates before it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mnf_lite.flows.base import Flow, soft_bound
from mnf_lite.nets import MADE, check_parity, layer_sizes


class MAF(Flow):
    r"""Masked autoregressive flow: scale and shift every coordinate by functions of the data before it.

    .. math:: x_i = e^{s_i} z_i + t_i, \qquad (s_i, t_i) = \mathrm{MADE}(x)_i \ \text{of}\ x_{<i}, \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i s_i

    ``inverse`` is one pass of the network, ``forward`` finds x coordinate by coordinate in dim passes: fast
    to score, slow to sample. :func:`.soft_bound` keeps the log-scales within ±7. It starts near the identity.

    Args:
        dim: number of coordinates; with ``dim = 1`` the one coordinate is scaled and shifted by constants.
        parity: 0 takes the coordinates in their order, 1 in the reverse.
        hidden: sizes of the hidden layers of the network, each followed by a ReLU; ``()`` for none.
        context: size of the last axis of the context, which the network reads too; 0 for none.

    Shape:
        ``[..., dim]`` and a context ``[..., context]`` ``-> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: a size that is no integer, or too small; a parity that is not 0 or 1.

    Source:
        Papamakarios et al. (2017), eqs. 3-4, https://arxiv.org/abs/1705.07057

    Example:
        >>> flow, z = MAF(3), torch.randn(5, 3)
        >>> x, log_det = flow(z)
        >>> torch.allclose(flow.inverse(x)[0], z, atol=1e-5)
        True
    """

    def __init__(
        self, dim: int, parity: int = 0, hidden: Sequence[int] = (24, 24, 24), *, context: int = 0
    ) -> None:
        super().__init__(dim, context)
        name = type(self).__name__
        self.parity = check_parity(parity, name)
        self.net = MADE(dim, layer_sizes(hidden, name), outputs=2, parity=parity, context=context)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x_i = e^s_i z_i + t_i``, one coordinate after the other."""

        def step(z_i: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
            a, t = outputs.unbind(-1)
            s = soft_bound(a)
            return torch.exp(s) * z_i + t, s

        x, s = self.net.solve(self.check(z, self.net.theta, context), step, context)
        return x, s.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z_i = (x_i - t_i) e^-s_i``, all coordinates at once."""
        x = self.check(x, self.net.theta, context)
        a, t = self.net(x, context).unbind(-1)
        minus_s = -soft_bound(a)
        return (x - t) * torch.exp(minus_s), minus_s.sum(-1)

    def extra_repr(self) -> str:
        """Show what the printed module is made with."""
        return f"{super().extra_repr()}, parity={self.parity}"


class IAF(MAF):
    r"""Inverse autoregressive flow: a :class:`MAF` run the other way.

    .. math:: x_i = (z_i - t_i)\, e^{-s_i}, \qquad (s_i, t_i) = \mathrm{MADE}(z)_i \ \text{of}\ z_{<i}

    ``forward`` is one pass of the network, ``inverse`` takes dim passes: fast to sample, slow to score.

    Args:
        dim: number of coordinates; with ``dim = 1`` the one coordinate is scaled and shifted by constants.
        parity: 0 takes the coordinates in their order, 1 in the reverse.
        hidden: sizes of the hidden layers of the network, each followed by a ReLU; ``()`` for none.
        context: size of the last axis of the context, which the network reads too; 0 for none.

    Shape:
        ``[..., dim]`` and a context ``[..., context]`` ``-> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: a size that is no integer, or too small; a parity that is not 0 or 1.

    Source:
        Kingma et al. (2016), section 3, https://arxiv.org/abs/1606.04934

    Example:
        >>> flow, z = IAF(3), torch.randn(5, 3)
        >>> x, log_det = flow(z)
        >>> torch.allclose(flow.inverse(x)[0], z, atol=1e-5)
        True
    """

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x_i = (z_i - t_i) e^-s_i``, all coordinates at once."""
        return super().inverse(z, context)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z_i = e^s_i x_i + t_i``, one coordinate after the other."""
        return super().forward(x, context)
