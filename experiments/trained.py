"""The networks of Part III, trained until they have arrived: ``python -m experiments.trained``.

    python -m experiments.trained                    all that are missing
    python -m experiments.trained --list             what is missing, and about how many minutes it takes
    python -m experiments.trained NAME …             only these

All train on the same 55,000 images. First one seed of every setting that is tried, judged on the 5,000
images kept to choose with; the lowest nll there chooses. These runs are the frontier, too: each method's KL
weights and priors with bound, scores, AUROC on KMNIST and the entropy of turned nines, all of them without
a look at the test images of MNIST. Then the other seeds of what was chosen, runs of twice the length for the
rule of arrival, and the paper's 20-50-500-10. Each run leaves NAME.json and NAME.safetensors, weights in 16
bits, in ``book/checkpoints/part3``; an interrupted one goes on from its last whole epoch. ``--tidy`` removes
the weights that no page loads, once ``experiments.table`` has judged them.

Processor time, by SECONDS an epoch: tried 65 min (4 LeNets, 3 with dropout, 5 KL weights x 2 priors for
mean-field and MNF), LeNets 32 min, dropout 5 min, mean-field and MNF at KL weight 1 and at the one chosen
45 min, twice as long 25 min, the paper's widths 3 seeds 35 min: about three and a half
hours, and by a rough estimate two minutes for each random network to judge it: five hours in all.
"""

import argparse
import copy
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.contract import DRAWS, JUDGED, MEMBERS, SEEDS, arrived, bound, split
from experiments.contract import SETTINGS as CONTRACT
from experiments.methods import scored
from experiments.results import ROOT, as_stored, fingerprint, load
from mnf_lite import data, fit, metrics, models, plots, predict
from mnf_lite.files import circumstances, save_json

CHECKPOINTS = ROOT / "book" / "checkpoints" / "part3"
WIDTHS, PAPER = (20, 50, 50, 10), (20, 50, 500, 10)
EPOCHS = 10
RECIPE: dict[str, Any] = {"batch_size": 128, "decay": 0.4}
# Of the means; fit gives log variances twenty times that.
RATES = {"lenet": 1e-3, "dropout-lenet": 1e-3, "mean-field-lenet": 4e-3, "mnf-lenet": 4e-3}
SECONDS = {"lenet": 8, "dropout-lenet": 9, "mean-field-lenet": 15, "mnf-lenet": 23}  # an epoch on one core
BAYESIAN = ("mean-field-lenet", "mnf-lenet")
KL_WEIGHTS, PRIORS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0), (1.0, "learned")
TRIED: dict[str, list[dict[str, Any]]] = {
    "lenet": [{"weight_decay": w} for w in (0.0, 0.01, 0.1, 0.5)],
    "dropout-lenet": [{"p": p} for p in (0.1, 0.25, 0.5)],
} | {model: [{"kl_weight": w, "prior_std": s} for w in KL_WEIGHTS for s in PRIORS] for model in BAYESIAN}
PAPER_SEEDS = 3
MINUTES = 300
CURVE = {"images": 2_000, "draws": 5, "draws_of_z": 50}  # for the bound after every epoch
STRANGERS, ANGLE = 5_000, 90  # a random half of KMNIST's test images; degrees by which the nines are turned


@dataclass(frozen=True)
class Run:
    """One training: a network with one setting and one seed."""

    model: str
    setting: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    epochs: int = field(default_factory=lambda: EPOCHS)
    widths: tuple[int, ...] = field(default_factory=lambda: WIDTHS)

    @property
    def name(self) -> str:
        """Of its two files."""
        parts = [self.model, *(f"{key}-{value:g}" if isinstance(value, float) else f"{key}-{value}"
                               for key, value in self.setting.items())]  # fmt: skip
        parts += ["-".join(map(str, self.widths))] * (self.widths != WIDTHS)
        parts += [f"{self.epochs}-epochs"] * (self.epochs != EPOCHS)
        return "_".join([*parts, str(self.seed)])

    @property
    def logged(self) -> dict[str, Any]:
        """All on which its result depends."""
        return as_stored(asdict(self) | RECIPE | {"lr": RATES[self.model], "contract": CONTRACT})

    @property
    def minutes(self) -> float:
        """Of one core, about."""
        wide = 1 if self.widths == WIDTHS else 1.6
        return wide * SECONDS[self.model] * self.epochs / 60

    @property
    def log(self) -> Path:
        """The file of its figures; the weights lie beside it."""
        return CHECKPOINTS / f"{self.name}.json"

    @property
    def weights(self) -> Path:
        """The file of its weights."""
        return CHECKPOINTS / f"{self.name}.safetensors"

    def temporary(self, purpose: str) -> Path:
        """A file that a finished run leaves nowhere; with other settings it is another file."""
        print_ = sha256(json.dumps(self.logged, sort_keys=True).encode()).hexdigest()[:8]
        return CHECKPOINTS / f".{self.name}-{print_}-{purpose}.tmp"

    def stands(self) -> bool:
        """Whether its log is there and is of these settings."""
        return self.log.is_file() and load(self.log)["run"] == self.logged


def tried() -> list[Run]:
    """One seed of every setting."""
    return [Run(model, setting) for model, settings in TRIED.items() for setting in settings]


def chosen(model: str, **among: Any) -> dict[str, Any]:
    """The setting with the lowest nll on the 5,000 images, among those with the values given."""
    runs = [run for run in tried() if run.model == model and among.items() <= run.setting.items()]
    return min(runs, key=lambda run: load(run.log)["choose"]["nll"]).setting


def methods(seed: int) -> dict[str, list[Run]]:
    """The networks of every method with one seed; those of an ensemble begin with the LeNet of that seed."""
    lenet = chosen("lenet")
    found = {
        "LeNet": [Run("lenet", lenet, seed)],
        "MC-dropout": [Run("dropout-lenet", chosen("dropout-lenet"), seed)],
        "deep ensemble": [Run("lenet", lenet, seed + SEEDS * member) for member in range(MEMBERS)],
    }
    for name, model in (("mean-field", "mean-field-lenet"), ("MNF", "mnf-lenet")):
        found[name] = [Run(model, chosen(model, kl_weight=1.0), seed)]
        found[f"{name}, KL weight chosen"] = [Run(model, chosen(model), seed)]
    return found


def runs() -> Iterator[Run]:
    """All that can be named by now: what follows a choice is named when the choice can be made."""
    yield from tried()
    yield from paper()
    if all(run.stands() for run in tried()):
        compared = [run for seed in range(SEEDS) for group in methods(seed).values() for run in group]
        yield from (run for run in compared if run not in tried())
        yield from twice_as_long()


def paper() -> list[Run]:
    """The paper's own widths, prior and auxiliary distribution."""
    options: dict[str, dict[str, Any]] = {"mean-field-lenet": {}, "mnf-lenet": {"auxiliary": "published"}}
    return [
        Run(model, {"kl_weight": 1.0, "prior_std": 1.0} | extra, seed, widths=PAPER)
        for seed in range(PAPER_SEEDS)
        for model, extra in options.items()
    ]


def twice_as_long() -> list[Run]:
    """For every posterior that is compared one run that tells whether it has arrived."""
    settings = [(m, s) for m in BAYESIAN for s in (chosen(m, kl_weight=1.0), chosen(m))]
    return [Run(m, s, epochs=2 * EPOCHS) for k, (m, s) in enumerate(settings) if (m, s) not in settings[:k]]


def verdicts() -> dict[str, bool]:
    """Whether each posterior had arrived, by the name of its run."""
    pairs = [(Run(run.model, run.setting, run.seed), run) for run in twice_as_long()]
    return {once.name: arrived(load(once.log)["end"], load(twice.log)["end"]) for once, twice in pairs}


def left() -> list[str]:
    """Names of the runs to make; the first pass through what is tried names more."""
    return list(dict.fromkeys(run.name for run in runs() if not run.stands()))


def fresh(run: Run) -> nn.Module:
    """The network before its training."""
    torch.manual_seed(run.seed)
    options = {k: v for k, v in run.setting.items() if k not in ("kl_weight", "weight_decay")}
    return models.IMAGE_MODELS[run.model](run.widths, **options)


def train(run: Run) -> None:
    """Train one network, judge it and write its two files."""
    model, (training, choose) = fresh(run), split()
    settings = RECIPE | {"lr": RATES[run.model]}
    kl_weight = run.setting.get("kl_weight", 1.0)
    bayesian = run.model in BAYESIAN
    if bayesian:
        settings["kl_weight"] = kl_weight / len(training)
    if weight_decay := run.setting.get("weight_decay", 0.0):
        settings["optimizer"] = partial(torch.optim.AdamW, weight_decay=weight_decay)
    kept = run.temporary("curve")  # of an interrupted run
    curve: list[dict[str, Any]] = load(kept)["curve"] if kept.exists() else []

    def after(history: Any) -> None:
        if bayesian:
            curve.append({"epoch": len(history.loss), **bound(model, training, kl_weight, CURVE)})
            save_json(kept, {"curve": curve})

    history = fit(
        model, training, epochs=run.epochs, seed=run.seed, checkpoint=run.temporary("fit"),
        after_epoch=after, progress=False, **settings,
    )  # fmt: skip
    models.save(copy.deepcopy(model).half(), run.weights)
    stored = models.load(run.weights)  # the figures are those of the weights that the book loads
    log = {
        "run": run.logged,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "seconds": [round(s, 1) for s in history.seconds],
        "curve": curve,
        "end": bound(stored, training, kl_weight, JUDGED) if bayesian else {},
        **looks(stored, choose.tensors, 1 if run.model == "lenet" else DRAWS),
        "weights_sha256": fingerprint(run.weights),
    }
    save_json(run.log, log | circumstances())
    for purpose in ("fit", "curve"):
        run.temporary(purpose).unlink(missing_ok=True)
    print(run.name, log["choose"], {k: v for k, v in log["end"].items() if k == "bound"}, flush=True)


def looks(model: nn.Module, held_out: tuple[torch.Tensor, ...], draws: int) -> dict[str, Any]:
    """What it says of the 5,000 images, of their nines turned, and of as many strangers."""
    images, labels = held_out
    strangers = data.kmnist("test").tensors[0]
    some = torch.randperm(len(strangers), generator=torch.Generator().manual_seed(0))[:STRANGERS]
    nines = plots.rotate(images[labels == 9], [ANGLE])[0]
    answers = []
    for x in (images, strangers[some], nines):
        torch.manual_seed(0)
        answers.append(predict(model, x, n_samples=draws))
    known, strange, turned = map(metrics.predictive_entropy, answers)
    return {
        "choose": {"images": len(labels), **scored(answers[0], labels)},
        "auroc_kmnist": round(metrics.auroc(known, strange).item(), 5),
        "entropy_turned_nines": round(turned.mean().item(), 4),
    }


def tidy() -> None:
    """Remove the weights of settings that were tried and not chosen, and of the runs of arrival and paper."""
    kept = {run.weights for seed in range(SEEDS) for group in methods(seed).values() for run in group}
    for path in set(CHECKPOINTS.glob("*.safetensors")) - kept:
        path.unlink()


def main() -> None:
    """Make the runs that are missing."""
    command = argparse.ArgumentParser(prog="python -m experiments.trained", description=__doc__)
    command.add_argument("names", nargs="*", metavar="NAME", help="default: all that are missing")
    command.add_argument("--list", action="store_true", help="say what is missing, train nothing")
    command.add_argument("--tidy", action="store_true", help="remove weights that no page loads")
    args = command.parse_args()
    torch.set_num_threads(1)
    known = {run.name: run for run in runs()}
    if unknown := sorted(set(args.names) - set(known)):
        sys.exit(f"No run {', '.join(unknown)}. There are: {', '.join(known)}")
    if args.list:
        missing = [known[name] for name in left()]
        print(*(f"{run.name:<60} {run.minutes:4.0f} min" for run in missing), sep="\n")
        print(f"{len(missing)} runs, about {sum(run.minutes for run in missing):.0f} min on one core")
    elif args.tidy:
        tidy()
    elif args.names:
        for run in (known[name] for name in args.names if not known[name].stands()):
            train(run)
    else:
        while names := left():  # after the last that is tried there are more
            train({run.name: run for run in runs()}[names[0]])


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command continues from the last whole epoch.")
