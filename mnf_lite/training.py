"""Training: the evidence bound over mini-batches, with a memory that survives a kill."""

import atexit
import inspect
import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
    default_collate,
)
from tqdm import tqdm

from mnf_lite import _inputs as inputs
from mnf_lite.files import difference, load_tensors, save_tensors
from mnf_lite.layers import kl_parts, update_priors
from mnf_lite.likelihoods import Likelihood, likelihood_of
from mnf_lite.nets import positive_int

BATCH_SIZE = 128
VALIDATION_CHUNK = 1000  # examples at a time
BAR_INTERVAL = 0.5  # seconds between looks at the loss, which on a GPU make it wait
PRIOR_INTERVAL = 50  # steps from one update of the learned priors to the next
LAST_RATE = 0.02  # to which share of themselves all rates fall

Optimization = Callable[[list[dict[str, Any]]], Optimizer]
Batch = tuple[Any, Any, int]  # x, y, and how many examples all processes have in this step


@dataclass
class History:
    """Figures of a training run, one entry per epoch.

    Attributes:
        loss: nats per example, ``nll`` + ``kl_weight`` * ``kl`` at the full weight even while the KL warms
            up; with the default weight 1/N it is minus the evidence bound, divided by N.
        nll: negative log-likelihood of the training examples while the weights were moving, nats per example.
        kl: divergence of the posterior from the prior, nats, mean over the steps.
        kl_weights, kl_bias, log_q, log_r: its parts, ``kl = kl_weights + kl_bias + log_q - log_r``, as in
            ``layers.kl_parts``.
        accuracy: fraction of training examples classified correctly; empty where y is not a class.
        val_nll, val_accuracy: the same on the validation set after the epoch, by one draw of the weights for
            every example, and so worse than the mean of many draws; empty without a validation set.
        seconds: wall-clock time of the epoch, validation included.

    Example:
        >>> history = History()
        >>> history.append(loss=2.5, nll=2.0)
        >>> history.loss
        [2.5]
    """

    loss: list[float] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    kl_weights: list[float] = field(default_factory=list)
    kl_bias: list[float] = field(default_factory=list)
    log_q: list[float] = field(default_factory=list)
    log_r: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    val_nll: list[float] = field(default_factory=list)
    val_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def append(self, **figures: float) -> None:
        """Add the figures of one epoch, each named by its attribute."""
        for name, figure in figures.items():
            getattr(self, name).append(figure)


def fit(
    model: nn.Module,
    dataset: Dataset[Any] | Iterable[Any],
    *,
    epochs: int,
    batch_size: int = BATCH_SIZE,
    lr: float = 1e-3,
    lr_log_var: float | None = None,
    decay: float | Callable[[float], float] = 0.0,
    optimizer: Optimization | None = None,
    likelihood: Likelihood | None = None,
    kl_weight: float | None = None,
    kl_warmup_epochs: float = 0,
    seed: int = 0,
    validation: Dataset[Any] | Iterable[Any] | None = None,
    checkpoint: str | Path | None = None,
    after_epoch: Callable[[History], object] | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> History:
    r"""Train a model in place on the evidence bound of mini-batches.

    .. math:: -\frac{1}{|B|} \sum_{(x, y) \in B} \log p(y \mid x, W_x) + w_t \, \mathrm{KL}

    There are fresh weights :math:`W_x` for every example and one draw of the KL for every step. The weight
    :math:`w_t` rises linearly from 0 to ``kl_weight`` over the first ``kl_warmup_epochs``. Learned priors
    are set to their optimum every 50 steps.

    Order and noise of an epoch depend on ``seed`` and the epoch's number alone, and the caller's random
    state is left as it was; random transforms of a data set should draw from torch's generator, so that they
    do, too. Under ``torchrun`` every process takes its share of each batch with noise of its own, and
    ``DistributedDataParallel`` averages the gradients.

    Args:
        model: maps x to outputs ``[B, ...]``.
        dataset: pairs (x, y) with a length. A ``TensorDataset`` is held whole on the device; of any other
            data set each batch is fetched anew in every epoch, transforms included. Or a ``DataLoader``,
            which makes its own batches (``batch_size`` is then the loader's; under ``torchrun`` it needs a
            ``DistributedSampler``). x may be a tensor, or a dict, tuple or list of tensors, which the model
            gets as it is.
        epochs: passes over the data, those in the checkpoint included.
        batch_size: examples per step, over all processes.
        lr: learning rate.
        lr_log_var: that of the log variances (parameters whose name ends in ``log_var``); None is ``lr``.
        decay: fraction of the run, at its end, over which all rates fall linearly to 2 % of themselves; or a
            schedule of your own, a function of the fraction of the run that is done, which gives the factor
            on all rates.
        optimizer: makes the optimizer from a list of parameter groups, as the classes of ``torch.optim`` do;
            None is Adam.
        likelihood: what the outputs mean; None asks the model (see ``likelihoods.likelihood_of``). Its
            parameters are trained as well.
        kl_weight: None means 1/N, N the number of training examples: the evidence bound.
        kl_warmup_epochs: length of the warm-up.
        seed: a non-negative integer.
        validation: scored after every epoch; does not change the training.
        checkpoint: a file, replaced after every epoch, from which a run with the same settings continues; the
            end is equal to the bit to that of a run that was never interrupted.
        after_epoch: called after every epoch with the history so far, the checkpoint being written; what it
            raises ends the run. It may draw random numbers and change no weights.
        device: where to train; None is where the model is.
        progress: whether to show a bar on standard error.

    Returns:
        The history of all epochs, those in the checkpoint included.

    Raises:
        TypeError, ValueError: an option, input or target that cannot be; a checkpoint that is damaged or of
            another run.
        FloatingPointError: the loss or a gradient is not finite; names the first parameter or gradient that
            is not. The parameters are those before the step.
        OSError: the checkpoint cannot be written; an older one is then intact.

    Source:
        Graves (2011), for the bound over mini-batches, https://dl.acm.org/doi/10.5555/2986459.2986721;
        Bowman et al. (2016), for the warm-up, https://arxiv.org/abs/1511.06349.

    Example:
        >>> from mnf_lite import models
        >>> x, network = torch.rand(20, 1), models.MNFMLP((1, 5, 1))
        >>> history = fit(network, TensorDataset(x, x.sin()), epochs=2, progress=False)
        >>> len(history.loss)
        2
    """
    _check_model(model)
    for name, value, least in (("epochs", epochs, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        positive_int(value, name, least)
    _check_numbers(lr=lr, lr_log_var=lr_log_var, kl_weight=kl_weight, kl_warmup_epochs=kl_warmup_epochs)
    likelihood = likelihood_of(model, likelihood)
    if device is not None:
        model.to(device)
    likelihood.to(_like(model))
    data = _Data(dataset, batch_size, model, likelihood)
    try:
        held_out = None if validation is None else _Data(validation, VALIDATION_CHUNK, model, likelihood)
    except (TypeError, ValueError) as error:
        error.args = (f"validation: {error}",)
        raise
    if data.loads and batch_size not in (BATCH_SIZE, data.batch_size):
        raise ValueError(f"batch_size is the loader's own, {data.batch_size}, got {batch_size}")
    kl_weight = data.kl_weight() if kl_weight is None else kl_weight
    objective = _Objective(model, likelihood, checks=not data.whole)
    loop = _Loop(
        objective,
        data,
        stepper := _optimizer(objective, optimizer, lr, lr_log_var),
        _Schedule(stepper, decay, epochs),
        kl_weight,
        kl_warmup_epochs,
        seed,
        *_processes(),
    )

    history, save = History(), None
    if checkpoint is not None:
        run: dict[str, Any] = {"model": repr(model), "data": data.fingerprint()}
        run |= {"batch_size": data.batch_size, "lr": lr, "lr_log_var": lr_log_var, "seed": seed}
        run |= {"kl_weight": kl_weight, "kl_warmup_epochs": kl_warmup_epochs} | loop.schedule.settings()
        run |= {"optimizer": None if optimizer is None else " ".join(repr(stepper).split())}
        run |= {"likelihood": repr(likelihood)}
        history, save = _open_checkpoint(Path(checkpoint), run, epochs, objective, stepper)
    done = len(history.loss)
    save = save if loop.rank == 0 else None
    if save and done == 0:
        save(history)  # the initial weights: even the first epoch can be interrupted
    visible = progress and loop.rank == 0
    with (
        inputs.aside(model, training=True),
        _bar(epochs * data.steps, done * data.steps, visible) as bar,
    ):
        parallel = DistributedDataParallel(objective) if loop.world > 1 else objective
        for epoch in range(done, epochs):
            began = time.perf_counter()
            bar.set_description(f"epoch {epoch + 1}/{epochs}", refresh=False)
            figures = loop.epoch(epoch, parallel, bar)
            if held_out is not None:
                torch.manual_seed(_stream(seed, epoch, 1))
                figures |= _score(model, likelihood, held_out)
            history.append(**figures, seconds=time.perf_counter() - began)
            if not all(parameter.isfinite().all() for parameter in objective.parameters()):
                raise FloatingPointError(f"after epoch {epoch + 1} {_not_finite(objective)}")
            if save:
                save(history)
            if checkpoint is not None and loop.world > 1:
                dist.barrier()  # no process may read what the first has not written yet
            if after_epoch is not None:
                after_epoch(history)
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

    Raises:
        TypeError, ValueError: no density, a rate that cannot be, points that the density does not take.
        FloatingPointError: a loss or gradient that is not finite; the parameters are those before the step.

    Source:
        The loop by which the book trains its flows, such as those of Papamakarios et al. (2021),
        https://arxiv.org/abs/1912.02762.

    Example:
        >>> from mnf_lite import flows
        >>> density = flows.NormalizingFlow(flows.AffineConstant(2))
        >>> len(maximum_likelihood(density, torch.randn(10, 50, 2)))  # ten batches of 50 points
        10
    """
    _check_model(density)
    _check_numbers(lr=lr, clip=clip)
    if not callable(getattr(density, "log_prob", None)):
        raise TypeError(
            f"density must have log_prob(x), such as flows.NormalizingFlow, got {type(density).__name__}"
        )
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must give the points of each step, got {type(batches).__name__}")
    parameters = list(density.parameters())
    optimizer, losses = torch.optim.Adam(parameters, lr=lr), []
    for step, x in enumerate(batches):
        if not isinstance(x, Tensor) or x.ndim < 2 or len(x) == 0:
            came = f"shape {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise TypeError(f"each of batches must be points [B, dim], got {came}")
        loss = -density.log_prob(x).mean()  # type: ignore[operator]
        optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not (loss.isfinite() and norm.isfinite()):
            raise FloatingPointError(f"the loss is {loss.item()} in step {step + 1}: {_not_finite(density)}")
        nn.utils.clip_grads_with_norm_(parameters, clip, norm)
        optimizer.step()
        losses.append(loss.item())
    return losses


class _Data:
    """A data set or loader in batches, checked against what the model takes and gives.

    Attributes:
        whole: whether it is a ``TensorDataset``, held on the device.
        size: number of examples, None where a loader does not say it.
        steps: batches of an epoch.
    """

    def __init__(self, dataset: Any, batch_size: int, model: nn.Module, likelihood: Likelihood) -> None:
        self.dataset, self.batch_size, self.device = dataset, batch_size, _like(model).device
        self.whole = isinstance(dataset, TensorDataset)
        self.loads = isinstance(dataset, DataLoader) or not hasattr(dataset, "__getitem__")
        self.size, self.steps = self._sizes()
        if self.loads:
            self.batch_size = getattr(dataset, "batch_size", batch_size)
        with inputs.aside(model, training=False), torch.no_grad():
            # A TensorDataset counts as one batch, whose tensors are whole already.
            self.x, self.y = self._on_device(
                dataset.tensors if self.whole else next(iter(self._loader([[0]])))
            )
            _check_x(self.x, _like(model))
            output = inputs.output_of(model, inputs.rows(self.x, 0, 1))
            likelihood.check(output, self.y)
            log_p = likelihood.log_prob(output, inputs.rows(self.y, 0, 1))
        if log_p.shape != (1,):
            name, shape = type(likelihood).__name__, list(log_p.shape)
            raise ValueError(
                f"{name}.log_prob must give one number for each example, [1] for one, got {shape}"
            )
        if not self.whole:
            del self.x, self.y

    def _sizes(self) -> tuple[int | None, int]:
        """Numbers of examples and of batches."""
        came = type(self.dataset).__name__
        try:
            length = len(self.dataset)
        except (TypeError, NotImplementedError):
            length = None
        if length is None or isinstance(self.dataset, IterableDataset):
            raise TypeError(
                "the data set must have a length and examples by number, such as TensorDataset(x, y), or "
                f"be a loader of batches that has a length, got {came}"
            )
        if length == 0:
            raise ValueError("the data set is empty")
        if not self.loads:
            return length, math.ceil(length / self.batch_size)
        inner: Any = getattr(self.dataset, "dataset", None)
        return (len(inner) if hasattr(inner, "__len__") else None), length

    def kl_weight(self) -> float:
        """Return 1/N."""
        if self.size is None:
            raise ValueError(
                f"{type(self.dataset).__name__} does not say how many examples there are: name "
                "kl_weight=1/N, N the number of training examples"
            )
        return 1 / self.size

    def fingerprint(self) -> str:
        """Tell data sets apart: a TensorDataset by its size and bytes, others by their size and kind."""
        if not self.whole:
            return f"of {self.size} examples in a {type(self.dataset).__name__}"
        checksum = 0
        for tensor in (self.x, self.y):
            checksum = zlib.crc32(tensor.cpu().contiguous().view(torch.uint8).numpy().data, checksum)
        return f"of {self.size} examples ({checksum:08x})"

    def batches(self, epoch: int, seed: int, rank: int, world: int) -> Iterator[Batch]:
        """Yield this process's share of each batch of an epoch, and the examples of all shares.

        The order is that of torch's generator; behind it all processes but the first leave it for one of
        their own.
        """
        if self.loads:
            self._start_epoch(epoch, seed, rank, world)
            for batch in self.dataset:
                x, y = self._on_device(batch)
                yield x, y, inputs.count(y) * world
            return
        whole = torch.split(torch.randperm(self.size or 0), self.batch_size)
        if rank > 0:
            torch.manual_seed(_stream(seed, epoch, 1 + rank))
        shares = [rows.tensor_split(world)[rank] for rows in whole]
        # No example at all cannot be fetched: a process without a share fetches one, which is cut off again.
        wanted = [share if len(share) else rows[:1] for share, rows in zip(shares, whole, strict=True)]
        fetched = self._loader(wanted)
        if self.whole:
            fetched = ((self.x[rows], self.y[rows]) for rows in (rows.to(self.device) for rows in wanted))
        for pair, share, rows in zip(fetched, shares, whole, strict=True):
            x, y = self._on_device(pair)
            yield inputs.rows(x, 0, len(share)), inputs.rows(y, 0, len(share)), len(rows)

    def chunks(self) -> Iterator[tuple[Any, Any]]:
        """Yield all examples in order."""
        if self.whole:
            yield from zip(*(torch.split(part, self.batch_size) for part in (self.x, self.y)), strict=True)
        else:
            for pair in self._loader(torch.split(torch.arange(self.size or 0), self.batch_size)):
                yield self._on_device(pair)

    def _loader(self, batches: Sequence[Any]) -> Iterable[Any]:
        """The loader that was given, or one that fetches these examples and draws no random number."""
        if self.loads:
            return self.dataset  # type: ignore[no-any-return]
        lists = [list(map(int, rows)) for rows in batches]
        return DataLoader(self.dataset, batch_sampler=lists, collate_fn=_collate, generator=torch.Generator())

    def _start_epoch(self, epoch: int, seed: int, rank: int, world: int) -> None:
        """Make the order of a loader depend on seed and epoch alone."""
        sampler = getattr(self.dataset, "sampler", None)
        if world > 1 and not isinstance(sampler, DistributedSampler):
            raise ValueError(
                f"of {world} processes each needs its own share: give the loader a DistributedSampler"
            )
        if isinstance(sampler, DistributedSampler):
            sampler.set_epoch(epoch)
        stream = _stream(seed, epoch, 1 + rank if rank else 0)
        torch.manual_seed(stream)
        if isinstance(generator := getattr(self.dataset, "generator", None), torch.Generator):
            generator.manual_seed(stream)

    def _on_device(self, pair: Any) -> tuple[Any, Any]:
        """X and y of a batch, on the device; raises where it is no pair."""
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            came = f"{len(pair)} entries" if isinstance(pair, tuple | list) else type(pair).__name__
            raise ValueError(f"each example, as of TensorDataset(x, y), must be a pair (x, y), got {came}")
        x, y = (inputs.each(lambda tensor: tensor.to(self.device), part) for part in pair)
        inputs.count(x)
        return x, y


class _Objective(nn.Module):
    """The loss as a module, so that DistributedDataParallel sees one forward pass."""

    TERMS = ("nll", "right", "examples", "kl", "kl_weights", "kl_bias", "log_q", "log_r")

    def __init__(self, model: nn.Module, likelihood: Likelihood, checks: bool) -> None:
        super().__init__()
        self.model, self.likelihood, self.checks = model, likelihood, checks

    def forward(self, x: Any, y: Any, total: int, world: int, kl_weight: float) -> tuple[Tensor, Tensor]:
        """Return this process's loss on its share of a batch, and the sums of `TERMS` over its examples."""
        parts = kl_parts(self.model)
        kl = parts["weights"] + parts["bias"] + parts["log_q"] - parts["log_r"]
        output = self.model(x)
        size = len(output)
        if self.checks and size:
            _check_x(x, _like(self.model))
            self.likelihood.check(output.detach(), y)
        nll = -self.likelihood.log_prob(output, y).sum()
        # Gradients are averaged over processes, so each share is scaled to have the batch's mean as average.
        loss = nll * world / total + kl_weight * kl
        right = (
            self.likelihood.right(output, y).sum() if self.likelihood.classifies else torch.zeros_like(nll)
        )
        with torch.no_grad():
            figures = torch.stack([nll, right, torch.full_like(nll, size), kl, *parts.values()])
            figures[self.TERMS.index("kl") :] *= size
        return loss, figures

    def state(self) -> dict[str, Tensor]:
        """The state of the model, and that of the likelihood unless it is part of the model."""
        held = {id(tensor) for tensor in (*self.model.parameters(), *self.model.buffers())}
        alone = any(id(t) not in held for t in (*self.likelihood.parameters(), *self.likelihood.buffers()))
        state: dict[str, Tensor] = self.state_dict()
        return {name: tensor for name, tensor in state.items() if alone or name.startswith("model.")}


@dataclass
class _Loop:
    """What all epochs of a run have in common."""

    objective: _Objective
    data: _Data
    optimizer: Optimizer
    schedule: "_Schedule"
    kl_weight: float
    kl_warmup_epochs: float
    seed: int
    rank: int
    world: int

    def epoch(self, epoch: int, parallel: nn.Module, bar: "tqdm[Any]") -> dict[str, float]:
        """Train for one epoch by `parallel`, the objective or what wraps it, and return its figures."""
        torch.manual_seed(_stream(self.seed, epoch, 0))
        like, likelihood = _like(self.objective), self.objective.likelihood
        sums = torch.zeros(len(_Objective.TERMS), dtype=like.dtype, device=like.device)
        for k, batch in enumerate(self.data.batches(epoch, self.seed, self.rank, self.world)):
            done = epoch + k / self.data.steps  # epochs
            if (epoch * self.data.steps + k) % PRIOR_INTERVAL == 0:
                update_priors(self.objective.model)
            self.schedule.apply(done)
            warmup = min(1.0, done / self.kl_warmup_epochs) if self.kl_warmup_epochs else 1.0
            loss, terms = parallel(*batch, self.world, self.kl_weight * warmup)
            _update(self.objective, self.optimizer, loss, f"epoch {epoch + 1}, step {k + 1}")
            sums += terms
            if bar.update():
                bar.set_postfix(_shown(_figures(likelihood, sums, self.kl_weight)), refresh=False)
        if self.world > 1:
            dist.all_reduce(sums)
        figures = _figures(likelihood, sums, self.kl_weight)
        bar.set_postfix(_shown(figures), refresh=False)  # what a bar too short to be refreshed ends with
        return figures


def _figures(likelihood: Likelihood, sums: Tensor, kl_weight: float) -> dict[str, float]:
    """Means over examples from the sums of `_Objective`, by the names of `History`."""
    figures = dict(zip(_Objective.TERMS, (sums / sums[2]).tolist(), strict=True))
    accuracy = figures.pop("right")
    del figures["examples"]
    figures = {"loss": figures["nll"] + kl_weight * figures["kl"]} | figures
    return figures | {"accuracy": accuracy} if likelihood.classifies else figures


def _shown(figures: dict[str, float]) -> dict[str, float]:
    """Those figures that a bar has room for."""
    return {name: figures[name] for name in ("loss", "nll", "kl", "accuracy") if name in figures}


@torch.no_grad()
def _score(model: nn.Module, likelihood: Likelihood, data: _Data) -> dict[str, float]:
    """Figures of the validation set, one draw of the weights for every example."""
    log_p, right = [], []
    model.eval()
    for x, y in data.chunks():
        output = model(x)
        if not data.whole:
            likelihood.check(output, y)
        log_p.append(likelihood.log_prob(output, y))
        if likelihood.classifies:
            right.append(likelihood.right(output, y))
    model.train()
    figures = {"val_nll": -torch.cat(log_p).mean().item()}
    return figures | {"val_accuracy": torch.cat(right).mean().item()} if right else figures


def _update(objective: nn.Module, optimizer: Optimizer, loss: Tensor, where: str) -> None:
    """Take one step; none where loss or gradient are not finite, so that both can be inspected."""
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad for p in objective.parameters() if p.grad is not None and not p.grad.is_sparse]
    if not (loss.detach() + nn.utils.get_total_norm(gradients)).isfinite():
        what = _not_finite(objective)
        if what or not loss.isfinite():  # else the norm of finite gradients alone has overflowed
            what = what or "but every parameter and gradient is finite"
            raise FloatingPointError(f"the loss is {loss.item()} in {where}: {what}")
    optimizer.step()


def _not_finite(objective: nn.Module) -> str:
    """Names the first parameter, else the first gradient, that is not finite; empty where all are."""
    named = [(name.removeprefix("model."), p) for name, p in objective.named_parameters()]
    for name, parameter in named:
        if not parameter.isfinite().all():
            return f"the parameter {name} is the first that is not finite"
    for name, parameter in named:
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            return f"the gradient of {name} is the first that is not finite"
    return ""


def _optimizer(
    objective: nn.Module, make: Optimization | None, lr: float, lr_log_var: float | None
) -> Optimizer:
    """Make the optimizer, log variances in a group of their own where they have a rate of their own."""
    named = list(objective.named_parameters())
    groups: list[dict[str, Any]] = [{"params": [p for _, p in named], "lr": lr}]
    if lr_log_var is not None:
        variances = [p for name, p in named if name.endswith("log_var")]
        others = [p for name, p in named if not name.endswith("log_var")]
        groups = [{"params": others, "lr": lr}, {"params": variances, "lr": lr_log_var}]
        groups = [group for group in groups if group["params"]]
    if make is None:
        return torch.optim.Adam(groups, fused=True)
    optimizer: Any = make(groups) if callable(make) else make
    if not isinstance(optimizer, Optimizer) or optimizer is make:
        came = type(optimizer).__name__
        raise TypeError(
            "optimizer must be a callable that makes a torch.optim.Optimizer from groups of parameters, such "
            f"as torch.optim.SGD, got {came}"
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise TypeError(f"fit cannot use {type(optimizer).__name__}: its step needs a closure")
    return optimizer


class _Schedule:
    """The factor on all rates: 1 until a fraction `decay` of the run is left, then down to `LAST_RATE`."""

    def __init__(self, optimizer: Optimizer, decay: float | Callable[[float], float], epochs: int) -> None:
        self.optimizer, self.decay, self.epochs = optimizer, decay, epochs
        self.rates = [group["lr"] for group in optimizer.param_groups]
        if not callable(decay) and not (_is_number(decay) and 0 <= decay <= 1):
            raise ValueError(f"decay must be in [0, 1] or a function of the fraction done, got {decay!r}")
        self.look = [self.factor(done) for done in (0.0, 0.25, 0.5, 0.75, 1.0)]
        if not all(_is_number(factor) and 0 <= float(factor) < math.inf for factor in self.look):
            raise ValueError(f"decay must give finite factors of at least 0, got {self.look}")

    def factor(self, done: float) -> float:
        """Return the factor when a fraction `done` of the run is done."""
        if callable(self.decay):
            return self.decay(done)
        left = 1 - done
        return 1.0 if left >= self.decay else LAST_RATE + (1 - LAST_RATE) * left / self.decay

    def apply(self, epochs: float) -> None:
        """Set the rates for the step that comes after so many epochs."""
        if self.decay == 0:
            return  # the rates are the optimizer's own
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(epochs / self.epochs)

    def settings(self) -> dict[str, Any]:
        """What tells one schedule from another; one that decays belongs to a number of epochs."""
        if self.decay == 0:
            return {"decay": 0.0, "epochs": None}
        return {"decay": self.look if callable(self.decay) else self.decay, "epochs": self.epochs}


def _stream(seed: int, epoch: int, purpose: int) -> int:
    """Return a seed for each run, epoch and purpose: 0 trains, 1 validates, 2 and on train in parallel."""
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
    path: Path, run: dict[str, Any], epochs: int, objective: _Objective, optimizer: Optimizer
) -> tuple[History, Callable[[History], None]]:
    """Load objective and optimizer where `path` exists; return the history so far and what saves it."""

    def save(history: History) -> None:
        tensors = objective.state()
        state = _pack(optimizer.state_dict(), "optimizer", tensors)
        save_tensors(path, tensors, {"run": run, "history": asdict(history), "optimizer": state})

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
    # The likelihood's are missing where it is part of the model.
    objective.load_state_dict({name: tensors[name] for name in objective.state()}, strict=False)
    optimizer.load_state_dict(_unpack(metadata["optimizer"], tensors))
    return history, save


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """What JSON can hold of an optimizer's state; its tensors are put into `tensors` and named there."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(part, f"{name}.{key}", tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        parts = [_pack(part, f"{name}.{k}", tensors) for k, part in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint keeps tensors, numbers and text, but {name} is a {type(value).__name__}")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_pack`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(part, tensors) for key, part in content}
    parts = [_unpack(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts


def _collate(examples: list[Any]) -> Any:
    """Examples to a batch."""
    try:
        return default_collate(examples)
    except (TypeError, RuntimeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"the examples do not make a batch ({error}); a DataLoader with a collate_fn of its own may do it"
        ) from error


def _check_x(x: Any, like: Tensor) -> None:
    """Raises unless floating-point tensors are finite and of the parameters' dtype."""
    for tensor in inputs.tensors(x):
        if tensor.is_floating_point() and tensor.dtype != like.dtype:
            raise TypeError(
                f"x must be {like.dtype}, as the model's parameters, or integers, got {tensor.dtype}"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError("x must be finite, got infinities or NaNs")


def _check_model(model: nn.Module) -> None:
    """Raises where there is nothing to train."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be one network, got {type(model).__name__}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"{type(model).__name__} has no parameters to train")


def _check_numbers(**numbers: Any) -> None:
    """Raises unless rates are positive, and the rest at least 0."""
    for name, number in numbers.items():
        rate = name.startswith("lr")
        if number is None and name in ("lr_log_var", "kl_weight"):
            continue
        if not _is_number(number) or not 0 <= float(number) < math.inf or (rate and number == 0):
            least = "positive finite number" if rate else "finite number of at least 0"
            raise ValueError(f"{name} must be a {least}, got {number!r}")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _like(model: nn.Module) -> Tensor:
    """The first parameter, whose dtype and device are the model's."""
    return next(model.parameters())
