"""A small RealNVP for the live figure of *Coupling*: ``python -m experiments.live_coupling``.

Eight affine couplings are trained on two moons, their weights rounded to a few digits, and the rounded flow
is scored in nats above the exact entropy. The weights go to ``book/_static/live-coupling-data.js``, which
the page loads, the score to ``book/results/live_coupling.json``.
"""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments.results import ROOT, parser, write
from mnf_lite import data
from mnf_lite.files import replacing
from mnf_lite.flows import AffineCoupling, Compose, NormalizingFlow
from mnf_lite.training import maximum_likelihood

WEIGHTS = ROOT / "book" / "_static" / "live-coupling-data.js"
BEFORE, AFTER = "const liveCouplingData = ", ";\n"
SETTINGS: dict[str, Any] = {
    "couplings": 8,
    "hidden": (16, 16),
    "batch": 256,
    "steps": {"1e-2": 1500, "2e-3": 1000, "4e-4": 500},  # of each rate, one after the other
    "decimals": 4,
    "held_out": 100_000,
    "seed": 1,
}
MINUTES = 1


def couplings(count: int, hidden: tuple[int, ...]) -> Compose:
    """A chain of affine couplings on the plane that take turns: the first moves x_2, the second x_1."""
    return Compose([AffineCoupling(2, parity=k % 2, hidden=hidden) for k in range(count)])


def train(settings: dict[str, Any]) -> Compose:
    """The chain after maximum likelihood on fresh points of two moons, its weights rounded."""
    torch.manual_seed(settings["seed"])
    flow = couplings(settings["couplings"], settings["hidden"])
    steps = settings["steps"]
    points = data.moons(settings["batch"] * sum(steps.values()), seed=settings["seed"])
    batches = iter(points.split(settings["batch"]))
    for lr, n in steps.items():
        maximum_likelihood(NormalizingFlow(flow), [next(batches) for _ in range(n)], lr=float(lr))
    flow.double()
    with torch.no_grad():
        for theta in flow.parameters():
            theta.copy_(theta.round(decimals=settings["decimals"]))
    return flow


def above_entropy(flow: Compose, held_out: int) -> float:
    """KL(two moons || flow) in nats, on points that no training has seen."""
    x = data.moons(held_out, seed=10_000).double()
    with torch.no_grad():
        gap: Tensor = data.moons.log_prob(x) - NormalizingFlow(flow).log_prob(x)
    return gap.mean().item()


def save(flow: Compose, path: Path, hidden: tuple[int, ...]) -> None:
    """Write the weights as a script that a page opened from a file may load: ``theta[layer][s or t]``."""
    theta = [[[float(f"{w:.6g}") for w in net] for net in layer.net.theta.tolist()] for layer in flow]
    text = json.dumps({"hidden": hidden, "theta": theta}, separators=(",", ":"))
    with replacing(path) as half:
        half.write_text(BEFORE + text + AFTER, encoding="utf-8")


def load(path: Path = WEIGHTS) -> Compose:
    """The flow of a file of weights, in float64."""
    stored = json.loads(path.read_text(encoding="utf-8").removeprefix(BEFORE).removesuffix(AFTER))
    flow = couplings(len(stored["theta"]), tuple(stored["hidden"])).double()
    with torch.no_grad():
        for layer, theta in zip(flow, stored["theta"], strict=True):
            layer.net.theta.copy_(torch.tensor(theta, dtype=torch.float64))
    return flow


def left(_: dict[str, Any]) -> list[str]:
    """What a result without its weights lacks."""
    return [] if WEIGHTS.exists() else [WEIGHTS.name]


def main() -> None:
    """Train, score, and write both files."""
    command = parser("live_coupling", __doc__)
    command.add_argument("--weights", type=Path, default=WEIGHTS, help="default: %(default)s")
    args = command.parse_args()
    torch.set_num_threads(1)
    flow = train(SETTINGS)
    save(flow, args.weights, SETTINGS["hidden"])
    score = above_entropy(load(args.weights), SETTINGS["held_out"])
    write(args.out, {"settings": SETTINGS, "entropy": data.moons.entropy(), "above_entropy": score})
    print(f"{score:.3f} nats above the entropy, {args.weights.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
