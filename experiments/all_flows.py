"""Every flow of the package on the same densities with the same budget: ``python -m experiments.all_flows``.

Chains of every family, and on two moons the published models, are trained with equal steps and batches,
several learning rates and seeds, and scored on fresh points in nats above the exact entropy; the learning
rate of a chain is the one that scores best on other points than those reported. The models of
one chain are trained side by side as one vectorised model, each exactly as it would be alone. ``--times``
measures instead, in turns and in one process, what a training step and each direction cost.

The results go to ``book/results/all_flows.json`` and the weights of one seed, rounded to 16 bits, to
``book/results/all_flows.safetensors``; an interrupted run goes on where it stopped.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from tqdm import tqdm

from experiments import timing
from experiments.densities import Scorer, two_moons_models
from experiments.results import line, parser, read, write
from mnf_lite import data, flows
from mnf_lite.files import load_tensors, save_tensors
from mnf_lite.flows import Compose, Flow, NormalizingFlow
from mnf_lite.nets import MADE

DENSITIES = ("moons", "pinwheel", "rings", "checkerboard")
RATES = (1e-3, 4e-3, 1.6e-2)
SETTINGS: dict[str, Any] = {"steps": 1500, "batch": 256, "seeds": 3, "clip": 10.0, "held_out": 50_000}
CHOOSE, REPORT = 20_000, 10_000  # seeds of the points that choose the rate, and of those that are reported
SETTINGS |= {"densities": DENSITIES, "rates": RATES, "torch": torch.__version__}
SETTINGS |= {"rate chosen on points of seed": CHOOSE, "scored on points of seed": REPORT}
MINUTES = 30
CURVE = 100  # steps over which the training loss is averaged
HIDDEN = (32, 32)  # of every network: about 1,190 parameters a layer
WIDE, WIDE_HIDDEN = 64, (64, 64)  # dimension and networks of the single layers that are timed
CONSTANTS = ("mask", "corners")  # buffers that the constructor makes again


def glow_step(dim: int, _: int, hidden: tuple[int, ...]) -> list[Flow]:
    """The map between two couplings may take any direction: they need no parities."""
    coupling = flows.AffineCoupling(dim, hidden=hidden, shared=True)
    return [coupling, flows.InvertibleLinear(dim), flows.ActNorm(dim)]


# Layers of a chain, and a layer from dimension, parity and hidden units. Those with networks have about 9,500
# parameters that are used.
Layer = Callable[[int, int, tuple[int, ...]], list[Flow]]
FAMILIES: dict[str, tuple[int, Layer]] = {
    "affine": (1, lambda dim, p, hidden: [flows.AffineConstant(dim)]),
    "planar": (16, lambda dim, p, hidden: [flows.Planar(dim)]),
    "radial": (16, lambda dim, p, hidden: [flows.Radial(dim)]),
    "additive coupling": (8, lambda dim, p, hidden: [flows.AdditiveCoupling(dim, p, hidden)]),
    "affine coupling": (8, lambda dim, p, hidden: [flows.AffineCoupling(dim, p, hidden, shared=True)]),
    "gated coupling": (8, lambda dim, p, hidden: [flows.GatedCoupling(dim, p, hidden)]),
    "MAF": (8, lambda dim, p, hidden: [flows.MAF(dim, p, hidden)]),
    "IAF": (8, lambda dim, p, hidden: [flows.IAF(dim, p, hidden)]),
    "Glow steps": (8, glow_step),
    "spline coupling": (5, lambda dim, p, hidden: [flows.SplineCoupling(dim, p, hidden=hidden)]),
    "spline autoregressive": (5, lambda dim, p, hidden: [flows.SplineAutoregressive(dim, p, hidden=hidden)]),
}


def chain(family: str) -> Compose:
    """Layers of alternating parity, and an ActNorm next to the data, which gives them unit variance."""
    layers, make = FAMILIES[family]
    steps = [flow for k in range(layers) for flow in make(2, k % 2, HIDDEN)]
    return Compose(steps if isinstance(steps[-1], flows.ActNorm) else [*steps, flows.ActNorm(2)])


def chains() -> dict[str, Callable[[], Compose]]:
    """A chain of each family."""
    return {family: partial(chain, family) for family in FAMILIES}


def published() -> dict[str, Callable[[], Compose]]:
    """The two-moons models of torch-mnf."""
    return {name: lambda name=name: two_moons_models()[name] for name in two_moons_models()}


def used_parameters(flow: nn.Module) -> int:
    """Parameters that have an effect on the map: without those that masks or triangles leave out."""
    count = timing.parameters(flow)
    for module in flow.modules():
        if isinstance(module, MADE):
            count -= int((module.mask == 0).sum())
        if isinstance(module, flows.InvertibleLinear):  # L and U are read from squares
            count -= module.dim * (module.dim + 1)
        if isinstance(module, flows.GatedCoupling):  # columns it reads as 0, rows of coordinates it keeps
            kept = int(module.mask.sum())
            first, last = module.net[0], module.net[-1]
            count -= (module.dim - kept) * first.out_features + 2 * kept * (last.in_features + 1)
    return count


def train(models: list[NormalizingFlow], points: Tensor, rates: Tensor, clip: float) -> Tensor:
    """Train N models side by side by maximum likelihood; Adam, cosine decay, the gradient of each clipped.

    Args:
        models: of one architecture; they take the trained parameters, rounded to 16 bits.
        points: ``[steps, N, batch, 2]``, those of each step and model.
        rates: ``[N]``, learning rate of each model at the start.
        clip: greatest norm of a model's gradient.

    Returns:
        The losses, ``[steps, N]``.
    """
    for model, x in zip(models, points[0], strict=True):
        model.log_prob(x)  # ActNorm takes its scale from the first batch
    state, buffers = stack_module_state(models)  # type: ignore[arg-type]
    shapes = {name: p.shape[1:] for name, p in state.items()}
    sizes = [shape.numel() for shape in shapes.values()]
    theta = torch.cat([p.detach().reshape(len(models), -1) for p in state.values()], 1)  # [N, P]

    def unpack(theta: Tensor) -> dict[str, Tensor]:
        pieces = theta.split(sizes)
        return {name: p.view(shape) for (name, shape), p in zip(shapes.items(), pieces, strict=True)}

    scorer = Scorer(models[0])

    def loss(theta: Tensor, buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        tensors = {f"model.{name}": tensor for name, tensor in (unpack(theta) | buffers).items()}
        return -functional_call(scorer, tensors, (x,)).mean()

    step = vmap(grad_and_value(loss))
    # The rows of theta share its memory: Adam moves each, at the rate of its model, where the step reads it.
    groups = [{"params": [row], "lr": rate} for row, rate in zip(theta, rates.tolist(), strict=True)]
    adam = torch.optim.Adam(groups, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, len(points))
    losses = []
    for x in points:
        gradient, value = step(theta, buffers, x)
        gradient *= (clip / gradient.norm(dim=1, keepdim=True)).clamp(max=1)
        for group, row in zip(groups, gradient, strict=True):
            group["params"][0].grad = row
        adam.step()
        schedule.step()
        losses.append(value)
    for model, row in zip(models, theta.half().float(), strict=True):
        model.load_state_dict(unpack(row), strict=False)
    return torch.stack(losses)


@cache
def held_out(density: str, seed: int) -> tuple[Tensor, Tensor]:
    """Fresh points in float64 and their exact log-density."""
    x = getattr(data, density)(SETTINGS["held_out"], seed=seed).double()
    return x, getattr(data, density).log_prob(x)


@torch.no_grad()
def above_entropy(model: NormalizingFlow, density: str, seed: int = REPORT) -> tuple[float, float]:
    """KL(density || model) on held-out points and its standard error."""
    x, log_p = held_out(density, seed)
    gap = log_p - model.double().log_prob(x)
    return gap.mean().item(), (gap.std() / len(gap) ** 0.5).item()


def runs(make: Callable[[], Compose], densities: Sequence[str]) -> tuple[dict[str, Any], dict[str, Compose]]:
    """Train a chain on the densities with every rate and seed: figures, and the chains of seed 0."""
    steps, batch, seeds = (SETTINGS[key] for key in ("steps", "batch", "seeds"))
    cases = [(d, r, s) for d in densities for r in RATES for s in range(seeds)]
    drawn = {
        (d, s): getattr(data, d)(steps * batch, seed=s).view(steps, batch, 2)
        for d in densities
        for s in range(seeds)
    }
    models = []
    for _, _, s in cases:
        torch.manual_seed(s)
        models.append(NormalizingFlow(make()))
    start = time.thread_time()
    points = torch.stack([drawn[d, s] for d, _, s in cases], 1)
    losses = train(models, points, torch.tensor([r for _, r, _ in cases]), SETTINGS["clip"])
    seconds = time.thread_time() - start
    scores = {case: above_entropy(model, case[0]) for case, model in zip(cases, models, strict=True)}

    choosing = {case: above_entropy(m, case[0], CHOOSE)[0] for case, m in zip(cases, models, strict=True)}

    def mean(rate: float) -> float:
        values = [choosing[d, rate, s] for d in densities for s in range(seeds)]
        return statistics.fmean(values) if all(map(math.isfinite, values)) else math.inf

    best = min(RATES, key=mean)
    figures: dict[str, Any] = {"parameters": timing.parameters(make()), "used": used_parameters(make())}
    figures |= {"rate": best, "cpu_seconds": round(seconds), "densities": {}}
    for d in densities:
        means = losses.view(-1, CURVE, len(cases)).mean(1) - getattr(data, d).entropy()  # [steps / CURVE, N]
        figures["densities"][d] = {
            "above_entropy": {str(r): [finite(scores[d, r, s][0]) for s in range(seeds)] for r in RATES},
            "standard_error": [finite(scores[d, best, s][1]) for s in range(seeds)],
            "curve": [list(map(finite, means[:, cases.index((d, best, s))].tolist())) for s in range(seeds)],
        }
    return figures, {d: models[cases.index((d, best, 0))].flow for d in densities}


def finite(value: float) -> float | None:
    """Five decimals, or None where training has diverged."""
    return round(value, 5) if math.isfinite(value) else None


def wide_layers() -> dict[str, Flow]:
    """One layer of each kind on R^64, both directions of which are timed."""
    layers = {family: make(WIDE, 0, WIDE_HIDDEN) for family, (_, make) in FAMILIES.items()}
    return {family: Compose(layer) if len(layer) > 1 else layer[0] for family, layer in layers.items()}


def times(budget: float) -> dict[str, dict[str, dict[str, float]]]:
    """What a training step, scoring and sampling cost, as ratios to the affine coupling.

    Scoring and sampling are in units of *scoring* with the affine coupling, so that they can be compared.
    """
    torch.manual_seed(0)
    x = data.moons(SETTINGS["batch"])
    models = {name: NormalizingFlow(make()) for name, make in (chains() | published()).items()}
    for model in models.values():
        model.log_prob(x)
    steps = {
        name: timing.training_step(model, lambda model=model: -model.log_prob(x).mean())
        for name, model in models.items()
    }
    seconds = timing.in_turns(steps, budget)
    unit = seconds["affine coupling"]
    result = {"step": {name: round(value / unit, 3) for name, value in seconds.items()}}
    in_the_plane = {name: model.flow for name, model in models.items()}
    result |= both_directions("plane", in_the_plane, data.moons(1000), budget)
    return result | both_directions("wide", wide_layers(), torch.randn(1000, WIDE), budget)


@torch.no_grad()
def both_directions(
    where: str, maps: Mapping[str, Flow], points: Tensor, budget: float
) -> dict[str, dict[str, float]]:
    """Times of ``inverse`` (score) and of ``forward`` (sample) over that of the affine coupling's inverse."""
    calls: dict[str, Callable[[], object]] = {}
    for name, flow in maps.items():
        flow.inverse(points)  # ActNorm's first batch
        calls[f"{name} score"] = partial(flow.inverse, points)
        calls[f"{name} sample"] = partial(flow, points)
    seconds = timing.in_turns(calls, budget)
    unit = seconds["affine coupling score"]
    return {
        f"{where} {direction}": {name: round(seconds[f"{name} {direction}"] / unit, 3) for name in maps}
        for direction in ("score", "sample")
    }


def left(results: dict[str, Any]) -> list[str]:
    """The flows that the file of results lacks."""
    return [name for name in chains() | published() if name not in results.get("flows", {})]


def main() -> None:
    """Train what is missing in the file of results, or measure times; print the table."""
    command = parser("all_flows", __doc__)
    command.add_argument("--times", type=float, help="measure times instead, each for so many seconds")
    command.add_argument("--only", nargs="+", metavar="FLOW", help="train no others")
    args = command.parse_args()
    timing.count_cpu_time()
    weights_file = args.out.with_suffix(".safetensors")

    def save(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        results = {"flows": {}, "times": {}} | read(args.out, SETTINGS)
        results["entropy"] = {d: getattr(data, d).entropy() for d in DENSITIES}
        change(results)
        write(args.out, results)
        return results

    if args.times:
        measured = times(args.times)
        save(lambda results: results.update(times=measured))
        return
    results = save(lambda results: None)
    if not results["flows"]:
        save_tensors(weights_file, {}, {"settings": SETTINGS})
    everything = chains() | published()
    for name in tqdm([name for name in left(results) if name in (args.only or everything)], unit="flow"):
        figures, trained = runs(everything[name], DENSITIES if name in chains() else ("moons",))
        if name in chains():
            weights = load_tensors(weights_file)[0]
            for density, flow in trained.items():
                for key, tensor in flow.state_dict().items():
                    if not key.endswith(CONSTANTS):
                        floating = tensor.is_floating_point()
                        weights[f"{name}/{density}/{key}"] = tensor.half() if floating else tensor
            save_tensors(weights_file, weights, {"settings": SETTINGS})
        results = save(lambda results: results["flows"].update({name: figures}))  # noqa: B023
    print(line(["flow", "parameters", "used", "rate", *DENSITIES]))
    print("|---" + "|---:" * (3 + len(DENSITIES)) + "|")
    for name, figures in results["flows"].items():
        row = [name, f"{figures['parameters']:,}", f"{figures['used']:,}", f"{figures['rate']:g}"]
        for density in figures["densities"].values():
            values = density["above_entropy"][str(figures["rate"])]
            row.append(f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}")
        print(line(row))


if __name__ == "__main__":
    main()
