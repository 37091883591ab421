"""The trained networks of the book: `make checkpoints` trains every one of them again.

    python tools/checkpoints.py                          all of them
    python tools/checkpoints.py mnf-lenet-mnist          only this one

Each run leaves two files in book/checkpoints: NAME.safetensors, weights in 16 bits, and NAME.json, the log.
An interrupted run continues from its last whole epoch, a pass through all runs from the first that is not
finished. At the end of a pass the README's pictures and figures are made from the weights.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from mnf_lite import data, fit, metrics, models, plots, predict
from mnf_lite.files import replacing

ROOT = Path(__file__).resolve().parent.parent
CHECKPOINTS = ROOT / "book" / "checkpoints"
RESULTS = ROOT / "book" / "results"
PICTURES = ROOT / "book" / "_static"
README = ROOT / "README.md"
MARKS = ("<!-- results, written by make checkpoints -->", "<!-- end of results -->")
DATA: dict[str, Callable[[str], TensorDataset]] = {"mnist": data.mnist, "digits": data.digits}
PACKAGES = ("torch", "numpy")
SAMPLES = 100  # predictions of every test image
ANGLES = range(0, 181, 20)  # degrees

TURNING = ("lenet", "mnf-lenet")  # the networks that the README compares


@dataclass(frozen=True)
class Run:
    """One training run: which network, on which data, with which settings of `fit`."""

    model: str
    data: str
    epochs: int
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    @property
    def name(self) -> str:
        """Of the run's files."""
        return f"{self.model}-{self.data}"

    @property
    def unfinished(self) -> Path:
        """Where `fit` keeps what it needs to continue. Other settings, another file."""
        return CHECKPOINTS / f".{self.name}-{sha256(repr(self).encode()).hexdigest()[:8]}.tmp"


# Three epochs with Adam, the published setting. The digits are 45 times fewer: more epochs, still less work.
RUNS = [
    Run("lenet", "mnist", epochs=3, settings={"batch_size": 64}),
    Run("mnf-lenet", "mnist", epochs=3, settings={"batch_size": 64}),
    Run("lenet", "digits", epochs=15, settings={"batch_size": 32}),
    Run("mnf-lenet", "digits", epochs=15, settings={"batch_size": 32}),
]


def train(run: Run) -> None:
    """Train one network, measure it on the test set and write its two files."""
    torch.manual_seed(run.seed)
    model = models.IMAGE_MODELS[run.model]()
    training, test = DATA[run.data]("train"), DATA[run.data]("test")
    history = fit(
        model, training, epochs=run.epochs, seed=run.seed, checkpoint=run.unfinished, **run.settings
    )

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
        **run.settings,
        "history": {
            name: [round(value, 5) for value in values] for name, values in vars(history).items() if values
        },
        "test": {
            "images": len(test),
            "samples": SAMPLES,
            **scores,
            "seconds": round(time.perf_counter() - started, 1),
        },
        "weights_sha256": sha256(weights.read_bytes()).hexdigest(),
        **circumstances(),
    }
    write_json(CHECKPOINTS / f"{run.name}.json", log)
    seconds = sum(history.seconds) / run.epochs
    print(
        f"{run.name}: test accuracy {scores['accuracy']:.2%}, {seconds:.0f} s an epoch, "
        f"KL {history.kl[-1]:,.0f} nats"
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
    write_json(RESULTS / "rotating_nine.json", results | circumstances())
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


def circumstances() -> dict[str, Any]:
    """What else the figures depend on: versions, processor, day."""
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "date": datetime.now(UTC).date().isoformat(),
    }


def write_json(path: Path, content: Any) -> None:
    """Write a JSON file whole or not at all."""
    with replacing(path) as half:
        half.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Train the runs that the command line names."""
    listed = ", ".join(run.name for run in RUNS)
    parser = argparse.ArgumentParser(description="Train the networks of the book again.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"default: all of {listed}")
    names = parser.parse_args().names
    if unknown := sorted(set(names) - {run.name for run in RUNS}):
        sys.exit(f"No run {', '.join(unknown)}. There are: {listed}")
    chosen = [run for run in RUNS if not names or run.name in names]

    # Which runs of this pass are finished: an interrupted pass goes on behind them.
    journal = CHECKPOINTS / ".finished.tmp"
    finished = set(journal.read_text().split()) if journal.is_file() else set()
    for number, run in enumerate(chosen, 1):
        if run.unfinished.name in finished:
            print(f"{run.name}: finished before the interruption")
            continue
        print(f"{run.name} ({number} of {len(chosen)}): {run.epochs} epochs", flush=True)
        train(run)
        finished.add(run.unfinished.name)
        with replacing(journal) as half:
            half.write_text("\n".join(sorted(finished)))
    if all((CHECKPOINTS / f"{name}-mnist.safetensors").is_file() for name in TURNING):
        rotate_nine()
    for run in chosen:
        run.unfinished.unlink(missing_ok=True)
    journal.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nInterrupted. The same command continues from the last whole epoch.")
    except (OSError, ValueError) as error:
        sys.exit(f"make checkpoints: {error}")
