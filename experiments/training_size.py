"""Five methods with few training images: ``python -m experiments.training_size``.

Equal widths and equal training for all methods, 100 to 10,000 training images of MNIST; for 60,000 there are
the runs of ``experiments.networks``. Scores are those of the 10,000 test images. They go to
``book/results/training_size.json``; an interrupted run goes on where it stopped.
"""

import time
from typing import Any

import torch
from torch.utils.data import TensorDataset

from experiments.methods import METHODS, samples, scored
from experiments.networks import FIRST_EDITION, MEMBERS, SEEDS, WIDTHS, fresh
from experiments.results import parser, read, write
from mnf_lite import data, fit, predict

SETTINGS: dict[str, Any] = {
    # By the number of training images.
    "epochs": {"100": 250, "1000": 30, "10000": 4},
    "batch_size": 64,
    "samples": 20,
    "seeds": SEEDS,
    "members": MEMBERS,
    "widths": WIDTHS,
}
MINUTES = 30
KEPT = ("accuracy", "nll", "ece")


def measure(method: str, size: int, seed: int) -> dict[str, float]:
    """Train on a balanced choice of images that depends on the seed; score on all test images."""
    images, labels = data.mnist("train").tensors
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    chosen = torch.cat([order[labels[order] == digit][: size // 10] for digit in range(10)])
    training = TensorDataset(images[chosen], labels[chosen])
    start = time.thread_time()
    members = []
    for member in range(MEMBERS if method == "deep ensemble" else 1):
        torch.manual_seed(seed + SEEDS * member)
        members.append(fresh(METHODS[method], WIDTHS))
        history = fit(
            members[-1],
            training,
            epochs=SETTINGS["epochs"][str(size)],
            batch_size=SETTINGS["batch_size"],
            seed=seed + SEEDS * member,
            progress=False,
            **FIRST_EDITION,
        )
    trained = time.thread_time() - start
    images, labels = data.mnist("test").tensors
    torch.manual_seed(0)
    p = predict(members, images, n_samples=samples(method, SETTINGS["samples"]))
    figures = scored(p, labels, KEPT)
    return figures | {"kl": round(history.kl[-1], 1), "cpu_seconds": round(trained, 1)}


def missing(scores: dict[str, dict[str, list[Any]]]) -> list[tuple[str, str, int]]:
    """Method, number of images and seed of the runs that ``scores[method][images][seed]`` lacks."""
    return [
        (method, size, seed)
        for seed in range(SEEDS)
        for size in SETTINGS["epochs"]
        for method in METHODS
        if len(scores.get(method, {}).get(size, [])) <= seed
    ]


def left(results: dict[str, Any]) -> list[str]:
    """What is missing in the file of results."""
    runs = missing(results.get("scores", {}))
    return [f"{method} on {size} images with seed {seed}" for method, size, seed in runs]


def main() -> None:
    """Measure what is missing in the file of results."""
    args = parser("training_size", __doc__).parse_args()
    torch.set_num_threads(1)
    results = read(args.out, SETTINGS)
    scores = results.setdefault("scores", {})
    for method, size, seed in missing(scores):
        figures = measure(method, int(size), seed)
        scores.setdefault(method, {}).setdefault(size, []).append(figures)
        write(args.out, results)
        print(f"{method}, {size} images, seed {seed}: {figures}", flush=True)


if __name__ == "__main__":
    main()
