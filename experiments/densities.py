"""Densities that several scripts train."""

from collections.abc import Callable

from torch import Tensor, nn

from mnf_lite.flows import (
    MAF,
    ActNorm,
    AffineCoupling,
    Compose,
    Flow,
    InvertibleLinear,
    NormalizingFlow,
    SplineAutoregressive,
    SplineCoupling,
)


class Scorer(nn.Module):
    """The log-density of a model as its forward pass, which is what ``functional_call`` calls."""

    def __init__(self, model: NormalizingFlow) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """``log p(x) [..., D] -> [...]``."""
        return self.model.log_prob(x)


def two_moons_models() -> dict[str, Compose]:
    """The four published two-moons models."""

    def splines(make: Callable[[], list[Flow]]) -> Compose:
        return Compose([flow for _ in range(3) for flow in (ActNorm(2), InvertibleLinear(2), *make())])

    return {
        "9 x AffineCoupling": Compose([AffineCoupling(2, k % 2) for k in range(9)]),
        "9 x MAF": Compose([MAF(2, k % 2) for k in range(9)]),
        "3 x [ActNorm, linear, SplineAutoregressive]": splines(lambda: [SplineAutoregressive(2)]),
        "3 x [ActNorm, linear, 2 SplineCoupling]": splines(
            lambda: [SplineCoupling(2, parity) for parity in (0, 1)]
        ),
    }
