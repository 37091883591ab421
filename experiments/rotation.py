"""Five methods and turning digits: ``python -m experiments.rotation``.

The first 1,000 test images of MNIST, and with more draws its third 9, are turned in steps of 20 degrees and
by 90. The networks are those of ``experiments.networks``; a method and seed whose weights are not there yet
is left out, one that was trained anew is measured anew, an interrupted run goes on where it stopped.

``book/results/rotation.json`` holds the settings and ``scores[method][seed]``, the seed as a string:

    weights             fingerprints of its networks
    entropy             of the average prediction, nats; it and the next five are means over images, by angle
    mutual_information  the part of it that is disagreement between networks, nats
    accuracy            the label is that of the upright image
    confidence          probability of the predicted class
    sure                share of images on which the confidence exceeds 0.9
    sure_wrong          share on which it does and the prediction is not the label
    nine                entropy, mutual_information and prediction for the single 9, by angle
    entropy_90          entropy of the single 9 at 90 degrees
"""

from typing import Any

import torch
from torch import Tensor, nn

from experiments.methods import left as left
from experiments.methods import load, run, samples
from mnf_lite import data, metrics, plots, predict

SETTINGS: dict[str, Any] = {
    "angles": sorted([*range(0, 360, 20), 90]),  # degrees
    "images": 1000,
    "samples": 20,  # predictions of each of them; LeNet has 1, the ensemble 5
    "nine": "third 9 of MNIST's test set",
    "samples_nine": 500,
}
MINUTES = 15
SURE = 0.9


def crowd(networks: list[nn.Module], images: Tensor, labels: Tensor, n: int) -> dict[str, list[float]]:
    """Scores of many images, by angle; the same networks judge every angle."""
    scores: dict[str, list[float]] = {}
    for angle in SETTINGS["angles"]:
        torch.manual_seed(0)
        p = predict(networks, plots.rotate(images, [angle])[0], n_samples=n)  # [S, B, 10]
        confidence, said = p.mean(0).max(-1)  # [B]
        for name, values in {
            "entropy": metrics.predictive_entropy(p),
            "mutual_information": metrics.mutual_information(p),
            "accuracy": said == labels,
            "confidence": confidence,
            "sure": confidence > SURE,
            "sure_wrong": (confidence > SURE) & (said != labels),
        }.items():
            scores.setdefault(name, []).append(round(values.double().mean().item(), 5))
    return scores


def single(networks: list[nn.Module], nine: Tensor, n: int) -> dict[str, Any]:
    """What is said of one 9, by angle."""
    torch.manual_seed(0)
    p = predict(networks, plots.rotate(nine, SETTINGS["angles"]), n_samples=n)  # [S, A, 10]
    entropy, information = (
        [round(value, 5) for value in score(p).tolist()]
        for score in (metrics.predictive_entropy, metrics.mutual_information)
    )
    said = p.mean(0).argmax(-1).tolist()
    return {
        "nine": {"entropy": entropy, "mutual_information": information, "prediction": said},
        "entropy_90": entropy[SETTINGS["angles"].index(90)],
    }


def measure(method: str, seed: int) -> dict[str, Any]:
    """All scores of a method with one seed."""
    images, labels = data.mnist("test").tensors
    networks, nine = load(method, seed), images[labels == 9][2]
    first = slice(SETTINGS["images"])
    return crowd(networks, images[first], labels[first], samples(method, SETTINGS["samples"])) | single(
        networks, nine, samples(method, SETTINGS["samples_nine"])
    )


if __name__ == "__main__":
    run("rotation", __doc__, SETTINGS, measure)
