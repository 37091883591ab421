"""Prediction: draw a network, judge every input by it, repeat."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from tqdm import tqdm

from mnf_lite import _inputs as inputs
from mnf_lite.layers import plain
from mnf_lite.likelihoods import Likelihood, likelihood_of
from mnf_lite.nets import positive_int

# Sizes found by timing; larger ones leave the caches, smaller ones pay for the calls.
WEIGHTS_AT_A_TIME = 2_000_000
INPUTS_AT_A_TIME = 256
FEW_INPUTS = 16  # up to here all samples of a group go through the network together


def predict(
    model: nn.Module | Sequence[nn.Module],
    x: Any,
    n_samples: int = 100,
    likelihood: Likelihood | None = None,
) -> Tensor:
    r"""Draw networks from the posterior and judge every input by each of them.

    .. math:: p_s(y \mid x) = p(y \mid x, W_s), \qquad W_s \sim q(W)

    Each sample is one function: one draw of the weights for the whole batch, exact for convolutions too.
    Draws come from torch's global generator and do not depend on x: with the same seed, two calls judge by
    the same networks. A bar appears where it takes longer than two seconds.

    Args:
        model: a network, or a list of networks (an ensemble), of which member ``s % len(model)`` gives sample
            s; a network without random layers gives equal samples.
        x: what the network takes: a tensor ``[B, ...]`` of the weights' dtype or of integers, or a dict,
            tuple or list of such, which is handed on as it is.
        n_samples: number of samples S.
        likelihood: what the outputs mean; None asks the model (see ``likelihoods.likelihood_of``).

    Shape:
        ``Categorical``: probabilities ``[S, B, classes]``, for pixels ``[S, B, classes, H, W]``.
        ``Bernoulli``: probabilities of 1, of the outputs' shape ``[S, B, ...]``.
        ``Gaussian``: draws of the function without noise ``[S, B, out]``.

    Returns:
        What ``likelihood.predict`` makes of the outputs of each sample.

    Raises:
        TypeError, ValueError: no model, no samples, no likelihood, inputs that the model does not take.

    Example:
        >>> from mnf_lite import models
        >>> predict(models.MNFLeNet(), torch.rand(4, 1, 28, 28), n_samples=5).shape
        torch.Size([5, 4, 10])
    """
    alone = isinstance(model, nn.Module) and not isinstance(model, nn.ModuleList)
    members: list[Any] = [model] if alone or not isinstance(model, Iterable) else list(model)
    size = _check(members, x, n_samples)
    means = [likelihood_of(member, likelihood) for member in members]
    out: Tensor | None = None
    with torch.no_grad(), tqdm(total=n_samples, unit="sample", delay=2, mininterval=0.5, leave=False) as bar:
        for m, (member, meaning) in enumerate(zip(map(inputs.unwrapped, members), means, strict=True)):
            with inputs.aside(member, training=False):
                meaning.check_output(inputs.output_of(member, _on(member, inputs.rows(x, 0, 1))))
            network = plain(member).eval()
            for group, draws in _draws(member, network, range(m, n_samples, len(members))):
                for start in range(0, size, INPUTS_AT_A_TIME):
                    chunk = _on(network, inputs.rows(x, start, start + INPUTS_AT_A_TIME))
                    y = _evaluate(network, draws, chunk)
                    prediction = meaning.predict(y.flatten(0, 1))
                    y = prediction.reshape(*y.shape[:2], *prediction.shape[1:])
                    if out is None:
                        out = y.new_empty(n_samples, size, *y.shape[2:])
                    if y.shape[2:] != out.shape[2:]:
                        sizes = f"{list(out.shape[2:])} and {list(y.shape[2:])}"
                        raise ValueError(f"an ensemble must agree in the shape of outputs, got {sizes}")
                    out[group.start : group.stop : group.step, start : start + INPUTS_AT_A_TIME] = y
                bar.update(len(group))
    assert out is not None
    return out


def _on(model: nn.Module, x: Any) -> Any:
    """X on the device of the model, which is that of x for a model without parameters."""
    parameter = next(model.parameters(), None)
    return x if parameter is None else inputs.each(lambda tensor: tensor.to(parameter.device), x)


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


def _evaluate(network: nn.Module, draws: dict[str, Tensor], x: Any) -> Tensor:
    """Outputs ``[G, B, ...]`` of the networks with the weights `draws`; G is 1 where nothing is drawn."""

    def output(weights: dict[str, Tensor]) -> Tensor:
        y: Tensor = functional_call(network, weights, (x,))
        return y

    if not draws:
        return output({})[None]
    if (size := inputs.count(x)) <= FEW_INPUTS:
        return vmap(output, chunk_size=INPUTS_AT_A_TIME // size)(draws)
    number = len(next(iter(draws.values())))
    return torch.stack([output({name: weights[g] for name, weights in draws.items()}) for g in range(number)])


def _check(members: list[Any], x: Any, n_samples: int) -> int:
    """Return the number of inputs; raise where an argument of `predict` cannot be."""
    if not members or any(not isinstance(member, nn.Module) for member in members):
        kinds = ", ".join(sorted({type(member).__name__ for member in members})) or "none"
        raise TypeError(f"model must be a network or a list of at least one, got {kinds}")
    positive_int(n_samples, "n_samples")
    dtypes = dict.fromkeys(parameter.dtype for member in members for parameter in member.parameters())
    expected = f"of {' or '.join(map(str, dtypes))}, as the model's weights, or of integers"
    try:
        found = list(inputs.tensors(x))
    except TypeError as error:
        raise TypeError(f"{error}; tensors must be {expected}") from error
    for tensor in found:
        if tensor.is_floating_point() and dtypes and tensor.dtype not in dtypes:
            raise TypeError(f"x must be {expected}, got {tensor.dtype}")
    return inputs.count(x)
