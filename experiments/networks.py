"""The trained networks of the book: `make checkpoints` trains every one of them again.

    python -m experiments.networks                         all of them
    python -m experiments.networks      mnf-lenet-mnist          only this one

Each run leaves two files in book/checkpoints: NAME.safetensors, weights in 16 bits, and NAME.json, the log.
An interrupted run continues from its last whole epoch, a pass through all runs from the first that is not
finished. Two passes with different names can run side by side.

The published runs train the networks as published, three epochs. The runs called equal-... give five methods
the same widths and the same training, with several seeds: LeNet, MC-dropout, a deep ensemble (five of the
LeNets), mean-field and MNF. Where a network of the README was trained, its pictures and figures follow.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
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
from matplotlib import pyplot as plt
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from mnf_lite import data, fit, metrics, models, plots, predict
from mnf_lite.files import circumstances, replacing, save_json
from mnf_lite.training import History

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "book" / "checkpoints"
RESULTS = ROOT / "book" / "results"
PICTURES = ROOT / "book" / "_static"
README = ROOT / "README.md"
MARKS = ("<!-- results, written by make checkpoints -->", "<!-- end of results -->")
DATA: dict[str, Callable[[str], TensorDataset]] = {"mnist": data.mnist, "digits": data.digits}
SAMPLES = 100  # predictions of every test image
ANGLES = range(0, 181, 20)  # degrees

TURNING = ("lenet", "mnf-lenet")  # the networks that the README compares


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
    def effort(self) -> float:
        """Seconds of work that the run may take on one core, to within a factor of two."""
        images = {"mnist": 60_000, "digits": 1_347}.get(self.data, 1_000)
        wide = 2 if self.widths is None and self.model == "lenet" else 1
        return wide * SECONDS[self.model] * (self.epochs + self.fine_epochs) * images / 60_000


# An epoch of MNIST on one core.
SECONDS = {"lenet": 20, "dropout-lenet": 20, "mean-field-lenet": 65, "mnf-lenet": 90}
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


RUNS = [*published(), *equal()]


def train(run: Run) -> None:
    """Train one network, measure it on the test set and write its two files."""
    torch.manual_seed(run.seed)
    kind = models.IMAGE_MODELS[run.model]
    model = kind() if run.widths is None else kind(run.widths)
    training, test = DATA[run.data]("train"), DATA[run.data]("test")

    def epochs(number: int, purpose: str, **settings: Any) -> History:
        return fit(
            model, training, epochs=number, seed=run.seed, checkpoint=run.temporary(purpose), **settings
        )

    log: dict[str, Any] = {}
    if run.milestone:
        measured = run.temporary("milestone")  # behind the milestone its weights are gone
        if not measured.exists():
            epochs(run.milestone, "fit", **run.settings)
            save_json(measured, evaluate(model, test))
        scores = json.loads(measured.read_text(encoding="utf-8"))
        log["milestone"] = {"epochs": run.milestone, "samples": SAMPLES, **scores}
    history = asdict(epochs(run.epochs, "fit", **run.settings))
    if run.fine_epochs:
        fine = asdict(
            epochs(run.fine_epochs, "fine", **run.settings | {"lr": run.settings.get("lr", 1e-3) / 10})
        )
        history = {name: history[name] + fine[name] for name in history}

    weights = CHECKPOINTS / f"{run.name}.safetensors"
    models.save(copy.deepcopy(model).half(), weights)
    stored = models.load(weights)  # the figures below are those of the weights that the book loads
    started = time.perf_counter()
    scores = evaluate(stored, test)
    log = {
        "model": run.model,
        "parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "data": run.data,
        "training_images": len(training),
        "seed": run.seed,
        "epochs": run.epochs,
        "fine_epochs": run.fine_epochs,
        **run.settings,
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
        "weights_sha256": sha256(weights.read_bytes()).hexdigest(),
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


def rotate_nine() -> None:
    """Turn a 9 of MNIST's test set under both networks; write the README's figures and pictures."""
    images, labels = data.mnist("test").tensors
    nine = images[labels == 9][2]  # [1, 28, 28]
    angles = sorted([*ANGLES, 90])
    turned = plots.rotate(nine, angles)  # [A, 1, 28, 28]
    shown = [angles.index(angle) for angle in ANGLES]
    results: dict[str, Any] = {"image": "third 9 of MNIST's test set", "angles": angles, "samples": 500}
    plots.style()
    for name in TURNING:
        torch.manual_seed(0)
        p = predict(
            models.load(CHECKPOINTS / f"{name}-mnist.safetensors"), turned, n_samples=500
        )  # [S, A, 10]
        log = json.loads((CHECKPOINTS / f"{name}-mnist.json").read_text(encoding="utf-8"))
        results[name] = {
            "parameters": log["parameters"],
            "epochs": log["epochs"],
            "test_accuracy": log["test"]["accuracy"],
            "test_nll": log["test"]["nll"],
            "prediction": p.mean(0).argmax(-1).tolist(),
            "entropy": [round(value, 4) for value in metrics.predictive_entropy(p).tolist()],
            "mutual_information": [round(value, 4) for value in metrics.mutual_information(p).tolist()],
        }
        figure = plots.rotation(p[:, shown].transpose(0, 1), turned[shown], list(ANGLES), true_label=9)
        write_picture(PICTURES / f"rotating_nine_{name.replace('-', '_')}.png", figure)
    save_json(RESULTS / "rotating_nine.json", results | circumstances())
    text = README.read_text(encoding="utf-8")
    with replacing(README) as half:
        half.write_text(with_results(text, results), encoding="utf-8")


def with_results(text: str, results: dict[str, Any]) -> str:
    """The README's text with the table of ``rotating_nine.json`` between its two marks."""
    ninety = results["angles"].index(90)
    rows = [
        ("trainable parameters", lambda r: f"{r['parameters']:,}"),
        ("test accuracy on MNIST, 3 epochs, 100 samples", lambda r: f"{r['test_accuracy']:.2%}"),
        ("test negative log-likelihood, nats", lambda r: f"{r['test_nll']:.3f}"),
        ("entropy of the answer at 90°, nats", lambda r: f"{r['entropy'][ninety]:.2f}"),
        ("most entropy at any of the angles, nats", lambda r: f"{max(r['entropy']):.2f}"),
    ]
    table = ["| | LeNet | MNF-LeNet |", "|---|---:|---:|"]
    table += [
        f"| {name} | " + " | ".join(show(results[model]) for model in TURNING) + " |" for name, show in rows
    ]
    head, rest = text.split(MARKS[0])
    return "\n".join([head + MARKS[0], *table, MARKS[1] + rest.split(MARKS[1])[1]])


def write_picture(path: Path, figure: plt.Figure) -> None:
    """Write a figure as a PNG of 32 colours, whole or not at all."""
    full = io.BytesIO()
    figure.savefig(full, format="png", dpi=100)
    plt.close(figure)
    with replacing(path) as half:
        Image.open(full).convert("RGB").quantize(32).save(half, format="PNG", optimize=True)


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
    if {run.name for run in chosen} & {f"{name}-mnist" for name in TURNING}:
        rotate_nine()
    for run in chosen:
        for purpose in ("fit", "milestone", "fine", "finished"):
            run.temporary(purpose).unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command continues from the last whole epoch.")
    except (OSError, ValueError) as error:
        sys.exit(f"make checkpoints: {error}")
