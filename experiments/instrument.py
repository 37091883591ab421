"""The networks of the page that answers, in a file for a browser: ``python -m experiments.instrument``.

Writes ``book/_static/instrument-data.js``, a script that sets one global: a LeNet, an MNF-LeNet and digits of
MNIST's test set, for ``instrument.js`` beside it. Means and draws of z have 16 bits there, log variances 8.
What the rounding costs, and what both networks say of fifty digits that were drawn by hand
(``drawn_digits.json``, in units of the field of the page), goes to ``book/results/instrument.json``:

    file      fingerprint and bytes of instrument-data.js
    networks  for each, the fingerprint of its weights, and accuracy and negative log-likelihood (nats) of
              random test images: ``rounded`` as the file has it, ``trained`` as the checkpoint has it
    start     the digit that the page shows first, and the angle: of those tried, the one at which the average
              of the hundred has most entropy above that of the one
    drawn     by angle, for each of the fifty its label, and of the ``one`` and the ``hundred`` what they say,
              with what probability, and with what entropy and disagreement (nats)
"""

import json
import zlib
from base64 import b64encode
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from experiments.methods import scored
from experiments.results import ROOT, fingerprint, parser, write
from mnf_lite import data, metrics, models, plots, predict
from mnf_lite.files import replacing

SETTINGS: dict[str, Any] = {
    "networks": {"LeNet": "checkpoints/equal-lenet-mnist-0", "MNF-LeNet": "results/arrival"},
    "draws": 100,  # of z, and so of networks
    "digits": 3,  # of each class, the first of the test set
    "start": {"digit": 9, "which": 2, "angles": [*range(0, 181, 10)]},
    "turns": [0, 45, 90],  # degrees, of the drawn digits
    "images": 1000,  # of the test set, chosen at random
    "seed": 0,
}
MINUTES = 1
KEPT = ("accuracy", "nll")
FILE = ROOT / "book" / "_static" / "instrument-data.js"
DRAWN = Path(__file__).with_name("drawn_digits.json")
SIDE = 28  # pixels of an image, and units of the field
PEN = 1.1  # radius of the pen

Stroke = list[list[float]]  # points [x, y], y downwards


def rounded(layer: nn.Module, draws: int) -> dict[str, Any]:
    """A layer of the posterior as the file holds it; log variances are ``low + step * steps``."""
    log_var: Tensor = layer.weight_log_var
    low, high = log_var.aminmax()
    step = (high - low) / 255
    return {
        "axis": layer.z_axis,
        "low": low.item(),
        "step": step.item(),
        "mu": layer.weight_mean.half(),
        "steps": ((log_var - low) / step.clamp(min=1e-9)).round().to(torch.uint8),
        "m": layer.bias_mean.float(),
        "log_v": layer.bias_log_var.float(),
        "z": layer.sample_z(draws)[0].half(),
    }


def drawn_weights(layer: dict[str, Any], s: int) -> tuple[Tensor, Tensor]:
    """Weights and biases of a layer in network s: W = z μ + σ ε and b = m + √v ε."""
    mu, z = layer["mu"].float(), layer["z"][s].float()
    shape = [1] * mu.ndim
    shape[layer["axis"]] = -1
    sigma = ((layer["low"] + layer["step"] * layer["steps"].float()) / 2).exp()
    root_v = (layer["log_v"] / 2).exp()
    w = z.view(shape) * mu + sigma * torch.randn_like(sigma)
    return w, layer["m"] + root_v * torch.randn_like(root_v)


def layers_of(network: nn.Module) -> list[nn.Module]:
    """The four layers of a LeNet, from the image on."""
    return [network.conv1, network.conv2, *network.dense]


class Networks:
    """The LeNet and the hundred as the file holds them.

    Args:
        lenet, mnf: the networks as trained, of equal widths.
        draws: how many draws of z are stored, from a seeded generator.
    """

    def __init__(self, lenet: nn.Module, mnf: nn.Module, draws: int) -> None:
        self.lenet = [(layer.weight.half(), layer.bias.float()) for layer in layers_of(lenet)]
        self.mnf = [rounded(layer, draws) for layer in layers_of(mnf)]
        self.widths = [len(bias) for _, bias in self.lenet]
        self.draws = draws

    def one(self, x: Tensor) -> Tensor:
        """Answers of the LeNet: ``[1, B, 10]``."""
        return self.ask([[(w.float(), b) for w, b in self.lenet]], x)

    def hundred(self, x: Tensor) -> Tensor:
        """Answers of as many networks as there are draws of z: ``[S, B, 10]``; fresh noise in each call."""
        return self.ask([[drawn_weights(layer, s) for layer in self.mnf] for s in range(self.draws)], x)

    def ask(self, networks: list[list[tuple[Tensor, Tensor]]], x: Tensor) -> Tensor:
        """What each network says of each image: ``[S, B, 10]``."""
        answers, network = [], models.LeNet(self.widths)
        for weights in networks:
            for layer, (w, b) in zip(layers_of(network), weights, strict=True):
                layer.load_state_dict({"weight": w, "bias": b})
            answers.append(network(x).softmax(-1))
        return torch.stack(answers)

    def script(self, digits: Tensor, labels: list[int], start: dict[str, int]) -> str:
        """The file: shapes in words, then all numbers in one string of bytes, in the order of the shapes."""
        tensors = [tensor for layer in self.lenet for tensor in layer]
        tensors += [layer[k] for layer in self.mnf for k in ("mu", "steps", "m", "log_v", "z")]
        arrays = [tensor.numpy() for tensor in (*tensors, (digits * 255).round().to(torch.uint8))]
        numbers = b"".join(array.astype(array.dtype.newbyteorder("<")).tobytes() for array in arrays)
        head = {
            "draws": self.draws,
            "lenet": [{"shape": list(w.shape)} for w, _ in self.lenet],
            "mnf": [
                {"shape": list(layer["mu"].shape)} | {k: layer[k] for k in ("axis", "low", "step")}
                for layer in self.mnf
            ],
            "labels": labels,
            "start": start,
            "adler32": zlib.adler32(numbers),
            "bytes": b64encode(numbers).decode(),
        }
        return f"// Written by experiments/instrument.py.\nwindow.INSTRUMENT_DATA = {json.dumps(head)};\n"


def ink(strokes: list[Stroke], radius: float) -> NDArray[Any]:
    """Strokes of a round pen as an image ``[28, 28]``, as `ink` of instrument.js has it."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    image = np.zeros((SIDE, SIDE))
    for stroke in strokes:
        for (ax, ay), (bx, by) in pairwise([stroke[0], *stroke]):
            dx, dy = bx - ax, by - ay
            square = dx * dx + dy * dy
            t = np.clip(((x - ax) * dx + (y - ay) * dy) / square, 0, 1) if square else 0.0
            distance = np.hypot(x - ax - t * dx, y - ay - t * dy)
            image = np.maximum(image, np.clip(radius + 0.5 - distance, 0, 1))
    return image


def drawn_image(strokes: list[Stroke], angle: float = 0) -> Tensor:
    """A drawing as MNIST would have it, in a box of 20 pixels, its mass in the middle; then turned, degrees.

    Returns:
        ``[1, 28, 28]``
    """
    points = np.array([point for stroke in strokes for point in stroke])
    low, high = points.min(0), points.max(0)
    scale, centre = 20 / ((high - low).max() + 2 * PEN), (low + high) / 2

    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))

    def about(c: NDArray[Any], turn: NDArray[Any]) -> NDArray[Any]:
        moved = [(SIDE / 2 + scale * (np.array(stroke) - c) @ turn).tolist() for stroke in strokes]
        return ink(moved, PEN * scale)

    image = about(centre, np.eye(2))
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5 - SIDE / 2
    mass = np.array([(image * x).sum(), (image * y).sum()]) / image.sum()
    turned = about(centre + mass / scale, np.array([[cos, -sin], [sin, cos]]))
    return torch.from_numpy(turned).float()[None]


def words(p: Tensor) -> list[dict[str, Any]]:
    """What is said of each image, how surely, and with what doubt: ``[S, B, 10]``."""
    probability, said = p.mean(0).max(-1)
    doubts = metrics.predictive_entropy(p), metrics.mutual_information(p).clamp(min=0)
    columns = (probability, *doubts)
    names = ("probability", "entropy", "disagreement")
    return [
        {"says": int(said[k])} | {name: round(c[k].item(), 4) for name, c in zip(names, columns, strict=True)}
        for k in range(len(said))
    ]


def network(name: str) -> Path:
    """The file of a network's weights."""
    return ROOT / "book" / f"{SETTINGS['networks'][name]}.safetensors"


def weights() -> dict[str, str]:
    """Fingerprints of the two networks."""
    return {name: fingerprint(network(name)) for name in SETTINGS["networks"]}


def left(results: dict[str, Any]) -> list[str]:
    """What does not belong to the result: networks trained again since, another file for the browser."""
    found = results.get("networks", {})
    stale = [name for name, print_ in weights().items() if found.get(name, {}).get("weights") != print_]
    same = FILE.is_file() and results.get("file", {}).get("sha256") == fingerprint(FILE)
    return stale if same else [*stale, FILE.name]


@torch.no_grad()
def measure(file: Path) -> dict[str, Any]:
    """Write the file for the browser and measure what is in it."""
    images, labels = data.mnist("test").tensors
    lenet, mnf = (models.load(network(name)) for name in SETTINGS["networks"])
    torch.manual_seed(SETTINGS["seed"])
    stored = Networks(lenet, mnf, SETTINGS["draws"])

    start = SETTINGS["start"]
    chosen = torch.cat([(labels == c).nonzero()[: SETTINGS["digits"], 0] for c in range(10)])
    first = SETTINGS["digits"] * start["digit"] + start["which"]
    turned = plots.rotate(images[chosen[first]], start["angles"])  # [A, 1, 28, 28]
    doubt = [metrics.predictive_entropy(ask(turned)) for ask in (stored.hundred, stored.one)]
    begin = {"digit": first, "angle": start["angles"][int((doubt[0] - doubt[1]).argmax())]}
    script = stored.script(images[chosen], labels[chosen].tolist(), begin)
    with replacing(file) as half:
        half.write_text(script, encoding="utf-8")

    some = torch.randperm(len(images))[: SETTINGS["images"]]
    x, y = images[some], labels[some]
    trained = (predict(lenet, x, n_samples=1), predict(mnf, x, n_samples=SETTINGS["draws"]))
    as_stored = (stored.one(x), stored.hundred(x))
    drawings = json.loads(DRAWN.read_text(encoding="utf-8"))
    drawn = {}
    for angle in SETTINGS["turns"]:
        pictures = torch.stack([drawn_image(drawing["strokes"], angle) for drawing in drawings])
        drawn[str(angle)] = [
            {"label": drawing["label"], "one": one, "hundred": hundred}
            for drawing, one, hundred in zip(
                drawings, words(stored.one(pictures)), words(stored.hundred(pictures)), strict=True
            )
        ]
    return {
        "file": {"sha256": fingerprint(file), "bytes": file.stat().st_size},
        "networks": {
            name: {"weights": print_, "rounded": scored(a, y, KEPT), "trained": scored(b, y, KEPT)}
            for (name, print_), a, b in zip(weights().items(), as_stored, trained, strict=True)
        },
        "start": begin,
        "drawn": drawn,
    }


def main() -> None:
    """Write both files."""
    command = parser("instrument", __doc__)
    command.add_argument("--file", type=Path, default=FILE, help="for the browser, default: %(default)s")
    args = command.parse_args()
    torch.set_num_threads(1)
    write(args.out, {"settings": SETTINGS} | measure(args.file))


if __name__ == "__main__":
    main()
