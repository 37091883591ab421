"""Five small problems whose posterior can be sampled, for ``experiments.hmc`` and ``experiments.truth``.

Each is a network of one hidden layer of ReLUs with the prior N(0, 1) on every weight and bias. Weights are
handed on flat, ``[S, P]`` for S networks: matrix and bias of the first layer, then of the second, as
``nn.Module.parameters`` has them. Where the noise is learned, one number more follows: its log variance,
divided by ``NOISE_PRIOR_STD``, so that the prior of every number is N(0, 1).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import torch
from sklearn.datasets import load_digits, make_moons
from sklearn.model_selection import train_test_split
from torch import Tensor

from experiments.regression import NOISE, cubic

NOISE_PRIOR_STD = 3.0  # of the log variance of the noise, which is N(0, 9) where it is learned
TEST_SEED = 1000


@dataclass(frozen=True)
class Problem:
    """Data, network and the inputs at which predictions are compared.

    Attributes:
        sizes: inputs, hidden units, outputs.
        x: training inputs ``[N, in]``; those of a regression have unit standard deviation.
        y: targets ``[N, 1]``, likewise, or classes ``[N]``.
        noise_std: of a regression, known to all methods; None where it is learned.
        regions: inputs ``[B, in]`` by name, the first one where the data lie.
        test: fresh pairs from where the data lie.
        units: what the inputs and the targets of a regression were divided by.
    """

    sizes: tuple[int, int, int]
    x: Tensor
    y: Tensor
    noise_std: float | None
    regions: dict[str, Tensor]
    test: tuple[Tensor, Tensor]
    units: tuple[float, float] = field(default=(1.0, 1.0))

    @property
    def classifies(self) -> bool:
        """Whether the targets are classes."""
        return not self.y.is_floating_point()

    @property
    def learns_noise(self) -> bool:
        """Whether the noise of a regression is unknown."""
        return not self.classifies and self.noise_std is None

    @property
    def size(self) -> int:
        """How many numbers the posterior is a density of."""
        inputs, hidden, outputs = self.sizes
        return hidden * (inputs + 1) + outputs * (hidden + 1) + self.learns_noise

    def outputs(self, draws: Tensor, x: Tensor) -> Tensor:
        """What each network of ``[S, P]`` says of each input ``[B, in]``: ``[S, B, out]``."""
        inputs, hidden, outputs = self.sizes
        shapes = (hidden, inputs), (hidden,), (outputs, hidden), (outputs,)
        parts = draws[:, : self.size - self.learns_noise].split([math.prod(shape) for shape in shapes], 1)
        w1, b1, w2, b2 = (part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True))
        h = torch.relu(x @ w1.mT + b1[:, None])  # [S, B, hidden]
        return h @ w2.mT + b2[:, None]

    def noise(self, draws: Tensor) -> Tensor:
        """Standard deviation of the noise by each network of a regression, ``[S]``."""
        if self.noise_std is not None:
            return draws.new_full((len(draws),), self.noise_std)
        return (NOISE_PRIOR_STD * draws[:, -1] / 2).exp()

    def log_likelihood(self, draws: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Log density of each target by each network, ``[S, B]``."""
        out = self.outputs(draws, x)
        if self.classifies:
            return out.log_softmax(-1).gather(-1, y.expand(len(draws), -1)[..., None])[..., 0]
        std = self.noise(draws)[:, None]
        return -(math.log(2 * math.pi) + ((y[:, 0] - out[..., 0]) / std).square()) / 2 - std.log()

    def log_joint(self, draws: Tensor) -> Tensor:
        """Log density of the training targets and all numbers, ``[S]``, less the prior's constant."""
        return self.log_likelihood(draws, self.x, self.y).sum(1) - draws.square().sum(1) / 2


def cubic_problem(noise_known: bool) -> Problem:
    """Return the cubic of the chapter on the dense layer, its first draw of the data."""
    x, y = cubic(0)
    test_x = 8 * torch.rand(400, 1, generator=torch.Generator().manual_seed(TEST_SEED)) - 4
    noise = NOISE * torch.randn(400, 1, generator=torch.Generator().manual_seed(TEST_SEED + 1))
    unit_x, unit_y = x.std().item(), y.std().item()
    grid = torch.linspace(-6, 6, 61)[:, None]
    inside = grid[:, 0].abs() <= 4.01
    return Problem(
        sizes=(1, 50, 1),
        x=x / unit_x,
        y=y / unit_y,
        noise_std=NOISE / unit_y if noise_known else None,
        regions={"at the data": grid[inside] / unit_x, "beyond": grid[~inside] / unit_x},
        test=(test_x / unit_x, (test_x**3 + noise) / unit_y),
        units=(unit_x, unit_y),
    )


GAP_NOISE = 0.15


def wave(x: Tensor, seed: int) -> Tensor:
    """Return sin 2x + x/2 with noise."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return (2 * x).sin() + x / 2 + GAP_NOISE * noise


def gap_problem() -> Problem:
    """Return a regression on two clusters of inputs, with nothing between them."""

    def clusters(n: int, seed: int) -> Tensor:
        x = 1 + torch.rand(n, 1, generator=torch.Generator().manual_seed(seed))  # in [1, 2]
        return torch.cat((-x[: n // 2], x[n // 2 :]))

    x, test_x = clusters(20, 0), clusters(400, TEST_SEED)
    grid = torch.linspace(-4, 4, 81)[:, None]
    far = grid[:, 0].abs()
    return Problem(
        sizes=(1, 50, 1),
        x=x,
        y=wave(x, 1),
        noise_std=GAP_NOISE,
        regions={
            "at the data": grid[(far > 0.99) & (far < 2.01)],
            "in the gap": grid[far < 0.99],
            "beyond": grid[far > 2.01],
        },
        test=(test_x, wave(test_x, TEST_SEED + 1)),
    )


def moons_problem() -> Problem:
    """Return two moons of 100 points, and the plane around them."""
    x, y = (torch.from_numpy(part) for part in make_moons(100, noise=0.2, random_state=0))
    test_x, test_y = (torch.from_numpy(part) for part in make_moons(1000, noise=0.2, random_state=TEST_SEED))
    plane = torch.cartesian_prod(torch.linspace(-3, 4, 29), torch.linspace(-2.5, 3, 23))
    far = torch.cdist(plane, x.float()).amin(1) > 1
    return Problem(
        sizes=(2, 20, 2),
        x=x.float(),
        y=y,
        noise_std=None,
        regions={"at the data": test_x.float(), "beyond": plane[far]},
        test=(test_x.float(), test_y),
    )


DIGITS = 500  # images to train with


def digits_problem() -> Problem:
    """Return the 8 x 8 digits of scikit-learn: 500 to train, 1,297 to test, and these turned by 90°."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16, labels, train_size=DIGITS, stratify=labels, random_state=0)
    x, test_x, y, test_y = map(torch.from_numpy, parts)
    turned = test_x.view(-1, 8, 8).rot90(1, (1, 2)).flatten(1).float()
    return Problem(
        sizes=(64, 32, 10),
        x=x.float(),
        y=y,
        noise_std=None,
        regions={"at the data": test_x.float(), "turned by 90°": turned},
        test=(test_x.float(), test_y),
    )


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "cubic": lambda: cubic_problem(noise_known=True),
    "cubic, noise learned": lambda: cubic_problem(noise_known=False),
    "gap": gap_problem,
    "moons": moons_problem,
    "digits": digits_problem,
}


@cache
def problem(name: str) -> Problem:
    """Make one of ``PROBLEMS``, the same at every call."""
    return PROBLEMS[name]()
