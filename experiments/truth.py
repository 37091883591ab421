"""Every method of the book against the true posterior: ``python -m experiments.truth``.

On each problem of ``experiments.problems`` every method has the same network, prior and likelihood, and is
trained until its bound has stopped falling; then its predictions are compared with those of the draws that
``experiments.hmc`` has stored. All seeds of a method are trained side by side, and so are the three
regressions, by ``experiments.truth_bounds``. Between the two halves of the reference's chains the same scores
say how much of a distance is noise.

It needs the extra ``reference``. The result goes to ``book/results/truth.json``; an interrupted run goes on
where it stopped.
"""

import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments import hmc
from experiments.problems import NOISE_PRIOR_STD, Problem, problem
from experiments.results import parser, read, write
from mnf_lite import metrics
from mnf_lite.layers import BayesianLayer, MeanFieldLinear, MNFLinear
from mnf_lite.models import DropoutLinear

Record = dict[str, Any]

GROUPS = (("cubic", "cubic, noise learned", "gap"), ("moons",), ("digits",))  # networks of one shape
CONJUGATE = partial(MNFLinear, auxiliary="conjugate", hidden=(25,))
LAYERS: dict[str, Any] = {
    "mean-field": MeanFieldLinear,
    "MNF, no flow": partial(CONJUGATE, n_flows_q=0),
    "MNF, 2 flows": partial(CONJUGATE, n_flows_q=2),
    "MNF, 4 flows": partial(CONJUGATE, n_flows_q=4),
    "MNF, 8 flows": partial(CONJUGATE, n_flows_q=8),
    "MNF, 2 flows, published r": partial(MNFLinear, auxiliary="published", hidden=(25,)),
    "MC-dropout": nn.Linear,
    "MAP": nn.Linear,  # five to each ensemble, the first of which gets the Laplace approximation
}
METHODS = (*list(LAYERS)[:-1], "ensemble", "last-layer Laplace")
SEEDS, MEMBERS, DROPOUT = 5, 5, 0.1
LR_LOG_VAR, DECAY, LAST_RATE = 5e-2, 0.4, 0.02
REGRESSION: Record = {"steps": 2500, "rows": 100, "lr": 2e-2}
SCHEDULES: Record = {"moons": {"steps": 2000, "rows": 100, "lr": 2e-2}}
SCHEDULES |= {"digits": {"steps": 1500, "rows": 250, "lr": 1e-2}}
SCHEDULES |= dict.fromkeys(GROUPS[0], REGRESSION)
SAMPLES = {"digits": 400}  # draws of a method; 1,000 on the other problems
CURVE, CELLS = 50, 100  # points of the curve of training; cells of the axis on which densities are compared
SETTINGS: Record = {"seeds": SEEDS, "members": MEMBERS, "dropout": DROPOUT, "lr_log_var": LR_LOG_VAR}
SETTINGS |= {"decay": DECAY, "schedules": SCHEDULES, "samples": SAMPLES, "cells": CELLS}
SETTINGS |= {"reference": hmc.SETTINGS}
MINUTES = 5


class Network(nn.Module):
    """One network of a problem by one method, made of the package's layers.

    Args:
        case: the problem.
        method: one of LAYERS.
    """

    def __init__(self, case: Problem, method: str) -> None:
        super().__init__()
        inputs, hidden, outputs = case.sizes
        make = LAYERS[method]
        self.first = make(inputs, hidden)
        dropout = method == "MC-dropout"
        self.second = DropoutLinear(hidden, outputs, p=DROPOUT) if dropout else make(hidden, outputs)
        # The last number of a flat draw: learned from 0 with the prior N(0, 1), or what it is known to be.
        known = 0.0 if case.noise_std is None else 2 * math.log(case.noise_std) / NOISE_PRIOR_STD
        self.noise = nn.Parameter(torch.tensor([known]))

    @torch.no_grad()
    def draws(self, n: int) -> Tensor:
        """Draw weights, flat as in ``Problem``: ``[n, P]``, one number more included for the noise."""
        parts = []
        for layer in (self.first, self.second):
            plain = not hasattr(layer, "sample_weights")
            w, b = (p.expand(n, *p.shape) for p in layer.parameters()) if plain else layer.sample_weights(n)
            parts += [w.flatten(1), b]
        return torch.cat((*parts, self.noise.expand(n, 1)), 1)

    @torch.no_grad()
    def bound(self, case: Problem, n: int = 500) -> dict[str, float]:
        """What the package says of minus the bound, by ``n`` draws: its two parts, in nats."""
        draws = self.draws(n)
        nll = -case.log_likelihood(draws[:, : case.size], case.x, case.y).sum(1).mean()
        kl = sum(layer.kl(n) for layer in (self.first, self.second))
        return {"nll": nll.item(), "kl": kl.item()}


def train(networks: Sequence[Network], cases: Sequence[Problem], schedule: Record) -> Tensor:
    """Train networks of one method, each on its own data.

    Returns:
        The negative bound of each in nats, averaged over CURVE equal parts of the training: ``[CURVE, M]``.
    """
    from experiments import truth_bounds  # JAX, which all else of this module does without

    start = {
        name: np.stack([dict(network.named_parameters())[name].detach().numpy() for network in networks])
        for name, _ in networks[0].named_parameters()
    }
    parameters, losses = truth_bounds.train(
        start,
        np.array([case.learns_noise for case in cases]),
        *(
            np.stack([part.numpy() for part in parts])
            for parts in zip(*((c.x, c.y) for c in cases), strict=True)
        ),
        noise_unit=NOISE_PRIOR_STD,
        dropout=DROPOUT if isinstance(networks[0].second, DropoutLinear) else 0.0,
        rates=(schedule["lr"], LR_LOG_VAR),
        steps=schedule["steps"],
        rows=schedule["rows"],
        decay=(DECAY, LAST_RATE),
    )
    with torch.no_grad():
        for m, network in enumerate(networks):
            for name, parameter in network.named_parameters():
                parameter.copy_(torch.from_numpy(parameters[name][m]))
    return torch.from_numpy(losses).unflatten(0, (CURVE, -1)).mean(1)


def last_layer_precision(network: Network, case: Problem) -> Tensor:
    r"""Return the Hessian of the negative log posterior in the last layer, out (hidden + 1) wide.

    With the hidden layer held fixed it is :math:`I + \sum_n h_n h_n^\top \otimes H_n`, where :math:`H_n` is
    that of the loss in the outputs. Each output has its weights and then its bias.
    """
    with torch.no_grad():
        h = F.relu(network.first(case.x))
        h = F.pad(h, (0, 1), value=1.0)  # [N, hidden + 1], the bias last
        theta = network.draws(1)
        if case.classifies:
            p = case.outputs(theta, case.x)[0].softmax(-1)  # [N, out]
            curvature = torch.diag_embed(p) - p[:, :, None] * p[:, None]
        else:
            curvature = (case.noise(theta) ** -2).expand(len(h), 1, 1)
        hessian = torch.einsum("ni,nj,nop->oipj", h, h, curvature)
        hessian = hessian.reshape(h.shape[1] * case.sizes[2], -1).double()
        return hessian + torch.eye(len(hessian))


def laplace(network: Network, case: Problem, n: int) -> Tensor:
    """Draw the last layer from its Gaussian approximation at the network's weights: ``[n, P]``.

    For a regression of known noise and a fixed hidden layer the Gaussian is exact.
    """
    outputs, width = case.sizes[2], case.sizes[1] + 1
    root = torch.linalg.cholesky(last_layer_precision(network, case))
    noise = torch.randn(len(root), n, dtype=torch.float64)
    step = torch.linalg.solve_triangular(root.T, noise, upper=True).T.float().reshape(n, outputs, width)
    moved, end = network.draws(1).repeat(n, 1), case.size - case.learns_noise
    moved[:, end - outputs : end] += step[..., -1]
    moved[:, end - outputs * width : end - outputs] += step[..., :-1].flatten(1)
    return moved


def density(f: Tensor, std: Tensor, y: Tensor) -> Tensor:
    """Mean over the networks of N(y; f, std²): ``f [S, B], std [S], y [B, G] -> [B, G]``."""
    total = torch.zeros_like(y)
    for mean, s in zip(f.split(200), std.split(200), strict=True):
        square = ((y - mean[..., None]) / s[:, None, None]).square()  # [200, B, G]
        total += ((-square / 2).exp() / s[:, None, None]).sum(0)
    return total / (len(f) * math.sqrt(2 * math.pi))


def summary(case: Problem, draws: Tensor, axes: Mapping[str, Tensor] | None = None) -> dict[str, Record]:
    """What is compared: by region the mean prediction and its spread, and of a regression the density of y.

    Args:
        case: the problem.
        draws: of a method or of the reference.
        axes: middles of the cells of y by region, ``[B, CELLS]``; None makes them hold all that is said.
    """
    found = {}
    for region, x in case.regions.items():
        if case.classifies:
            p = torch.cat([case.outputs(part, x).softmax(-1) for part in draws.split(100)])
            found[region] = {"p": p.mean(0), "variance": p.var(0).mean()}
            continue
        f, std = case.outputs(draws, x)[..., 0], case.noise(draws)
        if axes is None:
            low, high = f.amin(0) - 4 * std.max(), f.amax(0) + 4 * std.max()
            y = low[:, None] + (high - low)[:, None] * (torch.arange(CELLS) + 0.5) / CELLS
        else:
            y = axes[region]
        found[region] = {"mean": f.mean(0), "std": f.std(0), "y": y, "density": density(f, std, y)}
    return found


def compare(case: Problem, draws: Tensor, truth: dict[str, Record]) -> Record:
    """How far the predictions of ``draws`` are from those of the reference, region by region."""
    record: Record = {}
    axes = None if case.classifies else {region: entry["y"] for region, entry in truth.items()}
    for region, ours in summary(case, draws, axes).items():
        theirs = truth[region]
        if case.classifies:
            variation = (ours["p"] - theirs["p"]).abs().sum(1).mean() / 2
            same = ours["p"].argmax(1) == theirs["p"].argmax(1)
            ratio = (ours["variance"] / theirs["variance"]).sqrt().log()
            record[region] = {"agreement": same.float().mean().item()}
        else:
            cell = theirs["y"][:, 1] - theirs["y"][:, 0]
            apart = (ours["density"] - theirs["density"]).abs().sum(1) * cell
            outside = 1 - ours["density"].sum(1) * cell  # where the reference has nothing
            variation = (apart + outside).mean() / 2
            ratio = (ours["std"] / theirs["std"]).log()
            shift = ((ours["mean"] - theirs["mean"]) / theirs["std"]).abs().mean()
            record[region] = {"spread_error": ratio.abs().mean().item(), "shift": shift.item()}
        record[region] |= {"total_variation": variation.item(), "spread": ratio.mean().exp().item()}
    return record | judge(case, draws)


def judge(case: Problem, draws: Tensor) -> Record:
    """Log predictive density of the test pairs, in nats, and calibration."""
    x, y = case.test
    log_p = torch.cat([case.log_likelihood(part, x, y) for part in draws.split(100)])
    nll = math.log(len(draws)) - torch.logsumexp(log_p, 0).mean()
    record: Record = {"nll": nll.item() + math.log(case.units[1])}
    if case.classifies:
        p = sum(case.outputs(part, x).softmax(-1).sum(0) for part in draws.split(100)) / len(draws)
        record["calibration_error"] = metrics.expected_calibration_error(p, y).item()
        record["accuracy"] = metrics.accuracy(p, y).item()
    else:
        below = torch.special.ndtr((y[:, 0] - case.outputs(draws, x)[..., 0]) / case.noise(draws)[:, None])
        levels = torch.linspace(0.05, 0.95, 19)
        share = ((2 * below.mean(0) - 1).abs() <= levels[:, None]).float().mean(1)  # in the central interval
        record["calibration_error"] = (share - levels).abs().mean().item()
        record["inside_90"] = share[-2].item()
    return record


def curves(case: Problem, draws: Tensor) -> Record:
    """Mean and standard deviation of the function of a regression at all inputs of the regions."""
    if case.classifies:
        return {}
    f = case.outputs(draws, torch.cat(list(case.regions.values())))[..., 0] * case.units[1]
    return {
        name: [round(v, 3) for v in values.tolist()]
        for name, values in (("mean", f.mean(0)), ("std", f.std(0)))
    }


def reference(name: str) -> Record:
    """The reference's own scores, and those of one half of its chains against the other."""
    case, chains = problem(name), hmc.load(name)
    halves = [half.flatten(0, 1) for half in chains.chunk(2)]
    draws = chains.flatten(0, 1)
    record = {
        "halves": compare(case, halves[0], summary(case, halves[1])),
        **judge(case, draws),
        **curves(case, draws),
    }
    if not case.classifies:  # what a picture needs, in the units of the data
        x = torch.cat(list(case.regions.values())) * case.units[0]
        record |= {"inputs": x.flatten().tolist(), "units": case.units, "noise_std": case.noise_std}
        record["data"] = [
            (case.x * case.units[0]).flatten().tolist(),
            (case.y * case.units[1]).flatten().tolist(),
        ]
    return record


def runs(
    names: tuple[str, ...], layers: str, seeds: int, schedule: Record
) -> dict[str, dict[str, list[Record]]]:
    """Train one kind of layer on the problems of a group: records by problem, method and seed."""
    torch.manual_seed(0)
    each = MEMBERS if layers == "MAP" else 1
    cases = [problem(name) for name in names for _ in range(seeds * each)]
    networks = [Network(case, layers) for case in cases]
    curve = train(networks, cases, schedule)
    found: dict[str, dict[str, list[Record]]] = {}
    for k, name in enumerate(names):
        case, n = problem(name), SAMPLES.get(name, 1000)
        truth = summary(case, hmc.load(name).flatten(0, 1))
        for seed in range(seeds):
            first = (k * seeds + seed) * each
            team = networks[first : first + each]
            with torch.no_grad():
                if layers == "MAP":
                    members = torch.cat([member.draws(1) for member in team])
                    by_method = {"ensemble": members, "last-layer Laplace": laplace(team[0], case, n)}
                else:
                    by_method = {layers: team[0].draws(n)}
                for method, draws in by_method.items():
                    record = compare(case, draws[:, : case.size], truth)
                    record["curve"] = [round(v, 2) for v in curve[:, first].tolist()]
                    if isinstance(team[0].first, BayesianLayer):
                        record["bound"] = team[0].bound(case)
                    if seed == 0:
                        record |= curves(case, draws)
                    found.setdefault(name, {}).setdefault(method, []).append(record)
    return found


def missing(results: Record) -> list[tuple[tuple[str, ...], str]]:
    """Groups and layers whose records the file of results lacks."""
    scores = results.get("scores", {})
    names = {"MAP": METHODS[-1]}
    return [
        (group, layers)
        for group in GROUPS
        for layers in LAYERS
        if any(names.get(layers, layers) not in scores.get(name, {}) for name in group)
    ]


def left(results: Record) -> list[str]:
    """The same in words."""
    return [f"{layers} on {group[0]}" for group, layers in missing(results)]


def main() -> None:
    """Run what is missing in the file of results."""
    args = parser("truth", __doc__).parse_args()
    torch.set_num_threads(1)
    results = read(args.out, SETTINGS)
    for group in GROUPS:
        for name in group:
            results.setdefault("reference", {}).setdefault(name, reference(name))
    for group, layers in missing(results):
        start = time.process_time()
        for name, methods in runs(group, layers, SEEDS, SCHEDULES[group[0]]).items():
            results.setdefault("scores", {}).setdefault(name, {}).update(methods)
            for method, records in methods.items():
                distances = [
                    [r[region]["total_variation"] for r in records] for region in problem(name).regions
                ]
                means = " ".join(f"{sum(d) / len(d):.3f}" for d in distances)
                print(f"{name}, {method}: bound {records[0]['curve'][-1]:.1f}, distances {means}", flush=True)
        write(args.out, results, indent=None)
        print(f"  {time.process_time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
