"""Five methods on MNIST after the same short training: ``python -m benchmarks.five_methods``.

Equal widths, epochs, batches and optimiser for all; scores on the 10,000 test images. The result goes to
``book/results/five_methods.json``; an interrupted run goes on where it stopped.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.timing import parameters
from mnf_lite import data, fit, metrics, predict
from mnf_lite.files import replacing
from mnf_lite.models import DropoutLeNet, LeNet, MeanFieldLeNet, MNFLeNet

WIDTHS = (20, 50, 50, 10)
MEMBERS = 5  # of the deep ensemble
METHODS: dict[str, Callable[[], list[nn.Module]]] = {
    "LeNet": lambda: [LeNet(WIDTHS)],
    "MC-dropout": lambda: [DropoutLeNet(WIDTHS)],
    "deep ensemble": lambda: [LeNet(WIDTHS) for _ in range(MEMBERS)],
    "mean-field": lambda: [MeanFieldLeNet(WIDTHS)],
    "MNF": lambda: [MNFLeNet(WIDTHS)],
}
SCORES = {
    "accuracy": metrics.accuracy,
    "nll": metrics.negative_log_likelihood,
    "ece": metrics.expected_calibration_error,
    "brier": metrics.brier_score,
}


def measure(name: str, epochs: int, samples: int) -> dict[str, float]:
    """Train one method and score it."""
    torch.manual_seed(0)
    members = METHODS[name]()
    start = time.thread_time()
    for seed, member in enumerate(members):
        fit(member, data.mnist("train"), epochs=epochs, seed=seed)
    trained = time.thread_time()
    images, labels = data.mnist("test").tensors
    torch.manual_seed(0)
    probabilities = predict(members, images, n_samples=MEMBERS if len(members) > 1 else samples)
    predicted = time.thread_time()
    figures = {score: function(probabilities, labels).item() for score, function in SCORES.items()}
    size = sum(parameters(member) for member in members)
    return figures | {
        "parameters": size,
        "cpu_seconds_training": round(trained - start, 1),
        "cpu_seconds_prediction": round(predicted - trained, 1),
    }


def main() -> None:
    """Measure what is missing in the file of results; print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.five_methods", description=__doc__)
    parser.add_argument("--epochs", type=int, default=2, help="epochs of every training (2)")
    parser.add_argument("--samples", type=int, default=100, help="predictions of each test image (100)")
    parser.add_argument("--out", type=Path, default=Path("book/results/five_methods.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = {
        "widths": WIDTHS,
        "epochs": args.epochs,
        "batch_size": 128,
        "samples": args.samples,
        "seed": 0,
    }
    settings |= {"members": MEMBERS, "torch": torch.__version__}
    settings = json.loads(json.dumps(settings))
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    if results.get("settings") != settings:
        results = {"settings": settings, "methods": {}}
    for name in METHODS:
        if name not in results["methods"]:
            results["methods"][name] = measure(name, args.epochs, args.samples)
            results["date"] = time.strftime("%Y-%m-%d")
            with replacing(args.out) as part:
                part.write_text(json.dumps(results, indent=1) + "\n")
    columns = list(results["methods"]["LeNet"])
    print("| method | " + " | ".join(columns) + " |\n|---" + "|---:" * len(columns) + "|")
    for name, figures in results["methods"].items():
        print(f"| {name} | " + " | ".join(f"{figures[c]:.4g}" for c in columns) + " |")


if __name__ == "__main__":
    main()
