"""The five methods that Part III compares: networks of equal widths, trained by ``make checkpoints``."""

import json

from torch import nn

from mnf_lite import models
from tools.checkpoints import CHECKPOINTS, MEMBERS, SEEDS

METHODS = {
    "LeNet": "lenet",
    "MC-dropout": "dropout-lenet",
    "deep ensemble": "lenet",
    "mean-field": "mean-field-lenet",
    "MNF": "mnf-lenet",
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


def samples(method: str, wanted: int) -> int:
    """How many predictions it has: as many as wanted, or one for each member where nothing is drawn."""
    return {"LeNet": 1, "deep ensemble": MEMBERS}.get(method, wanted)
