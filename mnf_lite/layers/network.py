"""Whole networks: their divergence, their Bayesian twins, and the plain networks that are draws from them."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mnf_lite.layers.base import BayesianLayer
from mnf_lite.layers.conv import MeanFieldConv2d, MNFConv2d
from mnf_lite.layers.linear import MeanFieldLinear, MNFLinear

LINEAR = {"mnf": MNFLinear, "mean-field": MeanFieldLinear}
CONV = {"mnf": MNFConv2d, "mean-field": MeanFieldConv2d}


def kl_divergence(model: nn.Module) -> Tensor:
    """Sum of ``kl()`` over a model's Bayesian layers, a scalar in nats; 0 for a model that has none."""
    zero = next(model.parameters(), torch.zeros(())).new_zeros(())  # of the model's dtype and device
    return sum((m.kl() for m in model.modules() if isinstance(m, BayesianLayer)), zero)


def kl_parts(model: nn.Module) -> dict[str, Tensor]:
    """Return the parts of ``kl_divergence``, each summed over a model's Bayesian layers.

    Args:
        model: any module.

    Returns:
        Scalars in nats by name: ``weights``, ``bias``, ``log_q`` and ``log_r``, all 0 for a model that has no
        Bayesian layer. The bound is ``weights + bias + log_q - log_r``.

    Example:
        >>> from mnf_lite import layers
        >>> list(layers.kl_parts(layers.MNFLinear(3, 2)))
        ['weights', 'bias', 'log_q', 'log_r']
    """
    zero = next(model.parameters(), torch.zeros(())).new_zeros(())
    total = dict.fromkeys(("weights", "bias", "log_q", "log_r"), zero)
    for layer in model.modules():
        if isinstance(layer, BayesianLayer):
            total = {name: total[name] + part for name, part in layer.kl_parts().items()}
    return total


def bayesian(module: nn.Module, posterior: Literal["mnf", "mean-field"] = "mnf", **options: Any) -> nn.Module:
    """The Bayesian twin of a network of linear and convolution layers: a copy whose means are its weights.

    Args:
        module: any module; its ``nn.Linear`` and ``nn.Conv2d`` are replaced, everything else is copied.
        posterior: ``"mnf"`` or ``"mean-field"``.
        options: passed on to the layers (``n_flows_q``, ``n_flows_r``, ``hidden``, ``prior_std``).

    Raises:
        TypeError: no module.
        ValueError: unknown posterior; a convolution with groups, or a padding mode other than zeros.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be an nn.Module, got {type(module).__name__}")
    if posterior not in LINEAR:
        raise ValueError(f"posterior must be one of {sorted(LINEAR)}, got {posterior!r}")

    def twin(layer: nn.Module) -> nn.Module | None:
        new: BayesianLayer
        if type(layer) is nn.Linear:
            new = LINEAR[posterior](layer.in_features, layer.out_features, layer.bias is not None, **options)
        elif type(layer) is nn.Conv2d:
            if layer.groups != 1 or layer.padding_mode != "zeros":
                raise ValueError(
                    f"a Bayesian convolution needs groups=1 and padding_mode='zeros', got {layer}"
                )
            new = CONV[posterior](
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                layer.dilation,
                layer.bias is not None,
                **options,
            )
        else:
            return None
        new.to(layer.weight)
        with torch.no_grad():
            new.weight_mean.copy_(layer.weight)
            if layer.bias is not None and new.bias_mean is not None:
                new.bias_mean.copy_(layer.bias)
        return new

    return _replace(module, twin)


def plain(model: nn.Module) -> nn.Module:
    """One draw from a network with random weights: a copy with drawn plain layers in it."""
    # any layer with the method, so that dropout, too, can be read as a distribution over weights
    return _replace(model, lambda layer: layer.plain() if hasattr(layer, "plain") else None)  # type: ignore[operator]


def _replace(module: nn.Module, new: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """A deep copy of ``module`` in which ``new(layer)`` takes the place of each layer it is made for."""
    layers = dict.fromkeys(_layers(module))  # a layer in two places is one layer
    # deepcopy asks its memo first, so layers named there are put in without being copied
    return copy.deepcopy(
        module, {id(old): made.train(old.training) for old in layers if (made := new(old)) is not None}
    )


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """``module`` and all modules in it, but none inside a Bayesian layer."""
    yield module
    if not isinstance(module, BayesianLayer):
        for child in module.children():
            yield from _layers(child)
