"""The trained networks of the book, trained again.

    python -m experiments.networks                      all of them
    python -m experiments.networks mnf-lenet-mnist      only this one

Each run leaves two files in book/checkpoints: NAME.safetensors, weights in 16 bits, and NAME.json, the log.
An interrupted run continues from its last whole epoch, a pass through all runs from the first that is not
finished. Two passes with different names can run side by side.

The published runs train the networks as published, three epochs. The runs called equal-... give five methods
the same widths and the same training, with several seeds: LeNet, MC-dropout, a deep ensemble (five of the
LeNets), mean-field and MNF.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from experiments.results import ROOT, fingerprint, load
from mnf_lite import data, fit, metrics, models, predict
from mnf_lite.files import circumstances, save_json
from mnf_lite.training import History

CHECKPOINTS = ROOT / "book" / "checkpoints"
DATA: dict[str, Callable[[str], TensorDataset]] = {"mnist": data.mnist, "digits": data.digits}
SAMPLES = 100  # predictions of every test image


@dataclass(frozen=True)
class Run:
    """One training run: which network, on which data, with which settings of `fit`.

    Attributes:
        epochs: at the learning rate of the settings.
        fine_epochs: after those, at a tenth of it.
        milestone: epochs after which the network is also measured.
        widths: of the network; None are its own.
    """

    name: str
    model: str
    data: str
    epochs: int
    fine_epochs: int = 0
    milestone: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] | None = None
    seed: int = 0

    def temporary(self, purpose: str) -> Path:
        """A file of the run that a finished pass leaves nowhere. Other settings, another file."""
        return CHECKPOINTS / f".{self.name}-{sha256(repr(self).encode()).hexdigest()[:8]}-{purpose}.tmp"

    @property
    def logged(self) -> dict[str, Any]:
        """What its log says of how it was trained."""
        numbers = {"seed": self.seed, "epochs": self.epochs, "fine_epochs": self.fine_epochs}
        return {"model": self.model, "data": self.data, **numbers, **self.settings}

    @property
    def effort(self) -> float:
        """Seconds of work that the run may take on one core, to within a factor of two."""
        images = {"mnist": 60_000, "digits": 1_347}.get(self.data, 1_000)
        wide = 2 if self.widths is None and self.model == "lenet" else 1
        return wide * SECONDS[self.model] * (self.epochs + self.fine_epochs) * images / 60_000


# An epoch of MNIST on one core.
SECONDS = {"lenet": 20, "dropout-lenet": 20, "mean-field-lenet": 65, "mnf-lenet": 90}
# As the first edition trained, whose networks these are: one rate of Adam for all, no decay within a call,
# and the posterior of the paper. Such networks have not arrived; see experiments/arrival.py.
FIRST_EDITION: dict[str, Any] = {"lr_log_var": 1e-3, "decay": 0.0}
SEEDS = 3
MEMBERS = 5  # of a deep ensemble; ensemble s has the LeNets s, s + SEEDS, s + 2 SEEDS, ...
WIDTHS = (20, 50, 50, 10)  # of all five methods


def published() -> Iterator[Run]:
    """Three epochs with Adam. The digits are 45 times fewer: more epochs, still less work."""
    yield Run("lenet-mnist", "lenet", "mnist", epochs=3, settings={"batch_size": 64})
    yield Run("mnf-lenet-mnist", "mnf-lenet", "mnist", epochs=3, settings={"batch_size": 64})
    yield Run("lenet-digits", "lenet", "digits", epochs=15, settings={"batch_size": 32})
    yield Run("mnf-lenet-digits", "mnf-lenet", "digits", epochs=15, settings={"batch_size": 32})


def equal() -> Iterator[Run]:
    """The same widths and the same training for all methods; the digits have one seed."""
    for seed in range(SEEDS):
        models_seeds = [(name, seed) for name in ("mnf-lenet", "mean-field-lenet", "dropout-lenet")]
        models_seeds += [("lenet", seed + SEEDS * member) for member in range(MEMBERS)]
        for model, s in models_seeds:
            yield Run(
                f"equal-{model}-mnist-{s}", model, "mnist", epochs=4, fine_epochs=1, seed=s, widths=WIDTHS,
                milestone=3 if model == "mnf-lenet" else None, settings={"batch_size": 64},
            )  # fmt: skip
    for model, s in [(name, 0) for name in SECONDS] + [
        ("lenet", SEEDS * member) for member in range(1, MEMBERS)
    ]:
        yield Run(
            f"equal-{model}-digits-{s}", model, "digits", epochs=12, fine_epochs=3, seed=s, widths=WIDTHS,
            settings={"batch_size": 32},
        )  # fmt: skip


def fresh(model: str, widths: tuple[int, ...] | None = None) -> nn.Module:
    """A network before its training, with the posterior of the first edition."""
    chosen = {} if widths is None else {"widths": widths}
    return models.IMAGE_MODELS[model](**chosen, **models.UNSAID.get(model, {}))


RUNS = [*published(), *equal()]
MINUTES = sum(run.effort for run in RUNS) / 60


def left() -> list[str]:
    """Runs whose files are missing, do not belong together, or come from other settings."""

    def stands(run: Run) -> bool:
        log, weights = CHECKPOINTS / f"{run.name}.json", CHECKPOINTS / f"{run.name}.safetensors"
        if not (log.is_file() and weights.is_file()):
            return False
        kept = load(log)
        same = all(
            kept.get(name, 0) == setting for name, setting in run.logged.items()
        )  # once 0 was left out
        return same and kept["weights_sha256"] == fingerprint(weights)

    return [run.name for run in RUNS if not stands(run)]


def train(run: Run) -> None:
    """Train one network, measure it on the test set and write its two files."""
    torch.manual_seed(run.seed)
    model = fresh(run.model, run.widths)
    training, test = DATA[run.data]("train"), DATA[run.data]("test")

    def epochs(number: int, purpose: str, **settings: Any) -> History:
        settings = FIRST_EDITION | settings
        return fit(
            model, training, epochs=number, seed=run.seed, checkpoint=run.temporary(purpose), **settings
        )

    log: dict[str, Any] = {}
    if run.milestone:
        measured = run.temporary("milestone")  # behind the milestone its weights are gone
        if not measured.exists():
            epochs(run.milestone, "fit", **run.settings)
            save_json(measured, evaluate(model, test))
        scores = load(measured)
        log["milestone"] = {"epochs": run.milestone, "samples": SAMPLES, **scores}
    history = asdict(epochs(run.epochs, "fit", **run.settings))
    if run.fine_epochs:
        fine = asdict(epochs(run.fine_epochs, "fine", **run.settings | {"lr": 1e-4, "lr_log_var": 1e-4}))
        history = {name: history[name] + fine[name] for name in history}

    weights = CHECKPOINTS / f"{run.name}.safetensors"
    models.save(copy.deepcopy(model).half(), weights)
    stored = models.load(weights)  # the figures below are those of the weights that the book loads
    started = time.perf_counter()
    scores = evaluate(stored, test)
    log = {
        **run.logged,
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "training_images": len(training),
        "history": {
            name: [round(value, 5) for value in values] for name, values in history.items() if values
        },
        **log,
        "test": {
            "images": len(test),
            "samples": SAMPLES,
            **scores,
            "seconds": round(time.perf_counter() - started, 1),
        },
        "weights_sha256": fingerprint(weights),
        **circumstances(),
    }
    save_json(CHECKPOINTS / f"{run.name}.json", log)
    seconds = sum(history["seconds"]) / len(history["seconds"])
    print(
        f"{run.name}: test accuracy {scores['accuracy']:.2%}, {seconds:.0f} s an epoch, "
        f"KL {history['kl'][-1]:,.0f} nats"
    )


def evaluate(model: nn.Module, test: TensorDataset) -> dict[str, float]:
    """Scores of the mean over `SAMPLES` predictions, one network for all test images in each."""
    images, labels = test.tensors
    torch.manual_seed(0)
    p = predict(model, images, n_samples=SAMPLES)  # [S, B, C]
    return {
        "accuracy": round(metrics.accuracy(p, labels).item(), 5),
        "nll": round(metrics.negative_log_likelihood(p, labels).item(), 5),
    }


def main() -> None:
    """Train the runs that the command line names."""
    listed = ", ".join(run.name for run in RUNS)
    parser = argparse.ArgumentParser(description="Train the networks of the book again.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {listed}")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - {run.name for run in RUNS}):
        sys.exit(f"No run {', '.join(unknown)}. There are: {listed}")
    chosen = [run for run in RUNS if not names or run.name in names]

    # A run that is finished leaves a mark until the pass is: an interrupted pass goes on behind it.
    total, done = sum(run.effort for run in chosen), 0.0
    for number, run in enumerate(chosen, 1):
        mark = run.temporary("finished")
        if mark.exists():
            print(f"{run.name}: finished before the interruption")
        else:
            left = timedelta(minutes=math.ceil((total - done) / 60))
            print(
                f"{run.name} ({number} of {len(chosen)}), for all the rest about {left} on one core",
                flush=True,
            )
            train(run)
            mark.touch()
        done += run.effort
    for run in chosen:
        for purpose in ("fit", "milestone", "fine", "finished"):
            run.temporary(purpose).unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command continues from the last whole epoch.")
    except (OSError, ValueError) as error:
        sys.exit(f"python -m experiments.networks: {error}")
