"""A 9 that turns, before LeNet and MNF-LeNet as published: ``python -m experiments.rotating_nine``.

The third 9 of MNIST's test set is turned in steps of 20 degrees and by 90; each network of
``experiments.networks`` answers 500 times, which for LeNet are 500 times the same. The figures go to
``book/results/rotating_nine.json`` and, with pictures, to README.md.
"""

from typing import Any

import torch
from matplotlib import pyplot as plt

from experiments.networks import CHECKPOINTS
from experiments.results import README, ROOT, load, parser, with_table, write, write_readme
from mnf_lite import data, metrics, models, plots, predict
from mnf_lite.files import replacing

NETWORKS = {"lenet": "LeNet", "mnf-lenet": "MNF-LeNet"}
SHOWN = range(0, 181, 20)  # degrees
SETTINGS = {
    "image": "third 9 of MNIST's test set",
    "angles": sorted([*SHOWN, 90]),
    "samples": 500,
    "seed": 0,
}
MINUTES = 1
PICTURES = ROOT / "book" / "_static"
MARKS = ("<!-- results, written by python -m experiments.rotating_nine -->", "<!-- end of results -->")


def log_of(network: str) -> dict[str, Any]:
    """The log of its training."""
    return load(CHECKPOINTS / f"{network}-mnist.json")


def turn(network: str) -> dict[str, Any]:
    """What a network says of the turning 9; its picture is written beside."""
    images, labels = data.mnist("test").tensors
    angles: list[int] = SETTINGS["angles"]
    turned = plots.rotate(images[labels == 9][2], angles)  # [A, 1, 28, 28]
    torch.manual_seed(SETTINGS["seed"])
    p = predict(
        models.load(CHECKPOINTS / f"{network}-mnist.safetensors"), turned, n_samples=SETTINGS["samples"]
    )  # [S, A, 10]
    shown = [angles.index(angle) for angle in SHOWN]
    figure = plots.rotation(p[:, shown].transpose(0, 1), turned[shown], list(SHOWN), true_label=9)
    write_picture(f"rotating_nine_{network.replace('-', '_')}.png", figure)
    log = log_of(network)
    return {
        "weights": log["weights_sha256"],
        "parameters": log["parameters"],
        "epochs": log["epochs"],
        "test_accuracy": log["test"]["accuracy"],
        "test_nll": log["test"]["nll"],
        "prediction": p.mean(0).argmax(-1).tolist(),
        "entropy": [round(value, 4) for value in metrics.predictive_entropy(p).tolist()],
        "mutual_information": [round(value, 4) for value in metrics.mutual_information(p).tolist()],
    }


def write_picture(name: str, figure: plt.Figure) -> None:
    """Write a figure as a PNG of 32 colours, whole or not at all."""
    with replacing(PICTURES / name) as half:
        half.write_bytes(plots.png(figure, dpi=100))


def in_readme(text: str, results: dict[str, Any]) -> str:
    """The README's text with the figures between the two marks."""
    ninety = SETTINGS["angles"].index(90)
    rows = {
        "trainable parameters": lambda r: f"{r['parameters']:,}",
        "test accuracy on MNIST, 3 epochs, 100 samples": lambda r: f"{r['test_accuracy']:.2%}",
        "test negative log-likelihood, nats": lambda r: f"{r['test_nll']:.3f}",
        "entropy of the answer at 90°, nats": lambda r: f"{r['entropy'][ninety]:.2f}",
        "most entropy at any of the angles, nats": lambda r: f"{max(r['entropy']):.2f}",
    }
    table = ([name, *(show(results[network]) for network in NETWORKS)] for name, show in rows.items())
    return with_table(text, MARKS, NETWORKS.values(), table)


def left(results: dict[str, Any]) -> list[str]:
    """Networks that have been trained again since."""
    return [n for n in NETWORKS if results.get(n, {}).get("weights") != log_of(n)["weights_sha256"]]


def main() -> None:
    """Turn the 9 before both networks; write figures, pictures and the README's table."""
    args = parser("rotating_nine", __doc__).parse_args()
    torch.set_num_threads(1)
    plots.style()
    results = {"settings": SETTINGS} | {network: turn(network) for network in NETWORKS}
    write(args.out, results)
    write_readme(in_readme(README.read_text(encoding="utf-8"), results))


if __name__ == "__main__":
    main()
