"""Regression with error bars, four methods side by side: ``python -m experiments.regression``.

The cubic of Hernandez-Lobato and Adams (2015) on several draws of the data, with the noise known to all, and
scikit-learn's diabetes data on ten splits, with the noise learned. One hidden layer of equal width for all;
the networks of all data sets are trained at once. On the real data the number of epochs is chosen for every
method and split by the same held-out part of the training set.

The result goes to ``book/results/regression.json``, from which the chapter on the dense layer draws its
figures: execute it again after running this. An interrupted run goes on where it stopped.
"""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sklearn
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import BayesianRidge
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from experiments.results import parser, read, write
from mnf_lite import predict
from mnf_lite.layers import MeanFieldLinear, kl_divergence
from mnf_lite.likelihoods import Gaussian
from mnf_lite.models import MNFMLP, DropoutLinear

METHODS = ("mean-field", "MC-dropout", "ensemble", "MNF")
HIDDEN, FLOW, MEMBERS, DROPOUT, LR = 50, (25,), 5, 0.1, 0.01
SAMPLES = 200  # of every prediction that is scored
POINTS, NOISE, DATA_SETS = 20, 3.0, 5
STEPS, CUBIC_WARMUP = (10, 30, 100, 300, 1000, 2000), 600  # each step sees all points
GRID = torch.linspace(-6, 6, 121)
MINUTES = 10
SPLITS, EPOCHS, WARMUP, BATCH, HELD_OUT, WINDOW = 10, 60, 20, 32, 0.2, 5

Record = dict[str, Any]


def rounded(values: Tensor | np.ndarray) -> list[float]:
    """The values as a list with three decimals, which is enough to draw them."""
    return np.round(np.asarray(values, dtype=float), 3).tolist()  # type: ignore[no-any-return]


def cubic(seed: int) -> tuple[Tensor, Tensor]:
    """Inputs uniform in [-4, 4] and their cubes with noise: ``[20, 1]`` each."""
    generator = torch.Generator().manual_seed(seed)
    x = 8 * torch.rand(POINTS, 1, generator=generator) - 4
    return x, x**3 + NOISE * torch.randn(POINTS, 1, generator=generator)


SETTINGS: Record = {"hidden": HIDDEN, "hidden of the flows": FLOW, "members": MEMBERS, "dropout": DROPOUT}
SETTINGS |= {"lr": LR, "samples": SAMPLES, "steps": STEPS, "warm-up of the cubic": CUBIC_WARMUP}
SETTINGS |= {"splits": SPLITS, "epochs": EPOCHS, "warm-up": WARMUP, "batch": BATCH, "seed": 0}
SETTINGS |= {"torch": torch.__version__, "scikit-learn": sklearn.__version__, "grid": rounded(GRID)}
SETTINGS |= {"points": POINTS, "noise": NOISE, "data sets": DATA_SETS}


class Regressor(nn.Sequential):
    """Layers whose output is the mean of a Gaussian, with a noise of its own as `MNFMLP` has it."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(*modules)
        self.noise_log_var = nn.Parameter(torch.zeros(1))

    @property
    def likelihood(self) -> Gaussian:
        """What ``predict`` reads: means of Gaussians."""
        return Gaussian.of(self.noise_log_var)


class Objective(nn.Module):
    """The two parts of the bound: negative log-likelihood, mean over the batch, and KL, in nats."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        log_var: Tensor = self.model.noise_log_var  # type: ignore[assignment]
        square = (y - self.model(x)).square() * (-log_var).exp()
        return (math.log(2 * math.pi) + log_var + square).mean() / 2, kl_divergence(self.model)


def network(method: str, inputs: int, noise_std: float) -> nn.Module:
    """A fresh network of one method: ``inputs`` -> HIDDEN -> 1."""
    model: nn.Module
    if method == "MNF":
        model = MNFMLP((inputs, HIDDEN, 1), hidden=FLOW, auxiliary="published")
    elif method == "mean-field":
        model = Regressor(MeanFieldLinear(inputs, HIDDEN), nn.ReLU(), MeanFieldLinear(HIDDEN, 1))
    elif method == "MC-dropout":
        model = Regressor(nn.Linear(inputs, HIDDEN), nn.ReLU(), DropoutLinear(HIDDEN, 1, p=DROPOUT))
    else:
        model = Regressor(nn.Linear(inputs, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))
    nn.init.constant_(model.noise_log_var, 2 * math.log(noise_std))  # type: ignore[arg-type]
    return model


def train(
    models: Sequence[nn.Module],
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    batch: int,
    warmup: Tensor,
    learn_noise: bool,
    after: Callable[[int], None],
) -> dict[str, np.ndarray]:
    """Train M networks of one kind at once, each by Adam on the bound of its own data.

    Args:
        models: the networks, which hold their parameters whenever ``after`` is called.
        x: inputs of each, ``[M, N, in]``.
        y: targets, ``[M, N, 1]``.
        epochs: the same for all.
        batch: examples of a step, the same for all.
        warmup: epochs over which the weight of the KL rises to 1/N, ``[M]``.
        learn_noise: whether the noise is learned.
        after: called with the number of every epoch that is done.

    Returns:
        ``nll`` and ``kl``, nats, per epoch and network ``[epochs, M]``.
    """
    objectives = [Objective(model) for model in models]
    parameters, buffers = stack_module_state(objectives)
    parameters["model.noise_log_var"].requires_grad_(learn_noise)
    adam = torch.optim.Adam([p for p in parameters.values() if p.requires_grad], lr=LR, fused=True)
    size, per_epoch = x.shape[1], x.shape[1] // batch
    terms = vmap(lambda p, b, x, y: functional_call(objectives[0], (p, b), (x, y)), randomness="different")
    history: dict[str, list[list[float]]] = {"nll": [], "kl": []}
    for epoch in range(epochs):
        order, sums = torch.randperm(size), torch.zeros(2, len(models))
        for k in range(per_epoch):
            rows = order[k * batch : (k + 1) * batch]
            nll, kl = terms(parameters, buffers, x[:, rows], y[:, rows])
            weight = ((epoch + k / per_epoch) / warmup).clamp(max=1) / size  # [M]
            adam.zero_grad()
            (nll + weight * kl).sum().backward()
            adam.step()
            sums += torch.stack((nll, kl)).detach()
        for name, figures in zip(history, sums / per_epoch, strict=True):
            history[name].append(figures.tolist())
        with torch.no_grad():
            for m, model in enumerate(models):
                for name, parameter in model.named_parameters():
                    parameter.copy_(parameters[f"model.{name}"][m])
        after(epoch + 1)
    return {name: np.array(figures) for name, figures in history.items()}


def cubic_runs(method: str) -> Record:
    """Mean and spread of the drawn functions on GRID after STEPS, by data set, with and without warm-up."""
    torch.manual_seed(0)
    size = MEMBERS if method == "ensemble" else 1
    warmups = (CUBIC_WARMUP, 0) if method in ("mean-field", "MNF") else (0,)
    seeds = [(seed, warmup) for warmup in warmups for seed in range(DATA_SETS)]
    pairs = [cubic(seed) for seed, _ in seeds for _ in range(size)]
    scales = [(x.std(), y.std()) for x, y in pairs]
    x, y = (
        torch.stack([pair[k] / scale[k] for pair, scale in zip(pairs, scales, strict=True)]) for k in (0, 1)
    )
    models = [network(method, 1, NOISE / scale_y.item()) for _, scale_y in scales]
    record: Record = {f"{seed}, {'warm-up' if warmup else 'none'}": {} for seed, warmup in seeds}

    def look(steps: int) -> None:
        if steps not in STEPS:
            return
        for k, name in enumerate(record):
            scale_x, scale_y = scales[k * size]
            members = models[k * size : (k + 1) * size]
            f = predict(members, GRID[:, None] / scale_x, size if size > 1 else SAMPLES)[..., 0] * scale_y
            record[name][str(steps)] = {"mean": rounded(f.mean(0)), "std": rounded(f.std(0, correction=0))}

    warmup = torch.tensor([max(w, 1e-9) for _, w in seeds for _ in range(size)])
    options: Record = {"epochs": STEPS[-1], "batch": POINTS, "warmup": warmup, "learn_noise": False}
    history = train(models, x, y, after=look, **options)
    for k, name in enumerate(record):
        for term, values in history.items():
            record[name][term] = rounded(values[:, k * size].reshape(-1, 20).mean(1))  # of every 20 steps
    return record


def diabetes(split: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], float]:
    """Training and test pairs of one split, 90:10, scaled by the training part; and the unit of y."""
    x, y = (torch.tensor(a, dtype=torch.float32) for a in load_diabetes(return_X_y=True, scaled=False))
    rows = torch.randperm(len(x), generator=torch.Generator().manual_seed(split))
    test, rest = rows[: len(x) // 10], rows[len(x) // 10 :]
    unit = y[rest].std()
    x, y = (x - x[rest].mean(0)) / x[rest].std(0), ((y - y[rest].mean()) / unit)[:, None]
    return (x[rest], y[rest]), (x[test], y[test]), unit.item()


def score(f: Tensor, std: Tensor, y: Tensor, unit: float) -> Record:
    """Log-likelihood of an example under the mixture of all draws ``f [S, B, 1]``; RMSE of their mean."""
    log_p: Tensor = torch.distributions.Normal(f, std).log_prob(y)[..., 0]  # type: ignore[no-untyped-call]
    mixed = torch.logsumexp(log_p, 0) - math.log(len(f)) - math.log(unit)
    rmse = (f.mean(0) - y).square().mean().sqrt() * unit
    return {"log_likelihood": mixed.mean().item(), "rmse": rmse.item()}


def judge(members: Sequence[nn.Module], x: Tensor, y: Tensor, unit: float, samples: int) -> Record:
    """Score of a network, or of an ensemble whose members have each a noise of their own."""
    f = predict(members, x, len(members) if len(members) > 1 else samples)
    std = torch.stack([(m.noise_log_var.detach() / 2).exp() for m in members])[:, None]  # type: ignore[operator]
    return score(f, std, y, unit)


def diabetes_runs(method: str) -> Record:
    """Scores on the test part of every split, in the units of y."""
    parts = [diabetes(split) for split in range(SPLITS)]
    if method == "linear":
        record: Record = {"log_likelihood": [], "rmse": []}
        for (x, y), (x_test, y_test), unit in parts:
            mean, std = (
                BayesianRidge().fit(x.numpy(), y[:, 0].numpy()).predict(x_test.numpy(), return_std=True)
            )
            figures = score(torch.tensor(mean)[None, :, None], torch.tensor(std)[:, None], y_test, unit)
            for name, figure in figures.items():
                record[name].append(figure)
        return record
    torch.manual_seed(0)
    size = MEMBERS if method == "ensemble" else 1
    held = int(HELD_OUT * len(parts[0][0][0]))
    validation: list[list[float]] = []
    scores: list[Record] = [{} for _ in parts]

    def run(start: int, after: Callable[[list[nn.Module], int], None]) -> None:
        x, y = (torch.stack([p[0][k][start:] for p in parts for _ in range(size)]) for k in (0, 1))
        models = [network(method, x.shape[-1], 0.7) for _ in range(len(x))]
        options: Record = {"epochs": EPOCHS, "batch": BATCH, "learn_noise": True}
        options["warmup"] = torch.full((len(x),), float(WARMUP))
        train(models, x, y, after=lambda epoch: after(models, epoch), **options)

    def members(models: list[nn.Module], k: int) -> list[nn.Module]:
        return models[k * size : (k + 1) * size]

    def validate(models: list[nn.Module], _: int) -> None:
        found = [
            judge(members(models, k), x[:held], y[:held], unit, samples=20)
            for k, ((x, y), _, unit) in enumerate(parts)
        ]
        validation.append([figures["log_likelihood"] for figures in found])

    def test(models: list[nn.Module], epoch: int) -> None:
        for k, (_, (x, y), unit) in enumerate(parts):
            if best[k] == epoch:
                scores[k] = judge(members(models, k), x, y, unit, SAMPLES) | {"epochs": epoch}

    run(held, validate)
    window = np.ones(WINDOW) / WINDOW
    smooth = [np.convolve(curve, window, mode="valid") for curve in np.array(validation).T]
    best = [int(curve.argmax()) + WINDOW for curve in smooth]
    run(0, test)
    return {name: [figures[name] for figures in scores] for name in scores[0]}


JOBS: dict[tuple[str, str], Callable[[str], Record]] = {("cubic", method): cubic_runs for method in METHODS}
JOBS |= {("diabetes", method): diabetes_runs for method in ("linear", *METHODS)}


def missing(results: Record) -> list[tuple[str, str]]:
    """Task and method of the jobs that the file of results lacks."""
    return [(task, method) for task, method in JOBS if method not in results.get(task, {})]


def left(results: Record) -> list[str]:
    """The same in words."""
    return [f"{task} by {method}" for task, method in missing(results)]


def main() -> None:
    """Run what is missing in the file of results."""
    args = parser("regression", __doc__).parse_args()
    torch.set_num_threads(1)
    results = read(args.out, SETTINGS)
    # Kept beside the figures: another processor draws them with other last digits.
    drawn = [[values.flatten().tolist() for values in cubic(seed)] for seed in range(DATA_SETS)]
    results.setdefault("data", drawn)
    for task, method in missing(results):
        start = time.thread_time()
        results.setdefault(task, {})[method] = JOBS[task, method](method)
        write(args.out, results, indent=None)
        print(f"{task}, {method}: {time.thread_time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
