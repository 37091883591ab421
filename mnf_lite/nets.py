"""Networks that parametrise flows: as simple or as deep as one likes, for a flow never inverts them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

START = 0.01  # of the last layer's draws: a fresh flow is near the identity, and a deep chain of them finite


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
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise((in_features, *hidden)):
            layers += [nn.Linear(fan_in, fan_out), activation()]
        super().__init__(*layers, nn.Linear((in_features, *hidden)[-1], out_features))

    def __call__(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [..., out_features]``."""
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
    """

    def __init__(self, n: int, in_features: int, hidden: Sequence[int], out_features: int) -> None:
        super().__init__()
        self.n = n
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
        """Weights ``[n, in, out]`` and biases ``[n, 1, out]`` of every layer; of one network, without n."""
        return self.unpack(self.theta)

    def unpack(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Views of a tensor laid out like ``theta``, by layer."""
        pieces = torch.split(theta[:, None] if self.n > 1 else theta, self.lengths, -1)
        *weights, last = [p.view(shape) for p, shape in zip(pieces[::2], self.shapes, strict=True)]
        return list(zip([*weights, last.mT], pieces[1::2], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [n, ..., out_features]``."""
        y = self.flat(x)
        return y.view(self.n, *x.shape[:-1], y.shape[-1])

    def flat(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [n, B, out_features]``, of one network without n."""
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

    Source:
        Germain et al. (2015), eq. 8.
    """

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [..., out_features]``."""
        return nn.functional.linear(x, self.mask * self.weight, self.bias)


class MADE(StackedMLP):
    r"""A multilayer perceptron whose outputs for a coordinate depend on the coordinates before it alone.

    Every unit has a degree: coordinate i has degree i, hidden units have degrees from 1 to dim - 1. A hidden
    unit reads units of its own degree or less; the outputs of coordinate i read hidden units of a degree less
    than i. So they depend on coordinates 1, ..., i - 1, and those of the first coordinate are constants. A
    degree without hidden units only means fewer connections.

    It computes what a chain of :class:`MaskedLinear` and ReLU would; the masks of all layers are one buffer,
    ``mask [1, P]``, laid out like ``theta``. ``mask.sum()`` counts the parameters that have an effect.

    Args:
        dim: number of coordinates. With ``dim = 1`` there is nothing to read: the outputs are constants.
        hidden: sizes of the hidden layers, each followed by a ReLU.
        outputs: number of outputs for every coordinate.
        parity: 0 takes the coordinates in their order, 1 in the reverse.

    Shape:
        ``[..., dim] -> [..., dim, outputs]``

    Source:
        Germain et al. (2015), section 4; degrees are spread evenly, where the paper draws them.
    """

    mask: Tensor

    def __init__(self, dim: int, hidden: Sequence[int], outputs: int, parity: int = 0) -> None:
        super().__init__(1, dim if dim > 1 else 0, hidden, dim * outputs)
        self.dim, self.outputs = dim, outputs
        self.order = list(range(dim))[:: -1 if parity else 1]
        inputs = torch.tensor(self.order).argsort() + 1
        # Rounded up, so that the last unit of a layer has degree dim - 1; units are sorted by degree.
        inner = [(torch.arange(1, size + 1) * (dim - 1) / size).ceil().long() for size in hidden]
        self.register_buffer("mask", torch.ones_like(self.theta))
        masks = [read[:, None] <= reader for read, reader in pairwise((inputs, *inner))]
        masks.append((inputs, *inner)[-1][:, None] < inputs.repeat_interleave(outputs))
        if dim > 1:
            for (weight, _), mask in zip(self.unpack(self.mask), masks, strict=True):
                weight.copy_(mask)
        # How many units of each hidden layer the outputs for the k-th coordinate in order can depend on.
        self.reach = [[int((degree <= k).sum()) for degree in inner] for k in range(dim)]

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """Masked weights ``[in, out]`` and biases ``[1, out]`` of every layer."""
        return self.unpack(self.mask * self.theta)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., dim] -> [..., dim, outputs]``."""
        return self.flat(x).view(*x.shape, self.outputs)

    def solve(self, z: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        r"""Find the x each coordinate of which is a function of the network's own outputs for it.

        .. math:: x_i = \mathrm{step}\bigl(z_i, \mathrm{MADE}(x)_i\bigr)

        The outputs for a coordinate need only the coordinates before it. So dim passes find them one after
        the other, each through no more than the units that its outputs depend on.

        Args:
            z: ``[..., dim]``.
            step: ``(z_i [...], outputs [..., outputs]) -> (x_i [...], y_i [...])``, y_i for the caller to
                keep.

        Returns:
            x and y, ``[..., dim]`` each.
        """
        if self.dim == 1:
            return step(z, self(z))
        (columns, bias), *later = self.layers()
        h_1 = bias.expand(z.numel() // self.dim, -1)  # what the first layer reads of the coordinates so far
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
