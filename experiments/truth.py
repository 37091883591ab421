"""Every method of the book against the true posterior: ``python -m experiments.truth``.

On each problem of ``experiments.problems`` every method has the same network, prior and likelihood, and is
trained until its bound has stopped falling; then its predictions are compared with those of the draws that
``experiments.hmc`` has stored. All seeds of a method are trained side by side as one vectorised model, each
exactly as it would be alone, and so are the three regressions. Between the two halves of the reference's
chains the same scores say how much of a distance is noise.

The result goes to ``book/results/truth.json``; an interrupted run goes on where it stopped.
"""

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from experiments import hmc
from experiments.problems import NOISE_PRIOR_STD, Problem, problem
from experiments.results import parser, read, write
from mnf_lite import metrics
from mnf_lite.layers import MeanFieldLinear, MNFLinear, kl_divergence
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
LR_LOG_VAR, DECAY, LAST_RATE = 2e-2, 0.4, 0.02
REGRESSION: Record = {"steps": 4000, "rows": 100, "lr": 1e-2}
SCHEDULES: Record = {"moons": {"steps": 3000, "rows": 200, "lr": 1e-2}}
SCHEDULES |= {"digits": {"steps": 2000, "rows": 250, "lr": 5e-3}}
SCHEDULES |= dict.fromkeys(GROUPS[0], REGRESSION)
SAMPLES = {"digits": 500}  # of a method; of the other problems as many as the reference has
CURVE, CELLS = 50, 200  # points of the curve of training; cells of the axis on which densities are compared
SETTINGS: Record = {"seeds": SEEDS, "members": MEMBERS, "dropout": DROPOUT, "lr_log_var": LR_LOG_VAR}
SETTINGS |= {"decay": DECAY, "schedules": SCHEDULES, "samples": SAMPLES, "cells": CELLS}
SETTINGS |= {"methods": METHODS, "reference": hmc.SETTINGS}
MINUTES = 30


class Network(nn.Module):
    """One network of a problem by one method; called with a batch it gives its negative bound, per example.

    Args:
        case: the problem.
        method: one of LAYERS.
    """

    def __init__(self, case: Problem, method: str) -> None:
        super().__init__()
        inputs, hidden, outputs = case.sizes
        make = LAYERS[method]
        self.first = make(inputs, hidden)
        self.second = (
            DropoutLinear(hidden, outputs, p=DROPOUT) if method == "MC-dropout" else make(hidden, outputs)
        )
        self.examples, self.classifies = len(case.x), case.classifies
        # The last number of a flat draw: learned from 0 with the prior N(0, 1), or what it is known to be.
        known = 0.0 if case.noise_std is None else 2 * math.log(case.noise_std) / NOISE_PRIOR_STD
        self.noise = nn.Parameter(torch.tensor([known]))
        self.register_buffer("learned", torch.tensor(float(case.learns_noise)))

    def penalty(self) -> Tensor:
        """The bound on the KL divergence; minus the log prior where a weight is but a number; in nats."""
        weights = [
            p
            for layer in (self.first, self.second)
            if isinstance(layer, nn.Linear)
            for p in layer.parameters()
        ]
        squares = [weight.square().sum() for weight in weights]
        return kl_divergence(self) + (sum(squares) + self.learned * self.noise.square().sum()) / 2

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out = self.second(F.relu(self.first(x)))
        if self.classifies:
            nll = F.cross_entropy(out, y)
        else:
            # a known noise has no gradient
            log_var = NOISE_PRIOR_STD * torch.lerp(self.noise.detach(), self.noise, self.learned)
            nll = ((y - out).square() * (-log_var).exp() + log_var + math.log(2 * math.pi)).mean() / 2
        return nll + self.penalty() / self.examples

    @torch.no_grad()
    def draws(self, n: int) -> Tensor:
        """Draw weights, flat as in ``Problem``: ``[n, P]``, one more number included for the noise."""
        parts = []
        for layer in (self.first, self.second):
            plain = not hasattr(layer, "sample_weights")
            w, b = (p.expand(n, *p.shape) for p in layer.parameters()) if plain else layer.sample_weights(n)
            parts += [w.flatten(1), b]
        return torch.cat((*parts, self.noise.expand(n, 1)), 1)


def train(
    networks: Sequence[Network], cases: Sequence[Problem], *, steps: int, rows: int, lr: float
) -> Tensor:
    """Train networks of one method, each on its own data, by Adam as ``fit`` would.

    Returns:
        The negative bound of each in nats, averaged over CURVE equal parts of the training: ``[CURVE, M]``.
    """
    x, y = torch.stack([case.x for case in cases]), torch.stack([case.y for case in cases])
    parameters, buffers = stack_module_state(list(networks))
    of_variances = [p for name, p in parameters.items() if name.endswith("log_var")]
    of_rest = [p for name, p in parameters.items() if not name.endswith("log_var")]
    groups = [{"params": of_rest, "lr": lr}, {"params": of_variances, "lr": LR_LOG_VAR}]
    adam = torch.optim.Adam([group for group in groups if group["params"]], fused=True)

    def rate(step: int) -> float:
        """Constant, then linear down to LAST_RATE."""
        return min(1.0, LAST_RATE + (1 - LAST_RATE) * (1 - step / steps) / DECAY)

    schedule = torch.optim.lr_scheduler.LambdaLR(adam, rate)
    bound = vmap(lambda p, b, x, y: functional_call(networks[0], (p, b), (x, y)), randomness="different")
    examples, losses = x.shape[1], []
    for _ in range(steps):
        picked = torch.randint(examples, (rows,))
        loss = bound(parameters, buffers, x[:, picked], y[:, picked])
        adam.zero_grad()
        loss.sum().backward()
        adam.step()
        schedule.step()
        losses.append(loss.detach() * examples)
    with torch.no_grad():
        for m, network in enumerate(networks):
            for name, parameter in network.named_parameters():
                parameter.copy_(parameters[name][m])
    return torch.stack(losses).unflatten(0, (CURVE, -1)).mean(1)


def laplace(network: Network, case: Problem, n: int) -> Tensor:
    r"""Draw the last layer from its Gaussian approximation at the network's weights: ``[n, P]``.

    With the hidden layer held fixed the negative log posterior of the last layer has the Hessian
    :math:`I + \sum_n h_n h_n^\top \otimes H_n`, where :math:`H_n` is that of the loss in the outputs. For a
    regression of known noise the Gaussian is exact.
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
        outputs, width = case.sizes[2], h.shape[1]
        hessian = torch.einsum("ni,nj,nop->oipj", h, h, curvature).reshape(outputs * width, -1)
        root = torch.linalg.cholesky(hessian.double() + torch.eye(len(hessian)))
        noise = torch.randn(len(hessian), n, dtype=torch.float64)
        step = torch.linalg.solve_triangular(root.T, noise, upper=True).T.float().reshape(n, outputs, width)
        moved, end = theta.repeat(n, 1), case.size - case.learns_noise
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


def axis(f: Tensor, std: Tensor) -> Tensor:
    """The middles of CELLS cells for each input that hold all that two methods say of y: ``[B, CELLS]``."""
    low, high = f.amin(0) - 4 * std.max(), f.amax(0) + 4 * std.max()
    return low[:, None] + (high - low)[:, None] * (torch.arange(CELLS) + 0.5) / CELLS


def compare(case: Problem, draws: Tensor, truth: Tensor) -> Record:
    """How far the predictions of ``draws`` are from those of the true posterior, region by region."""
    record: Record = {}
    for region, x in case.regions.items():
        ours, theirs = case.outputs(draws, x), case.outputs(truth, x)
        if case.classifies:
            ours, theirs = ours.softmax(-1), theirs.softmax(-1)
            p, q = ours.mean(0), theirs.mean(0)
            variation = (p - q).abs().sum(1).mean() / 2
            spread = (ours.var(0).mean() / theirs.var(0).mean()).sqrt().log()
            record[region] = {"agreement": (p.argmax(1) == q.argmax(1)).float().mean().item()}
        else:
            ours, theirs = ours[..., 0], theirs[..., 0]
            std, true_std = case.noise(draws), case.noise(truth)
            y = axis(torch.cat((ours, theirs)), torch.cat((std, true_std)))
            cell = y[:, 1] - y[:, 0]
            apart = (density(ours, std, y) - density(theirs, true_std, y)).abs().sum(1)
            variation = (apart * cell).mean() / 2
            ratio = (ours.std(0) / theirs.std(0)).log()
            spread = ratio.mean()
            shift = (ours.mean(0) - theirs.mean(0)) / theirs.std(0)
            record[region] = {"spread_error": ratio.abs().mean().item(), "shift": shift.abs().mean().item()}
        record[region] |= {"total_variation": variation.item(), "spread": spread.exp().item()}
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
    return {"halves": compare(case, *halves), **judge(case, draws), **curves(case, draws)}


def runs(
    names: tuple[str, ...], layers: str, seeds: int, schedule: Record
) -> dict[str, dict[str, list[Record]]]:
    """Train one kind of layer on the problems of a group: records by problem, method and seed."""
    torch.manual_seed(0)
    each = MEMBERS if layers == "MAP" else 1
    cases = [problem(name) for name in names for _ in range(seeds * each)]
    networks = [Network(case, layers) for case in cases]
    curve = train(networks, cases, **schedule)
    found: dict[str, dict[str, list[Record]]] = {}
    for k, name in enumerate(names):
        case, truth = problem(name), hmc.load(name).flatten(0, 1)
        n = SAMPLES.get(name, len(truth))
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
