"""Examples in batches: from a data set, a loader or tensors, checked against what the network takes."""

import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    TensorDataset,
    default_collate,
)

from mnf_lite import _inputs as inputs
from mnf_lite.likelihoods import Likelihood

Batch = tuple[Any, Any, int]  # x, y, and how many examples all processes have in this step


class Batches:
    """A data set or loader in batches, checked against what the model takes and gives.

    Attributes:
        whole: whether it is a ``TensorDataset``, held on the device.
        size: number of examples, None where a loader does not say it.
        steps: batches of an epoch.
    """

    def __init__(self, dataset: Any, batch_size: int, model: nn.Module, likelihood: Likelihood) -> None:
        self.dataset, self.batch_size, self.device = dataset, batch_size, first_parameter(model).device
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
            check_x(self.x, first_parameter(model))
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
            torch.manual_seed(seed_of(seed, epoch, 1 + rank))
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
        stream = seed_of(seed, epoch, 1 + rank if rank else 0)
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


def _collate(examples: list[Any]) -> Any:
    """Examples to a batch."""
    try:
        return default_collate(examples)
    except (TypeError, RuntimeError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(
            f"the examples do not make a batch ({error}); a DataLoader with a collate_fn of its own may do it"
        ) from error


def check_x(x: Any, like: Tensor) -> None:
    """Raises unless floating-point tensors are finite and of the parameters' dtype."""
    for tensor in inputs.tensors(x):
        if tensor.is_floating_point() and tensor.dtype != like.dtype:
            raise TypeError(
                f"x must be {like.dtype}, as the model's parameters, or integers, got {tensor.dtype}"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ValueError("x must be finite, got infinities or NaNs")


def seed_of(seed: int, epoch: int, purpose: int) -> int:
    """Return a seed for each run, epoch and purpose: 0 trains, 1 validates, 2 and on train in parallel."""
    return int(np.random.SeedSequence((seed, epoch, purpose)).generate_state(1, np.uint64)[0])


def first_parameter(model: nn.Module) -> Tensor:
    """The first parameter, whose dtype and device are the model's."""
    return next(model.parameters())
