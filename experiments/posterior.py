"""What the posteriors of the trained networks learned: ``python -m experiments.posterior``.

For every method and seed whose weights ``experiments.networks`` has left, on MNIST: where the variances are,
what became of q(z), what each freedom of q(W) is worth, which weights can be set to zero, how many samples
are enough, local reparametrisation against explicit weights, and modes of single answers. The figures go to
``book/results/posterior.json``; a run measures what is missing there, or belongs to other weights.
"""

import copy
import math
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.methods import bayesian_layers, load, run, samples
from experiments.methods import left as left
from experiments.networks import fresh
from mnf_lite import data, metrics, models, plots, predict
from mnf_lite.layers.base import Multiplicative

SETTINGS: dict[str, Any] = {
    "prune": {"images": 2000, "fractions": [0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98]},
    "samples": {"images": 1000, "pool": 100, "S": [1, 2, 3, 5, 10, 20, 50], "subsets": 50},
    "freedoms": {"images": 500, "turned": 100, "angle": 90, "samples": 50},
    "joint": {"images": 300, "angle": 40, "samples": 40},
    "modes": {"images": 100, "angle": 90, "samples": 300, "tests": 60, "null": 2000, "units": 300},
    "z": {"batches": 10, "draws": 4000},
}
MINUTES = 8
BAYESIAN = ("mean-field", "MNF")
Moments = list[tuple[Tensor, Tensor, Tensor]]  # of each layer: E W, Var W, Var W given z


def along(layer: Multiplicative, z: Tensor) -> Tensor:
    """A vector ``[D]`` over the units of z, shaped to multiply the weights."""
    shape = [1] * layer.weight_mean.ndim
    shape[layer.z_axis] = -1
    return z.view(shape)


@torch.no_grad()
def moments(model: nn.Module) -> Moments:
    """Means and variances of all weights, layer by layer; z from 20,000 draws."""
    found = []
    for layer in bayesian_layers(model).values():
        mu, var = layer.weight_mean, layer.weight_log_var.exp()
        if isinstance(layer, Multiplicative):
            z = layer.sample_z(20_000)[0]
            mean = mu * along(layer, z.mean(0))
            found.append((mean, mu.square() * along(layer, z.var(0)) + var, var))
        else:
            found.append((mu, var, var))
    return found


@torch.no_grad()
def mean_network(model: Any, means: list[Tensor]) -> nn.Module:
    """One LeNet whose weights are the means of the posterior."""
    single = models.LeNet(model.settings["widths"])
    plain = [m for m in single.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for target, mean, layer in zip(plain, means, bayesian_layers(model).values(), strict=True):
        target.weight.copy_(mean)
        assert target.bias is not None
        target.bias.copy_(layer.bias_mean)
    return single.eval()


# where training has brought the variances, and z


@torch.no_grad()
def divergence(model: nn.Module) -> dict[str, Any]:
    """Of each layer: weights, KL in nats, log variances, share of Var W that comes from z."""
    rows = {}
    for (name, layer), (_, total, given_z) in zip(
        bayesian_layers(model).items(), moments(model), strict=True
    ):
        log_var = layer.weight_log_var.flatten()
        draws = layer.kl_samples(50)
        rows[name] = {
            "weights": log_var.numel(),
            "kl": round(draws.mean().item(), 1),
            "kl_error": round(draws.std().item() / math.sqrt(50), 2),
            "log_var": [round(float(q), 4) for q in np.quantile(log_var, [0.05, 0.5, 0.95])],
            "share_of_z": round((1 - given_z / total).mean().item(), 4),
        }
    return rows


def gaussian_parts(z: Tensor, log_q: Tensor) -> tuple[float, float]:
    """KL of q(z) to its Gaussian twin, and of that twin to independent Gaussians, in nats, both unbiased."""
    n, D = z.shape
    cov = z.double().T.cov()
    ranks = torch.arange(1, D + 1, dtype=torch.float64)
    chance = (torch.digamma((n - ranks) / 2) + math.log(2 / (n - 1))).sum()  # E log det of cov, less its own
    log_det = torch.linalg.slogdet(cov).logabsdet - chance
    one = torch.digamma(torch.tensor((n - 1) / 2, dtype=torch.float64)) + math.log(2 / (n - 1))
    spread = (cov.diagonal().log() - one).sum()
    bent = (D * (1 + math.log(2 * math.pi)) + log_det) / 2 + log_q.double().mean()
    return bent.item(), ((spread - log_det) / 2).item()


@torch.no_grad()
def of_z(model: nn.Module, null: NDArray[Any]) -> dict[str, Any]:
    """Of each layer: what is not Gaussian in q(z), what is correlated, moments and modes of its units."""
    rows = {}
    batches, draws = SETTINGS["z"]["batches"], SETTINGS["z"]["draws"]
    for name, layer in bayesian_layers(model).items():
        parts, kept = [], []
        for _ in range(batches):
            z, log_q = layer.sample_z(draws)
            parts.append(gaussian_parts(z, log_q))
            kept.append(z)
        z = torch.cat(kept)
        bent, tied = torch.tensor(parts).T
        scaled = (z - z.mean(0)) / z.std(0)
        correlation = z.T.corrcoef().fill_diagonal_(0).abs()
        base = (layer.q0_log_var / 2).exp()
        p = [p_value(u, null) for u in z[: SETTINGS["modes"]["units"]].double().T.numpy()]
        rows[name] = {
            "units": z.shape[1],
            "bent": [round(bent.mean().item(), 4), round(bent.std().item() / math.sqrt(batches), 4)],
            "tied": [round(tied.mean().item(), 4), round(tied.std().item() / math.sqrt(batches), 4)],
            "kurtosis": round((scaled.pow(4).mean(0) - 3).abs().max().item(), 3),
            "skewness": round(scaled.pow(3).mean(0).abs().max().item(), 3),
            "correlation": round(correlation.max().item(), 3),
            "mean": [round(float(q), 3) for q in np.quantile(z.mean(0), [0, 0.5, 1])],
            "std": [round(float(q), 3) for q in np.quantile(z.std(0), [0, 0.5, 1])],
            "base_std": round(base.median().item(), 3),
            "negative": round((z < 0).double().mean().item(), 4),
            "two modes at 5 %": sum(v < 0.05 for v in p),
        }
    return rows


# modes


def gap(x: NDArray[Any], F: NDArray[Any]) -> float:
    """Largest distance of the points (x, F) above their lower convex hull, x rising."""
    hull: list[int] = []
    for i in range(len(x)):
        while len(hull) > 1:
            a, b = hull[-2:]
            if (F[b] - F[a]) * (x[i] - x[a]) < (F[i] - F[a]) * (x[b] - x[a]):
                break
            hull.pop()
        hull.append(i)
    return float((F - np.interp(x, x[hull], F[hull])).max())


def dip(x: NDArray[Any]) -> float:
    """How far the distribution of x [n] is from one that is convex up to a mode and concave after it."""
    x, F = np.sort(x), np.arange(len(x)) / len(x)
    low, high, best = 0, len(x) - 1, 1.0
    while high - low > 1:  # the left gap grows with the mode, the right one shrinks
        m = (low + high) // 2
        left, right = gap(x[: m + 1], F[: m + 1]), gap(x[m:], -F[m:])
        best = min(best, max(left, right))
        low, high = (m, high) if left < right else (low, m)
    return best


def p_value(x: NDArray[Any], null: NDArray[Any]) -> float:
    """Of the hypothesis of one mode; `null` are dips of uniform samples, the hardest of one mode."""
    return float((1 + (null >= dip(x)).sum()) / (1 + len(null)))


def log_odds(p: Tensor) -> Tensor:
    """Log p_c - log of the sum of the others, which stays exact where 1 - p_c would round to zero."""
    others = p @ (1 - torch.eye(p.shape[-1], dtype=p.dtype))
    return p.clamp(min=1e-38).log() - others.clamp(min=1e-38).log()


@torch.no_grad()
def of_answers(members: list[nn.Module], turned: Tensor, null: NDArray[Any]) -> dict[str, Any]:
    """Tests of single answers that are in doubt, as probabilities and as log-odds; I from few samples."""
    made = SETTINGS["modes"]
    torch.manual_seed(0)
    p = predict(members, turned[: made["images"]], n_samples=made["samples"]).double()  # [S, B, 10]
    odds = log_odds(p)
    doubted = ((p.mean(0) > 0.05) & (p.mean(0) < 0.95)).nonzero()[: made["tests"]].tolist()
    level = 0.05 / max(1, len(doubted))
    found: dict[str, Any] = {"tests": len(doubted)}
    for scale, values in (("probabilities", p), ("log-odds", odds)):
        tested = [p_value(values[:, b, c].numpy(), null) for b, c in doubted]
        found[scale] = {"at 5 %": sum(v < 0.05 for v in tested), "Bonferroni": sum(v < level for v in tested)}
    spread = [odds[:, b, c].std().item() for b, c in doubted]
    found["wider than √2"] = sum(s > math.sqrt(2) for s in spread)
    few = [2, 3, 5, 10, 20, 50, 100, made["samples"]]
    found["S"] = few
    found["information"] = [
        round(
            np.mean([metrics.mutual_information(q).mean().item() for q in torch.split(p, s)][: len(p) // s]),
            5,
        )
        for s in few
    ]
    found["entropy"] = round(metrics.predictive_entropy(p).mean().item(), 5)
    return found


# freedoms


@torch.no_grad()
def restricted(model: Any) -> dict[str, nn.Module]:
    """The network with the freedoms of its q(W) taken away one after the other."""
    torch.manual_seed(0)
    drawn = {name: layer.sample_z(20_000)[0] for name, layer in bayesian_layers(model).items()}
    first = {name: (z.mean(0), z.std(0)) for name, z in drawn.items()}
    roots = {name: torch.linalg.cholesky(z.double().T.cov()).float() for name, z in drawn.items()}
    variants = {"as trained": model}

    def gaussian(name: str) -> Callable[[int], tuple[Tensor, None]]:
        mean, root = first[name][0], roots[name]
        return lambda n: (mean + torch.randn(n, len(mean)) @ root.T, None)

    def independent(name: str) -> Callable[[int], tuple[Tensor, None]]:
        mean, std = first[name]
        return lambda n: (mean + std * torch.randn(n, len(mean)), None)

    def fixed(name: str) -> Callable[[int], tuple[Tensor, None]]:
        return lambda n: (first[name][0].expand(n, -1), None)

    for title, sampler in (
        ("Gaussian z", gaussian),
        ("independent Gaussian z", independent),
        ("z at its mean", fixed),
    ):
        variants[title] = copy.deepcopy(model)
        for name, layer in bayesian_layers(variants[title]).items():
            layer.sample_z = sampler(name)
    alone = models.MeanFieldLeNet(model.settings["widths"])
    for layer, source, (mean, total, _) in zip(
        bayesian_layers(alone).values(), bayesian_layers(model).values(), moments(model), strict=True
    ):
        layer.weight_mean.copy_(mean)
        layer.weight_log_var.copy_(total.log())
        layer.bias_mean.copy_(source.bias_mean)
        layer.bias_log_var.copy_(source.bias_log_var)
    variants["independent weights"] = alone.eval()
    return variants


def freedoms(model: nn.Module, images: Tensor, labels: Tensor, turned: Tensor) -> dict[str, Any]:
    """Scores of the network and of its restricted versions, upright and on images that lie on their side."""
    made = SETTINGS["freedoms"]
    rows = {}
    for title, variant in restricted(model).items():
        torch.manual_seed(1)
        p = predict(variant, images[: made["images"]], n_samples=made["samples"])
        q = predict(variant, turned[: made["turned"]], n_samples=made["samples"])
        rows[title] = {
            "accuracy": round(metrics.accuracy(p, labels[: made["images"]]).item(), 5),
            "nll": round(metrics.negative_log_likelihood(p, labels[: made["images"]]).item(), 5),
            "entropy, turned": round(metrics.predictive_entropy(q).mean().item(), 4),
            "information, turned": round(metrics.mutual_information(q).mean().item(), 4),
        }
    return rows


# pruning


@torch.no_grad()
def pruned(model: nn.Module, method: str, images: Tensor, labels: Tensor) -> dict[str, list[float]]:
    """Accuracy of the mean network, of whose weights those of the lowest score are 0, for each fraction."""
    made = SETTINGS["prune"]
    x, y = images[: made["images"]], labels[: made["images"]]
    torch.manual_seed(0)
    if method == "LeNet":
        single = model
        weights = [p for p in single.parameters() if p.ndim > 1]
        scores = {"magnitude": [w.abs() for w in weights], "at random": [torch.rand_like(w) for w in weights]}
    else:
        found = moments(model)
        single = mean_network(model, [mean for mean, _, _ in found])
        scores = {
            "signal to noise": [mean.abs() / total.sqrt() for mean, total, _ in found],
            "magnitude": [mean.abs() for mean, _, _ in found],
        }
        if method == "MNF":
            scores["signal to noise given z"] = [mean.abs() / var.sqrt() for mean, _, var in found]
            scores["μ alone"] = [layer.weight_mean.abs() for layer in bayesian_layers(model).values()]
    rows: dict[str, list[float]] = {}
    for criterion, score in scores.items():
        ranks = torch.cat([s.flatten() for s in score]).sort().values
        rows[criterion] = []
        for fraction in made["fractions"]:
            threshold = ranks[int(fraction * len(ranks))]
            sparse = copy.deepcopy(single)
            for w, s in zip([p for p in sparse.parameters() if p.ndim > 1], score, strict=True):
                w.mul_(s >= threshold)
            hits = torch.cat([sparse(part).argmax(-1) for part in torch.split(x, 250)]) == y
            rows[criterion].append(round(hits.double().mean().item(), 5))
    return rows


# samples


def enough(members: list[nn.Module], method: str, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Accuracy and nll of means over S of the samples: mean and standard deviation over random choices."""
    made = SETTINGS["samples"]
    x, y = images[: made["images"]], labels[: made["images"]]
    pool = samples(method, made["pool"])
    torch.manual_seed(0)
    p = predict(members, x, n_samples=pool).double()
    right = p.gather(-1, y.expand(pool, -1)[..., None])[..., 0]  # [S, B]
    rows: dict[str, Any] = {"S": [s for s in made["S"] if s < pool] + [pool]}
    for name, score in (("accuracy", metrics.accuracy), ("nll", metrics.negative_log_likelihood)):
        rows[name], rows[f"{name}_std"] = [], []
        generator = torch.Generator().manual_seed(0)
        for s in rows["S"]:
            chosen = [
                torch.randperm(pool, generator=generator)[:s]
                for _ in range(1 if s == pool else made["subsets"])
            ]
            values = torch.stack([score(p[rows_], y) for rows_ in chosen])
            rows[name].append(round(values.mean().item(), 6))
            rows[f"{name}_std"].append(round(values.std(correction=0).item(), 6))
    if pool > 1:
        rows["slope"] = round((right.var(0) / right.mean(0).square() / 2).mean().item(), 6)
    return rows


# one network for all images, or noise for each


@torch.no_grad()
def joint(model: nn.Module, images: Tensor, labels: Tensor, turned: Tensor) -> dict[str, Any]:
    """The same posterior predicted with explicit weights and by the forward pass of training."""
    made = SETTINGS["joint"]
    n, y = made["samples"], labels[: made["images"]]

    def local(x: Tensor) -> Tensor:
        return torch.stack([model(x).softmax(-1) for _ in range(n)])

    rows: dict[str, Any] = {}
    for way, judge in {"explicit": lambda x: predict(model, x, n_samples=n), "local": local}.items():
        rows[way] = {}
        for place, x in (("upright", images[: made["images"]]), ("turned", turned[: made["images"]])):
            torch.manual_seed(0)
            p = judge(x)
            odds = log_odds(p.double()).gather(-1, y.expand(n, -1)[..., None])[..., 0]  # [S, B]
            doubted = odds[:, odds.std(0) > 1e-3]
            r = doubted.T.corrcoef()
            pairs = ~torch.eye(len(r), dtype=torch.bool)
            of_one_draw = (p.argmax(-1) == y).double().mean(1)  # [S]
            rows[way][place] = {
                "accuracy": round(metrics.accuracy(p, y).item(), 5),
                "nll": round(metrics.negative_log_likelihood(p, y).item(), 5),
                "information": round(metrics.mutual_information(p).mean().item(), 5),
                "correlation": round(r[pairs].square().mean().sqrt().item(), 4),
                "accuracy of a draw": round(of_one_draw.mean().item(), 5),
                "its std": round(of_one_draw.std().item(), 5),
            }
    return rows


@cache
def dips_by_chance() -> NDArray[Any]:
    """Dips of uniform samples, in ascending order: what a sample of one mode has at worst."""
    rng = np.random.default_rng(0)
    return np.sort([dip(rng.random(SETTINGS["modes"]["samples"])) for _ in range(SETTINGS["modes"]["null"])])


def measure(method: str, seed: int) -> dict[str, Any]:
    """All figures of one method with one seed."""
    null = dips_by_chance()
    images, labels = data.mnist("test").tensors
    members = load(method, seed)
    by_angle = {
        made["angle"]: plots.rotate(images[:300], [made["angle"]])[0]
        for made in (SETTINGS["joint"], SETTINGS["modes"])
    }
    on_side, leaning = by_angle[SETTINGS["modes"]["angle"]], by_angle[SETTINGS["joint"]["angle"]]
    start = time.thread_time()
    found: dict[str, Any] = {"samples": enough(members, method, images, labels)}
    if method in ("LeNet", *BAYESIAN):
        found["prune"] = pruned(members[0], method, images, labels)
    if method in ("MC-dropout", *BAYESIAN):
        found["modes"] = of_answers(members, on_side, null)
        found["joint"] = joint(members[0], images, labels, leaning)
    if method in BAYESIAN:
        torch.manual_seed(0)
        found["layers"] = divergence(members[0])
    if method == "MNF":
        torch.manual_seed(0)
        found["z"] = of_z(members[0], null)
        if seed == 0:
            found["z untrained"] = of_z(fresh("mnf-lenet"), null)
        found["freedoms"] = freedoms(members[0], images, labels, on_side)
    return found | {"cpu_seconds": round(time.thread_time() - start, 1)}


if __name__ == "__main__":
    run("posterior", __doc__, SETTINGS, measure)
