"""Affine maps with constants: every coordinate is scaled and shifted by a number of its own."""

from typing import Any

import torch
from torch import Tensor, distributed, nn

from mnf_lite.flows.base import Flow


class AffineConstant(Flow):
    r"""Scale and shift every coordinate by a learned constant.

    .. math:: x = e^s z + t, \qquad \log\Bigl|\det\frac{\partial x}{\partial z}\Bigr| = \sum_i s_i

    It starts as the identity, s = t = 0.

    Args:
        dim: number of coordinates.
        scale: whether s is learned; with False it stays 0.
        shift: whether t is learned; with False it stays 0. NICE's scaling layer has ``shift=False``.

    Shape:
        ``[..., dim] -> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: ``dim`` is no integer of at least 1.

    Source:
        Dinh et al. (2014), section 3.3, https://arxiv.org/abs/1410.8516

    Example:
        >>> flow = AffineConstant(2)
        >>> nn.init.constant_(flow.t, 3.0)
        Parameter containing:
        tensor([3., 3.], requires_grad=True)
        >>> flow(torch.zeros(2))[0].tolist()
        [3.0, 3.0]
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

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map z to ``x = e^s z + t``."""
        z = self.check(z, self.s, context)
        return torch.exp(self.s) * z + self.t, self.s.sum().expand(z.shape[:-1])

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z = (x - t) e^-s``."""
        x = self.check(x, self.s, context)
        return (x - self.t) * torch.exp(-self.s), -self.s.sum().expand(x.shape[:-1])


class ActNorm(AffineConstant):
    r"""An affine map that starts by giving the first batch it scores zero mean and unit variance.

    .. math:: z = (x - t)\, e^{-s}, \qquad
              t = \mathrm{mean}(x), \quad s = \log \mathrm{std}(x) \quad \text{of the first batch}

    The first call of ``inverse`` in training mode sets s and t, unless they are no longer 0: what has been
    learned, loaded or set by hand, by steps through ``forward`` for example, is not overwritten. Until then
    it is the identity, and in evaluation mode nothing changes. The buffer ``initialised`` is saved, so that a
    loaded flow is not initialised a second time. A coordinate that does not vary over the batch keeps s = 0.

    Where a process group of ``torch.distributed`` is running, the first batch is that of all processes
    together, so that their copies stay equal: all of them must score one, as they do in training.

    Args:
        dim: number of coordinates.

    Shape:
        ``[..., dim] -> [..., dim]`` and log-determinants ``[...]``

    Raises:
        ValueError: ``dim`` is no integer of at least 1; the first batch holds one point only, or NaN or
            infinity.

    Source:
        Kingma & Dhariwal (2018), section 3.1, https://arxiv.org/abs/1807.03039

    Example:
        >>> flow, x = ActNorm(2), 5 + 3 * torch.randn(100, 2)
        >>> z, _ = flow.inverse(x)
        >>> torch.allclose(z.mean(0), torch.zeros(2), atol=1e-5), torch.allclose(z.std(0), torch.ones(2))
        (True, True)
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

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map x to ``z = (x - t) e^-s``; in training mode the first batch also sets s and t."""
        if self.training and not self._ready:
            if not (self.initialised or self.s.any() or self.t.any()):
                self.initialise(self.check(x, self.s, context))
            self.initialised.fill_(True)
            self._ready = True
        return super().inverse(x, context)

    @torch.no_grad()
    def initialise(self, x: Tensor) -> None:
        """Set s and t from the points ``x [..., dim]``, and those of all other processes."""
        x = of_all_processes(x.reshape(-1, self.dim))
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


def of_all_processes(x: Tensor) -> Tensor:
    """Return the rows that the processes of the running group hold, those of each after the other's."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    shares: list[Tensor] = [x] * distributed.get_world_size()
    distributed.all_gather_object(shares, x.detach().cpu())  # shares of different lengths, once in a training
    return torch.cat(shares).to(x.device)
