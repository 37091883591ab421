"""What the layers of other libraries are called, and how parameters move: a part of ``experiments.names``."""

import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from experiments.names_flows import FLOWS, LIBRARIES, Subject, Verdict, close, points
from mnf_lite import flows, layers


@dataclass
class LayerLibrary:
    """A library of layers: expressions that make them, and one for the divergence of a ``model``."""

    link: str
    modules: tuple[str, ...]
    layers: dict[str, str]  # by our own names
    kl: str
    mean: tuple[str, str]
    spread: tuple[str, str]


IN, OUT, PRIOR = 3, 5, 2.0
CONV = "in_channels=IN, out_channels=OUT, kernel_size=3"
LAYERS = {
    "mnf_lite": LayerLibrary(
        link="",
        modules=("mnf_lite.layers",),
        layers={
            "MeanFieldLinear": "mnf_lite.layers.MeanFieldLinear(IN, OUT, prior_std=2.0)",
            "MeanFieldConv2d": "mnf_lite.layers.MeanFieldConv2d(IN, OUT, 3, prior_std=2.0)",
            "MNFLinear": "mnf_lite.layers.MNFLinear(IN, OUT, prior_std=2.0, n_flows_q=0, n_flows_r=0)",
            "MNFConv2d": "mnf_lite.layers.MNFConv2d(IN, OUT, 3, prior_std=2.0, n_flows_q=0, n_flows_r=0)",
        },
        kl="mnf_lite.layers.kl_divergence(model)",
        mean=("weight_mean", "bias_mean"),
        spread=("weight_log_var", "bias_log_var"),
    ),
    "torch-mnf": LayerLibrary(
        link=LIBRARIES["torch-mnf"].link,
        modules=("torch_mnf.layers",),
        layers={
            "MNFLinear": "torch_mnf.layers.MNFLinear(IN, OUT, n_flows_q=0, n_flows_r=0)",
            "MNFConv2d": "torch_mnf.layers.MNFConv2d(IN, OUT, 3, n_flows_q=0, n_flows_r=0)",
        },
        kl="sum(layer.kl_div() for layer in model)",
        mean=("W_mean", "b_mean"),
        spread=("W_log_var", "b_log_var"),
    ),
    "torchbnn": LayerLibrary(
        link="https://github.com/Harry24k/bayesian-neural-network-pytorch",
        modules=("torchbnn",),
        layers={
            "MeanFieldLinear": "torchbnn.BayesLinear(0, prior_sigma=2.0, in_features=IN, out_features=OUT)",
            "MeanFieldConv2d": f"torchbnn.BayesConv2d(0, prior_sigma=2.0, {CONV})",
        },
        kl="torchbnn.BKLLoss()(model)",
        mean=("weight_mu", "bias_mu"),
        spread=("weight_log_sigma", "bias_log_sigma"),
    ),
    "bayesian-torch": LayerLibrary(
        link="https://github.com/IntelLabs/bayesian-torch",
        modules=("bayesian_torch.layers", "bayesian_torch.models.dnn_to_bnn"),
        layers={
            "MeanFieldLinear": "bayesian_torch.layers.LinearReparameterization(IN, OUT, prior_variance=2.0)",
            "MeanFieldConv2d": f"bayesian_torch.layers.Conv2dReparameterization({CONV}, prior_variance=2.0)",
        },
        kl="bayesian_torch.models.dnn_to_bnn.get_kl_loss(model)",
        mean=("mu_weight|mu_kernel", "mu_bias"),
        spread=("rho_weight|rho_kernel", "rho_bias"),
    ),
    "blitz": LayerLibrary(
        link="https://github.com/piEsposito/blitz-bayesian-deep-learning",
        modules=("blitz.modules", "blitz.losses"),
        layers={
            "MeanFieldLinear": "blitz.modules.BayesianLinear(IN, OUT, prior_sigma_1=2.0, prior_pi=1)",
            "MeanFieldConv2d": "blitz.modules.BayesianConv2d(IN, OUT, (3, 3), prior_sigma_1=2.0, prior_pi=1)",
        },
        kl="blitz.losses.kl_divergence_from_nn(model)",
        mean=("weight_mu", "bias_mu"),
        spread=("weight_rho", "bias_rho"),
    ),
}
LAYER_PACKAGES = {"torch-mnf": "torch_mnf", "blitz": "blitz-bayesian-pytorch"}
STD: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "log variance": (lambda a: math.exp(a / 2), lambda std: 2 * math.log(std)),
    "log standard deviation": (math.exp, math.log),
    "standard deviation before softplus": (
        lambda a: math.log1p(math.exp(a)),
        lambda std: math.log(math.expm1(std)),
    ),
}


def layer_names(library: LayerLibrary) -> dict[str, Any]:
    """What the expressions of a library of layers may name."""
    names: dict[str, Any] = {"IN": IN, "OUT": OUT}
    for module in library.modules:
        import_module(module)
        names[module.split(".")[0]] = sys.modules[module.split(".")[0]]
    return names


def present(layer: nn.Module, which: str) -> Tensor:
    """The tensor of a layer that has one of the names, which are joined by bars."""
    tensor: Tensor = getattr(layer, next(name for name in which.split("|") if hasattr(layer, name)))
    return tensor


def divergences(library: LayerLibrary, layer: nn.Module, x: Tensor, draws: int) -> Tensor:
    """What the library says is the divergence of a layer, again and again: ``[draws]``."""
    names, values = layer_names(library) | {"model": nn.Sequential(layer)}, []
    for _ in range(draws):
        layer(x)  # blitz takes the divergence at the weights that were drawn last
        values.append(torch.as_tensor(eval(library.kl, names)).reshape(()))
    return torch.stack(values)


@torch.no_grad()
def examine_layer(library: LayerLibrary, source: str) -> Verdict:
    """All that is found about one layer of one library."""
    torch.manual_seed(6)
    layer = eval(source, layer_names(library))

    means, spreads = ([present(layer, which) for which in both] for both in (library.mean, library.spread))
    weight = means[0]
    one = torch.zeros(1, IN, *weight.shape[2:])
    one.view(-1)[0] = 1

    def put(mean: float, spread: float, bias_spread: float | None = None) -> None:
        for name, p in layer.named_parameters():
            if name.startswith(("r", "q0")) and "rho" not in name:  # q(z) = r(z|W) = N(0, 1)
                p.zero_()
        for tensor in means:
            tensor.fill_(mean)
        for tensor, value in zip(spreads, (spread, bias_spread or spread), strict=True):
            tensor.fill_(value)

    def run(x: Tensor) -> Tensor:
        y = layer(x)
        return (y[0] if isinstance(y, tuple) else y).flatten(1)

    first, second = divergences(library, layer, one, 2)
    put(0.0, -1.3, -40.0)
    measured = torch.cat([run(one) for _ in range(3000)]).std().item()
    spread = min(STD, key=lambda kind: abs(STD[kind][0](-1.3) - measured))
    if abs(STD[spread][0](-1.3) / measured - 1) > 0.03:
        raise ValueError(f"{source}: a deviation of {measured} fits no known parametrisation")

    def closed_form(mean: float, std: float, prior: float) -> float:
        return math.log(prior / std) + (std**2 + mean**2) / (2 * prior**2) - 0.5

    put(0.0, STD[spread][1](0.5))
    kl = divergences(library, layer, one, 4000)
    error = kl.std().item() / math.sqrt(len(kl))
    n, z = weight.numel() + OUT, "MNF" in source
    width = (OUT if weight.ndim == 4 else IN) if z else 0
    fits = []
    for prior, std in (("standard deviation", PRIOR), ("variance", math.sqrt(PRIOR)), ("fixed at 1", 1.0)):
        each = closed_form(0.0, 0.5, std)
        sums = {
            "sum": n * each,
            "mean over weights and biases": each,
            "mean of weights plus mean of biases": 2 * each,
        }
        fits += [
            (abs(kl.mean().item() - e - extra), prior, how, extra)
            for how, e in sums.items()
            for extra in {0, width / 2}
        ]
    distance, prior, how, extra = min(fits)
    if distance > 1e-4 + 5 * error:
        raise ValueError(f"{source}: a divergence of {kl.mean()} ± {error} fits nothing known")
    assumed = {"standard deviation": PRIOR, "variance": math.sqrt(PRIOR), "fixed at 1": 1.0}[prior]

    two = torch.cat([one, one])
    rows = run(two)
    layer.eval()
    still = not torch.equal(run(one), run(one))
    layer.train()
    found: Verdict = {
        "build": source,
        "weight": list(weight.shape),
        "mean": next(name for name, p in layer.named_parameters() if p is means[0]),
        "spread": next(name for name, p in layer.named_parameters() if p is spreads[0]),
        "means": spread,
        "prior": prior,
        "kl": how,
        "kl_random": bool(first != second),
        "too_large_by": extra,
        "rows": "one draw for all rows" if torch.equal(rows[0], rows[1]) else "a draw for each row",
        "eval": "draws" if still else "does not draw",
        "returns": "(output, KL)" if isinstance(layer(one), tuple) else "output",
    }
    if z:
        put(1.0, -80.0)
        rows = run(two)
        found["z"] = "one z for all rows" if close(rows[0], rows[1], 1e-9) else "a z for each row"
    else:
        put(100.0, STD[spread][1](0.5))
        parts = {"sum": n, "mean over weights and biases": 1, "mean of weights plus mean of biases": 2}[how]
        far = divergences(library, layer, one, 20).mean().item()
        found["far"] = round(far / (parts * closed_form(100.0, 0.5, assumed)), 2)
    return found


def actnorm_from_nflows(theirs: Any) -> flows.ActNorm:
    """Both are affine; theirs goes from x to z."""
    ours = flows.ActNorm(len(theirs.shift))
    ours.s.copy_(-theirs.log_scale)
    ours.t.copy_(-theirs.shift * torch.exp(-theirs.log_scale))
    ours.initialised.fill_(True)
    return ours


def linear_from_matrix(W: Tensor) -> flows.InvertibleLinear:
    """The map x = W z of any invertible matrix, such as the inverse of nflows' ``LULinear.weight()``."""
    ours = flows.InvertibleLinear(len(W))
    P, L, U = torch.linalg.lu(W)
    ours.lower.copy_(L)
    ours.upper.copy_(U)
    ours.log_diag.copy_(U.diagonal().abs().log())
    ours.sign.copy_(U.diagonal().sign())
    ours.permutation.copy_(P.argmax(0))
    return ours


def mean_field_from_torchbnn(theirs: Any) -> layers.MeanFieldLinear:
    """Their spread is the logarithm of the standard deviation."""
    ours = layers.MeanFieldLinear(theirs.in_features, theirs.out_features, prior_std=theirs.prior_sigma)
    ours.weight_mean.copy_(theirs.weight_mu)
    ours.weight_log_var.copy_(2 * theirs.weight_log_sigma)
    ours.bias_mean.copy_(theirs.bias_mu)
    ours.bias_log_var.copy_(2 * theirs.bias_log_sigma)
    return ours


def mean_field_from_bayesian_torch(theirs: Any) -> layers.MeanFieldLinear:
    """Their prior_variance is a standard deviation, their spread is one before softplus."""
    ours = layers.MeanFieldLinear(theirs.in_features, theirs.out_features, prior_std=theirs.prior_variance)
    ours.weight_mean.copy_(theirs.mu_weight)
    ours.weight_log_var.copy_(2 * torch.log(nn.functional.softplus(theirs.rho_weight)))
    ours.bias_mean.copy_(theirs.mu_bias)
    ours.bias_log_var.copy_(2 * torch.log(nn.functional.softplus(theirs.rho_bias)))
    return ours


def mean_field_from_blitz(theirs: Any) -> layers.MeanFieldLinear:
    """With prior_pi=1 their prior is one Gaussian; their spread is a standard deviation before softplus."""
    ours = layers.MeanFieldLinear(theirs.in_features, theirs.out_features, prior_std=theirs.prior_sigma_1)
    ours.weight_mean.copy_(theirs.weight_mu)
    ours.weight_log_var.copy_(2 * torch.log(nn.functional.softplus(theirs.weight_rho)))
    ours.bias_mean.copy_(theirs.bias_mu)
    ours.bias_log_var.copy_(2 * torch.log(nn.functional.softplus(theirs.bias_rho)))
    return ours


def mnf_from_torch_mnf(theirs: Any) -> layers.MNFLinear:
    """All but the flows, whose masks are drawn anew at every call: no flow of ours is the same map."""
    ours = layers.MNFLinear(theirs.W_mean.shape[1], theirs.W_mean.shape[0], n_flows_q=0, n_flows_r=0)
    for name, value in {
        "weight_mean": theirs.W_mean,
        "weight_log_var": theirs.W_log_var,
        "bias_mean": theirs.b_mean,
        "bias_log_var": theirs.b_log_var,
        "q0_mean": theirs.q0_mean,
        "q0_log_var": theirs.q0_log_var,
        "r_c": theirs.r0_c,
        "r_b1": theirs.r0_b1,
        "r_b2": theirs.r0_b2,
    }.items():
        getattr(ours, name).copy_(value)
    return ours


@torch.no_grad()
def examine_recipes() -> dict[str, Verdict]:
    """Carry parameters over and compare: maps point by point, divergences in nats."""
    found: dict[str, Verdict] = {}

    def note(recipe: Callable[..., Any], compared: str, difference: float, error: float = 0.0) -> None:
        if abs(difference) > 1e-6 + 4 * error:
            raise ValueError(f"{recipe.__name__}: {compared} differ by {difference} ± {error}")
        found[recipe.__name__] = {
            "code": inspect.getsource(recipe),
            "compared": compared,
            "difference": float(f"{abs(difference):.0e}"),
            "standard_error": float(f"{error:.0e}"),
        }

    v = points()
    norm = Subject(LIBRARIES["nflows"], str(FLOWS["ActNorm"]["nflows"]))
    norm.call("forward", points(2.0))
    ours: nn.Module = actnorm_from_nflows(norm.flow)
    note(actnorm_from_nflows, "z of the same x", (norm.flow(v)[0] - ours.inverse(v)[0]).abs().max().item())

    linear = Subject(LIBRARIES["nflows"], str(FLOWS["InvertibleLinear"]["nflows"])).flow
    ours = linear_from_matrix(torch.linalg.inv(linear.weight()))
    difference = linear(v)[0] - linear.bias - ours.inverse(v)[0]
    note(linear_from_matrix, "z of the same x", difference.abs().max().item())

    recipes = {
        "torchbnn": mean_field_from_torchbnn,
        "bayesian-torch": mean_field_from_bayesian_torch,
        "blitz": mean_field_from_blitz,
        "torch-mnf": mnf_from_torch_mnf,
    }
    for name, recipe in recipes.items():
        library = LAYERS[name]
        torch.manual_seed(7)
        source = library.layers["MNFLinear" if name == "torch-mnf" else "MeanFieldLinear"]
        theirs = eval(source, layer_names(library))
        for which in library.spread:
            present(theirs, which).add_(0.3 * torch.randn_like(present(theirs, which)))
        layer = recipe(theirs)
        kl = divergences(library, theirs, torch.zeros(1, IN), 4000)
        error = kl.std().item() / math.sqrt(len(kl))
        weights = layer.kl_gaussian(layer.weight_mean.square().sum(), layer.weight_log_var)
        expected, compared = {
            "torchbnn": (
                layer.kl() / (IN * OUT + OUT),
                "KL, here divided by the number of weights and biases,",
            ),
            "bayesian-torch": (
                weights / (IN * OUT) + layer.kl_bias() / OUT,
                "mean KL of a weight plus that of a bias",
            ),
            "blitz": (layer.kl(), "KL, there the mean of 4,000 draws,"),
            "torch-mnf": (layer.kl(20_000) + IN / 2, "K, here with in_features/2 added, of many draws each,"),
        }[name]
        if name == "torch-mnf":
            error = math.hypot(error, layer.kl_samples(20_000).std().item() / math.sqrt(20_000))
        note(recipe, compared, (kl.mean() - expected).item(), error)
    return found
