"""Networks that parametrise flows: they may be as simple or as deep as one likes, a flow never inverts them."""

from collections.abc import Callable, Sequence
from itertools import pairwise

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
        y: Tensor = super().__call__(x)
        return y
