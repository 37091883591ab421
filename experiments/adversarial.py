"""Images made to fool: ``python -m experiments.adversarial``.

Five methods of equal widths, trained on MNIST by ``experiments.networks``, judge 400 test images whose pixels
were moved by at most epsilon: by random signs, by one step of the gradient's sign (FGSM), by many such steps
(the iterated attack, whose ball grows from one epsilon to the next), and by those made on a stranger, the
published LeNet (transfer). An attack sees the averaged prediction of some draws of the weights; other draws
judge. Figures go to ``book/results/adversarial.json``. A run measures what is missing or belongs to other
weights, and leaves out with a line what is not trained yet.

The layout of the file, ``seed`` being a string such as ``"0"``::

    settings                                        epsilons, numbers of images, draws and steps
    scores[method][seed]["weights"]                 fingerprints of the weights
    scores[method][seed]["clean"]                   figures of the images as they are
    scores[method][seed][attack][k]                 figures at epsilons[k], attack one of ATTACKS
    figures:   accuracy, entropy                    means over all images, entropy in nats
               auroc                                by entropy: attacked images against clean ones
               auroc_information                    by mutual information
               unnoticed                            share of images with a wrong answer whose entropy is no
                                                    higher than that of 95 % of the clean images
"""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.methods import left as left
from experiments.methods import load, run, samples
from experiments.networks import CHECKPOINTS
from mnf_lite import data, layers, metrics, models, predict

STEP = 25  # every 25th test image: the two halves of the set have different writers
EPSILONS = [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
POOL = 20  # draws of the weights for an attack
STEPS, AT_A_TIME = 5, 4  # of the iterated attack: steps for each epsilon, draws for each step
JUDGES = 20  # fresh draws of the weights
ATTACKS = ("random", "FGSM", "iterated", "transfer")
STRANGER = "lenet-mnist"
CHUNK = 100  # images whose gradients are found together
SETTINGS: dict[str, Any] = {
    "images": f"every {STEP}th test image",
    "epsilons": EPSILONS,
    "pool": POOL,
    "at_a_time": AT_A_TIME,
    "steps": STEPS,
    "judges": JUDGES,
    "stranger": STRANGER,
}
MINUTES = 30


def draw(members: Sequence[nn.Module], n: int) -> list[nn.Module]:
    """Plain networks: n draws of the weights, or the members of an ensemble."""
    chosen = members if len(members) > 1 else [members[0]] * n
    return [layers.plain(member).eval().requires_grad_(False) for member in chosen]


def log_odds(networks: Sequence[nn.Module], x: Tensor, y: Tensor) -> Tensor:
    """ln(1 - p(y)) - ln p(y) of the averaged prediction p, ``[B]``: finite however sure the networks are."""
    log_p = torch.stack([network(x) for network in networks]).log_softmax(-1)  # [S, B, C]
    log_mean = log_p.logsumexp(0) - math.log(len(networks))  # [S, B, C] -> [B, C]
    truth = F.one_hot(y, log_mean.shape[-1]).bool()
    return log_mean.masked_fill(truth, -math.inf).logsumexp(-1) - log_mean[truth]


def gradient(networks: Sequence[nn.Module], x: Tensor, y: Tensor) -> Tensor:
    """Slope of the log-odds against the truth in every pixel."""
    parts = []
    for some, labels in zip(torch.split(x, CHUNK), torch.split(y, CHUNK), strict=True):
        leaf = some.clone().requires_grad_()
        parts.append(torch.autograd.grad(log_odds(networks, leaf, labels).sum(), leaf)[0])
    return torch.cat(parts)


def clip(attacked: Tensor, x: Tensor, epsilon: float) -> Tensor:
    """The nearest images within epsilon of x."""
    return attacked.clamp(x - epsilon, x + epsilon).clamp(0, 1)


def one_step(networks: Sequence[nn.Module], x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """FGSM: for every epsilon the best answer to the straight line that touches the log-odds at x."""
    slope = gradient(networks, x, y).sign()
    for epsilon in EPSILONS:
        yield clip(x + epsilon * slope, x, epsilon)


def iterated(networks: Sequence[nn.Module], x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Many small steps; the search in each ball starts from what was found in the smaller one."""
    choice = random.Random(0)
    attacked, inner = x, 0.0
    for epsilon in EPSILONS:
        for _ in range(STEPS):
            some = choice.sample(networks, min(AT_A_TIME, len(networks)))
            step = (epsilon - inner) / 2 * gradient(some, attacked, y).sign()
            attacked = clip(attacked + step, x, epsilon)
        inner = epsilon
        yield attacked


@cache
def images() -> tuple[Tensor, Tensor]:
    """The test images and their labels."""
    x, y = data.mnist("test").tensors
    return x[::STEP], y[::STEP]


@cache
def transferred() -> list[Tensor]:
    """What the iterated attack finds for the stranger."""
    stranger = models.load(CHECKPOINTS / f"{STRANGER}.safetensors")
    return list(iterated(draw([stranger], 1), *images()))


def attack(name: str, members: Sequence[nn.Module], n: int) -> Iterable[Tensor]:
    """The images of one attack for every epsilon; where it looks at the networks, at up to n draws."""
    x, y = images()
    torch.manual_seed(1)
    if name == "FGSM":
        return one_step(draw(members, n), x, y)
    if name == "iterated":
        return iterated(draw(members, n), x, y)
    if name == "transfer":
        return transferred()
    noise = torch.randn_like(x).sign()
    return (clip(x + epsilon * noise, x, epsilon) for epsilon in EPSILONS)


def judge(members: Sequence[nn.Module], n: int, x: Tensor) -> Tensor:
    """Probabilities ``[S, B, C]`` by fresh draws, the same ones at every call."""
    torch.manual_seed(0)
    return predict(members, x, n)


def describe(p: Tensor, clean: Tensor, y: Tensor) -> dict[str, float]:
    """How right and how sure the answers ``[S, B, C]`` are, beside those to the clean images."""
    entropy, usual = metrics.predictive_entropy(p), metrics.predictive_entropy(clean)
    wrong = p.mean(0).argmax(-1) != y
    figures = {
        "accuracy": metrics.accuracy(p, y),
        "entropy": entropy.mean(),
        "auroc": metrics.auroc(usual, entropy),
        "auroc_information": metrics.auroc(metrics.mutual_information(clean), metrics.mutual_information(p)),
        "unnoticed": (wrong & (entropy <= usual.quantile(0.95))).double().mean(),
    }
    return {name: round(figure.item(), 5) for name, figure in figures.items()}


def measure(method: str, seed: int) -> dict[str, Any]:
    """Figures of one method with one seed, for the clean images and under every attack."""
    (x, y), members = images(), load(method, seed)
    clean = judge(members, samples(method, JUDGES), x)
    return {"clean": describe(clean, clean, y)} | {
        name: [
            describe(judge(members, samples(method, JUDGES), moved), clean, y)
            for moved in attack(name, members, samples(method, POOL))
        ]
        for name in ATTACKS
    }


if __name__ == "__main__":
    run("adversarial", __doc__, SETTINGS, measure)
