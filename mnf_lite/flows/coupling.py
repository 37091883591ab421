"""Coupling flows: some coordinates stay as they are and tell the others how to move."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mnf_lite.flows.base import Flow, soft_bound
from mnf_lite.nets import MLP, StackedMLP, beside, check_parity, layer_sizes


class Coupling(Flow):
    """Keep one half of the coordinates, and move the other by what networks say about the first.

    Args:
        dim: number of coordinates. The halves are the first ``dim // 2`` and the rest; with ``dim = 1`` the
            one coordinate moves, by parameters that are constants.
        parity: 0 moves the second half, 1 the first.
        hidden: sizes of the conditioner's hidden layers, each followed by a ReLU; ``()`` for none.
        nets: number of networks of which the conditioner is made.
        outputs: number of outputs of each network for every coordinate that moves.
        context: size of the last axis of the context, which the networks read too; 0 for none.
    """

    def __init__(
        self, dim: int, parity: int, hidden: Sequence[int], nets: int, outputs: int = 1, context: int = 0
    ) -> None:
        super().__init__(dim, context)
        name = type(self).__name__
        self.parity = check_parity(parity, name)
        self.swap = parity == 1 and dim > 1
        kept, moved = (dim - dim // 2, dim // 2) if self.swap else (dim // 2, dim - dim // 2)
        self.net = StackedMLP(nets, kept + context, layer_sizes(hidden, name), outputs * moved)

    def split(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the half of ``x [..., dim]`` that is kept and the half that moves."""
        first, second = self.check(x, self.net.theta, context).tensor_split((self.dim // 2,), -1)
        return (second, first) if self.swap else (first, second)

    def join(self, kept: Tensor, moved: Tensor) -> Tensor:
        """Return the two halves in their places, ``[..., dim]``."""
        return torch.cat((moved, kept) if self.swap else (kept, moved), -1)

    def extra_repr(self) -> str:
        """Show what the printed module is made with."""
        return f"{super().extra_repr()}, parity={self.parity}"


class AdditiveCoupling(Coupling):
    r"""NICE: shift one half of the coordinates by a function of the other; volumes are preserved.

    .. math:: x_1 = z_1, \qquad x_2 = z_2 + t(z_1), \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = 0

    It starts near the identity.

    Args:
        dim: number of coordinates. The halves are the first ``dim // 2`` and the rest; with ``dim = 1`` the
            one coordinate moves by a learned constant.
        parity: 0 moves the second half, 1 the first.
        hidden: sizes of the hidden layers of the network t, each followed by a ReLU; ``()`` for none.
        context: size of the last axis of the context, which the network reads too; 0 for none.

    Shape:
        ``[..., dim]`` and a context ``[..., context]`` ``-> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: a size that is no integer, or too small; a parity that is not 0 or 1.

    Source:
        Dinh et al. (2014), section 3.2, https://arxiv.org/abs/1410.8516

    Example:
        >>> flow, z = AdditiveCoupling(4), torch.randn(5, 4)
        >>> x, log_det = flow(z)
        >>> torch.equal(x[:, :2], z[:, :2]), torch.equal(log_det, torch.zeros(5))
        (True, True)
    """

    def __init__(
        self, dim: int, parity: int = 0, hidden: Sequence[int] = (24, 24, 24), *, context: int = 0
    ) -> None:
        super().__init__(dim, parity, hidden, nets=1, context=context)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x_2 = z_2 + t(z_1)``."""
        kept, moving = self.split(z, context)
        (t,) = self.net(beside(kept, context))
        return self.join(kept, moving + t), kept.new_zeros(kept.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z_2 = x_2 - t(x_1)``."""
        kept, moved = self.split(x, context)
        (t,) = self.net(beside(kept, context))
        return self.join(kept, moved - t), kept.new_zeros(kept.shape[:-1])


class AffineCoupling(Coupling):
    r"""RealNVP: scale and shift one half of the coordinates by functions of the other.

    .. math:: x_1 = z_1, \qquad x_2 = e^{s(z_1)} z_2 + t(z_1), \qquad
              \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i s_i(z_1)

    One network gives t and one gives the raw log-scale, which :func:`.soft_bound` keeps within ±7: whatever
    the networks answer far from the data, both directions stay finite. It starts near the identity.

    Args:
        dim: number of coordinates. The halves are the first ``dim // 2`` and the rest; with ``dim = 1`` the
            one coordinate is scaled and shifted by learned constants.
        parity: 0 moves the second half, 1 the first.
        hidden: sizes of the hidden layers of the networks s and t, each followed by a ReLU; ``()`` for none.
        shared: whether one network gives both s and t; two give more freedom for twice the work.
        context: size of the last axis of the context, which the networks read too; 0 for none.

    Shape:
        ``[..., dim]`` and a context ``[..., context]`` ``-> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: a size that is no integer, or too small; a parity that is not 0 or 1.

    Source:
        Dinh et al. (2017), section 3.2, https://arxiv.org/abs/1605.08803

    Example:
        >>> flow, z = AffineCoupling(4, context=3), torch.randn(5, 4)
        >>> x, log_det = flow(z, torch.ones(3))
        >>> torch.allclose(flow.inverse(x, torch.ones(3))[0], z, atol=1e-5)
        True
    """

    def __init__(
        self,
        dim: int,
        parity: int = 0,
        hidden: Sequence[int] = (24, 24, 24),
        *,
        shared: bool = False,
        context: int = 0,
    ) -> None:
        super().__init__(dim, parity, hidden, *((1, 2) if shared else (2, 1)), context)
        self.shared = shared

    def conditioner(self, kept: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return raw log-scale and shift of the coordinates that move, ``[..., moved]`` each."""
        outputs: Tensor = self.net(beside(kept, context))
        a, t = outputs[0].chunk(2, -1) if self.shared else outputs
        return a, t

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x_2 = e^s z_2 + t``."""
        kept, moving = self.split(z, context)
        a, t = self.conditioner(kept, context)
        s = soft_bound(a)
        return self.join(kept, torch.exp(s) * moving + t), s.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z_2 = (x_2 - t) e^-s``."""
        kept, moved = self.split(x, context)
        a, t = self.conditioner(kept, context)
        minus_s = -soft_bound(a)
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
        hidden: sizes of the conditioner's hidden layers, each followed by tanh; ``()`` for none.
        context: size of the last axis of the context, which the network reads too; 0 for none.

    Shape:
        ``[..., dim]`` and a context ``[..., context]`` ``-> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: a size that is no integer, or too small; a parity that is not 0 or 1.

    Source:
        Louizos & Welling (2017), section 3.3, https://arxiv.org/abs/1703.01961; the gate is that of Kingma et
        al. (2016), eq. 14, https://arxiv.org/abs/1606.04934

    Example:
        >>> flow, z = GatedCoupling(4), torch.randn(5, 4)
        >>> x, log_det = flow(z)
        >>> torch.equal(x[:, ::2], z[:, ::2])  # of parity 0
        True
    """

    mask: Tensor

    def __init__(self, dim: int, parity: int = 0, hidden: Sequence[int] = (50,), *, context: int = 0) -> None:
        super().__init__(dim, context)
        name = type(self).__name__
        kept = torch.arange(dim) % 2 == check_parity(parity, name)
        self.register_buffer("mask", (kept & (dim > 1)).to(torch.get_default_dtype()))
        self.net = MLP(dim + context, layer_sizes(hidden, name), 2 * dim, nn.Tanh)
        nn.init.constant_(self.net[-1].bias[dim:], 2.0)  # type: ignore[index]

    def conditioner(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return ``(mu, log gate)``, each ``[..., dim]``; coordinates that are kept have an open gate."""
        mu, a = self.net(beside(self.mask * z, context)).chunk(2, -1)
        a = F.threshold(a, LEAST_LOGIT, LEAST_LOGIT)  # clamp(min=LEAST_LOGIT), with a cheaper gradient
        return mu, (1 - self.mask) * F.logsigmoid(a)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x = z - (1 - gate)(z - mu)``."""
        z = self.check(z, self.mask, context)
        mu, log_gate = self.conditioner(z, context)
        return z + torch.expm1(log_gate) * (z - mu), log_gate.sum(-1)

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z = x + (1 / gate - 1)(x - mu)``."""
        x = self.check(x, self.mask, context)
        mu, log_gate = self.conditioner(x, context)
        return x + torch.expm1(-log_gate) * (x - mu), -log_gate.sum(-1)
