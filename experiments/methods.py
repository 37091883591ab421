"""The five methods that Part III compares: networks of equal widths, trained by ``experiments.networks``."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import results
from experiments.networks import CHECKPOINTS, MEMBERS, SEEDS
from mnf_lite import layers, metrics, models

METHODS = {
    "LeNet": "lenet",
    "MC-dropout": "dropout-lenet",
    "deep ensemble": "lenet",
    "mean-field": "mean-field-lenet",
    "MNF": "mnf-lenet",
}
SCORES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "accuracy": metrics.accuracy,
    "nll": metrics.negative_log_likelihood,
    "brier": metrics.brier_score,
    "ece": metrics.expected_calibration_error,
}


def scored(p: Tensor, labels: Tensor, names: Iterable[str] = SCORES) -> dict[str, float]:
    """The scores of predictions ``[S, B, C]`` by name, as results hold them."""
    return {name: round(SCORES[name](p, labels).item(), 5) for name in names}


def bayesian_layers(model: nn.Module) -> dict[str, Any]:
    """The layers with random weights, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, layers.BayesianLayer)}


def names(method: str, seed: int, source: str = "mnist") -> list[str]:
    """The runs that one method consists of with one seed: one, or the members of an ensemble."""
    seeds = range(seed, SEEDS * MEMBERS, SEEDS) if method == "deep ensemble" else [seed]
    return [f"equal-{METHODS[method]}-{source}-{s}" for s in seeds]


def load(method: str, seed: int, source: str = "mnist") -> list[nn.Module]:
    """Its networks, as `predict` takes them. With the digits there is seed 0 alone."""
    return [models.load(CHECKPOINTS / f"{name}.safetensors") for name in names(method, seed, source)]


def weights(method: str, seed: int) -> list[str] | None:
    """Fingerprints of its weights with one seed; None where some are not trained yet."""
    logs = [CHECKPOINTS / f"{name}.json" for name in names(method, seed)]
    if not all(log.is_file() for log in logs):
        return None
    return [results.load(log)["weights_sha256"] for log in logs]


def missing(scores: dict[str, dict[str, Any]]) -> list[tuple[str, int]]:
    """Each method and seed whose ``scores[method][seed]``, the seed as a string, are not of its weights."""
    return [
        (method, seed)
        for seed in range(SEEDS)
        for method in METHODS
        if scores.get(method, {}).get(str(seed), {}).get("weights", "none") != weights(method, seed)
    ]


def left(found: dict[str, Any]) -> list[str]:
    """What `measure_missing` would measure, in words."""
    return [f"{method} with seed {seed}" for method, seed in missing(found.get("scores", {}))]


def measure_missing(
    path: Path, settings: dict[str, Any], measure: Callable[[str, int], dict[str, Any]]
) -> dict[str, Any]:
    """Measure each method and seed whose weights are new to a file of results, which keeps each at once.

    Args:
        path: where ``scores[method][seed]`` are kept, the seed as a string.
        settings: with others than those of the file it is begun anew.
        measure: gives the figures of a method with one seed.

    Returns:
        The content of the file, circumstances not included.
    """
    found = results.read(path, settings)
    scores = found.setdefault("scores", {})
    for method, seed in missing(scores):
        trained, start = weights(method, seed), time.thread_time()
        if trained is None:
            print(f"{method}, seed {seed}: not trained yet, left out", flush=True)
            continue
        scores.setdefault(method, {})[str(seed)] = {"weights": trained, **measure(method, seed)}
        results.write(path, found)
        print(f"{method}, seed {seed}: {time.thread_time() - start:.0f} s", flush=True)
    return found


def run(
    name: str, doc: str | None, settings: dict[str, Any], measure: Callable[[str, int], dict[str, Any]]
) -> None:
    """The command line of a script that does this and nothing else."""
    args = results.parser(name, doc).parse_args()
    torch.set_num_threads(1)
    measure_missing(args.out, settings, measure)


def samples(method: str, wanted: int) -> int:
    """How many predictions it has: as many as wanted, or one for each member where nothing is drawn."""
    return {"LeNet": 1, "deep ensemble": MEMBERS}.get(method, wanted)
