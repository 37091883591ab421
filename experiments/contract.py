"""The protocol of Part III: one split, one number of draws, one bootstrap, one rule of arrival.

Whatever compares methods imports its numbers from here and stores ``SETTINGS`` as ``settings["contract"]``;
``breaches`` says where a file of results departs from them.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from experiments.arrival import judge
from experiments.results import as_stored
from mnf_lite import data

TRAIN, CHOOSE = 55_000, 5_000  # of the 60,000 training images; the 10,000 test images are looked at once
DRAWS = 100  # networks for every score
SEEDS = 5
MEMBERS = 5  # of an ensemble
RESAMPLES = 1_000
ARRIVED = 0.03  # the bound falls by less than this share in a training of twice the length
JUDGED = {"images": 10_000, "draws": 20, "draws_of_z": 500}  # for the exact bound
SETTINGS: dict[str, Any] = {
    "split": {"train": TRAIN, "choose": CHOOSE, "seed": 0},
    "draws": DRAWS,
    "seeds": SEEDS,
    "members": MEMBERS,
    "bootstrap": {"resamples": RESAMPLES, "level": 0.95, "over": ["images", "seeds"], "seed": 0},
    "arrived": ARRIVED,
    "judged": JUDGED,
}
Seed = tuple[Tensor, ...]  # what a score takes of one seed


def split(images: TensorDataset | None = None) -> tuple[TensorDataset, TensorDataset]:
    """The images to train on and those to choose with."""
    x, y = (images or data.mnist("train")).tensors
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SETTINGS["split"]["seed"]))
    train, choose = order[CHOOSE : CHOOSE + TRAIN], order[:CHOOSE]
    return TensorDataset(x[train], y[train]), TensorDataset(x[choose], y[choose])


def bound(
    model: nn.Module, train: TensorDataset, kl_weight: float = 1.0, judged: dict[str, int] = JUDGED
) -> dict[str, Any]:
    """The exact bound in nats an image with its parts, and the objective in which the KL has its weight."""
    x, y = train.tensors
    found = judge(model, x[: judged["images"]], y[: judged["images"]], judged)
    nll, kl = found["nll"], found["kl"] / len(x)
    return found | {"bound": round(nll + kl, 5), "objective": round(nll + kl_weight * kl, 5)}


def arrived(once: dict[str, Any], twice: dict[str, Any]) -> bool:
    """Whether what was minimised falls by less than 3 % when the training is twice as long."""
    return bool(once["objective"] - twice["objective"] < ARRIVED * abs(once["objective"]))


def difference(
    score: Callable[..., Tensor], a: Sequence[Seed], b: Sequence[Seed], groups: Sequence[int]
) -> dict[str, float]:
    """Score of a less that of b with its 95 % interval, in the units of the score.

    The bootstrap draws seeds, and images for all seeds and both methods alike.

    Args:
        score: of the tensors of one seed, such as ``metrics.accuracy`` of probabilities and labels.
        a: what the score takes of each seed of one method.
        b: the same of the other.
        groups: for each of these tensors the set of images along its first axis: ``(0, 0)`` for
            probabilities and their labels, ``(0, 1)`` for the entropies of two sets.
    """
    if len(a) != len(b):
        raise ValueError(f"a and b must have the same seeds, got {len(a)} and {len(b)}")
    sizes = {group: len(tensor) for group, tensor in zip(groups, a[0], strict=True)}
    generator = torch.Generator().manual_seed(SETTINGS["bootstrap"]["seed"])

    def of(seed: int, rows: dict[int, Tensor]) -> float:
        one, other = (
            score(*(tensor[rows[group]] for group, tensor in zip(groups, method[seed], strict=True)))
            for method in (a, b)
        )
        return (one - other).item()

    whole = {group: torch.arange(size) for group, size in sizes.items()}
    estimate = sum(of(seed, whole) for seed in range(len(a))) / len(a)
    redrawn = []
    for _ in range(RESAMPLES):
        rows = {group: torch.randint(size, (size,), generator=generator) for group, size in sizes.items()}
        seeds = torch.randint(len(a), (len(a),), generator=generator).tolist()
        redrawn.append(sum(of(seed, rows) for seed in seeds) / len(a))
    low, high = torch.tensor(redrawn, dtype=torch.double).quantile(torch.tensor([0.025, 0.975]).double())
    return {"difference": estimate, "low": low.item(), "high": high.item()}


def breaches(results: dict[str, Any]) -> list[str]:
    """Where a file of results departs from the contract, in words; empty where it keeps to it."""
    stored, ours = results.get("settings", {}).get("contract", {}), as_stored(SETTINGS)
    found = [
        f"{name} is {stored.get(name)}, the contract says {value}"
        for name, value in ours.items()
        if stored.get(name) != value
    ]
    return found + [f"does not say what was {name}" for name in ("tried", "chosen") if not results.get(name)]
