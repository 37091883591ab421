"""The five methods that Part III compares: networks of equal widths, trained by ``make checkpoints``."""

import json
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from experiments.networks import CHECKPOINTS, MEMBERS, SEEDS
from mnf_lite import metrics, models

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
    return [json.loads(log.read_text(encoding="utf-8"))["weights_sha256"] for log in logs]


def trained() -> Iterator[tuple[str, int, list[str]]]:
    """Method, seed and fingerprints of all that is trained; the rest is left out with a line."""
    for seed in range(SEEDS):
        for method in METHODS:
            found = weights(method, seed)
            if found is None:
                print(f"{method}, seed {seed}: not trained yet, left out", flush=True)
            else:
                yield method, seed, found


def missing(scores: dict[str, dict[str, Any]]) -> Iterator[tuple[str, int, list[str]]]:
    """Those whose ``scores[method][seed]``, the seed as a string, are not there or not of these weights."""
    for method, seed, found in trained():
        if scores.setdefault(method, {}).get(str(seed), {}).get("weights") != found:
            yield method, seed, found


def samples(method: str, wanted: int) -> int:
    """How many predictions it has: as many as wanted, or one for each member where nothing is drawn."""
    return {"LeNet": 1, "deep ensemble": MEMBERS}.get(method, wanted)
