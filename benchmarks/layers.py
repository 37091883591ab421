"""MNF layers beside plain networks of the same widths, and beside torch-mnf where a checkout is at hand."""

import importlib.util
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.timing import Row, in_turns, parameters, peak_megabytes, training_step
from mnf_lite import layers, predict
from mnf_lite.models import LeNet, MeanFieldLeNet, MNFLeNet

WIDTHS = (20, 50, 50, 10)
N_TRAIN = 60_000
BATCHES = (32, 128, 512)


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
    """One step of Adam on the bound: as `fit` and torch-mnf's notebook run it, then all in the same way.

    What no step can do without stands beside it: means, variances and noise of every layer and their
    gradients, without z, flows, KL and Adam.
    """
    for batch in BATCHES:
        x, y = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
        for fused, which in ((True, "each with its own Adam"), (False, "Adam not fused for any")):
            mnf, plain, theirs = MNFLeNet(WIDTHS), LeNet(WIDTHS), their_model()
            published = MNFLeNet(WIDTHS, auxiliary="published", sampling="outputs")
            moments = MeanFieldLeNet(WIDTHS, sampling="outputs")

            def bound(model: nn.Module, x: Tensor = x, y: Tensor = y) -> Tensor:
                return F.cross_entropy(model(x), y) + layers.kl_divergence(model) / N_TRAIN

            steps = {
                "mnf_lite": training_step(mnf, lambda m=mnf, bound=bound: bound(m), fused),
                "as published": training_step(published, lambda m=published, bound=bound: bound(m), fused),
                "plain LeNet": training_step(
                    plain, lambda p=plain, x=x, y=y: F.cross_entropy(p(x), y), fused
                ),
                "moments alone": lambda m=moments, x=x, y=y: F.cross_entropy(m(x), y).backward(),
            }
            if theirs is not None:
                steps["torch-mnf"] = training_step(
                    theirs, lambda t=theirs, x=x, y=y: F.nll_loss(t(x), y) + t.kl_div() / N_TRAIN
                )
            yield Row(f"step, batch {batch}, {which}", in_turns(steps, budget))


def training_by_sampling(budget: float) -> Iterator[Row]:
    """One step of Adam on the bound, with the weights of the convolutions drawn in each of five ways.

    The package's own choice among the exact ways stands first; ``outputs`` is local reparametrisation, pixel
    by pixel.
    """
    others = ("outputs", "explicit", "flipped", "shared")
    ways = {"mnf_lite": "weights"} | {way: way for way in others}
    for batch in BATCHES:
        x, y = torch.rand(batch, 1, 28, 28), torch.randint(10, (batch,))
        steps = {}
        for name, way in ways.items():
            model = MNFLeNet(WIDTHS, sampling=way)
            steps[name] = training_step(
                model,
                lambda m=model, x=x, y=y: F.cross_entropy(m(x), y) + layers.kl_divergence(m) / N_TRAIN,
                fused=True,
            )
        yield Row(f"step, batch {batch}", in_turns(steps, budget))


@torch.no_grad()
def prediction(budget: float) -> Iterator[Row]:
    """500 predictions of each of 9 images; of each of 10,000, sample by sample beside pass by pass.

    What 500 predictions cannot do without stands beside them: a normal number for every weight, and the
    largest of the products with them.
    """
    mnf, plain, theirs = MNFLeNet(WIDTHS), LeNet(WIDTHS), their_model()
    nine, many = torch.rand(9, 1, 28, 28), torch.rand(10_000, 1, 28, 28)
    runs = {"mnf_lite": lambda: predict(mnf, nine, n_samples=500)}
    weights, (maps_1, maps_2) = parameters(plain), WIDTHS[:2]
    filters, patches = torch.rand(25, maps_2, 25 * maps_1), torch.rand(25, 25 * maps_1, 9 * 8 * 8)

    def numbers_and_products() -> None:
        for _ in range(500 // 25):
            torch.randn(25, weights)
            torch.bmm(filters, patches)

    runs["numbers and products alone"] = numbers_and_products
    if theirs is not None:
        runs["torch-mnf"] = lambda: [theirs(image.repeat(500, 1, 1, 1)) for image in nine]
    yield Row("500 predictions of each of 9 images", in_turns(runs, budget))

    def passes(samples: int) -> None:
        for _ in range(samples):
            for images in many.split(256):
                plain(images).softmax(-1)

    # Samples beyond the first few cost no more than these: every one is a pass of its own.
    runs = {"mnf_lite": lambda: predict(mnf, many, n_samples=4), "plain passes": lambda: passes(4)}
    yield Row("4 of 100 predictions of each of 10,000 images", in_turns(runs, budget))


def prediction_memory() -> Iterator[tuple[str, float]]:
    """Peak memory of ``predict`` in megabytes above the model, the images and the output."""
    setup = """
import torch
from mnf_lite import predict
from mnf_lite.models import MNFLeNet
torch.set_num_threads({threads})
model, x = MNFLeNet(), torch.rand({images}, 1, 28, 28)
predict(model, x[:2], n_samples=2)
out = torch.zeros({samples}, {images}, 10) + 1; del out
"""
    for samples, images in ((500, 9), (3_000, 1), (200, 100), (20, 1_000), (3, 10_000)):
        megabytes = peak_megabytes(
            setup.format(samples=samples, images=images, threads=torch.get_num_threads()),
            f"predict(model, x, n_samples={samples})",
        )
        yield f"{samples} samples of {images} images", megabytes
