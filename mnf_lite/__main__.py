"""``python -m mnf_lite``: train a network, measure it, ask it about images of one's own."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from mnf_lite import data, metrics, models
from mnf_lite._extras import extra
from mnf_lite.files import circumstances, difference, save_json
from mnf_lite.likelihoods import likelihood_of
from mnf_lite.prediction import predict
from mnf_lite.training import fit

with extra("data", "python -m mnf_lite"):
    from PIL import Image

DATA: dict[str, Callable[[str], TensorDataset]] = {
    "mnist": data.mnist,
    "fashion-mnist": data.fashion_mnist,
    "kmnist": data.kmnist,
    "digits": data.digits,
}
SCORES = (
    metrics.accuracy,
    metrics.negative_log_likelihood,
    metrics.brier_score,
    metrics.expected_calibration_error,
)
EPILOG = """examples:
  python -m mnf_lite train --model mnf-lenet --data digits --epochs 3
  python -m mnf_lite evaluate runs/mnf-lenet-digits
  python -m mnf_lite predict runs/mnf-lenet-digits my_nine.png

The data sets are read from the folder that the environment variable MNF_LITE_DATA names, else downloaded once
into the cache; "digits" comes with scikit-learn and needs no download."""


def train(args: argparse.Namespace) -> None:
    """Train a network and write OUT.safetensors and, beside it, OUT.json."""
    out = args.out or Path("runs") / f"{args.model}-{args.data}"
    weights, log, unfinished = (
        _beside(out, end) for end in ("safetensors", "json", "unfinished.safetensors")
    )
    torch.manual_seed(args.seed)
    model = models.IMAGE_MODELS[args.model](**({} if args.widths is None else {"widths": args.widths}))
    names = ("epochs", "batch_size", "lr", "lr_log_var", "decay", "kl_weight", "kl_warmup_epochs", "seed")
    options = {name: getattr(args, name) for name in names}
    run = {"model": args.model, "data": args.data, **options, "settings": model.settings}
    if log.exists() and not unfinished.exists():
        if came := difference(_read(log).get("run", {}), run):
            raise ValueError(f"{log} is the log of a run with {came}; give another --out, or delete it")
        print(f"{out} is finished already")
        return

    training, test = DATA[args.data]("train"), DATA[args.data]("test")
    history = fit(model, training, validation=test, checkpoint=unfinished, device=args.device, **options)
    if int(os.environ.get("RANK", "0")) > 0:  # of torchrun's processes, the first one writes
        return
    models.save(model, weights)
    size = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    figures = {"parameters": size, "examples": len(training), "likelihood": repr(likelihood_of(model))}
    figures["history"] = asdict(history)
    save_json(log, {"run": run, **figures, **circumstances()})
    with suppress(FileNotFoundError):
        unfinished.unlink()
    print(f"{weights} and {log}: test accuracy {history.val_accuracy[-1]:.2%} by one sample for each image")


def evaluate(args: argparse.Namespace) -> None:
    """Print the scores of a trained network on a test set and add them to its log."""
    model, log = models.load(_beside(args.run, "safetensors")), _beside(args.run, "json")
    content = _read(log) if log.exists() else {}
    name = args.data or content.get("run", {}).get("data")
    if name is None:
        raise ValueError(f"{log} does not say what {args.run} was trained on; name a data set with --data")
    images, labels = DATA[name]("test").tensors
    torch.manual_seed(args.seed)
    probabilities = predict(model, images, n_samples=args.samples)
    scores = {score.__name__: score(probabilities, labels).item() for score in SCORES}
    made = {"samples": args.samples, "seed": args.seed, "images": len(images)}
    print(f"{'likelihood':28} {likelihood_of(model)}")
    content.setdefault("test", {})[name] = made | scores
    save_json(log, content)
    for score, value in scores.items():
        print(f"{score.replace('_', ' '):28} {value:.4f}")


def ask(args: argparse.Namespace) -> None:
    """Print what a trained network sees in image files, and how sure it is."""
    model = models.load(_beside(args.run, "safetensors"))
    x = torch.stack([_image(path, args.invert) for path in args.images])
    torch.manual_seed(args.seed)
    probabilities = predict(model, x, n_samples=args.samples)  # [S, B, classes]
    mean, spread = probabilities.mean(0), probabilities.std(0, correction=0)
    for path, p, s, entropy in zip(
        args.images, mean, spread, metrics.predictive_entropy(probabilities), strict=True
    ):
        k = int(p.argmax())
        print(f"{path}: class {k} with probability {p[k]:.3f} ± {s[k]:.3f}, entropy {entropy:.3f} nats")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status."""
    args = _parser().parse_args(arguments)
    try:
        args.command(args)
    except KeyboardInterrupt:
        print("\ninterrupted; the same command continues after the last whole epoch", file=sys.stderr)
        return 130
    except (OSError, ValueError, TypeError, FloatingPointError) as error:
        print(f"mnf_lite: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser that says in one sentence what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; --help says more\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m mnf_lite",
        description="Train Bayesian neural networks on small images and see how sure they are.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = {}
    for name, command, summary in (
        ("train", train, "train a network; the same command continues an interrupted run"),
        ("evaluate", evaluate, "score a trained network on a test set"),
        ("predict", ask, "ask a trained network about image files"),
    ):
        add[name] = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        add[name].set_defaults(command=command)

    option = add["train"].add_argument
    option("--model", choices=models.IMAGE_MODELS, required=True, help="which network")
    option("--data", choices=DATA, default="mnist", help="on which images (default %(default)s)")
    option(
        "--out",
        type=Path,
        help="where: OUT.safetensors gets the weights, OUT.json the log (default runs/MODEL-DATA)",
    )
    option("--epochs", type=int, default=3, metavar="N", help="passes over the data (default %(default)s)")
    option("--batch-size", type=int, default=64, metavar="N", help="images per step (default %(default)s)")
    option("--lr", type=float, default=1e-3, metavar="R", help="learning rate (default %(default)s)")
    option("--lr-log-var", type=float, metavar="R", help="that of log variances (default: 20 times --lr)")
    option(
        "--decay",
        type=float,
        default=0.4,
        metavar="F",
        help="fraction of the run, at its end, over which all rates fall to 2 %% (default %(default)s)",
    )
    option(
        "--widths",
        type=int,
        nargs="+",
        metavar="N",
        help="feature maps of the two convolutions, then sizes of the dense layers, the last of them 10",
    )
    option("--kl-weight", type=float, metavar="W", help="of the KL (default: 1 / images, the evidence bound)")
    option(
        "--kl-warmup-epochs",
        type=float,
        default=0,
        metavar="N",
        help="in which this weight rises from 0 (default %(default)s)",
    )
    option(
        "--seed", type=int, default=0, metavar="N", help="of weights, order and noise (default %(default)s)"
    )
    option("--device", type=_device, metavar="NAME", help="such as cuda (default: the CPU)")
    for name in ("evaluate", "predict"):
        option = add[name].add_argument
        option("run", type=Path, metavar="RUN", help="what --out named in training")
        option("--samples", type=int, default=100, metavar="N", help="networks drawn (default %(default)s)")
        option("--seed", type=int, default=0, metavar="N", help="of the draws (default %(default)s)")
    add["evaluate"].add_argument(
        "--data", choices=DATA, help="whose test set (default: that of the training)"
    )
    option("images", type=Path, nargs="+", metavar="IMAGE", help="PNG or other files, light figures on dark")
    option("--invert", action="store_true", help="for dark ink on light paper")
    return parser


def _device(name: str) -> torch.device:
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise argparse.ArgumentTypeError(f"{name!r} is not a device of this machine") from error


def _image(path: Path, invert: bool) -> Tensor:
    """An image file as the networks know images: [1, 28, 28] in [0, 1], light on dark."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("L").resize((models.SIDE, models.SIDE)), dtype=np.float32) / 255
    return torch.from_numpy(1 - pixels if invert else pixels)[None]


def _beside(run: Path, end: str) -> Path:
    """The file of a run that ends in `end`; the run may be named by its weights, too."""
    return run.with_name(f"{run.name.removesuffix('.safetensors')}.{end}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a whole JSON file ({error})") from error
    return content


if __name__ == "__main__":
    sys.exit(main())
