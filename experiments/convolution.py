"""What random weights cost a convolution: ``python -m experiments.convolution``.

Both convolutions of the published MNF-LeNet are timed with ordinary weights and with weights drawn in three
ways, for prediction (forward) and for training (forward and backward). The result goes to
``book/results/convolution.json``, from which the chapter on the convolutional layer draws its figure: execute
that chapter again after running this.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.results import parser, write
from experiments.timing import in_turns, keep_freed_memory
from mnf_lite.layers import MNFConv2d

SHAPES = {"first": (1, 20, 28), "second": (20, 50, 12)}  # channels in, maps out, pixels a side
KERNEL, BATCH = 5, 100
SETTINGS = {"shapes": SHAPES, "kernel": KERNEL, "batch": BATCH, "seed": 0}
MINUTES = 2


def for_the_batch(layer: MNFConv2d, x: Tensor) -> Tensor:
    """One draw of the weights for all examples."""
    w, b = layer.sample_weights(1)
    return F.conv2d(x, w[0], None if b is None else b[0])


def for_each_example(layer: MNFConv2d, x: Tensor) -> Tensor:
    """A draw of its own for every example, as one convolution in as many groups as there are examples."""
    w, b = layer.sample_weights(len(x))
    y = F.conv2d(x.flatten(0, 1)[None], w.flatten(0, 1), None if b is None else b.flatten(), groups=len(x))
    return y.view(len(x), -1, *y.shape[2:])


def contenders(inputs: int, maps: int, side: int, backward: bool) -> dict[str, Callable[[], object]]:
    """What is timed for one convolution, by name."""
    layer, plain = MNFConv2d(inputs, maps, KERNEL, sampling="outputs"), nn.Conv2d(inputs, maps, KERNEL)
    x = torch.randn(BATCH, inputs, side, side, requires_grad=backward and inputs > 1)
    ways: dict[str, Callable[[], Tensor]] = {
        "ordinary weights": lambda: plain(x),
        "one W for the batch": lambda: for_the_batch(layer, x),
        "local": lambda: layer(x),
        "one W an example": lambda: for_each_example(layer, x),
    }
    with torch.set_grad_enabled(backward):
        up = torch.randn_like(plain(x))

    def run(way: Callable[[], Tensor]) -> Callable[[], object]:
        def call() -> None:
            with torch.set_grad_enabled(backward):
                y = way()
            if backward:
                torch.autograd.backward(y, up)

        return call

    return {name: run(way) for name, way in ways.items()}


def main() -> None:
    """Time everything and write the file."""
    command = parser("convolution", __doc__)
    command.add_argument(
        "--budget", type=float, default=20.0, help="seconds for each convolution and task (20)"
    )
    args = command.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    seconds: dict[str, dict[str, dict[str, float]]] = {}
    for name, shape in SHAPES.items():
        for task in ("predict", "train"):
            medians = in_turns(contenders(*shape, backward=task == "train"), args.budget)
            seconds.setdefault(task, {})[name] = {way: float(f"{t:.3g}") for way, t in medians.items()}
            for way, t in medians.items():
                print(f"{task:<8} {name:<38} {way:<20} {1e3 * t:8.3g} ms")
    write(args.out, {"settings": SETTINGS, "seconds": seconds})


if __name__ == "__main__":
    main()
