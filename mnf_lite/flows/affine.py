"""Affine maps with constants: every coordinate is scaled and shifted by a number of its own."""

from typing import Any

import torch
from torch import Tensor, nn

from mnf_lite.flows.base import Flow


class AffineConstant(Flow):
    r"""Scale and shift every coordinate by a learned constant.

    .. math:: x = e^s z + t, \qquad \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i s_i

    It starts as the identity, s = t = 0.

    Args:
        dim: number of coordinates.
        scale: whether s is learned; with False it stays 0.
        shift: whether t is learned; with False it stays 0. NICE's scaling layer has ``shift=False``.

    Source:
        Dinh et al. (2014), section 3.3.
    """

    s: Tensor
    t: Tensor

    def __init__(self, dim: int, scale: bool = True, shift: bool = True) -> None:
        super().__init__(dim)
        for name, learned in (("s", scale), ("t", shift)):
            if learned:
                self.register_parameter(name, nn.Parameter(torch.zeros(dim)))
            else:
                self.register_buffer(name, torch.zeros(dim))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x = e^s z + t``."""
        x = torch.addcmul(self.t, self.check(z), torch.exp(self.s))
        return x, self.s.sum().to(x.dtype).expand(x.shape[:-1])

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z = (x - t) e^-s``."""
        z = (self.check(x) - self.t) * torch.exp(-self.s)
        return z, -self.s.sum().to(z.dtype).expand(z.shape[:-1])


class ActNorm(AffineConstant):
    r"""An affine map that starts by giving the first batch it scores zero mean and unit variance.

    .. math:: z = (x - t)\, e^{-s}, \qquad
              t = \mathrm{mean}(x), \quad s = \log \mathrm{std}(x) \quad \text{of the first batch}

    The first call of ``inverse`` sets s and t, in training and in evaluation mode alike; before it
    ``forward`` is the identity. The buffer ``initialised`` is saved, so that a loaded flow is not initialised
    a second time. A coordinate that does not vary over the batch keeps s = 0.

    Args:
        dim: number of coordinates.

    Raises:
        ValueError: the first batch holds one point only, or NaN or infinity.

    Source:
        Kingma & Dhariwal (2018), section 3.1.
    """

    initialised: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("initialised", torch.tensor(False))
        # A plain bool beside the buffer, because to ask a tensor is to wait for the device. It is True only
        # when the buffer is, and a loaded state is asked anew.
        self._ready = False

    def _load_from_state_dict(self, *args: Any) -> None:
        self._ready = False
        super()._load_from_state_dict(*args)

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z = (x - t) e^-s``; the first batch also sets s and t."""
        if not self._ready:
            if not self.initialised:
                self.initialise(self.check(x))
            self._ready = True
        return super().inverse(x)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set s and t from the points ``x [..., dim]``."""
        x = x.reshape(-1, self.dim)
        if len(x) < 2:
            raise ValueError(
                f"ActNorm needs a first batch of at least 2 points, got {len(x)}: one has no spread"
            )
        if not torch.isfinite(x).all():
            raise ValueError("ActNorm needs a first batch of finite values, got NaN or infinity")
        std, mean = torch.std_mean(x, 0)
        rounding = 8 * torch.finfo(x.dtype).eps * x.abs().amax(0)
        self.s.copy_(torch.where(std > rounding, std, 1).log())
        self.t.copy_(mean)
        self.initialised.fill_(True)
