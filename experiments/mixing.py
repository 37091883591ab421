"""What lies between couplings, on eight coordinates that are mixed: ``python -m experiments.mixing``.

Four curved pairs are shuffled or rotated, and chains of affine couplings must find them again. Between two
couplings stands the order reversed, a random order, or a learned linear map. All seeds of a chain are trained
at once. The scores, in nats above the exact entropy, go to ``book/results/mixing.json``; an interrupted run
goes on where it stopped.
"""

import math
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from torch import Tensor

from experiments import timing
from experiments.densities import Scorer
from experiments.results import parser, read, write
from mnf_lite.flows import AffineCoupling, Compose, Flow, InvertibleLinear, NormalizingFlow

DIM = 8
WIDTH = 0.25  # standard deviation across a curve
STEPS, BATCH, LR, HIDDEN, HELD_OUT = 1500, 256, 3e-3, (32, 32), 10_000
DATA, BETWEEN, COUPLINGS = ("shuffled", "rotated"), ("reverse", "random", "linear"), (1, 2, 4, 8)
SEEDS = 5
SETTINGS = {"steps": STEPS, "batch": BATCH, "lr": LR, "hidden": HIDDEN, "held_out": HELD_OUT}
SETTINGS |= {"seeds": SEEDS, "dim": DIM, "width": WIDTH}
RUNS = {
    f"{mixed}, {between}, {n}": (mixed, between, n) for mixed, n, between in product(DATA, COUPLINGS, BETWEEN)
}
MINUTES = 10


class Curves:
    """x = A (a, b): four pairs with a standard normal and b = a² - 1 + noise, mixed by an orthogonal A.

    Args:
        mixed: ``"shuffled"``, A a permutation, or ``"rotated"``, A a rotation or reflection.
    """

    def __init__(self, mixed: str) -> None:
        random = torch.Generator().manual_seed(5)
        shuffle = torch.eye(DIM)[torch.randperm(DIM, generator=random)]
        rotation = torch.linalg.qr(torch.randn(DIM, DIM, generator=random))[0]
        self.A = {"shuffled": shuffle, "rotated": rotation}[mixed]

    def __call__(self, n: int, seed: int) -> Tensor:
        """Draw ``n`` points, ``[n, 8]``."""
        a, noise = torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed)).chunk(2, -1)
        return torch.cat((a, a**2 - 1 + WIDTH * noise), -1) @ self.A.T

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, ``[n, 8] -> [n]``; A keeps volumes."""
        a, b = (x @ self.A).chunk(2, -1)
        noise = (b - a**2 + 1) / WIDTH
        return -((a**2 + noise**2) / 2 + math.log(2 * math.pi * WIDTH)).sum(-1)


class Order(Flow):
    """Coordinates in another order, ``x = z[order]``."""

    order: Tensor

    def __init__(self, order: Tensor) -> None:
        super().__init__(len(order))
        self.register_buffer("order", order)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """``x = z[order]``."""
        return z[..., self.order], z.new_zeros(z.shape[:-1])

    def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``z[order] = x``."""
        return x[..., self.order.argsort()], x.new_zeros(x.shape[:-1])


def chain(between: str, couplings: int) -> NormalizingFlow:
    """A density.

    Args:
        between: what follows each coupling on its way from z to x.
        couplings: how many of them.
    """
    make: Callable[[], Flow] = {
        "reverse": lambda: Order(torch.arange(DIM).flip(0)),
        "random": lambda: Order(torch.randperm(DIM)),
        "linear": lambda: InvertibleLinear(DIM),
    }[between]
    steps = (flow for _ in range(couplings) for flow in (AffineCoupling(DIM, hidden=HIDDEN), make()))
    return NormalizingFlow(Compose(steps))


def train(mixed: str, between: str, couplings: int) -> dict[str, object]:
    """Nats above the entropy on held-out points, one number a seed; every step a fresh batch, one for all."""
    models = []
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        models.append(Scorer(chain(between, couplings)))
    curves = Curves(mixed)
    parameters, buffers = torch.func.stack_module_state(models)  # type: ignore[arg-type]

    def log_prob(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        scores: Tensor = torch.func.functional_call(models[0], (parameters, buffers), (x,))
        return scores

    ensemble = torch.func.vmap(log_prob, in_dims=(0, 0, None))
    optimizer = torch.optim.Adam(parameters.values(), lr=LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    start = time.thread_time()
    for x in curves(STEPS * BATCH, seed=1).split(BATCH):
        optimizer.zero_grad()
        (-ensemble(parameters, buffers, x).mean(1).sum()).backward()
        optimizer.step()
        schedule.step()
    cpu = 1e3 * (time.thread_time() - start) / STEPS
    held_out = curves(HELD_OUT, seed=2)
    with torch.no_grad():
        gap = curves.log_prob(held_out) - ensemble(parameters, buffers, held_out)  # [seeds, n]
    return {
        "above_entropy": gap.mean(1).tolist(),
        "parameters": timing.parameters(models[0]),
        "cpu_ms_per_step": cpu,
    }


def left(results: dict[str, Any]) -> list[str]:
    """The runs that the file of results lacks."""
    return [name for name in RUNS if name not in results.get("runs", {})]


def main() -> None:
    """Train what is missing in the file of results; print the table."""
    args = parser("mixing", __doc__).parse_args()
    torch.set_num_threads(1)
    results = read(args.out, SETTINGS)
    runs = results.setdefault("runs", {})
    for name in left(results):
        runs[name] = train(*RUNS[name])
        write(args.out, results)
    for name, run in runs.items():
        print(name, [round(gap, 2) for gap in run["above_entropy"]])


if __name__ == "__main__":
    main()
