"""Whole networks: their divergence, their Bayesian twins, and the plain networks that are draws from them."""

import copy
import inspect
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mnf_lite.layers.base import BayesianLayer, one_of
from mnf_lite.layers.conv import (
    MeanFieldConv1d,
    MeanFieldConv2d,
    MeanFieldConv3d,
    MeanFieldConvTranspose2d,
    MNFConv1d,
    MNFConv2d,
    MNFConv3d,
    MNFConvTranspose2d,
)
from mnf_lite.layers.linear import MeanFieldLinear, MNFLinear
from mnf_lite.nets import positive_int

TWINS: dict[str, dict[type[nn.Module], type[BayesianLayer]]] = {
    "mnf": {
        nn.Linear: MNFLinear,
        nn.Conv1d: MNFConv1d,
        nn.Conv2d: MNFConv2d,
        nn.Conv3d: MNFConv3d,
        nn.ConvTranspose2d: MNFConvTranspose2d,
    },
    "mean-field": {
        nn.Linear: MeanFieldLinear,
        nn.Conv1d: MeanFieldConv1d,
        nn.Conv2d: MeanFieldConv2d,
        nn.Conv3d: MeanFieldConv3d,
        nn.ConvTranspose2d: MeanFieldConvTranspose2d,
    },
}


def kl_divergence(model: nn.Module) -> Tensor:
    """Return the sum of ``kl()`` over a model's Bayesian layers, a scalar in nats; 0 where it has none.

    Example:
        >>> from mnf_lite import layers
        >>> layers.kl_divergence(nn.Sequential(layers.MNFLinear(3, 2), nn.ReLU())).shape
        torch.Size([])
    """
    zero = _zero(model)
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
    none = dict.fromkeys(("weights", "bias", "log_q", "log_r"), _zero(model)[None])
    drawn = [none, *(m.kl_terms(1) for m in model.modules() if isinstance(m, BayesianLayer))]
    return {name: torch.cat([terms[name] for terms in drawn]).sum() for name in none}


def update_priors(model: nn.Module) -> None:
    """Set every learned prior of a model to its closed-form optimum; fixed priors stay as they are.

    Call it every few dozen steps, as ``fit`` does. Where z runs through a flow, its second moment is taken
    from draws of torch's global generator.

    Args:
        model: any module.

    Example:
        >>> from mnf_lite import layers
        >>> model = nn.Sequential(layers.MNFLinear(3, 2, prior_std="learned"), layers.MNFLinear(2, 1))
        >>> layers.update_priors(model)
        >>> bool(model[0].prior_std == 1), model[1].prior_std
        (False, 1.0)
    """
    for layer in _check(model).modules():
        if isinstance(layer, BayesianLayer) and isinstance(layer.prior_std, Tensor):
            layer.update_prior()


Only = Callable[[str, nn.Module], bool] | str | Collection[str]


def bayesian(
    module: nn.Module,
    posterior: Literal["mnf", "mean-field"] = "mnf",
    *,
    only: Only | None = None,
    **options: Any,
) -> nn.Module:
    """Make the Bayesian twin of a network: a copy whose weights have the network's own as means.

    Linear layers and convolutions become random, subclasses too where they compute what torch's layer does.
    All other modules are copied and stay deterministic: ``summary`` lists both. A layer that would have to be
    left out is refused by name, unless ``only`` leaves it out.

    Args:
        module: any module; its ``nn.Linear``, ``nn.Conv1d``, ``nn.Conv2d``, ``nn.Conv3d`` and
            ``nn.ConvTranspose2d`` are replaced.
        posterior: ``"mnf"`` or ``"mean-field"``.
        only: which layers to replace: names as in ``named_modules``, each standing for all layers inside, or
            a function ``(name, layer) -> bool``; None for all.
        options: passed on to the layers (``n_flows_q``, ``n_flows_r``, ``hidden``, ``prior_std``,
            ``auxiliary``), and ``sampling`` to the convolutions.

    Returns:
        The twin, on the device and in the dtype of each layer's weights.

    Raises:
        TypeError: no module, or an unknown option.
        ValueError: an unknown posterior or name, a layer that cannot be converted, or none to convert.

    Example:
        >>> from mnf_lite import layers
        >>> net = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(24, 2))
        >>> twin = layers.bayesian(net, only="3")
        >>> type(twin[0]).__name__, type(twin[3]).__name__
        ('Conv1d', 'MNFLinear')
    """
    _check(module, "module")
    one_of(posterior, sorted(TWINS), "posterior")
    known = {name for kind in TWINS[posterior].values() for name in _options(kind)}
    if unknown := sorted(set(options) - known):
        raise TypeError(f"{posterior} layers take the options {sorted(known)}, got {unknown}")
    made: dict[nn.Module, BayesianLayer] = {}
    for name, layer in _chosen(module, only):
        kind = next((kind for kind in TWINS[posterior] if isinstance(layer, kind)), None)
        if reason := _reason(layer, kind, module, name):
            raise ValueError(
                f"{name or 'the module'} ({type(layer).__name__}) cannot be made Bayesian: {reason}; "
                "choose the layers to convert by only="
            )
        if kind is not None and layer not in made:
            made[layer] = _twin(layer, kind, TWINS[posterior][kind], options)
    if not made:
        raise ValueError(
            f"nothing to convert in {type(module).__name__}: no layer chosen is one of "
            f"{', '.join(f'nn.{kind.__name__}' for kind in TWINS[posterior])}"
        )
    return _replace(module, made.get)


def _options(kind: type[nn.Module]) -> list[str]:
    """Return the options of a Bayesian layer that torch's layer has not."""
    parameters = inspect.signature(kind.__init__).parameters.values()
    given = {"groups", "padding_mode", "output_padding"}
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given]


def _chosen(module: nn.Module, only: Only | None) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules, with their names, that ``only`` chooses, but none inside a Bayesian layer."""
    layers = set(_layers(module))
    named = [(name, m) for name, m in module.named_modules(remove_duplicate=False) if m in layers]
    if callable(only):
        yield from ((name, m) for name, m in named if only(name, m))
        return
    names = [""] if only is None else [only] if isinstance(only, str) else only
    if not isinstance(names, Collection) or not all(isinstance(name, str) for name in names):
        raise TypeError(f"only must be names or a function (name, layer) -> bool, got {only!r}")
    if missing := sorted(set(names) - {name for name, _ in named}):
        raise ValueError(f"only names {missing}, but the module has {[name for name, _ in named if name]}")
    for name, m in named:
        if any(n in ("", name) or name.startswith(f"{n}.") for n in names):
            yield name, m


# Their forward reads the weights of the layers inside in place of calling them, the second in eval().
READERS = (nn.MultiheadAttention, nn.TransformerEncoderLayer)


def _reason(layer: nn.Module, kind: type[nn.Module] | None, module: nn.Module, name: str) -> str | None:
    """Say why a layer that was chosen cannot be converted, None where it can or has nothing to convert."""
    if isinstance(layer, nn.modules.lazy.LazyModuleMixin) and layer.has_uninitialized_params():
        return "it does not know its size yet; run one batch through the network first"
    parent = module.get_submodule(name.rpartition(".")[0])
    if parent is not layer and isinstance(parent, READERS):
        return f"nn.{type(parent).__name__} reads its weights without calling it"
    if isinstance(layer, nn.MultiheadAttention):
        return "it holds the weights of its inputs as bare parameters"
    if isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose3d):
        return "of the transposed convolutions only nn.ConvTranspose2d can be"
    if kind is None:
        return None
    if type(layer).forward is not kind.forward:
        return f"its forward is not that of nn.{kind.__name__}"
    if isinstance(layer, nn.ConvTranspose2d) and layer.groups != 1:
        return f"a transposed convolution needs groups=1, got {layer.groups}"
    return None


def _twin(
    layer: Any, kind: type[nn.Module], bayesian_kind: type[BayesianLayer], options: dict[str, Any]
) -> BayesianLayer:
    """Make the Bayesian layer whose means are the weights of ``layer``."""
    make: Any = bayesian_kind
    bias, known = layer.bias is not None, _options(bayesian_kind)
    if kind is nn.Linear:
        own = {name: value for name, value in options.items() if name in known}
        new = make(layer.in_features, layer.out_features, bias, **own)
    else:
        geometry = {"groups": layer.groups, "padding_mode": layer.padding_mode}
        geometry |= {"output_padding": layer.output_padding} if kind is nn.ConvTranspose2d else {}
        sizes = layer.in_channels, layer.out_channels, layer.kernel_size
        new = make(*sizes, layer.stride, layer.padding, layer.dilation, bias, **geometry, **options)
    new.to(layer.weight)
    with torch.no_grad():
        new.weight_mean.copy_(layer.weight)
        if bias:
            new.bias_mean.copy_(layer.bias)
    made: BayesianLayer = new
    return made


def summary(model: nn.Module) -> dict[str, dict[str, str]]:
    """Return which modules of a network have random weights, and which have weights that are not.

    Args:
        model: any module, for example what ``bayesian`` made.

    Returns:
        ``{"random": {name: class}, "deterministic": {name: class}}``; modules without parameters of their own
        are in neither.

    Example:
        >>> from mnf_lite import layers
        >>> net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
        >>> layers.summary(layers.bayesian(net, "mean-field"))["random"]
        {'0': 'MeanFieldLinear', '3': 'MeanFieldLinear'}
        >>> layers.summary(layers.bayesian(net, "mean-field"))["deterministic"]
        {'1': 'BatchNorm1d'}
    """
    found: dict[str, dict[str, str]] = {"random": {}, "deterministic": {}}
    layers = set(_layers(_check(model)))
    for name, m in model.named_modules():
        if m in layers and next(m.parameters(recurse=False), None) is not None:
            found["random" if isinstance(m, BayesianLayer) else "deterministic"][name] = type(m).__name__
    return found


def plain(model: nn.Module) -> nn.Module:
    """Draw one network from a network with random weights: a copy with drawn plain layers in it.

    Example:
        >>> from mnf_lite import layers
        >>> layers.plain(nn.Sequential(layers.MNFLinear(3, 2)))
        Sequential(
          (0): Linear(in_features=3, out_features=2, bias=True)
        )
    """
    # any layer with the method, so that dropout, too, can be read as a distribution over weights
    return _replace(_check(model), lambda layer: _made(layer, "plain"))


def mean_network(model: nn.Module, n: int = 1000) -> nn.Module:
    r"""Freeze a network to the means of its weights: a copy with plain layers, for export and for speed.

    A multiplicative layer has :math:`\mathbb E[W] = \mathbb E[z]\,\mu`, exact where q(z) has no flow and
    else from draws: the same seed gives the same network. One network has one opinion, so what the posterior
    knows of its own uncertainty is lost.

    Args:
        model: any module; what is not Bayesian in it is copied.
        n: draws of z in every layer whose q(z) has a flow.

    Returns:
        A network of torch's own layers, in the mode (training or evaluation) of ``model``.

    Example:
        >>> from mnf_lite import layers
        >>> layers.mean_network(nn.Sequential(layers.MNFLinear(3, 2)))
        Sequential(
          (0): Linear(in_features=3, out_features=2, bias=True)
        )
    """
    positive_int(n, "n")
    return _replace(_check(model), lambda layer: _made(layer, "mean_layer", n))


def _check(model: nn.Module, name: str = "model") -> nn.Module:
    """Return ``model`` if it is a module."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"{name} must be an nn.Module, got {type(model).__name__}")
    return model


def _zero(model: nn.Module) -> Tensor:
    """Return 0 in the model's dtype and on its device."""
    return next(_check(model).parameters(), torch.zeros(())).new_zeros(())


def _made(layer: nn.Module, method: str, *arguments: Any) -> Any:
    """Return the plain layer that a method of ``layer`` makes, None where it has no such method."""
    make = getattr(layer, method, None)
    return None if make is None else make(*arguments)


def _replace(module: nn.Module, new: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Copy ``module``; ``new(layer)`` takes the place of each layer it is made for."""
    layers = dict.fromkeys(_layers(module))  # a layer in two places is one layer
    # deepcopy asks its memo first, so layers named there are put in without being copied
    return copy.deepcopy(
        module, {id(old): made.train(old.training) for old in layers if (made := new(old)) is not None}
    )


def _layers(module: nn.Module) -> Iterator[nn.Module]:
    """Yield ``module`` and all modules in it, but none inside a Bayesian layer."""
    yield module
    if not isinstance(module, BayesianLayer):
        for child in module.children():
            yield from _layers(child)
