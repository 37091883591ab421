"""MNF layers beside plain networks of the same widths, and beside torch-mnf where a checkout is at hand."""

import importlib.util
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.timing import Row, in_turns, peak_megabytes, training_step
from mnf_lite import layers, predict
from mnf_lite.models import LeNet, MNFLeNet

WIDTHS = (20, 50, 50, 10)
N_TRAIN = 60_000


def their_model() -> nn.Module | None:
    """torch-mnf's MNF-LeNet, where a checkout of it can be imported (PYTHONPATH)."""
    if importlib.util.find_spec("torch_mnf") is None:
        return None
    from torch_mnf.models import MNFLeNet as TheirMNFLeNet

    model = TheirMNFLeNet()
    for layer in model:  # made outside the parameters there; a buffer of the graph would grow otherwise
        if hasattr(layer, "b_mean") and not layer.b_mean.requires_grad:
            layer.b_mean = layer.b_mean.detach()
    return model


def training(budget: float) -> Iterator[Row]:
    """One step of Adam on the bound, batch 32 and 128."""
    for batch in (32, 128):
        x, y = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
        mnf, plain, theirs = MNFLeNet(WIDTHS), LeNet(WIDTHS), their_model()

        def loss(model: nn.Module, x: Tensor = x, y: Tensor = y) -> Tensor:
            return F.cross_entropy(model(x), y) + layers.kl_divergence(model) / N_TRAIN

        steps = {
            "mnf_lite": training_step(mnf, lambda mnf=mnf, loss=loss: loss(mnf)),
            "plain LeNet": training_step(plain, lambda p=plain, x=x, y=y: F.cross_entropy(p(x), y)),
        }
        if theirs is not None:
            steps["torch-mnf"] = training_step(
                theirs, lambda t=theirs, x=x, y=y: F.nll_loss(t(x), y) + t.kl_div() / N_TRAIN
            )
        yield Row(f"training step, batch {batch}", in_turns(steps, budget))


def prediction(budget: float) -> Iterator[Row]:
    """500 predictions of each of 9 images; 100 predictions of each of 10,000."""
    mnf, plain, theirs = MNFLeNet(WIDTHS), LeNet(WIDTHS), their_model()
    nine, many = torch.rand(9, 1, 28, 28), torch.rand(10_000, 1, 28, 28)
    with torch.no_grad():
        runs = {"mnf_lite": lambda: predict(mnf, nine, n_samples=500)}
        if theirs is not None:
            runs["torch-mnf"] = lambda: [theirs(image.repeat(500, 1, 1, 1)) for image in nine]
        yield Row("500 predictions of each of 9 images", in_turns(runs, budget))

        def passes() -> None:
            for images in many.split(500):
                plain(images)

        runs = {"mnf_lite": lambda: predict(mnf, many, n_samples=10), "plain passes": passes}
        seconds = in_turns(runs, budget)
        yield Row(
            "100 predictions of each of 10,000 images (from 10), against 100 plain passes",
            {"mnf_lite": 10 * seconds["mnf_lite"], "plain passes": 100 * seconds["plain passes"]},
        )


def prediction_memory() -> dict[str, float]:
    """Peak memory of ``predict`` in megabytes above the model, the images and the output."""
    setup = """
import torch
from mnf_lite import predict
from mnf_lite.models import MNFLeNet
model, x = MNFLeNet(), torch.rand({images}, 1, 28, 28)
predict(model, x[:2], n_samples=2)
out = torch.zeros({samples}, {images}, 10) + 1; del out
"""
    cases = [(500, 9), (100, 1_000), (10, 10_000), (2_000, 100)]
    return {
        f"{samples} samples of {images} images": peak_megabytes(
            setup.format(samples=samples, images=images), f"predict(model, x, n_samples={samples})"
        )
        for samples, images in cases
    }
