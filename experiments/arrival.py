"""How a posterior arrives: the exact bound of LeNets on MNIST against processor time.

    python -m experiments.arrival                     all runs
    python -m experiments.arrival "recipe/one rate"   only this one

Every run trains by ``fit`` and is judged after every epoch by the bound with explicit weights: each draw of
the network judges all images. ``study``: four posteriors, two priors, three seeds. The others have one
setting changed each; ``ivon`` trains the mean-field network by natural gradients (extra "study"). The figures
go to ``book/results/arrival.json`` run by run, and the network that the pages show to ``arrival.safetensors``
beside it.
"""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from experiments.methods import bayesian_layers, scored
from experiments.networks import CHECKPOINTS
from experiments.results import RESULTS, read, write
from mnf_lite import data, fit, metrics, models, plots, predict
from mnf_lite.training import LOG_VAR_RATE

POSTERIORS: dict[str, dict[str, Any]] = {
    "mean-field": {},
    "no flow": {"n_flows_q": 0, "auxiliary": "conjugate"},
    "published": {"auxiliary": "published"},
    "conjugate": {"auxiliary": "conjugate"},
}
PRIORS: dict[str, Any] = {"fixed": 1.0, "learned": "learned"}
RECIPE: dict[str, Any] = {"epochs": 10, "batch_size": 128, "lr": 4e-3, "lr_log_var": 8e-2, "decay": 0.4}
# of means and of log variances
RATES = ((1e-3, 2e-2), (1e-3, 4e-2), (2e-3, 2e-2), (4e-3, 2e-2), (4e-3, 8e-2), (8e-3, 2e-2))
RATES += ((4e-3, 0.16), (8e-3, 8e-2), (8e-3, 0.16), (1.6e-2, 0.16))
SEEDS = 3
WIDTHS = (20, 50, 50, 10)
BINS = (-14, 4, 36)  # of the log variances of all weights: from, to, how many
NETWORK = {"posterior": "conjugate", "prior": "learned", "sampling": "weights", "start": -9.0, "seed": 0}
SETTINGS: dict[str, Any] = {
    "runs": {},
    "seeds": SEEDS,
    "network": NETWORK,
    "recipe": RECIPE,
    "widths": WIDTHS,
    "judged": {"images": 2_000, "draws": 5, "draws_of_z": 50, "nines": 200, "angle": 70},  # after every epoch
    "bins": BINS,
    "final": {"images": 10_000, "draws": 20, "draws_of_z": 500, "test_draws": 50},
}
SHORT = {"epochs": 4}
KEPT = "longer/twice as long"  # whose network is stored beside the figures
# One rate for everything, on and on.
SLOW = {"prior": "fixed", "epochs": 30, "lr": 1e-3, "lr_log_var": 1e-3, "decay": 0.0}


def runs() -> dict[str, dict[str, Any]]:
    """What each run changes in ``RECIPE`` and ``NETWORK``, in the order in which they are made."""
    found: dict[str, dict[str, Any]] = {}
    for lr, lr_log_var in RATES:
        found[f"recipe/{lr:g} and {lr_log_var:g}"] = SHORT | {"lr": lr, "lr_log_var": lr_log_var}
    for name, change in {
        "one rate": {"lr": 1e-3, "lr_log_var": 1e-3},
        "start at -6": {"start": -6.0},
        "start at -12": {"start": -12.0},
        "batches of 32": {"batch_size": 32, "lr": 2e-3, "lr_log_var": 4e-2},
        "batches of 512": {"batch_size": 512, "lr": 8e-3, "lr_log_var": 0.16},
        "decay over 0.8": {"decay": 0.8},
        "no decay": {"decay": 0.0},
        "warm-up": {"kl_warmup_epochs": 1},
    }.items():
        found[f"recipe/{name}"] = SHORT | change
    for seed in range(SEEDS):
        for prior in ("learned", "fixed"):
            for posterior in ("conjugate", "mean-field", "no flow", "published"):
                found[f"study/{posterior}, {prior}, {seed}"] = {
                    "posterior": posterior,
                    "prior": prior,
                    "seed": seed,
                }
    for beta2 in (0.999, 0.99):
        for lr in (0.03, 0.1, 0.3):
            found[f"ivon/{beta2:g} and {lr:g}"] = SHORT | {"ivon": {"beta2": beta2, "lr": lr}}
    defaults = {"prior": "fixed", "lr": 1e-3, "lr_log_var": LOG_VAR_RATE * 1e-3}  # of layers and of fit
    found |= {f"defaults/{seed}": defaults | {"seed": seed} for seed in range(SEEDS)}
    for seed in range(SEEDS):  # of the first edition, five epochs old
        found[f"first edition/{seed}"] = {"stored": f"equal-mnf-lenet-mnist-{seed}"}
    found[KEPT] = {"epochs": 2 * RECIPE["epochs"]}
    for posterior in ("conjugate", "mean-field"):
        for prior in PRIORS:
            longer = {"posterior": posterior, "prior": prior, "epochs": 4 * RECIPE["epochs"]}
            found[f"longer/{posterior}, {prior}"] = longer
    found["longer/one rate"] = SLOW
    found["kl/0.1"] = {"kl_weight": 0.1}
    found |= {f"sampling/{way}": {"sampling": way} for way in ("outputs", "shared")}
    found["sampling/shared, as much time"] = {"sampling": "shared", "epochs": 15}
    found |= {f"flows/{n}": {"n_flows_q": n} for n in (4, 8)}
    return found


SETTINGS["runs"] = runs()
MINUTES = round(sum((RECIPE | run)["epochs"] for run in runs().values()) * 0.6)


def left(results: dict[str, Any]) -> list[str]:
    """The runs that are missing in the file of results."""
    return [name for name in runs() if name not in results.get("runs", {})]


def network(run: dict[str, Any]) -> nn.Module:
    """The network of a run, at its start."""
    setting = NETWORK | run
    torch.manual_seed(setting["seed"])
    options = {"prior_std": PRIORS[setting["prior"]], "sampling": setting["sampling"]}
    if setting["posterior"] == "mean-field":
        model: nn.Module = models.MeanFieldLeNet(WIDTHS, **options)
    else:
        options |= POSTERIORS[setting["posterior"]]
        options |= {"n_flows_q": setting["n_flows_q"]} if "n_flows_q" in setting else {}
        model = models.MNFLeNet(WIDTHS, **options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("weight_log_var", "bias_log_var")):
                parameter.fill_(setting["start"])
    return model


@torch.no_grad()
def judge(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, judged: dict[str, int]
) -> dict[str, Any]:
    """The exact bound in nats an image and its parts, each network drawn judging all images alike."""
    torch.manual_seed(0)
    p = predict(model, images, n_samples=judged["draws"])
    right = p[:, torch.arange(len(labels)), labels].clamp_min(1e-30)
    nll = -right.log().mean().item()
    each = [layer.kl_parts(judged["draws_of_z"]) for layer in bayesian_layers(model).values()]
    parts = {name: sum(part[name].item() for part in each) for name in each[0]}
    kl = parts["weights"] + parts["bias"] + parts["log_q"] - parts["log_r"]
    rounded = {name: round(part, 1) for name, part in parts.items()}
    return {"bound": round(nll + kl / 60_000, 5), "nll": round(nll, 5), "kl": round(kl, 1), **rounded}


def measure(name: str, checkpoint: Path) -> dict[str, Any]:
    """Train one run and judge it."""
    run, judged = runs()[name], SETTINGS["judged"]
    training = data.mnist("train")
    images, labels = training.tensors
    some = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    first, many = some[: judged["images"]], some[: SETTINGS["final"]["images"]]
    test = data.mnist("test").tensors
    nines = plots.rotate(test[0][test[1] == 9][: judged["nines"]], [judged["angle"]])[0]
    curve: list[dict[str, Any]] = []
    cpu, began = 0.0, time.process_time()

    def after(model: nn.Module) -> None:
        nonlocal cpu, began
        cpu += time.process_time() - began
        found = judge(model, images[first], labels[first], judged)
        curve.append({"seconds": round(cpu, 1), **found, **look(model, nines)})
        print(name, len(curve), curve[-1], flush=True)
        began = time.process_time()

    if "stored" in run:
        model = models.load(CHECKPOINTS / f"{run['stored']}.safetensors")
        after(model)
    elif "ivon" in run:
        model = natural_gradient(training, RECIPE | run, after)
    else:
        model = network(run)
        settings = {k: v for k, v in (RECIPE | run).items() if k not in (*NETWORK, "n_flows_q")}
        if "kl_weight" in settings:
            settings["kl_weight"] /= len(images)
        seed = (NETWORK | run)["seed"]
        fit(model, training, seed=seed, after_epoch=lambda _: after(model), progress=False, **settings)
    torch.manual_seed(0)
    p = predict(model, test[0], n_samples=SETTINGS["final"]["test_draws"])
    models.save(model, checkpoint)
    return {
        "curve": curve,
        "end": judge(model, images[many], labels[many], SETTINGS["final"]),
        "test": scored(p, test[1]),
        "std": widths(model),
    }


def natural_gradient(
    training: TensorDataset, run: dict[str, Any], after: Callable[[nn.Module], None]
) -> models.MeanFieldLeNet:
    """The mean-field posterior of IVON (Shen et al. 2024), whose step is that of the natural gradient.

    Its Gaussian has the variances 1 / (N (h + 1/N)), h its running curvature and 1/N the prior N(0, 1)'s.
    """
    ivon = importlib.import_module("ivon")  # of the extra "study"
    n, batch, epochs = len(training), run["batch_size"], run["epochs"]
    torch.manual_seed(0)
    model = models.LeNet(WIDTHS)
    steps = ivon.IVON(model.parameters(), ess=n, weight_decay=1 / n, **run["ivon"])
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(steps, epochs * math.ceil(n / batch))
    images, labels = training.tensors
    for _ in range(epochs):
        for rows in torch.randperm(n).split(batch):
            with steps.sampled_params(train=True):
                steps.zero_grad()
                F.cross_entropy(model(images[rows]), labels[rows]).backward()
            steps.step()
            rates.step()
        after(gaussian(model, steps))
    return gaussian(model, steps)


@torch.no_grad()
def gaussian(model: nn.Module, steps: Any) -> models.MeanFieldLeNet:
    """The posterior of IVON as a network of the package."""
    twin = models.MeanFieldLeNet(WIDTHS)
    (group,) = steps.param_groups
    variances = 1 / (group["ess"] * (group["hess"] + group["weight_decay"]))
    sizes = [p.numel() for p in model.parameters()]
    named = zip(model.named_parameters(), variances.split(sizes), strict=True)
    for (name, mean), variance in named:
        twin.get_parameter(f"{name}_mean").copy_(mean)
        twin.get_parameter(f"{name}_log_var").copy_(variance.log().view_as(mean))
    return twin


@torch.no_grad()
def look(model: nn.Module, turned: torch.Tensor) -> dict[str, Any]:
    """What a reader sees of a posterior: its widths, and what it says of turned nines."""
    log_var = torch.cat([layer.weight_log_var.flatten() for layer in bayesian_layers(model).values()])
    low, high, n = BINS
    torch.manual_seed(0)
    p = predict(model, turned, n_samples=20)
    return {
        "widths": torch.histc(log_var.clamp(low, high), n, low, high).int().tolist(),
        "entropy": round(metrics.predictive_entropy(p).mean().item(), 4),
        "answers": [round(share, 4) for share in p.mean((0, 1)).tolist()],
    }


def keep(path: Path, out: Path) -> None:
    """Store the network that the pages show beside the results, in 16 bits."""
    models.save(models.load(path).half(), out.with_suffix(".safetensors"))


def widths(model: nn.Module) -> dict[str, Any]:
    """Each layer's median deviation, its prior, and the share of weights that went back to the prior."""
    found = {}
    for name, layer in bayesian_layers(model).items():
        std, prior = (layer.weight_log_var / 2).exp(), float(layer.prior_std)
        returned = (std > 0.9 * prior) & (layer.weight_mean.abs() < 0.1 * prior)
        found[name] = {
            "median": round(std.median().item(), 4),
            "prior": round(prior, 4),
            "returned": round(returned.double().mean().item(), 4),
        }
    return found


def main() -> None:
    """Make the runs that are missing in the file of results."""
    command = argparse.ArgumentParser(prog="python -m experiments.arrival", description=__doc__)
    command.add_argument("names", nargs="*", metavar="RUN", help="default: all that are missing")
    command.add_argument("--out", type=Path, default=RESULTS / "arrival.json")
    command.add_argument("--networks", type=Path, default=Path(), help="a folder for the trained networks")
    args = command.parse_args()
    if unknown := sorted(set(args.names) - set(runs())):
        sys.exit(f"No run {', '.join(unknown)}. There are: {', '.join(runs())}")
    torch.set_num_threads(1)
    results = read(args.out, SETTINGS)
    found = results.setdefault("runs", {})
    for name in args.names or left(results):
        if name not in found:
            network_file = args.networks / f"{name.replace('/', '-')}.safetensors"
            found[name] = measure(name, network_file)
            write(args.out, results)
            if name == KEPT:
                keep(network_file, args.out)


if __name__ == "__main__":
    main()
