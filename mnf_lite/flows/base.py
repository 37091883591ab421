"""What every flow has in common, and the two ways to use flows: chained, and as a density.

One direction everywhere: ``forward`` maps base noise z to data x, ``inverse`` maps x back to z. Each returns
the log-determinant of the Jacobian of the map it has just applied.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import torch
from torch import Tensor, nn

from mnf_lite.nets import positive_int


class Flow(nn.Module):
    r"""An invertible map of :math:`\mathbb R^{\mathrm{dim}}` whose Jacobian determinant is known.

    .. math:: x = f(z), \quad z = f^{-1}(x), \qquad
              \log\Bigl|\det\frac{\partial z}{\partial x}\Bigr|
              = -\log\Bigl|\det\frac{\partial x}{\partial z}\Bigr|

    A subclass defines ``forward`` and ``inverse`` and calls :meth:`check` on what comes in.

    Args:
        dim: number of coordinates, the size of the last axis.
        context: size of the last axis of the context on which the map depends; 0 for a map that takes none.

    Shape:
        ``z`` and ``x [..., dim]``, ``context [..., context]`` and log-determinants ``[...]``. The leading
        axes of points and context broadcast.

    Raises:
        ValueError: ``dim`` or ``context`` is no integer, or too small.

    Source:
        Papamakarios et al. (2021), section 2.1, https://arxiv.org/abs/1912.02762

    Example:
        >>> class Double(Flow):
        ...     def forward(self, z, context=None):
        ...         z = self.check(z, context=context)
        ...         return 2 * z, z.new_full(z.shape[:-1], self.dim * math.log(2))
        ...     def inverse(self, x, context=None):
        ...         x = self.check(x, context=context)
        ...         return x / 2, x.new_full(x.shape[:-1], -self.dim * math.log(2))
        >>> x, log_det = Double(3)(torch.ones(5, 3))
        >>> log_det.shape
        torch.Size([5])
    """

    def __init__(self, dim: int, context: int = 0) -> None:
        super().__init__()
        self.dim = positive_int(dim, f"{type(self).__name__}'s dim")
        self.context = positive_int(context, f"{type(self).__name__}'s context", least=0)

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``z [..., dim]`` to ``x [..., dim]``; also return ``log|det dx/dz| [...]``."""
        raise TypeError(f"{type(self).__name__} defines no forward: subclasses of Flow must")

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map ``x [..., dim]`` to ``z [..., dim]``; also return ``log|det dz/dx| [...]``."""
        raise TypeError(f"{type(self).__name__} defines no inverse: subclasses of Flow must")

    def check(self, x: Tensor, own: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        """Return the points if the flow can take them, else say what came.

        Args:
            x: points ``[..., dim]``.
            own: a parameter or buffer of the flow, whose dtype and device the points must have.
            context: what came as context ``[..., context]``.

        Returns:
            The points, expanded to the leading axes that points and context have together.

        Raises:
            TypeError: x or the context is no floating-point tensor, or has another dtype than the flow.
            ValueError: another shape or device; a context that is missing or not wanted.
        """
        name = type(self).__name__
        if not isinstance(x, Tensor) or not x.is_floating_point():
            raise TypeError(f"{name} expects a floating-point tensor, got {came(x)}")
        if x.ndim == 0 or x.shape[-1] != self.dim:
            raise ValueError(f"{name} expects shape [..., {self.dim}], got {list(x.shape)}")
        if own is not None and (x.dtype != own.dtype or x.device != own.device):
            if x.device != own.device:
                raise ValueError(f"{name} is on {own.device}, got a tensor on {x.device}")
            if not torch.is_autocast_enabled(x.device.type):
                raise TypeError(f"{name} has parameters of {own.dtype}, got a {x.dtype} tensor")
        return x if context is None and not self.context else self.check_context(x, context)

    def check_context(self, x: Tensor, context: Tensor | None) -> Tensor:
        """Return ``x`` with the leading axes of ``x`` and ``context`` together, if the context fits."""
        name, expected = type(self).__name__, f"a context [..., {self.context}]"
        if not self.context:
            raise ValueError(f"{name} takes no context (it was made with context=0), got {came(context)}")
        if context is None:
            raise ValueError(f"{name} expects {expected}, got none")
        if not isinstance(context, Tensor) or not context.is_floating_point():
            raise TypeError(f"{name} expects {expected} of floating-point numbers, got {came(context)}")
        if context.ndim == 0 or context.shape[-1] != self.context:
            raise ValueError(f"{name} expects {expected}, got shape {list(context.shape)}")
        if context.dtype != x.dtype and not torch.is_autocast_enabled(x.device.type):
            raise TypeError(f"{name} expects a context of {x.dtype}, got {came(context)}")
        if context.device != x.device:
            raise ValueError(f"{name} expects a context on {x.device}, got one on {context.device}")
        try:
            points = x.expand(*torch.broadcast_shapes(x.shape[:-1], context.shape[:-1]), self.dim)  # type: ignore[no-untyped-call]
        except RuntimeError:
            shapes = f"points {list(x.shape)} and context {list(context.shape)}"
            raise ValueError(f"{name} expects leading axes that broadcast, got {shapes}") from None
        return points

    def extra_repr(self) -> str:
        """Show what the printed module is made with."""
        return f"dim={self.dim}" + (f", context={self.context}" if self.context else "")


def came(thing: object) -> str:
    """Return in words what came in a tensor's place."""
    return f"a {thing.dtype} tensor" if isinstance(thing, Tensor) else f"{type(thing).__name__}"


def check_flow(flow: Any, owner: str) -> None:
    """Raise unless ``flow`` is a module with ``dim``, ``forward`` and ``inverse``, a :class:`Flow` or not."""
    if not isinstance(flow, nn.Module) or not hasattr(flow, "dim") or not hasattr(flow, "inverse"):
        raise TypeError(f"{owner} expects flows (modules with dim, forward, inverse), got {came(flow)}")


def read_by(flow: nn.Module, context: Tensor | None) -> tuple[Tensor | None, ...]:
    """Return what a flow is given beside the points: one that reads no context need not know of any."""
    return (context,) if getattr(flow, "context", 0) else ()


BOUND = 7.0  # of log-scales: a factor between 1/1100 and 1100 in every flow


def soft_bound(a: Tensor) -> Tensor:
    r"""Keep log-scales within ±7 smoothly, :math:`a / (1 + |a|/7)`: the identity near 0, then flat.

    Example:
        >>> soft_bound(torch.tensor([0.0, 7.0, -7.0]))
        tensor([ 0.0000,  3.5000, -3.5000])
    """
    return a / (1 + a.abs() / BOUND)


class Compose(Flow):
    r"""A chain of flows is a flow, and a slice of a chain is a chain.

    .. math:: f = f_K \circ \dots \circ f_1, \qquad
              \log|\det \partial x/\partial z| = \sum_k \log|\det \partial z_k/\partial z_{k-1}|

    The flows that were made with a context all read the one that the chain is given; the others ignore it.

    Args:
        flows: the flows in the order in which ``forward`` applies them, all of the same dimension.
        dim: number of coordinates; needed only for an empty chain, which is the identity.

    Shape:
        ``[..., dim] -> [..., dim]`` and log-determinants ``[...]``

    Raises:
        TypeError: something in the list is no flow.
        ValueError: flows of different dimensions, or of contexts of different sizes.

    Source:
        Rezende & Mohamed (2015), eqs. 6-7, https://arxiv.org/abs/1505.05770

    Example:
        >>> from mnf_lite.flows import AffineConstant, Radial
        >>> chain = Compose([Radial(2), AffineConstant(2), Radial(2)])
        >>> x, log_det = chain(torch.zeros(5, 2))
        >>> [state.shape for state in chain[:2].trace(torch.zeros(2))]
        [torch.Size([2]), torch.Size([2]), torch.Size([2])]
    """

    def __init__(self, flows: Iterable[Flow], dim: int | None = None) -> None:
        if not isinstance(flows, Iterable):
            raise TypeError(f"Compose expects a list of flows, got {came(flows)}")
        flows = list(flows)
        for flow in flows:
            check_flow(flow, "Compose")
        dims = sorted({flow.dim for flow in flows} | ({dim} if dim is not None else set()), key=str)
        if len(dims) != 1:
            got = dims or "an empty list and no dim"
            raise ValueError(f"Compose expects flows of one common dimension, got {got}")
        contexts = sorted({size for flow in flows if (size := getattr(flow, "context", 0))})
        if len(contexts) > 1:
            raise ValueError(f"Compose expects flows with contexts of one size, got {contexts}")
        super().__init__(dims[0], *contexts)
        self.flows = nn.ModuleList(flows)

    def __len__(self) -> int:
        return len(self.flows)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.flows)  # type: ignore[arg-type]

    @overload
    def __getitem__(self, index: int) -> Flow: ...
    @overload
    def __getitem__(self, index: slice) -> "Compose": ...

    def __getitem__(self, index: int | slice) -> Flow:
        """Return one of the flows, or for a slice the chain of some of them."""
        if isinstance(index, slice):
            return Compose(list(self)[index], self.dim)
        return self.flows[index]  # type: ignore[return-value]

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Apply the first flow first; the log-determinants add up."""
        x, log_det = self.check(z, context=context), None
        for flow in self:
            x, step = flow(x, *read_by(flow, context))
            log_det = step if log_det is None else log_det + step
        return x, x.new_zeros(x.shape[:-1]) if log_det is None else log_det

    def inverse(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Undo the last flow first; the log-determinants add up."""
        z, log_det = self.check(x, context=context), None
        for flow in reversed(list(self)):
            z, step = flow.inverse(z, *read_by(flow, context))
            log_det = step if log_det is None else log_det + step
        return z, z.new_zeros(z.shape[:-1]) if log_det is None else log_det

    def trace(self, z: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """Return every state from z to x: ``[z_0 = z, z_1, ..., z_K = x]``, each ``[..., dim]``."""
        states = [self.check(z, context=context)]
        for flow in self:
            states.append(flow(states[-1], *read_by(flow, context))[0])
        return states

    def trace_inverse(self, x: Tensor, context: Tensor | None = None) -> list[Tensor]:
        """Return every state from x to z: ``[z_K = x, ..., z_1, z_0 = z]``, each ``[..., dim]``."""
        states = [self.check(x, context=context)]
        for flow in reversed(list(self)):
            states.append(flow.inverse(states[-1], *read_by(flow, context))[0])
        return states


Shape = int | Sequence[int]


def as_shape(shape: Any, owner: str) -> tuple[int, ...]:
    """Return a shape of samples as a tuple; ``owner`` is the class named where it is none."""
    sizes = shape if isinstance(shape, list | tuple) else (shape,)
    return tuple(positive_int(size, f"every size in {owner}'s sample shape", least=0) for size in sizes)


class Density(nn.Module):
    """A probability density on R^dim that can be scored and drawn from: what a flow takes as its base.

    A subclass defines ``log_prob`` and ``rsample``, and holds its tensors in parameters and buffers, so that
    it moves, casts and saves with the flow on it. Distributions of :mod:`torch.distributions` are made in
    these methods, of the tensors as they are at the time.

    Args:
        dim: number of coordinates.
        context: size of the last axis of the context on which the density depends; 0 for none.

    Example:
        >>> from torch import distributions as D
        >>> class Laplace(Density):
        ...     def __init__(self, scale):
        ...         super().__init__(len(scale))
        ...         self.scale = nn.Parameter(scale)
        ...     def distribution(self):
        ...         return D.Independent(D.Laplace(torch.zeros_like(self.scale), self.scale), 1)
        ...     def log_prob(self, x, context=None):
        ...         return self.distribution().log_prob(x)
        ...     def rsample(self, shape=(), context=None):
        ...         return self.distribution().rsample(shape)
        >>> Laplace(torch.ones(2)).double().sample((5,)).dtype
        torch.float64
    """

    has_rsample = True

    def __init__(self, dim: int, context: int = 0) -> None:
        super().__init__()
        self.dim = positive_int(dim, f"{type(self).__name__}'s dim")
        self.context = positive_int(context, f"{type(self).__name__}'s context", least=0)

    @property
    def batch_shape(self) -> torch.Size:
        """Return ``[]``: it is one density, not several."""
        return torch.Size()

    @property
    def event_shape(self) -> torch.Size:
        """Return ``[dim]``, the shape of one point."""
        return torch.Size((self.dim,))

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log-density in nats of ``x [..., dim] -> [...]``."""
        raise TypeError(f"{type(self).__name__} defines no log_prob: subclasses of Density must")

    def rsample(self, shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Draw points ``[*shape, dim]``, differentiable in the parameters."""
        raise TypeError(f"{type(self).__name__} defines no rsample: subclasses of Density must")

    @torch.no_grad()
    def sample(self, shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Draw points ``[*shape, dim]``, by default one point ``[dim]``, without gradients."""
        return self.rsample(shape, context)

    def rsample_and_log_prob(self, shape: Shape = (), context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draw points ``[*shape, dim]`` and score them, ``[*shape]``; both differentiable."""
        x = self.rsample(shape, context)
        return x, self.log_prob(x, context)


class StandardNormal(Density):
    r"""The normal distribution of zero mean and unit covariance on :math:`\mathbb R^{\mathrm{dim}}`.

    Args:
        dim: number of coordinates.

    Source:
        Rezende & Mohamed (2015), section 4, https://arxiv.org/abs/1505.05770

    Example:
        >>> StandardNormal(2).log_prob(torch.zeros(2))
        tensor(-1.8379)
    """

    like: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("like", torch.zeros(()), persistent=False)  # has the dtype and device of samples

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log-density in nats of ``x [..., dim] -> [...]``."""
        return -0.5 * (x.square().sum(-1) + self.dim * math.log(2 * math.pi))

    def rsample(self, shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Draw points ``[*shape, dim]``, by default one point ``[dim]``."""
        shape = as_shape(shape, "StandardNormal")
        return torch.randn(*shape, self.dim, dtype=self.like.dtype, device=self.like.device)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, a scalar."""
        return self.like.new_tensor(0.5 * self.dim * (1 + math.log(2 * math.pi)))


class NormalizingFlow(Density):
    r"""A probability density: the base's, carried through a flow.

    .. math:: x = f(z), \quad z \sim p_Z, \qquad \log p_X(x) = \log p_Z\bigl(f^{-1}(x)\bigr)
              + \log\Bigl|\det\frac{\partial f^{-1}}{\partial x}\Bigr|

    Methods and shapes are those of :class:`torch.distributions.Distribution`: with ``batch_shape [dim]``
    empty and ``event_shape [dim]`` it can be the base of a ``TransformedDistribution``. It is a module and
    no ``Distribution``, whose tensors would not move: ``kl_divergence`` and ``MixtureSameFamily``, which ask
    for the class, do not take it.

    A flow that reads a context makes a conditional density: ``sample(shape, context)`` draws points
    ``[*shape, *leading axes of the context, dim]``, and ``log_prob(x, context)`` broadcasts the leading axes.

    Args:
        flow: the map f from base noise z to data x.
        base: the density of z, of the flow's dimension and without a context, such as another
            :class:`NormalizingFlow` or a :class:`Density` of one's own; the standard normal if None.

    Raises:
        TypeError: the flow is no :class:`Flow`, or the base no :class:`Density`.
        ValueError: the base has another dimension than the flow, or asks for a context.

    Source:
        Rezende & Mohamed (2015), eq. 5, https://arxiv.org/abs/1505.05770

    Example:
        >>> from mnf_lite.flows import MAF
        >>> density = NormalizingFlow(Compose([MAF(2, context=3), MAF(2, parity=1, context=3)]))
        >>> density.log_prob(torch.zeros(5, 2), torch.ones(3)).shape
        torch.Size([5])
        >>> density.sample(7, torch.ones(4, 3)).shape
        torch.Size([7, 4, 2])
    """

    def __init__(self, flow: Flow, base: Density | None = None) -> None:
        check_flow(flow, "NormalizingFlow")
        if base is None:
            base = StandardNormal(flow.dim).to(next(flow.parameters(), torch.empty(())))
        if not isinstance(base, Density):
            raise TypeError(
                f"NormalizingFlow expects a base that is a Density, got {came(base)}: the tensors of a"
                " distribution would not move with the flow, so hold them in a subclass of flows.Density, as"
                " its docstring shows"
            )
        if base.dim != flow.dim or base.context:
            raise ValueError(
                f"NormalizingFlow expects a base of the flow's dim={flow.dim} that takes no context,"
                f" got dim={base.dim}, context={base.context}"
            )
        super().__init__(flow.dim, getattr(flow, "context", 0))
        self.flow = flow
        self.base = base
        self.has_rsample = base.has_rsample

    def log_prob(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Return the log-density in nats of ``x [..., dim] -> [...]``."""
        z, log_det = self.flow.inverse(x, *self.beside(context))
        return self.base.log_prob(z) + log_det

    @torch.no_grad()
    def sample(self, shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Draw points ``[*shape, dim]``, by default one point ``[dim]``, without gradients."""
        x: Tensor = self.flow(self.base.sample(self.base_shape(shape, context)), *self.beside(context))[0]
        return x

    def rsample(self, shape: Shape = (), context: Tensor | None = None) -> Tensor:
        """Draw points ``[*shape, dim]``, differentiable in the parameters of the flow and of the base."""
        x: Tensor = self.flow(self.base.rsample(self.base_shape(shape, context)), *self.beside(context))[0]
        return x

    def rsample_and_log_prob(self, shape: Shape = (), context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Draw points ``[*shape, dim]`` and score them, ``[*shape]``, in one pass through the flow."""
        z, log_prob = self.base.rsample_and_log_prob(self.base_shape(shape, context))
        x, log_det = self.flow(z, *self.beside(context))
        return x, log_prob - log_det

    def beside(self, context: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return what the flow is given beside the points."""
        if context is not None and not self.context:
            raise ValueError(f"{type(self.flow).__name__} takes no context, got {came(context)}")
        return read_by(self.flow, context)

    def base_shape(self, shape: Shape, context: Tensor | None) -> tuple[int, ...]:
        """Return ``shape`` and the leading axes of the context."""
        sizes = as_shape(shape, "NormalizingFlow")
        return sizes if not isinstance(context, Tensor) else (*sizes, *context.shape[:-1])
