"""The weight of the KL in MNF-LeNet's training on MNIST: ``python -m experiments.kl_weight``.

The bound has 1/N, one over the number of training images. Public code has 1/batches, and some starts without
a KL and warms up. Two epochs each. The figures go to ``book/results/kl_weight.json``; an interrupted run goes
on where it stopped.
"""

from dataclasses import asdict
from typing import Any

import torch

from experiments.methods import SCORES, scored
from experiments.networks import FIRST_EDITION, SEEDS, fresh
from experiments.results import parser, read, write
from mnf_lite import data, fit, predict

EPOCHS, BATCH_SIZE, IMAGES = 2, 64, 60_000
BATCHES = -(-IMAGES // BATCH_SIZE)
VARIANTS: dict[str, dict[str, float]] = {
    "1/N": {},
    "1/batches": {"kl_weight": 1 / BATCHES},
    "1/N, warm-up over 1 epoch": {"kl_warmup_epochs": 1},
    "no KL": {"kl_weight": 0.0},
}
SAMPLES = 50
SETTINGS = {
    "variants": VARIANTS,
    "epochs": EPOCHS,
    "batch_size": BATCH_SIZE,
    "images": IMAGES,
    "samples": SAMPLES,
}
MINUTES = 75


def measure(variant: str, seed: int) -> dict[str, Any]:
    """Train MNF-LeNet with one weight of the KL and score it on the test images."""
    torch.manual_seed(seed)
    model = fresh("mnf-lenet")
    options: dict[str, Any] = VARIANTS[variant]
    history = fit(
        model,
        data.mnist("train"),
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        seed=seed,
        progress=False,
        **FIRST_EDITION,
        **options,
    )
    images, labels = data.mnist("test").tensors
    torch.manual_seed(0)
    p = predict(model, images, n_samples=SAMPLES)
    figures = scored(p, labels)
    kept = {name: [round(v, 5) for v in values] for name, values in asdict(history).items() if values}
    return figures | {"history": kept}


def missing(scores: dict[str, list[Any]]) -> list[tuple[str, int]]:
    """Weight of the KL and seed of the runs that ``scores[variant][seed]`` lacks."""
    return [
        (variant, seed)
        for seed in range(SEEDS)
        for variant in VARIANTS
        if len(scores.get(variant, [])) <= seed
    ]


def left(results: dict[str, Any]) -> list[str]:
    """What is missing in the file of results."""
    return [f"{variant} with seed {seed}" for variant, seed in missing(results.get("scores", {}))]


def main() -> None:
    """Measure what is missing in the file of results."""
    args = parser("kl_weight", __doc__).parse_args()
    torch.set_num_threads(1)
    results = read(args.out, SETTINGS)
    scores = results.setdefault("scores", {})
    for variant, seed in missing(scores):
        figures = measure(variant, seed)
        scores.setdefault(variant, []).append(figures)
        write(args.out, results)
        print(f"{variant}, seed {seed}: { {s: figures[s] for s in SCORES} }", flush=True)


if __name__ == "__main__":
    main()
