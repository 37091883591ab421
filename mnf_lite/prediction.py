"""Prediction: draw a network, judge every input by it, repeat."""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from tqdm import tqdm

from mnf_lite.layers import plain
from mnf_lite.layers.base import positive_int
from mnf_lite.models import is_regression

# Sizes found by timing; larger ones leave the caches, smaller ones pay for the calls.
WEIGHTS_AT_A_TIME = 2_000_000
INPUTS_AT_A_TIME = 256
FEW_INPUTS = 16  # up to here all samples of a group go through the network together


def predict(model: nn.Module | Sequence[nn.Module], x: Tensor, n_samples: int = 100) -> Tensor:
    r"""Draws networks from the posterior and judges every input by each of them.

    .. math:: p_s(y \mid x) = p(y \mid x, W_s), \qquad W_s \sim q(W)

    Each sample is one function: one draw of the weights for the whole batch, exact for convolutions too.
    Draws come from torch's global generator and do not depend on x: with the same seed, two calls judge by
    the same networks. A bar appears where it takes longer than two seconds.

    Args:
        model: a network, or a list of networks (an ensemble), of which member ``s % len(model)`` gives sample
            s; a network without random layers gives equal samples.
        x: what the network takes, ``[B, ...]``.
        n_samples: number of samples S.

    Returns:
        Probabilities ``[S, B, classes]``; for regression noise-free draws of the function ``[S, B, out]``.

    Raises:
        TypeError, ValueError: no model, no samples, inputs that the model does not take.
    """
    alone = isinstance(model, nn.Module) and not isinstance(model, nn.ModuleList)
    members: list[Any] = [model] if alone or not isinstance(model, Iterable) else list(model)
    _check(members, x, n_samples)
    out: Tensor | None = None
    with torch.no_grad(), tqdm(total=n_samples, unit="sample", delay=2, mininterval=0.5, leave=False) as bar:
        for m, member in enumerate(members):
            network = plain(member).eval()
            for group, draws in _draws(member, network, range(m, n_samples, len(members))):
                for i, chunk in enumerate(torch.split(x, INPUTS_AT_A_TIME)):
                    chunk = chunk.to(next(network.parameters()).device)
                    try:
                        y = _evaluate(network, draws, chunk)
                    except RuntimeError:
                        copy.deepcopy(member).eval()(chunk[:1])  # its layers say in words what does not fit
                        raise
                    y = y if is_regression(member) else y.softmax(-1)
                    if out is not None and y.shape[2:] != out.shape[2:]:
                        sizes = f"{list(out.shape[2:])} and {list(y.shape[2:])}"
                        raise ValueError(f"an ensemble must agree in the shape of outputs, got {sizes}")
                    if out is None:
                        out = y.new_empty(n_samples, len(x), *y.shape[2:])
                    out[group.start : group.stop : group.step, i * INPUTS_AT_A_TIME :][:, : len(chunk)] = y
                bar.update(len(group))
    assert out is not None
    return out


def _draws(model: nn.Module, network: nn.Module, samples: range) -> Iterator[tuple[range, dict[str, Tensor]]]:
    """Groups of samples with their weights ``[G, ...]``, by the names they have in the plain `network`."""
    random = {name: m for name, m in model.named_modules() if hasattr(m, "sample_weights")}
    if not random:
        yield samples, {}
        return
    size = max(1, WEIGHTS_AT_A_TIME // sum(p.numel() for p in network.parameters()))
    for start in range(0, len(samples), size):
        group = samples[start : start + size]
        draws = {}
        for name, layer in random.items():
            for kind, weights in zip(("weight", "bias"), layer.sample_weights(len(group)), strict=True):
                if weights is not None:
                    draws[f"{name}.{kind}".lstrip(".")] = weights
        yield group, draws


def _evaluate(network: nn.Module, draws: dict[str, Tensor], x: Tensor) -> Tensor:
    """Outputs ``[G, B, ...]`` of the networks with the weights `draws`; G is 1 where nothing is drawn."""

    def output(weights: dict[str, Tensor]) -> Tensor:
        y: Tensor = functional_call(network, weights, (x,))
        return y

    if not draws:
        return output({})[None]
    if len(x) <= FEW_INPUTS:
        return vmap(output, chunk_size=INPUTS_AT_A_TIME // len(x))(draws)
    size = len(next(iter(draws.values())))
    return torch.stack([output({name: weights[g] for name, weights in draws.items()}) for g in range(size)])


def _check(members: list[nn.Module], x: Tensor, n_samples: int) -> None:
    """Raises where an argument of `predict` cannot be."""
    if not members or any(not isinstance(member, nn.Module) for member in members):
        kinds = ", ".join(sorted({type(member).__name__ for member in members})) or "none"
        raise TypeError(f"model must be a network or a list of at least one, got {kinds}")
    positive_int(n_samples, "n_samples")
    dtypes = {parameter.dtype for member in members for parameter in member.parameters()}
    if not isinstance(x, Tensor) or x.dtype not in dtypes:
        came = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(
            f"x must be a tensor of {' or '.join(map(str, dtypes))}, as the model's weights, got {came}"
        )
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"x must hold at least one input along its first axis, got shape {list(x.shape)}")
