"""What networks take: a tensor whose first axis runs over examples, or a dict, tuple or list of such."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["aside", "count", "each", "output_of", "rows", "shapes", "tensors", "unwrapped"]


def each(function: Callable[[Tensor], Any], x: Any) -> Any:
    """Return ``x`` with ``function`` applied to every tensor in it.

    Example:
        >>> each(len, {"ids": torch.zeros(3, 5), "mask": [torch.zeros(3)]})
        {'ids': 3, 'mask': [3]}
    """
    if isinstance(x, Tensor):
        return function(x)
    if isinstance(x, Mapping):
        return {name: each(function, part) for name, part in x.items()}
    if isinstance(x, tuple | list):
        parts = [each(function, part) for part in x]
        if hasattr(x, "_fields"):  # a named tuple takes them one by one
            return type(x)(*parts)
        return type(x)(parts)
    raise TypeError(f"x must be a tensor, or a dict, tuple or list of tensors, got {type(x).__name__}")


def tensors(x: Any) -> Iterator[Tensor]:
    """Yield every tensor in ``x``.

    Example:
        >>> [len(tensor) for tensor in tensors({"ids": torch.zeros(3), "mask": torch.zeros(3)})]
        [3, 3]
    """
    found: list[Tensor] = []
    each(found.append, x)
    yield from found


def rows(x: Any, start: int, stop: int) -> Any:
    """Return the examples from ``start`` to before ``stop``.

    Example:
        >>> rows((torch.arange(4), torch.zeros(4, 2)), 1, 3)[0]
        tensor([1, 2])
    """
    return each(lambda tensor: tensor[start:stop], x)


def count(x: Any) -> int:
    """Return the number of examples in ``x``.

    Raises:
        TypeError: something in ``x`` that is no tensor.
        ValueError: no tensor, no example, or tensors that disagree.

    Example:
        >>> count((torch.zeros(3, 5), torch.zeros(3)))
        3
    """
    found = list(tensors(x))
    if not found or any(tensor.ndim == 0 or len(tensor) == 0 for tensor in found):
        raise ValueError(f"x must hold at least one input along its first axis, got shape {shapes(x)}")
    sizes = {len(tensor) for tensor in found}
    if len(sizes) > 1:
        raise ValueError(f"the parts of x must have equally many rows, got shapes {shapes(x)}")
    return sizes.pop()


def shapes(x: Any) -> str:
    """Return the shapes of the tensors in ``x``, in words.

    Example:
        >>> shapes((torch.zeros(3, 5), torch.zeros(3)))
        '([3, 5], [3])'
    """
    return str(each(lambda tensor: list(tensor.shape), x))


def output_of(model: nn.Module, x: Any) -> Tensor:
    """Return what a network gives for ``x``, and say in words where it does not take it.

    Raises:
        TypeError, ValueError: as the network says, or in our words what came.

    Example:
        >>> output_of(nn.Linear(3, 2), torch.zeros(4, 3)).shape
        torch.Size([4, 2])
    """
    name = type(model).__name__
    kinds = ", ".join(dict.fromkeys(str(tensor.dtype) for tensor in tensors(x)))
    try:
        output = model(x)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name} does not take x of shape {shapes(x)} and {kinds}: {error}") from error
    if not isinstance(output, Tensor):
        raise TypeError(f"{name} must give a tensor, got {type(output).__name__}")
    if output.ndim == 0 or len(output) != count(x):
        raise ValueError(
            f"{name} gives shape {list(output.shape)} for x of shape {shapes(x)}, but the first axis of both "
            "must run over examples; a single example needs a batch axis: x[None]"
        )
    return output


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the network inside ``DataParallel``, ``DistributedDataParallel`` and ``torch.compile``.

    Example:
        >>> unwrapped(nn.DataParallel(nn.Linear(3, 2)))
        Linear(in_features=3, out_features=2, bias=True)
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(model.module)
    inner = getattr(model, "_orig_mod", None)  # of torch.compile
    return unwrapped(inner) if isinstance(inner, nn.Module) else model


@contextmanager
def aside(model: nn.Module, training: bool) -> Iterator[None]:
    """Put a network in the given mode; afterwards the mode of each layer and the random state are as before.

    Example:
        >>> network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
        >>> with aside(network, training=False):
        ...     print([layer.training for layer in network])
        [False, False]
        >>> [layer.training for layer in network]
        [True, False]
    """
    modes = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        try:
            model.train(training)
            yield
        finally:
            for module, mode in modes.items():
                module.training = mode
