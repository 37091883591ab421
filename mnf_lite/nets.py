"""Networks that parametrise flows: as simple or as deep as one likes, for a flow never inverts them."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from numbers import Integral, Real
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["MADE", "MLP", "MaskedLinear", "StackedMLP"]

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

START = 0.01  # of the last layer's draws: a fresh flow is near the identity, and a deep chain of them finite


def positive_int(value: Any, name: str, least: int = 1) -> int:
    """Return ``value`` as an int if it is an integer of at least ``least``.

    Args:
        value: what came.
        name: what it is, for the message: ``"MADE's dim"``.
        least: the least integer allowed.

    Raises:
        ValueError: it is a bool, no integer, or too small.

    Example:
        >>> positive_int(3, "MADE's dim")
        3
        >>> positive_int(2.0, "MADE's dim")
        Traceback (most recent call last):
        ValueError: MADE's dim must be an integer of at least 1, got 2.0
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return int(value)


def positive_number(value: Any, name: str, otherwise: str = "") -> float:
    """Return ``value`` as a float if it is a positive, finite number.

    Args:
        value: what came.
        name: what it is, for the message: ``"SplineCoupling's bound"``.
        otherwise: what else may come, which the caller handles, for the message: ``'or "learned"'``.

    Raises:
        ValueError: it is a bool, no number, not positive, or not finite.

    Example:
        >>> positive_number(3, "SplineCoupling's bound")
        3.0
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < math.inf:
        expected = " ".join(["a positive finite number", otherwise]).strip()
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return float(value)


def layer_sizes(hidden: Any, owner: str) -> tuple[int, ...]:
    """Return ``hidden`` as a tuple if it holds integers of at least 1.

    Args:
        hidden: sizes of hidden layers; ``()`` means none, so that the network is one linear map.
        owner: the class they are for, named in the message.

    Raises:
        ValueError: a single number, a string, or sizes that are no integers of at least 1.

    Example:
        >>> layer_sizes([24, 24], "MAF")
        (24, 24)
    """
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise ValueError(f"{owner}'s hidden must be a sequence of integers of at least 1, got {hidden!r}")
    return tuple(positive_int(size, f"every size in {owner}'s hidden") for size in hidden)


def beside(x: Tensor, context: Tensor | None) -> Tensor:
    """Return ``[x, context]``, what a conditional network reads; ``x`` alone where there is no context.

    Shape:
        ``[..., D]`` and ``[..., C]``, whose leading axes broadcast to those of x, ``-> [..., D + C]``

    Example:
        >>> beside(torch.zeros(5, 2), torch.ones(3)).shape
        torch.Size([5, 5])
    """
    return x if context is None else torch.cat((x, context.expand(*x.shape[:-1], -1)), -1)


class MLP(nn.Sequential):
    r"""Multilayer perceptron: linear maps with a nonlinearity after each but the last.

    .. math:: h_0 = x, \qquad h_k = \phi(W_k h_{k-1} + b_k), \qquad y = W_K h_{K-1} + b_K

    Args:
        in_features: size of the last axis of the input.
        hidden: sizes of the hidden layers; the nonlinearity follows every one of them, the last one too.
        out_features: size of the last axis of the output.
        activation: makes the nonlinearity :math:`\phi`.

    Shape:
        ``[..., in_features] -> [..., out_features]``

    Raises:
        ValueError: a size that is no integer of at least 1.

    Source:
        Rumelhart, Hinton & Williams (1986), https://doi.org/10.1038/323533a0

    Example:
        >>> MLP(3, (8, 8), 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        in_features = positive_int(in_features, "MLP's in_features")
        out_features = positive_int(out_features, "MLP's out_features")
        hidden = layer_sizes(hidden, "MLP")
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((in_features, *hidden)):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        super().__init__(*layers, nn.Linear((in_features, *hidden)[-1], out_features))

    def __call__(self, x: Tensor) -> Tensor:
        """Map ``[..., in_features] -> [..., out_features]``."""
        y: Tensor = super().__call__(x)
        return y


class StackedMLP(nn.Module):
    r"""``n`` multilayer perceptrons of one shape that read the same input and run as one batched product.

    Each is an :class:`MLP` with ReLUs. Their parameters are one tensor ``theta [n, P]``, every layer's
    weights ``[in, out]`` (the last one's ``[out, in]``) followed by its biases: in networks as small as those
    of a flow, to call a product or to visit a parameter takes longer than to compute with it. One network
    alone goes through plain products, faster than a batch of one.

    The last layer's weights and biases are drawn 100 times smaller than an :class:`MLP`'s: the outputs start
    near 0, where the maps that they parametrise are the identity.

    Args:
        n: number of networks.
        in_features: size of the last axis of the input. With 0 there is nothing to read: the outputs are
            learned constants, which start at 0.
        hidden: sizes of the hidden layers, the same in every network.
        out_features: size of the last axis of every network's output.

    Shape:
        ``[..., in_features] -> [n, ..., out_features]``

    Raises:
        ValueError: a size that is no integer, or too small.

    Example:
        >>> StackedMLP(2, 3, (8, 8), 1)(torch.zeros(5, 3)).shape
        torch.Size([2, 5, 1])
    """

    def __init__(self, n: int, in_features: int, hidden: Sequence[int], out_features: int) -> None:
        super().__init__()
        name = type(self).__name__
        self.n = n = positive_int(n, f"{name}'s n")
        in_features = positive_int(in_features, f"{name}'s in_features", least=0)
        out_features = positive_int(out_features, f"{name}'s out_features")
        hidden = layer_sizes(hidden, name)
        stack = (n,) if n > 1 else ()
        sizes = list(pairwise((in_features, *hidden, out_features))) if in_features else []
        self.shapes = [(*stack, i, o) for i, o in sizes]
        if sizes:  # a product with few columns is faster so
            self.shapes[-1] = (*stack, out_features, sizes[-1][0])
        self.lengths = [length for i, o in sizes for length in (i * o, o)]
        # As nn.Linear draws them: weights and biases uniform within 1 / sqrt(fan_in).
        layers = [torch.empty(n, (i + 1) * o).uniform_(-(i**-0.5), i**-0.5) for i, o in sizes]
        if layers:
            layers[-1] *= START
        self.theta = nn.Parameter(torch.cat(layers, 1) if layers else torch.zeros(n, out_features))

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Return weights ``[n, in, out]`` and biases ``[n, 1, out]`` of every layer; of one, without n."""
        return self.unpack(self.theta)

    def unpack(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return views of a tensor laid out like ``theta``, by layer."""
        pieces = torch.split(theta[:, None] if self.n > 1 else theta, self.lengths, -1)
        *weights, last = [p.view(shape) for p, shape in zip(pieces[::2], self.shapes, strict=True)]
        return list(zip([*weights, last.mT], pieces[1::2], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in_features] -> [n, ..., out_features]``."""
        y = self.flat(x)
        return y.view(self.n, *x.shape[:-1], y.shape[-1])

    def flat(self, x: Tensor) -> Tensor:
        """Map ``[..., in_features] -> [n, B, out_features]``, of one network without n."""
        if not self.shapes:
            y = self.theta[:, None] if self.n > 1 else self.theta
            return y.expand(*y.shape[:-2], x.shape[:-1].numel(), -1)
        h = x if x.ndim == 2 else x.reshape(-1, x.shape[-1])  # [..., in] -> [B, in]
        h, product = (h.expand(self.n, -1, -1), torch.baddbmm) if self.n > 1 else (h, torch.addmm)
        for k, (weight, bias) in enumerate(self.layers()):
            h = product(bias, h.relu_() if k else h, weight)  # [n, B, in] -> [n, B, out]
        return h


class MaskedLinear(nn.Linear):
    r"""A linear map with some connections cut: :math:`y = (M \odot W) x + b`.

    Args:
        mask: ``[out_features, in_features]``, true where a connection is kept; a buffer.

    Shape:
        ``[..., in_features] -> [..., out_features]``

    Raises:
        ValueError: a mask that is no matrix.

    Source:
        Germain et al. (2015), eq. 8, https://arxiv.org/abs/1502.03509

    Example:
        >>> layer = MaskedLinear(torch.tensor([[True, False]]))
        >>> x = torch.tensor([[0.0, 0.0], [0.0, 9.0]])
        >>> bool(layer(x)[0] == layer(x)[1])  # the second input is not read
        True
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        if not isinstance(mask, Tensor) or mask.ndim != 2:
            came = f"shape {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"MaskedLinear expects a mask [out_features, in_features], got {came}")
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[..., in_features] -> [..., out_features]``."""
        return nn.functional.linear(x, self.mask * self.weight, self.bias)


class MADE(StackedMLP):
    r"""A multilayer perceptron whose outputs for a coordinate depend on the coordinates before it alone.

    Every unit has a degree: coordinate i has degree i, hidden units have degrees from 1 to dim - 1. A hidden
    unit reads units of its own degree or less; the outputs of coordinate i read hidden units of a degree less
    than i. So they depend on coordinates 1, ..., i - 1, and those of the first coordinate are constants. A
    degree without hidden units only means fewer connections. A context has degree 0, and beside it the
    degrees of hidden units start at 0: all outputs depend on it.

    It computes what a chain of :class:`MaskedLinear` and ReLU would; the masks of all layers are one buffer,
    ``mask [1, P]``, laid out like ``theta``. ``mask.sum()`` counts the parameters that have an effect.

    Args:
        dim: number of coordinates. With ``dim = 1`` and no context there is nothing to read: the outputs are
            constants.
        hidden: sizes of the hidden layers, each followed by a ReLU.
        outputs: number of outputs for every coordinate.
        parity: 0 takes the coordinates in their order, 1 in the reverse.
        context: size of the last axis of the context; 0 for none.

    Shape:
        ``[..., dim]``, and ``[..., context]`` where there is one, ``-> [..., dim, outputs]``

    Raises:
        ValueError: a size that is no integer, or too small; a parity that is not 0 or 1.

    Source:
        Germain et al. (2015), section 4, https://arxiv.org/abs/1502.03509; degrees are spread evenly, where
        the paper draws them.

    Example:
        >>> net = MADE(3, (8, 8), outputs=2)
        >>> net(torch.randn(5, 3)).shape
        torch.Size([5, 3, 2])
        >>> jacobian = torch.func.jacrev(net)(torch.randn(3)).abs().sum(1)  # [outputs of i, x_j]
        >>> bool(jacobian.triu().any())  # j < i alone
        False
    """

    mask: Tensor

    def __init__(
        self, dim: int, hidden: Sequence[int], outputs: int, parity: int = 0, context: int = 0
    ) -> None:
        dim, outputs = positive_int(dim, "MADE's dim"), positive_int(outputs, "MADE's outputs")
        context, hidden = positive_int(context, "MADE's context", least=0), layer_sizes(hidden, "MADE")
        reads = dim > 1 or context > 0
        super().__init__(1, dim + context if reads else 0, hidden, dim * outputs)
        self.dim, self.outputs = dim, outputs
        self.order = list(range(dim))[:: -1 if check_parity(parity, "MADE") else 1]
        degrees = torch.tensor(self.order).argsort() + 1
        inputs = torch.cat((degrees, torch.zeros(context, dtype=torch.long)))
        inner = [hidden_degrees(size, least=0 if context else 1, most=dim - 1) for size in hidden]
        self.register_buffer("mask", torch.ones_like(self.theta))
        masks = [read[:, None] <= reader for read, reader in pairwise((inputs, *inner))]
        masks.append((inputs, *inner)[-1][:, None] < degrees.repeat_interleave(outputs))
        if reads:
            for (weight, _), mask in zip(self.unpack(self.mask), masks, strict=True):
                weight.copy_(mask)
        # How many units of each hidden layer the outputs for the k-th coordinate in order can depend on.
        self.reach = [[int((degree <= k).sum()) for degree in inner] for k in range(dim)]

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Return masked weights ``[in, out]`` and biases ``[1, out]`` of every layer."""
        return self.unpack(self.mask * self.theta)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Map ``[..., dim] -> [..., dim, outputs]``, given the context ``[..., context]`` if there is one."""
        return self.flat(beside(x, context)).view(*x.shape, self.outputs)

    def solve(self, z: Tensor, step: Step, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Find the x each coordinate of which is a function of the network's own outputs for it.

        .. math:: x_i = \mathrm{step}\bigl(z_i, \mathrm{MADE}(x)_i\bigr)

        The outputs for a coordinate need only the coordinates before it. So dim passes find them one after
        the other, each through no more than the units that its outputs depend on.

        Args:
            z: ``[..., dim]``.
            step: ``(z_i [...], outputs [..., outputs]) -> (x_i [...], y_i [...])``, y_i for the caller to
                keep.
            context: ``[..., context]``, the same in every pass.

        Returns:
            x and y, ``[..., dim]`` each.

        Example:
            >>> net, z = MADE(3, (8,), outputs=1).double(), torch.randn(5, 3, dtype=torch.float64)
            >>> x, _ = net.solve(z, lambda z_i, outputs: (z_i + outputs[..., 0], z_i))
            >>> torch.allclose(x, z + net(x)[..., 0])
            True
        """
        if self.dim == 1:
            return step(z, self(z, context))
        (columns, bias), *later = self.layers()
        # What the first layer reads of the context and of the coordinates found so far, [B, units].
        h_1 = bias.expand(z.numel() // self.dim, -1)
        if context is not None:
            h_0 = context.expand(*z.shape[:-1], -1).reshape(-1, context.shape[-1])
            h_1 = torch.addmm(h_1, h_0, columns[self.dim :])
        z_s = z.reshape(-1, self.dim).unbind(-1)  # [..., dim] -> dim times [B]
        xs, ys = list(z_s), list(z_s)
        for i, reach in zip(self.order, self.reach, strict=True):
            units = [*map(slice, reach), slice(i * self.outputs, (i + 1) * self.outputs)]
            h = h_1[:, units[0]]
            for (weight, bias), (read, reader) in zip(later, pairwise(units), strict=True):
                h = torch.addmm(bias[:, reader], h.relu(), weight[read, reader])
            xs[i], ys[i] = step(z_s[i], h)
            h_1 = torch.addcmul(h_1, xs[i][:, None], columns[i])
        return torch.stack(xs, -1).view(z.shape), torch.stack(ys, -1).view(z.shape)


def hidden_degrees(size: int, least: int, most: int) -> Tensor:
    """Return degrees ``[size]`` from ``least``, 0 or 1, to ``most``, sorted and spread evenly.

    Example:
        >>> hidden_degrees(6, 1, 3)
        tensor([1, 1, 2, 2, 3, 3])
    """
    k, count = torch.arange(size), most - least + 1
    if least == 0:  # rounded down: the first unit has degree 0, and outputs of degree 1 read the context
        return k * count // size if size >= count else k * most // max(size - 1, 1)
    return -(-(k + 1) * most // size)  # rounded up, so that the last unit has the greatest degree


def check_parity(parity: Any, owner: str) -> int:
    """Return ``parity`` if it is 0 or 1; ``owner`` is the class named in the message.

    Example:
        >>> check_parity(1, "MAF")
        1
    """
    if isinstance(parity, bool) or not isinstance(parity, Integral) or parity not in (0, 1):
        raise ValueError(f"{owner}'s parity must be 0 or 1, got {parity!r}")
    return int(parity)
