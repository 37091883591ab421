"""How good five methods are on MNIST and what they cost: ``python -m experiments.scores``.

Equal widths, equal training. The scores are those of the 10,000 test images, with every seed whose weights
``experiments.networks`` has made; the costs are those of one thread. They go to ``book/results/scores.json``,
and from there, with what the other scripts of Part III found, to the table in README.md. An interrupted run
goes on where it stopped, and only networks that have changed are measured again.
"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from experiments import timing
from experiments.methods import METHODS, SCORES, measure_missing, names, samples
from experiments.methods import left as unmeasured
from experiments.methods import load as load_networks
from experiments.networks import CHECKPOINTS, MEMBERS, WIDTHS
from experiments.results import README, RESULTS, as_stored, load, parser, with_table, write, write_readme
from mnf_lite import data, metrics, models, predict

SAMPLES = 20
REDRAWS = 100  # of all labels, for the calibration error that chance alone makes
DECADES = [1e-4, 1e-3, 1e-2, 1e-1]  # of doubt, 1 - confidence
TASKS = {"one image": (1, 100), "1,000 images": (1_000, 10)}  # images, predictions of each
BUDGET = 8.0  # seconds of timing for each task
SETTINGS = {"samples": SAMPLES, "redraws": REDRAWS, "decades": DECADES, "widths": WIDTHS, "members": MEMBERS}
MINUTES = 10
MARKS = ("<!-- five methods, written by python -m experiments.scores -->", "<!-- end of five methods -->")


def measure(method: str, seed: int) -> dict[str, Any]:
    """Scores of the mean prediction and of single samples; calibration in bins and by decades of doubt."""
    images, labels = data.mnist("test").tensors
    torch.manual_seed(0)
    p = predict(load_networks(method, seed), images, n_samples=samples(method, SAMPLES))  # [S, B, 10]
    mean = p.double().mean(0)  # [B, 10]
    confidence, answer = mean.max(-1)
    wrong = answer != labels
    curve = metrics.reliability_curve(mean, labels)
    doubt = torch.bucketize(1 - confidence, torch.tensor(DECADES, dtype=torch.double))  # [B], 0 is the surest
    redrawn = torch.multinomial(mean, REDRAWS, replacement=True).T  # [R, B]: labels that the mean would draw
    figures: dict[str, Any] = {"samples": len(p)}
    figures |= {name: digits(score(mean, labels)) for name, score in SCORES.items()}
    figures["one_sample"] = {
        name: digits(torch.stack([score(p_s, labels) for p_s in p]).mean()) for name, score in SCORES.items()
    }
    figures["ece_by_chance"] = digits(torch.stack([SCORES["ece"](mean, y) for y in redrawn]).mean())
    figures["curve"] = {
        "confidence": [None if c.isnan() else digits(c) for c in curve.confidence],
        "accuracy": [None if a.isnan() else digits(a) for a in curve.accuracy],
        "counts": curve.counts.tolist(),
    }
    figures["doubt"] = {
        "images": doubt.bincount(minlength=5).tolist(),
        "expected_errors": [digits(e) for e in doubt.bincount(1 - confidence, 5)],
        "errors": doubt.bincount(wrong.double(), 5).long().tolist(),
    }
    figures["wrong"] = wrong.nonzero().flatten().tolist()  # which images
    return figures


def digits(value: Tensor) -> float:
    """Five significant digits."""
    return float(f"{value.item():.5g}")


def costs() -> dict[str, Any]:
    """Milliseconds of processor time, and megabytes on top of the networks, of one thread for each task."""
    timing.count_cpu_time()
    timing.keep_freed_memory()
    torch.manual_seed(0)
    figures: dict[str, Any] = {}
    for task, (images, wanted) in TASKS.items():
        x = torch.rand(images, 1, 28, 28)
        runs = {
            method: partial(predict, fresh(method), x, n_samples=samples(method, wanted))
            for method in METHODS
        }
        seconds = timing.in_turns(runs, BUDGET)
        figures[task] = {
            method: {
                "samples": samples(method, wanted),
                "milliseconds": float(f"{1e3 * seconds[method]:.3g}"),
                "megabytes": round(peak(method, images, samples(method, wanted)), 1),
            }
            for method in METHODS
        }
    return figures


def fresh(method: str) -> list[nn.Module]:
    """Untrained networks of the method: what they cost does not depend on their weights."""
    return [
        models.IMAGE_MODELS[METHODS[method]](WIDTHS)
        for _ in range(MEMBERS if method == "deep ensemble" else 1)
    ]


def peak(method: str, images: int, n_samples: int) -> float:
    """Megabytes that `predict` needs at its peak, in a process of its own."""
    setup = f"""
import torch
from experiments.scores import fresh
from mnf_lite import predict
torch.set_num_threads(1)
members, x = fresh({method!r}), torch.rand({images}, 1, 28, 28)
predict(members, x[:2], n_samples={min(n_samples, 2)})"""
    return timing.peak_megabytes(setup, f"predict(members, x, n_samples={n_samples})")


def table(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Row -> its decimals and, for each method, a figure of every seed: all that Part III measured.

    Accuracy and nll of a single network are those of 100 samples, from the log of its training. Costs are the
    same for all seeds and stand once.
    """
    rows: dict[str, dict[str, Any]] = {}
    for row, (scale, decimals, find) in ROWS.items():
        found = {method: find(method, results) for method in METHODS}
        if figures := {
            method: [float(f"{scale * value:.5g}") for value in values]
            for method, values in found.items()
            if values
        }:
            rows[row] = {"decimals": decimals, "methods": figures}
    return rows


def shown(values: Sequence[float], decimals: int) -> str:
    """Mean ± standard deviation over the seeds, the one figure there is, or a dash."""
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):,.{decimals}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):,.{decimals}f}{spread}"


def in_readme(text: str, rows: dict[str, dict[str, Any]]) -> str:
    """The README's text with the rows between the two marks."""
    return with_table(
        text,
        MARKS,
        METHODS,
        (
            [row, *(shown(entry["methods"].get(method, ()), entry["decimals"]) for method in METHODS)]
            for row, entry in rows.items()
        ),
    )


Find = Callable[[str, dict[str, Any]], list[float]]


def logs(method: str, results: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """For each seed that was scored the logs of the training of the method's networks."""
    return [
        [load(CHECKPOINTS / f"{name}.json") for name in names(method, int(seed))]
        for seed in sorted(results["scores"].get(method, {}))
    ]


def scored(score: str) -> Find:
    """What `measure` found for each seed."""
    return lambda method, results: [
        entry[score] for _, entry in sorted(results["scores"].get(method, {}).items())
    ]


def logged(score: str) -> Find:
    """What the log of a single network says of 100 samples; an ensemble has no log of its own."""

    def find(method: str, results: dict[str, Any]) -> list[float]:
        if method == "deep ensemble":
            return scored(score)(method, results)
        return [members[0]["test"][score] for members in logs(method, results)]

    return find


def parameters(method: str, results: dict[str, Any]) -> list[float]:
    """Trainable parameters of all the method's networks."""
    return [sum(log["parameters"] for log in members) for members in logs(method, results)[:1]]


def epoch(method: str, results: dict[str, Any]) -> list[float]:
    """Seconds of the fastest epoch of training, times the members: other epochs shared the machine."""
    every = logs(method, results)
    return (
        [len(every[0]) * min(s for members in every for log in members for s in log["history"]["seconds"])]
        if every
        else []
    )


def cost(task: str, figure: str) -> Find:
    """What `costs` found."""
    return lambda method, results: [results["costs"][task][method][figure]]


def strangers(score: str, name: str) -> Find:
    """AUROC or FPR95 of the predictive entropy, from the file of ``experiments.out_of_distribution``."""

    def find(method: str, results: dict[str, Any]) -> list[float]:
        found = load(RESULTS / "out_of_distribution.json")
        return [entry[name][score] for _, entry in sorted(found["scores"][method].items())]

    return find


def ninety(method: str, results: dict[str, Any]) -> list[float]:
    """Mean entropy of the answers to test images turned by 90°, from the file of ``experiments.rotation``."""
    found = load(RESULTS / "rotation.json")
    at = found["settings"]["angles"].index(90)
    return [entry["entropy"][at] for _, entry in sorted(found["scores"][method].items())]


ROWS: dict[str, tuple[float, int, Find]] = {
    "test accuracy, %": (100, 2, logged("accuracy")),
    "negative log-likelihood, nats": (1, 4, logged("nll")),
    "Brier score": (1, 4, scored("brier")),
    "expected calibration error, %": (100, 2, scored("ece")),
    "AUROC, Fashion-MNIST": (1, 3, strangers("auroc", "fashion_mnist")),
    "AUROC, KMNIST": (1, 3, strangers("auroc", "kmnist")),
    "FPR95, Fashion-MNIST, %": (100, 1, strangers("fpr95", "fashion_mnist")),
    "FPR95, KMNIST, %": (100, 1, strangers("fpr95", "kmnist")),
    "entropy at 90°, nats": (1, 2, ninety),
    "trainable parameters": (1, 0, parameters),
    "an epoch of training, s": (1, 0, epoch),
    "a prediction of one image, ms": (1, 1, cost("one image", "milliseconds")),
    "predictions of 1,000 images, ms": (1, 0, cost("1,000 images", "milliseconds")),
    "memory for these, MB": (1, 0, cost("1,000 images", "megabytes")),
}


def left(found: dict[str, Any]) -> list[str]:
    """What is missing in the file, or out of date in it."""
    if pieces := unmeasured(found) or ["costs"] * ("costs" not in found):
        return pieces
    return [] if as_stored(table(found)) == found.get("table") else ["the table of what other scripts found"]


def main() -> None:
    """Measure what is missing, put the table together and write it into the README."""
    command = parser("scores", __doc__)
    command.add_argument("--costs", action="store_true", help="time everything again")
    args = command.parse_args()
    torch.set_num_threads(1)
    results = measure_missing(args.out, SETTINGS, measure)
    if args.costs or "costs" not in results:
        results["costs"] = costs()
    results["table"] = table(results)  # with what other scripts have found since
    write(args.out, results, indent=None)
    if args.out == command.get_default("out"):
        write_readme(in_readme(README.read_text(encoding="utf-8"), results["table"]))


if __name__ == "__main__":
    main()
