"""How close the published two-moons models come to the exact entropy: ``python -m experiments.two_moons``.

Each model is trained as published and with settings that serve it, with several seeds, and scored on fresh
points, in nats per point. The result goes to ``book/results/two_moons.json``; an interrupted run goes on
where it stopped.
"""

import statistics
import time
from typing import Any

import torch
from tqdm import tqdm

from experiments.densities import two_moons_models
from experiments.results import line, parser, read, write
from experiments.timing import parameters
from mnf_lite import data
from mnf_lite.flows import NormalizingFlow

PUBLISHED: dict[str, Any] = {
    "steps": 1400,
    "batch": 128,
    "lr": 1e-4,
    "weight_decay": 1e-5,
    "decay": False,
    "clip": None,
}
SERVING: dict[str, Any] = {
    "steps": 2000,
    "batch": 512,
    "lr": 5e-3,
    "weight_decay": 0.0,
    "decay": True,
    "clip": 10.0,
}
SETTINGS = {"published": PUBLISHED, "serving": SERVING}
HELD_OUT, SEEDS = 100_000, 5
MINUTES = 20


def train(
    name: str,
    seed: int,
    steps: int,
    batch: int,
    lr: float,
    weight_decay: float,
    decay: bool,
    clip: float | None,
) -> dict[str, float]:
    """Nats above the entropy on held-out points, and milliseconds a step; a fresh batch every step."""
    torch.manual_seed(seed)
    model = NormalizingFlow(two_moons_models()[name])
    points = data.moons(steps * batch, seed=seed).split(batch)
    model.log_prob(points[0])  # ActNorm takes its scale from the first batch
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps if decay else 10**9)
    start = time.thread_time()
    for x in points:
        optimizer.zero_grad()
        (-model.log_prob(x).mean()).backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        schedule.step()
    cpu = 1e3 * (time.thread_time() - start) / steps
    model.double()
    with torch.no_grad():
        held_out = data.moons(HELD_OUT, seed=10_000).double()
        nll = -torch.cat([model.log_prob(x) for x in held_out.split(10_000)])
        gap = nll + data.moons.log_prob(
            held_out
        )  # its mean is KL(data || model): less noise than nll - entropy
    return {
        "seed": seed,
        "nll": nll.mean().item(),
        "above_entropy": gap.mean().item(),
        "standard_error": (gap.std() / HELD_OUT**0.5).item(),
        "cpu_ms_per_step": cpu,
    }


def missing(runs: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Model, setting and seed of what ``runs[model][setting][seed]`` lacks."""
    return [
        (name, label, seed)
        for name in two_moons_models()
        for label in SETTINGS
        for seed in range(SEEDS)
        if len(runs.get(name, {}).get(label, [])) <= seed
    ]


def left(results: dict[str, Any]) -> list[str]:
    """The runs that the file of results lacks."""
    return [f"{name}, {label}, seed {seed}" for name, label, seed in missing(results.get("runs", {}))]


def main() -> None:
    """Train what is missing in the file of results; print the table."""
    args = parser("two_moons", __doc__).parse_args()
    torch.set_num_threads(1)
    results = read(args.out, SETTINGS) | {"entropy": data.moons.entropy(), "held_out": HELD_OUT}
    runs = results.setdefault("runs", {})
    for name, label, seed in tqdm(missing(runs), unit="run"):
        of_model = runs.setdefault(name, {"parameters": parameters(two_moons_models()[name])})
        of_model.setdefault(label, []).append(train(name, seed, **SETTINGS[label]))
        write(args.out, results)
    print("| model | parameters | published | spread | serving | spread |\n|---|---:|---:|---:|---:|---:|")
    for name, run in runs.items():
        cells = [name, f"{run['parameters']:,}"]
        for label in SETTINGS:
            gaps = [r["above_entropy"] for r in run[label]]
            cells += [f"{statistics.mean(gaps):.4f}", f"{statistics.stdev(gaps):.4f}"]
        print(line(cells))


if __name__ == "__main__":
    main()
