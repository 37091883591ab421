"""Training: the evidence bound over mini-batches, with a memory that survives a kill."""

import atexit
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from torch.utils.data import Dataset, TensorDataset, default_collate
from tqdm import tqdm

from mnf_lite.files import difference, load_tensors, save_tensors
from mnf_lite.layers import kl_divergence
from mnf_lite.layers.base import positive_int
from mnf_lite.models import is_regression

LOG_2PI = math.log(2 * math.pi)
VALIDATION_CHUNK = 1000  # examples at a time
BAR_INTERVAL = 0.5  # seconds between looks at the loss, which on a GPU make it wait


@dataclass
class History:
    """Figures of a training run, one entry per epoch.

    Attributes:
        loss: nats per example, `nll` + `kl_weight` * `kl` at the full weight even while the KL warms up; with
            the default weight 1/N it is minus the evidence bound, divided by N.
        nll: negative log-likelihood of the training examples while the weights were moving, nats per example.
        kl: divergence of the posterior from the prior, nats, mean over the steps.
        accuracy: fraction of training examples classified correctly; empty for regression.
        val_nll, val_accuracy: the same on the validation set after the epoch, by one draw of the weights for
            every example, and so worse than the mean of many draws; empty without a validation set.
        seconds: wall-clock time of the epoch, validation included.
    """

    loss: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_nll: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def append(self, **figures: float) -> None:
        """Adds the figures of one epoch, each named by its attribute."""
        for name, figure in figures.items():
            getattr(self, name).append(figure)


def fit(
    model: nn.Module,
    dataset: Dataset[Any],
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    kl_weight: float | None = None,
    kl_warmup_epochs: float = 0,
    seed: int = 0,
    validation: Dataset[Any] | None = None,
    checkpoint: str | Path | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> History:
    r"""Trains a model in place by Adam on the evidence bound of mini-batches.

    .. math:: -\frac{1}{|B|} \sum_{(x, y) \in B} \log p(y \mid x, W_x) + w_t \, \mathrm{KL}

    There are fresh weights :math:`W_x` for every example and one draw of the KL for every step. The weight
    :math:`w_t` rises linearly from 0 to `kl_weight` over the first `kl_warmup_epochs`. The likelihood is
    categorical over the model's logits, or Gaussian where the model has a `noise_log_var` (`models.MNFMLP`).

    The data set is held whole on the device. Order and noise of an epoch depend on `seed` and the epoch's
    number alone, and the caller's random state is left as it was. Under ``torchrun`` every process takes its
    share of each batch and of the noise that one process would draw, so that the losses are those of one
    process up to rounding.

    Args:
        model: gives logits ``[B, classes]`` or means ``[B, out]``.
        dataset: pairs of x (floating point) and y (int64 class; for regression ``[out]``, floating point).
        epochs: passes over the data, those in the checkpoint included.
        batch_size: examples per step, over all processes.
        lr: Adam's learning rate.
        kl_weight: None means 1/N, N the number of training examples: the evidence bound.
        kl_warmup_epochs: length of the warm-up.
        seed: a non-negative integer.
        validation: scored after every epoch; does not change the training.
        checkpoint: a file, replaced after every epoch, from which a run with the same settings continues; the
            end is equal to the bit to that of a run that was never interrupted.
        device: where to train; None is where the model is.
        progress: whether to show a bar on standard error.

    Returns:
        The history of all epochs, those in the checkpoint included.

    Raises:
        TypeError, ValueError: an option, image or label that cannot be; a checkpoint that is damaged or of
            another run.
        FloatingPointError: the loss is not finite; names the first parameter or gradient that is not.
        OSError: the checkpoint cannot be written; an older one is then intact.

    References:
        Bowman et al. (2016), Generating sentences from a continuous space, for the warm-up.
    """
    _check_model(model)
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        positive_int(value, name, least)
    numbers: dict[str, Any] = {"lr": lr, "kl_weight": kl_weight, "kl_warmup_epochs": kl_warmup_epochs}
    for name, number in numbers.items():
        if number is not None and not (isinstance(number, Real) and 0 <= float(number) < math.inf):
            raise ValueError(f"{name} must be a finite number of at least 0, got {number!r}")
    if device is not None:
        model.to(device)
    x, y = _tensors(model, dataset)
    try:
        held_out = None if validation is None else _tensors(model, validation)
    except (TypeError, ValueError) as error:
        error.args = (f"validation: {error}",)
        raise
    kl_weight = 1 / len(x) if kl_weight is None else kl_weight
    steps = math.ceil(len(x) / batch_size)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)

    history, save = History(), None
    if checkpoint is not None:
        run: dict[str, Any] = {"model": repr(model), "data": _fingerprint(x, y)}
        run |= {"batch_size": batch_size, "lr": lr, "seed": seed}
        run |= {"kl_weight": kl_weight, "kl_warmup_epochs": kl_warmup_epochs}
        history, save = _open_checkpoint(Path(checkpoint), run, epochs, model, optimizer)
    done = len(history.loss)

    rank, world = _processes()
    save = save if rank == 0 else None
    if save and done == 0:
        save(history)  # the initial weights: even the first epoch can be interrupted
    with (
        _aside(model, training=True),
        _bar(epochs * steps, done * steps, visible=progress and rank == 0) as bar,
    ):
        objective: nn.Module = _Objective(model, rank, world)
        if world > 1:
            objective = DistributedDataParallel(objective)
        for epoch in range(done, epochs):
            began = time.perf_counter()
            bar.set_description(f"epoch {epoch + 1}/{epochs}", refresh=False)
            torch.manual_seed(_stream(seed, epoch, 0))
            sums = torch.zeros(4, dtype=x.dtype, device=x.device)
            for k, rows in enumerate(torch.split(torch.randperm(len(x)).to(x.device), batch_size)):
                warmup = min(1.0, (epoch + k / steps) / kl_warmup_epochs) if kl_warmup_epochs else 1.0
                loss, terms = objective(x, y, rows, kl_weight * warmup)
                _update(model, optimizer, loss, f"epoch {epoch + 1}, step {k + 1}")
                sums += terms
                if bar.update():
                    bar.set_postfix(_figures(model, sums, kl_weight), refresh=False)
            if world > 1:
                dist.all_reduce(sums)
            figures = _figures(model, sums, kl_weight)
            bar.set_postfix(figures, refresh=False)  # what a bar too short to be refreshed ends with
            if held_out is not None:
                torch.manual_seed(_stream(seed, epoch, 1))
                figures |= _score(model, *held_out)
            history.append(**figures, seconds=time.perf_counter() - began)
            if not all(parameter.isfinite().all() for parameter in model.parameters()):
                raise FloatingPointError(f"after epoch {epoch + 1} {_not_finite(model)}")
            if save:
                save(history)
    return history


def maximum_likelihood(
    density: nn.Module, batches: Iterable[Tensor], *, lr: float = 1e-3, clip: float = 10.0
) -> list[float]:
    r"""Train a density on batches of points, one step of Adam for each batch.

    .. math:: -\frac{1}{|B|} \sum_{x \in B} \log p(x)

    Its mean is the cross-entropy, so that the loss less the entropy of the data is their divergence from the
    model, in nats.

    Args:
        density: a module with ``log_prob(x)``, such as ``flows.NormalizingFlow``; trained in place.
        batches: points ``[B, dim]`` of each step.
        lr: Adam's learning rate.
        clip: greatest norm of the gradient; a longer one is shortened to it.

    Returns:
        The loss at every step, in nats.
    """
    parameters = list(density.parameters())
    optimizer, losses = torch.optim.Adam(parameters, lr=lr), []
    for x in batches:
        loss = -density.log_prob(x).mean()  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


@contextmanager
def _aside(model: nn.Module, training: bool) -> Iterator[None]:
    """Within it the model is in the given mode; afterwards mode and random state are what they were."""
    was_training = model.training
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            model.train(training)
            yield
        finally:
            model.train(was_training)


class _Objective(nn.Module):
    """The loss as a module, so that DistributedDataParallel sees one forward pass."""

    def __init__(self, model: nn.Module, rank: int, world: int) -> None:
        super().__init__()
        self.model, self.rank, self.world = model, rank, world

    def forward(self, x: Tensor, y: Tensor, rows: Tensor, kl_weight: float) -> tuple[Tensor, Tensor]:
        """This process's loss on its share of a batch, and the sums (nll, KL, hits, 1) over its examples."""
        shares = rows.tensor_split(self.world)
        mine, before = shares[self.rank], sum(len(share) for share in shares[: self.rank])
        # The KL first: layers draw no noise for an empty share, and there the processes' generators part.
        kl = kl_divergence(self.model)
        with _SharedNoise(before, len(mine), len(rows)) if self.world > 1 else nullcontext():
            output = self.model(x[mine])
        nll = -_log_likelihood(self.model, output, y[mine]).sum()
        # Gradients are averaged over processes, so each share is scaled to have the batch's mean as average.
        loss = nll * self.world / len(rows) + kl_weight * kl
        hits = torch.zeros_like(nll) if is_regression(self.model) else (output.argmax(-1) == y[mine]).sum()
        return loss, torch.stack([nll, kl * len(mine), hits, torch.full_like(nll, len(mine))]).detach()


class _SharedNoise(TorchFunctionMode):
    """Within it, noise is drawn for the whole batch and cut to this process's rows: the noise of one process.

    It holds for the draws by which the layers make noise whose first axis runs over examples: `normal_`,
    `bernoulli_` and `randn_like`. Other random layers draw the same noise in every process.

    Args:
        before: rows of the batch in front of this process's.
        size: its rows.
        total: rows of the batch.
    """

    def __init__(self, before: int, size: int, total: int) -> None:
        super().__init__()
        self.before, self.size, self.total = before, size, total

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.randn_like:
            func, args, kwargs = Tensor.normal_, (torch.empty_like(args[0]),), {}
        if func not in (Tensor.normal_, Tensor.bernoulli_) or self.size == 0:
            return func(*args, **kwargs)
        per_row = len(args[0]) // self.size
        whole = args[0].new_empty(per_row * self.total, *args[0].shape[1:])
        func(whole, *args[1:], **kwargs)
        return args[0].copy_(whole.narrow(0, per_row * self.before, per_row * self.size))


def _log_likelihood(model: nn.Module, output: Tensor, y: Tensor) -> Tensor:
    """Log p(y | output) in nats, ``[B]``: Gaussian where the model has a noise, else categorical."""
    if not is_regression(model):
        return -F.cross_entropy(output, y, reduction="none")
    log_var: Tensor = model.noise_log_var  # type: ignore[assignment]
    return -(LOG_2PI + log_var + (y - output).square() * (-log_var).exp()).sum(-1) / 2  # [B, out] -> [B]


def _figures(model: nn.Module, sums: Tensor, kl_weight: float) -> dict[str, float]:
    """Means over examples from the sums of `_Objective`, by the names of `History`."""
    nll, kl, hits = (sums[:3] / sums[3]).tolist()
    figures = {"loss": nll + kl_weight * kl, "nll": nll, "kl": kl}
    return figures if is_regression(model) else figures | {"accuracy": hits}


@torch.no_grad()
def _score(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """Figures of the validation set, one draw of the weights for every example."""
    model.eval()
    outputs = torch.cat([model(chunk) for chunk in torch.split(x, VALIDATION_CHUNK)])
    model.train()
    nll = -_log_likelihood(model, outputs, y).mean().item()
    if is_regression(model):
        return {"val_nll": nll}
    return {"val_nll": nll, "val_accuracy": (outputs.argmax(-1) == y).float().mean().item()}


def _update(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor, where: str) -> None:
    """One step of the optimizer; where the loss is not finite none, and the parameters can be inspected."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if not loss.isfinite():
        raise FloatingPointError(f"the loss is {loss.item()} in {where}: {_not_finite(model)}")
    optimizer.step()


def _not_finite(model: nn.Module) -> str:
    """Names the first parameter, else the first gradient, that is not finite."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            return f"the parameter {name} is the first that is not finite"
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of {name} is the first that is not finite"
    return "but every parameter and gradient is finite"


def _stream(seed: int, epoch: int, purpose: int) -> int:
    """A seed of its own for every run, epoch and purpose (0 trains, 1 validates)."""
    return int(np.random.SeedSequence((seed, epoch, purpose)).generate_state(1, np.uint64)[0])


def _bar(total: int, done: int, visible: bool) -> "tqdm[Any]":
    return tqdm(
        total=total, initial=done, disable=not visible or done == total, mininterval=BAR_INTERVAL, unit="step"
    )


def _processes() -> tuple[int, int]:
    """Rank and number of torchrun's processes; the group stays open, for it cannot safely be opened twice."""
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group()
        atexit.register(dist.destroy_process_group)
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _open_checkpoint(
    path: Path, run: dict[str, Any], epochs: int, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[History, Callable[[History], None]]:
    """Loads model and optimizer where `path` exists; gives the history so far and the function that saves."""

    def save(history: History) -> None:
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items()}
        save_tensors(path, tensors, {"run": run, "history": asdict(history)})

    if path.is_dir():
        raise ValueError(f"{path} is a folder; a checkpoint needs the name of a file")
    if not path.exists():
        return History(), save
    tensors, metadata = load_tensors(path)
    if "run" not in metadata:
        raise ValueError(f"{path} is not a checkpoint of fit; name another file, or delete this one")
    before = metadata["run"]
    came = "another model" if before.get("model") != run["model"] else difference(before, run)
    if came:
        raise ValueError(f"{path} belongs to a run with {came}; name another file, or delete this one")
    history = History(**metadata["history"])
    if len(history.loss) > epochs:
        raise ValueError(f"{path} holds {len(history.loss)} epochs already, more than the {epochs} asked for")
    states: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        kind, index, *rest = name.split(".", 2)
        if kind == "optimizer":
            states.setdefault(int(index), {})[rest[0]] = tensor
    model.load_state_dict(
        {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    )
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})
    return history, save


def _fingerprint(x: Tensor, y: Tensor) -> str:
    """Tells one data set from another: its size and a checksum of its bytes."""
    checksum = 0
    for tensor in (x, y):
        checksum = zlib.crc32(tensor.cpu().contiguous().numpy().data, checksum)
    return f"of {len(x)} examples ({checksum:08x})"


def _tensors(model: nn.Module, dataset: Dataset[Any]) -> tuple[Tensor, Tensor]:
    """The data set as two tensors on the model's device, checked against what the model takes and gives."""
    if not hasattr(dataset, "__len__"):
        came = type(dataset).__name__
        raise TypeError(f"the data set must have a length, such as TensorDataset(x, y), got {came}")
    if (size := len(dataset)) == 0:
        raise ValueError("the data set is empty")
    # A TensorDataset counts as one example, whose tensors are whole already.
    examples = [dataset.tensors] if isinstance(dataset, TensorDataset) else [dataset[i] for i in range(size)]
    first = examples[0]
    if not isinstance(first, tuple | list) or len(first) != 2:
        came = f"{len(first)} entries" if isinstance(first, tuple | list) else type(first).__name__
        raise ValueError(f"each example, as of TensorDataset(x, y), must be a pair (x, y), got {came}")
    pair = first if isinstance(dataset, TensorDataset) else default_collate(examples)
    like = next(model.parameters())
    x, y = (tensor.to(like.device) for tensor in pair)
    if x.dtype != like.dtype:
        raise TypeError(f"x must be {like.dtype}, as the model's parameters, got {x.dtype}")
    if not x.isfinite().all():
        raise ValueError("x must be finite, got infinities or NaNs")
    output = _probe(model, x[:1])
    if is_regression(model):
        if y.dtype != like.dtype:
            raise TypeError(f"the model has Gaussian noise: y must be {like.dtype}, got {y.dtype}")
        if y.shape[1:] != output.shape[1:]:
            raise ValueError(
                f"y must have the outputs' shape {[size, *output.shape[1:]]}, got {list(y.shape)}"
            )
        if not y.isfinite().all():
            raise ValueError("y must be finite, got infinities or NaNs")
        return x, y
    classes = output.shape[-1]
    if y.dtype != torch.int64 or y.ndim != 1:
        raise TypeError(f"labels must be int64 of shape [{size}], got {y.dtype} of shape {list(y.shape)}")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"labels must be in 0..{classes - 1}, got {y.min().item()}..{y.max().item()}")
    return x, y


@torch.no_grad()
def _probe(model: nn.Module, x: Tensor) -> Tensor:
    """The output for x, without a trace in the random state or the mode."""
    with _aside(model, training=False):
        output: Tensor = model(x)
    return output


def _check_model(model: nn.Module) -> None:
    """Raises where there is nothing to train."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be one network, got {type(model).__name__}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{type(model).__name__} has no parameters to train")
