"""Networks that parametrise flows: they may be as simple or as deep as one likes, a flow never inverts them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Sequential):
    r"""Multilayer perceptron: linear maps with a nonlinearity after each but the last.

    .. math:: h_0 = x, \qquad h_k = \phi(W_k h_{k-1} + b_k), \qquad y = W_K h_{K-1} + b_K

    Args:
        in_features: size of the last axis of the input.
        hidden: sizes of the hidden layers; every one of them is followed by the nonlinearity, the last one too.
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
    r"""``n`` multilayer perceptrons of one shape, with ReLUs, that read the same input and run as one batched product.

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
    """A network that reads nothing: what is left of a conditioner where no coordinate is there to condition on.

    Shape:
        ``[..., anything] -> [*size, ...]`` with the leading axes of the input before the last axis of ``size``
    """

    def __init__(self, *size: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(*size))

    def forward(self, x: Tensor) -> Tensor:
        """Repeat the constants for every point of ``x``."""
        *stack, features = self.value.shape
        batch = x.shape[:-1]
        return self.value.view(*stack, *(1 for _ in batch), features).expand(*stack, *batch, features)
