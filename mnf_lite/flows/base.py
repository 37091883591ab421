"""What every flow has in common, and the two ways to use flows: chained, and as a density.

One direction everywhere: ``forward`` maps base noise z to data x, ``inverse`` maps x back to z. Each returns the
log-determinant of the Jacobian of the map it has just applied.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


class Flow(nn.Module):
    """An invertible map of R^dim whose Jacobian determinant is known.

    Args:
        dim: number of coordinates, the size of the last axis.
    """

    dim: int

    def __init__(self, dim: int) -> None:
        if not isinstance(dim, int) or dim < 1:
            raise ValueError(f"dim must be an integer of at least 1, got {dim!r}")
        super().__init__()
        self.dim = dim

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``z [..., dim]`` to ``x [..., dim]``; also ``log|det dx/dz| [...]``."""
        raise TypeError(f"{type(self).__name__} defines no forward: subclasses of Flow must")

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x [..., dim]`` to ``z [..., dim]``; also ``log|det dz/dx| [...]``."""
        raise TypeError(f"{type(self).__name__} defines no inverse: subclasses of Flow must")

    def check(self, x: Tensor) -> Tensor:
        """Return ``x`` if it is a floating-point tensor ``[..., dim]``, else say what it is."""
        if not isinstance(x, Tensor) or not x.is_floating_point():
            came = f"{x.dtype} tensor" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"{type(self).__name__} expects a floating-point tensor, got {came}")
        if x.ndim == 0 or x.shape[-1] != self.dim:
            raise ValueError(f"{type(self).__name__} expects shape [..., {self.dim}], got {list(x.shape)}")
        return x

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Compose(Flow):
    r"""A chain of flows is a flow.

    .. math:: f = f_K \circ \dots \circ f_1, \qquad
              \log|\det \partial x/\partial z| = \sum_k \log|\det \partial z_k/\partial z_{k-1}|

    Args:
        flows: the flows in the order in which ``forward`` applies them, all of the same dimension.
        dim: number of coordinates; needed only for an empty chain, which is the identity.
    """

    def __init__(self, flows: Iterable[Flow], dim: int | None = None) -> None:
        flows = list(flows)
        dims = sorted({flow.dim for flow in flows} | ({dim} if dim is not None else set()))
        if len(dims) != 1:
            raise ValueError(f"Compose expects flows of one common dimension, got {dims or 'an empty list and no dim'}")
        super().__init__(dims[0])
        self.flows = nn.ModuleList(flows)

    def __len__(self) -> int:
        return len(self.flows)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.flows)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Flow:
        return self.flows[index]  # type: ignore[return-value]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        x, log_det = self.check(z), z.new_zeros(z.shape[:-1])
        for flow in self:
            x, step = flow(x)
            log_det = log_det + step
        return x, log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.check(x), x.new_zeros(x.shape[:-1])
        for flow in reversed(list(self)):
            z, step = flow.inverse(z)
            log_det = log_det + step
        return z, log_det

    def trace(self, z: Tensor) -> list[Tensor]:
        """Every state on the way from z to x: ``[z_0 = z, z_1, ..., z_K = x]``, each ``[..., dim]``."""
        states = [self.check(z)]
        for flow in self:
            states.append(flow(states[-1])[0])
        return states

    def trace_inverse(self, x: Tensor) -> list[Tensor]:
        """Every state on the way from x to z: ``[z_K = x, ..., z_1, z_0 = z]``, each ``[..., dim]``."""
        states = [self.check(x)]
        for flow in reversed(list(self)):
            states.append(flow.inverse(states[-1])[0])
        return states
