"""What a network takes: a tensor whose first axis runs over examples, or a dict, tuple or list of such."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

__all__ = ["count", "each", "rows", "shapes", "tensors"]


def each(function: Callable[[Tensor], Tensor], x: Any) -> Any:
    """Return ``x`` with ``function`` applied to every tensor in it.

    Example:
        >>> import torch
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
    """Yield every tensor in ``x``."""
    found: list[Tensor] = []
    each(lambda tensor: found.append(tensor) or tensor, x)  # type: ignore[func-returns-value]
    yield from found


def rows(x: Any, start: int, stop: int) -> Any:
    """Return the examples from ``start`` to before ``stop``."""
    return each(lambda tensor: tensor[start:stop], x)


def count(x: Any) -> int:
    """Return the number of examples in ``x``.

    Raises:
        TypeError: something in ``x`` that is no tensor.
        ValueError: no tensor, no example, or tensors that disagree.

    Example:
        >>> import torch
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
    """Return the shapes of the tensors in ``x``, in words."""
    return str(each(lambda tensor: list(tensor.shape), x))  # type: ignore[arg-type, return-value]
