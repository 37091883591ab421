"""Networks that parametrise flows: as simple or as deep as one likes, for a flow never inverts them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


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

    Each is an :class:`MLP` with ReLUs: for small networks calling one costs more than computing two.

    Args:
        n: number of networks.
        in_features: size of the last axis of the input.
        hidden: sizes of the hidden layers, the same in every network.
        out_features: size of the last axis of every network's output.

    Shape:
        ``[..., in_features] -> [n, ..., out_features]``
    """

    def __init__(self, n: int, in_features: int, hidden: Sequence[int], out_features: int) -> None:
        super().__init__()
        sizes = list(pairwise((in_features, *hidden, out_features)))
        self.weights = nn.ParameterList([torch.empty(n, fan_in, fan_out) for fan_in, fan_out in sizes])
        self.biases = nn.ParameterList([torch.empty(n, 1, fan_out) for _, fan_out in sizes])
        for weight, bias in zip(self.weights, self.biases, strict=True):
            bound = weight.shape[1] ** -0.5  # that of nn.Linear
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [n, ..., out_features]``."""
        h = x.reshape(-1, x.shape[-1]).expand(len(self.weights[0]), -1, -1)  # [..., in] -> [n, B, in]
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            h = torch.baddbmm(bias, h.relu() if k else h, weight)  # [n, B, fan_in] -> [n, B, fan_out]
        return h.view(-1, *x.shape[:-1], h.shape[-1])


class Constant(nn.Module):
    """A network that reads nothing: what is left of a conditioner where there is nothing to condition on.

    Args:
        size: shape of the learned constants, which start at 0.

    Shape:
        ``[..., any] -> [*size[:-1], ..., size[-1]]``
    """

    def __init__(self, *size: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(*size))

    def forward(self, x: Tensor) -> Tensor:
        """Repeat the constants for every point of ``x``."""
        *stack, features = self.value.shape
        batch = x.shape[:-1]
        return self.value.view(*stack, *(1 for _ in batch), features).expand(*stack, *batch, features)


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

    def masked_weight(self) -> Tensor:
        """The weights of the connections that are kept, 0 for the others: ``[out_features, in_features]``."""
        return self.weight * self.mask

    def forward(self, x: Tensor) -> Tensor:
        """``[..., in_features] -> [..., out_features]``."""
        return nn.functional.linear(x, self.masked_weight(), self.bias)


class MADE(nn.Module):
    r"""A multilayer perceptron whose outputs for a coordinate depend on the coordinates before it alone.

    Every unit has a degree: coordinate i has degree i, hidden units have degrees from 1 to dim - 1. A hidden
    unit reads units of its own degree or less; the outputs of coordinate i read hidden units of a degree less
    than i. So they depend on coordinates 1, ..., i - 1, and those of the first coordinate are constants. A
    degree without hidden units only means fewer connections.

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

    def __init__(self, dim: int, hidden: Sequence[int], outputs: int, parity: int = 0) -> None:
        super().__init__()
        self.dim, self.outputs = dim, outputs
        self.order = list(range(dim))[:: -1 if parity else 1]
        degrees = [torch.tensor(self.order).argsort() + 1]
        if dim == 1:
            self.layers = nn.ModuleList([Constant(outputs)])
            self.reach = [[0]]
            return
        # Rounded up, so that the last unit of a layer has degree dim - 1; units are sorted by degree.
        degrees += [(torch.arange(1, size + 1) * (dim - 1) / size).ceil().long() for size in hidden]
        masks = [reader[:, None] >= read for read, reader in pairwise(degrees)]
        masks.append(degrees[0].repeat_interleave(outputs)[:, None] > degrees[-1])
        self.layers = nn.ModuleList(MaskedLinear(mask) for mask in masks)
        # How many units of each hidden layer the outputs for the k-th coordinate in order can depend on.
        self.reach = [[int((degree <= k).sum()) for degree in degrees[1:]] for k in range(dim)]

    def forward(self, x: Tensor) -> Tensor:
        """``[..., dim] -> [..., dim, outputs]``."""
        h = x
        for k, layer in enumerate(self.layers):
            h = layer(h.relu() if k else h)
        return h.view(*x.shape, self.outputs)

    def solve(self, z: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        r"""Find the x each coordinate of which is a function of the network's own outputs for it.

        .. math:: x_i = \mathrm{step}\bigl(z_i, \mathrm{MADE}(x)_i\bigr)

        The outputs for a coordinate need only the coordinates before it. So dim passes find them one after the
        other, each through no more than the units that its outputs depend on.

        Args:
            z: ``[..., dim]``.
            step: ``(z_i [...], outputs [..., outputs]) -> (x_i [...], y_i [...])``, y_i for the caller to keep.

        Returns:
            x and y, ``[..., dim]`` each.
        """
        if self.dim == 1:
            x, y = step(z[..., 0], self.layers[0](z))
            return x[..., None], y[..., None]
        weights = [layer.masked_weight() for layer in self.layers]  # type: ignore[operator, union-attr]
        biases = [layer.bias for layer in self.layers]
        columns = weights[0].t().contiguous()
        h_1 = biases[0].expand(*z.shape[:-1], -1)  # the first layer's reading of the coordinates found so far
        xs, ys = [z] * self.dim, [z] * self.dim
        for i, reach in zip(self.order, self.reach, strict=True):
            rows = slice(i * self.outputs, (i + 1) * self.outputs)
            reads = [*map(slice, reach), rows]
            h = h_1[..., reads[0]]
            for weight, bias, (read, reader) in zip(weights[1:], biases[1:], pairwise(reads), strict=True):
                h = nn.functional.linear(h.relu(), weight[reader, read], bias[reader])
            xs[i], ys[i] = step(z[..., i], h)
            h_1 = torch.addcmul(h_1, xs[i][..., None], columns[i])
        return torch.stack(xs, -1), torch.stack(ys, -1)
