"""What every flow has in common, and the two ways to use flows: chained, and as a density.

One direction everywhere: ``forward`` maps base noise z to data x, ``inverse`` maps x back to z. Each returns
the log-determinant of the Jacobian of the map it has just applied.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform, constraints
from torch.types import _size

Part = Distribution | Transform
NO_SHAPE = torch.Size()


class Flow(nn.Module):
    r"""An invertible map of :math:`\mathbb R^{\mathrm{dim}}` whose Jacobian determinant is known.

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
        """Show what the printed module is made with."""
        return f"dim={self.dim}"


def check_parity(parity: int) -> int:
    """Return ``parity`` if it is 0 or 1."""
    if parity not in (0, 1):
        raise ValueError(f"parity must be 0 or 1, got {parity!r}")
    return parity


BOUND = 7.0  # of log-scales: a factor between 1/1100 and 1100 in every flow


def soft_bound(a: Tensor, sign: int = 1) -> Tensor:
    r"""Keep log-scales within ±7 smoothly, :math:`\pm a / (1 + |a|/7)`: the identity near 0, then flat."""
    return a / torch.rsub(a.abs(), sign, alpha=-sign / BOUND)  # sign + |a| sign / 7, in one step


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
            came = dims or "an empty list and no dim"
            raise ValueError(f"Compose expects flows of one common dimension, got {came}")
        super().__init__(dims[0])
        self.flows = nn.ModuleList(flows)

    def __len__(self) -> int:
        return len(self.flows)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self.flows)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Flow:
        return self.flows[index]  # type: ignore[return-value]

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the first flow first; the log-determinants add up."""
        x, log_det = self.check(z), None
        for flow in self:
            x, step = flow(x)
            log_det = step if log_det is None else log_det + step
        return x, z.new_zeros(z.shape[:-1]) if log_det is None else log_det

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Undo the last flow first; the log-determinants add up."""
        z, log_det = self.check(x), None
        for flow in reversed(list(self)):
            z, step = flow.inverse(z)
            log_det = step if log_det is None else log_det + step
        return z, x.new_zeros(x.shape[:-1]) if log_det is None else log_det

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


class StandardNormal(Distribution):
    r"""The normal distribution of zero mean and unit covariance on :math:`\mathbb R^{\mathrm{dim}}`.

    Args:
        loc: zeros ``[dim]``; they give the distribution its dimension, dtype and device.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Tensor) -> None:
        self.loc = loc
        super().__init__(event_shape=loc.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """Zeros ``[dim]``."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Ones ``[dim]``."""
        return torch.ones_like(self.loc)

    def rsample(self, sample_shape: _size = NO_SHAPE) -> Tensor:
        """Draw points ``[*sample_shape, dim]``, by default one point ``[dim]``."""
        return torch.randn(self._extended_shape(sample_shape), dtype=self.loc.dtype, device=self.loc.device)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density in nats of ``value [..., dim] -> [...]``."""
        return -0.5 * (value.square().sum(-1) + value.shape[-1] * math.log(2 * math.pi))

    def entropy(self) -> Tensor:
        """Entropy in nats, a scalar."""
        return self.loc.new_tensor(0.5 * len(self.loc) * (1 + math.log(2 * math.pi)))


class NormalizingFlow(nn.Module):
    r"""A probability density: the base distribution's, carried through a flow.

    .. math:: x = f(z), \quad z \sim p_Z, \qquad \log p_X(x) = \log p_Z\bigl(f^{-1}(x)\bigr)
              + \log\Bigl|\det\frac{\partial f^{-1}}{\partial x}\Bigr|

    The methods are those of :class:`torch.distributions.Distribution`.

    Args:
        flow: the map f from base noise z to data x.
        base: the distribution of z, with event shape ``[flow.dim]``; the standard normal if None. Its tensors
            are copied into buffers, so that it moves, casts and saves with the flow; its parameters become
            parameters of this module and are trained.

    Raises:
        ValueError: the base has another event shape, or holds a tensor computed from parameters, whose graph
            the first backward pass would free.

    Source:
        Rezende & Mohamed (2015), eq. 5.
    """

    def __init__(self, flow: Flow, base: Distribution | None = None) -> None:
        super().__init__()
        self.flow = flow
        if base is None:
            like = next(flow.parameters(), torch.empty(()))
            base = StandardNormal(torch.zeros(flow.dim, dtype=like.dtype, device=like.device))
        if base.event_shape != (flow.dim,):
            raise ValueError(
                f"the base must have the flow's event shape [{flow.dim}], got {list(base.event_shape)} with"
                f" batch shape {list(base.batch_shape)}: torch.distributions.Independent turns this into that"
            )
        self._blueprint = Blueprint(base, self, "base", {})

    @property
    def base(self) -> Distribution:
        """The base distribution, made of the module's present buffers and parameters."""
        base = self._blueprint.build(self, {})
        assert isinstance(base, Distribution)
        return base

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of ``x [..., dim] -> [...]``."""
        z, log_det = self.flow.inverse(x)
        log_prob: Tensor = self.base.log_prob(z)
        return log_prob + log_det

    @torch.no_grad()
    def sample(self, shape: _size = NO_SHAPE) -> Tensor:
        """Draw points ``[*shape, dim]``, by default one point ``[dim]``, without gradients."""
        x: Tensor = self.flow(self.base.sample(shape))[0]
        return x

    def rsample(self, shape: _size = NO_SHAPE) -> Tensor:
        """Draw points ``[*shape, dim]``, differentiable in the parameters of the flow and of the base."""
        x: Tensor = self.flow(self.base.rsample(shape))[0]
        return x


class Blueprint:
    """A distribution (or a transform inside one) without its tensors, which a module holds in its stead.

    A distribution is no module: left alone, its tensors would neither move nor be saved. Building a new one
    for every use also forgets what the old one has computed and cached from tensors that have changed since.

    Args:
        thing: the distribution or transform.
        module: where the tensors are registered.
        path: the start of the names under which they are.
        known: blueprints made so far, by the id of their thing: a transform and its inverse know each other.
    """

    def __init__(self, thing: Part, module: nn.Module, path: str, known: dict[int, "Blueprint"]) -> None:
        known[id(thing)] = self
        self.kind = type(thing)
        self.rest: dict[str, Any] = {}
        self.tensors: dict[str, tuple[str, torch.Size]] = {}
        self.parts: dict[str, Blueprint] = {}
        self.lists: dict[str, list[Blueprint]] = {}

        def draw(part: Part, name: str) -> Blueprint:
            return known[id(part)] if id(part) in known else Blueprint(part, module, name, known)

        for key, value in vars(thing).items():
            name = f"{path}_{key.strip('_')}"
            if isinstance(value, Tensor):
                self.tensors[key] = (register(module, name, value), value.shape)
            elif isinstance(value, Part):
                self.parts[key] = draw(value, name)
            elif isinstance(value, list | tuple) and value and isinstance(value[0], Part):
                self.lists[key] = [draw(part, f"{name}_{i}") for i, part in enumerate(value)]
            else:
                self.rest[key] = value

    def build(self, module: nn.Module, built: dict[int, Part]) -> Part:
        """Make the thing anew from the tensors that ``module`` holds; ``built`` are the parts made so far."""
        if id(self) in built:
            return built[id(self)]
        thing: Part = object.__new__(self.kind)
        built[id(self)] = thing
        vars(thing).update(self.rest)
        for key, (name, shape) in self.tensors.items():
            vars(thing)[key] = getattr(module, name).expand(shape)
        for key, part in self.parts.items():
            vars(thing)[key] = part.build(module, built)
        for key, parts in self.lists.items():
            vars(thing)[key] = [part.build(module, built) for part in parts]
        return thing


def register(module: nn.Module, name: str, tensor: Tensor) -> str:
    """Make ``tensor`` a parameter of ``module`` if it is one, else a buffer, and return its name."""
    if not tensor.requires_grad:
        module.register_buffer(name, tensor.detach().clone(memory_format=torch.contiguous_format))
        return name
    source = tensor if tensor._base is None else tensor._base
    if not isinstance(source, nn.Parameter) or not is_expanded(source, tensor):
        raise ValueError(
            f"the base's tensor {name!r} requires a gradient but is no nn.Parameter: its graph would not"
            " outlive a backward pass; pass the parameter itself, or a detached tensor"
        )
    for known, parameter in module.named_parameters(recurse=False):
        if parameter is source:
            return known
    module.register_parameter(name, source)
    return name


def is_expanded(source: Tensor, view: Tensor) -> bool:
    """Whether ``view`` is ``source`` as it stands or expanded: the same numbers in the same order."""
    try:
        expanded = source.expand(view.shape)
    except RuntimeError:
        return False
    return expanded.data_ptr() == view.data_ptr() and expanded.stride() == view.stride()
