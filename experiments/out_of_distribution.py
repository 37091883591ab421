"""Strangers among the digits: ``python -m experiments.out_of_distribution``.

Five methods of equal widths, trained on MNIST by ``experiments.networks``, judge every fifth test image of
MNIST (its two halves have different writers), Fashion-MNIST and KMNIST, with 100 predictions each. Figures go
to ``book/results/out_of_distribution.json``. A run measures what is missing or belongs to other weights, and
leaves out with a line what is not trained yet.

The layout of the file, ``seed`` being a string such as ``"0"``::

    grid                                             entropies h of the cumulative curves, nats
    scores[method][seed]["weights"]                  fingerprints of the weights that were judged
    scores[method][seed][data_set]["mean_entropy"]   nats, data_set one of mnist, fashion_mnist, kmnist
    scores[method][seed][data_set]["surely"]         share of images that got a probability above 90 %
    scores[method][seed][data_set]["cumulative"]     share of images with an entropy of at most h
    scores[method][seed]["mnist"]["accuracy"]
    scores[method][seed][data_set]["auroc"]          strangers by predictive entropy, data_set not mnist
    scores[method][seed][data_set]["fpr95"]
    scores[method][seed][data_set][score]["auroc"]   score one of mutual_information, max_probability
    scores[method][seed][data_set][score]["fpr95"]
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from experiments.methods import left as left
from experiments.methods import load, run, samples
from mnf_lite import data, metrics, predict

SETS = {"mnist": data.mnist, "fashion_mnist": data.fashion_mnist, "kmnist": data.kmnist}
STEP, SAMPLES = 5, 100
GRID = [round(0.05 * k, 2) for k in range(47)]  # up to 2.3 nats, just below ln 10
SETTINGS: dict[str, Any] = {"images": f"every {STEP}th of each test set", "samples": SAMPLES, "grid": GRID}
MINUTES = 15
SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "entropy": metrics.predictive_entropy,
    "mutual_information": metrics.mutual_information,
    "max_probability": lambda p: 1 - p.mean(0).amax(-1),
}


@cache
def judged() -> tuple[dict[str, Tensor], Tensor]:
    """The images of each set and the labels of the digits."""
    images = {name: make("test").tensors[0][::STEP] for name, make in SETS.items()}
    return images, data.mnist("test").tensors[1][::STEP]


def measure(method: str, seed: int) -> dict[str, Any]:
    """Judge all three sets by the same draws of the weights."""
    images, labels = judged()
    torch.manual_seed(0)
    p = predict(load(method, seed), torch.cat(list(images.values())), samples(method, SAMPLES))  # [S, 3 B, C]
    parts = dict(zip(images, torch.split(p, [len(x) for x in images.values()], dim=1), strict=True))
    found: dict[str, dict[str, Any]] = {name: describe(part) for name, part in parts.items()}
    found["mnist"]["accuracy"] = _short(metrics.accuracy(parts["mnist"], labels))
    for name in list(images)[1:]:
        by_score = {
            score: {
                "auroc": _short(metrics.auroc(of(parts["mnist"]), of(parts[name]))),
                "fpr95": _short(metrics.fpr95(of(parts["mnist"]), of(parts[name]))),
            }
            for score, of in SCORES.items()
        }
        found[name] |= by_score.pop("entropy") | by_score
    return found


def describe(p: Tensor) -> dict[str, Any]:
    """How sure the answers ``[S, B, C]`` to one set of images are."""
    entropy = metrics.predictive_entropy(p)
    return {
        "mean_entropy": _short(entropy.mean()),
        "surely": _short((p.mean(0).amax(-1) > 0.9).double().mean()),
        "cumulative": [_short((entropy <= h).double().mean()) for h in GRID],
    }


def _short(value: Tensor) -> float:
    return round(value.item(), 5)


if __name__ == "__main__":
    run("out_of_distribution", __doc__, SETTINGS, measure)
