"""Training: the evidence bound over mini-batches, with a memory that survives a kill."""

import atexit
import inspect
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.utils.data import Dataset
from tqdm import tqdm

from mnf_lite import _inputs as inputs
from mnf_lite._batches import Batches, check_x, first_parameter, seed_of
from mnf_lite._checkpoint import Checkpoint
from mnf_lite.layers import kl_parts, update_priors
from mnf_lite.likelihoods import Likelihood, likelihood_of
from mnf_lite.nets import positive_int

BATCH_SIZE = 128
VALIDATION_CHUNK = 1000  # examples at a time
BAR_INTERVAL = 0.5  # seconds between looks at the loss, which on a GPU make it wait
PRIOR_INTERVAL = 50  # steps from one update of the learned priors to the next
LAST_RATE = 0.02  # to which share of themselves all rates fall
LOG_VAR_RATE = 20  # times that of the means: what the book's study of arrival found

Optimization = Callable[[list[dict[str, Any]]], Optimizer]


@dataclass
class History:
    """Figures of a training run, one entry per epoch.

    Attributes:
        loss: nats per example, ``nll`` + ``kl_weight`` * ``kl`` at the full weight even while the KL warms
            up; with the default weight 1/N it estimates minus the evidence bound over N.
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
    decay: float | Callable[[float], float] = 0.4,
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

    :math:`W_x` is the draw of the weights by which an example is judged, its own in layers that draw one for
    every example; the KL is drawn once a step. With the weight 1/N the objective is minus the evidence bound
    over N wherever these draws are exact, as they are by default; with convolutions of
    ``sampling="outputs"`` it is an approximation. The weight :math:`w_t` rises linearly from 0 to
    ``kl_weight`` over the first ``kl_warmup_epochs``. Learned priors are set to their optimum every 50 steps.

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
        lr_log_var: that of the log variances (parameters whose name ends in ``log_var``); None is 20 times
            ``lr`` under Adam, at which they arrive with the means, and ``lr`` under an optimizer of your own.
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
        >>> from torch.utils.data import TensorDataset
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
    likelihood.to(first_parameter(model))
    data, held_out = _examples(dataset, validation, batch_size, model, likelihood)
    objective = _Objective(model, likelihood, checks=not data.whole)
    if lr_log_var is None:
        lr_log_var = lr if optimizer else LOG_VAR_RATE * lr
    steps = _optimizer(objective, optimizer, lr, lr_log_var)
    schedule = _Schedule(steps, decay, epochs)
    kl_weight = data.kl_weight() if kl_weight is None else kl_weight
    loop = _Loop(objective, data, held_out, steps, schedule, kl_weight, kl_warmup_epochs, seed, *_processes())

    history, file = History(), None
    if checkpoint is not None:
        run: dict[str, Any] = {"model": repr(model), "data": data.fingerprint()}
        run |= {"batch_size": data.batch_size, "lr": lr, "lr_log_var": lr_log_var, "seed": seed}
        run |= {"kl_weight": kl_weight, "kl_warmup_epochs": kl_warmup_epochs} | schedule.settings()
        run |= {"optimizer": None if optimizer is None else " ".join(repr(steps).split())}
        run |= {"likelihood": repr(likelihood)}
        file = Checkpoint(Path(checkpoint), run, objective, steps)
        history = History(**file.load(epochs))
        if loop.rank == 0 and not history.loss:
            file.save(asdict(history))  # the initial weights: even the first epoch can be interrupted
    done = len(history.loss)
    parallel = DistributedDataParallel(objective) if loop.world > 1 else objective
    visible = progress and loop.rank == 0
    with (
        inputs.aside(model, training=True),
        _bar(epochs * data.steps, done * data.steps, visible) as bar,
    ):
        for epoch in range(done, epochs):
            bar.set_description(f"epoch {epoch + 1}/{epochs}", refresh=False)
            history.append(**loop.epoch(epoch, parallel, bar))
            if file and loop.rank == 0:
                file.save(asdict(history))
            if file and loop.world > 1:
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


def _examples(
    dataset: Any, validation: Any, batch_size: int, model: nn.Module, likelihood: Likelihood
) -> tuple[Batches, Batches | None]:
    """Those to train on, and those held out."""
    data = Batches(dataset, batch_size, model, likelihood)
    if data.loads and batch_size not in (BATCH_SIZE, data.batch_size):
        raise ValueError(f"batch_size is the loader's own, {data.batch_size}, got {batch_size}")
    try:
        held_out = None if validation is None else Batches(validation, VALIDATION_CHUNK, model, likelihood)
    except (TypeError, ValueError) as error:
        error.args = (f"validation: {error}",)
        raise
    return data, held_out


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
            check_x(x, first_parameter(self.model))
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
    data: Batches
    held_out: Batches | None
    optimizer: Optimizer
    schedule: "_Schedule"
    kl_weight: float
    kl_warmup_epochs: float
    seed: int
    rank: int
    world: int

    def epoch(self, epoch: int, parallel: nn.Module, bar: "tqdm[Any]") -> dict[str, float]:
        """Train for one epoch by `parallel`, the objective or what wraps it, and return its figures."""
        began = time.perf_counter()
        figures = self.train(epoch, parallel, bar)
        if self.held_out is not None:
            torch.manual_seed(seed_of(self.seed, epoch, 1))
            figures |= _score(self.objective.model, self.objective.likelihood, self.held_out)
        if not all(parameter.isfinite().all() for parameter in self.objective.parameters()):
            raise FloatingPointError(f"after epoch {epoch + 1} {_not_finite(self.objective)}")
        return figures | {"seconds": time.perf_counter() - began}

    def train(self, epoch: int, parallel: nn.Module, bar: "tqdm[Any]") -> dict[str, float]:
        """Take the steps of one epoch."""
        torch.manual_seed(seed_of(self.seed, epoch, 0))
        like, likelihood = first_parameter(self.objective), self.objective.likelihood
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
def _score(model: nn.Module, likelihood: Likelihood, data: Batches) -> dict[str, float]:
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


def _optimizer(objective: nn.Module, make: Optimization | None, lr: float, lr_log_var: float) -> Optimizer:
    """Make the optimizer, log variances in a group of their own where they have a rate of their own."""
    named = list(objective.named_parameters())
    groups: list[dict[str, Any]] = [{"params": [p for _, p in named], "lr": lr}]
    if lr_log_var != lr:
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
