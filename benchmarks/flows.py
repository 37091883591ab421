"""Flows beside zuko, nflows, normflows and torch-mnf, at equal architecture and equal parameter count."""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import nflows.distributions
import nflows.flows
import nflows.transforms as nt
import normflows as nf
import torch
import zuko
from torch import Tensor, nn

from experiments.densities import two_moons_models
from experiments.timing import Row, in_turns, parameters, peak_megabytes, training_step
from mnf_lite import flows

HIDDEN, LAYERS, BINS, BOUND = (64, 64), 4, 8, 3.0


@dataclass
class Contender:
    """A density of one library: what it is, how it scores and how it samples."""

    model: nn.Module
    log_prob: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]


def mlp(features: int, out: int) -> nn.Sequential:
    """The conditioner that every library is given."""
    return nn.Sequential(
        nn.Linear(features, HIDDEN[0]), nn.ReLU(), nn.Linear(*HIDDEN), nn.ReLU(), nn.Linear(HIDDEN[1], out)
    )


class Conditioner(nn.Module):
    """Conditioner of a coupling as the libraries call it, made of one network or of two.

    The outputs of two networks stand one behind the other, or (``interleave``) in turns.
    """

    def __init__(self, features: int, out: int, nets: int = 1, interleave: bool = False) -> None:
        super().__init__()
        self.nets = nn.ModuleList([mlp(features, out // nets) for _ in range(nets)])
        self.interleave = interleave

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        """Apply the networks; ``context`` is not used."""
        outputs = [net(x) for net in self.nets]
        return torch.stack(outputs, -1).flatten(-2) if self.interleave else torch.cat(outputs, -1)


def halves(dim: int, parity: int) -> Tensor:
    """True for the half that moves."""
    return (torch.arange(dim) >= dim // 2) ^ bool(parity)


def ours(kind: str, dim: int) -> Contender:
    """The flow in mnf_lite."""
    spline = {"bins": BINS, "bound": BOUND}
    flow_type, options = {
        "coupling": (flows.AffineCoupling, {"shared": True}),
        "coupling, two networks": (flows.AffineCoupling, {}),
        "MAF": (flows.MAF, {}),
        "spline coupling": (flows.SplineCoupling, spline),
        "spline autoregressive": (flows.SplineAutoregressive, spline),
    }[kind]
    chain = [flow_type(dim, parity=k % 2, hidden=HIDDEN, **options) for k in range(LAYERS)]
    model = flows.NormalizingFlow(flows.Compose(chain))
    return Contender(model, model.log_prob, lambda n: model.sample((n,)))


def in_zuko(kind: str, dim: int) -> Contender:
    """The flow in zuko."""
    spline = {
        "univariate": lambda *phi: zuko.transforms.MonotonicRQSTransform(*phi, bound=BOUND),
        "shapes": [(BINS,), (BINS,), (BINS - 1,)],
    }
    affine = {} if "spline" not in kind else spline

    def layer(k: int) -> nn.Module:
        if "coupling" in kind:
            # zuko's mask is True where a coordinate is kept
            coupling = zuko.flows.coupling.GeneralCouplingTransform(
                dim, mask=~halves(dim, k % 2), hidden_features=HIDDEN, **affine
            )
            if kind == "coupling, two networks":
                coupling.hyper = Conditioner(dim // 2, dim, nets=2, interleave=True)
            return coupling
        order = torch.arange(dim) if k % 2 == 0 else torch.arange(dim).flip(0)
        return zuko.flows.autoregressive.MaskedAutoregressiveTransform(
            dim, order=order, hidden_features=HIDDEN, **affine
        )

    base = zuko.lazy.UnconditionalDistribution(
        zuko.distributions.DiagNormal, loc=torch.zeros(dim), scale=torch.ones(dim), buffer=True
    )
    model = zuko.lazy.Flow([layer(k) for k in range(LAYERS)], base)
    return Contender(model, lambda x: model().log_prob(x), lambda n: model().sample((n,)))


def in_nflows(kind: str, dim: int) -> Contender:
    """The flow in nflows."""
    made = {"hidden_features": HIDDEN[0], "num_blocks": 1, "use_residual_blocks": False}
    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}

    def layer(k: int) -> nn.Module:
        mask = halves(dim, k % 2).int()
        if kind.startswith("coupling"):
            nets = 2 if "two" in kind else 1
            return nt.AffineCouplingTransform(mask, lambda features, out: Conditioner(features, out, nets))
        if kind == "MAF":
            return nt.MaskedAffineAutoregressiveTransform(dim, **made)
        if kind == "spline coupling":
            return nt.PiecewiseRationalQuadraticCouplingTransform(mask, Conditioner, **spline)
        return nt.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(dim, **made, **spline)

    layers: list[nn.Module] = []
    for k in range(LAYERS):
        layers += [layer(k)] if "coupling" in kind or k == 0 else [nt.ReversePermutation(dim), layer(k)]
    model = nflows.flows.Flow(nt.CompositeTransform(layers), nflows.distributions.StandardNormal([dim]))
    return Contender(model, model.log_prob, model.sample)


def in_normflows(kind: str, dim: int) -> Contender:
    """The flow in normflows."""
    made = {"hidden_features": HIDDEN[0], "num_blocks": 1, "use_residual_blocks": False}
    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}

    class Direction(nf.flows.Flow):
        """The autoregressive flow as normflows wraps its own splines: fast where it scores."""

        def __init__(self, flow: nf.flows.Flow) -> None:
            super().__init__()
            self.flow = flow

        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return self.flow.inverse(z)

        def inverse(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.flow(x)

    def layer(k: int) -> nf.flows.Flow:
        if kind.startswith("coupling"):
            net = Conditioner(dim // 2, dim, nets=2, interleave=True) if "two" in kind else mlp(dim // 2, dim)
            return nf.flows.AffineCouplingBlock(net, split_mode="channel" if k % 2 == 0 else "channel_inv")
        if kind == "MAF":
            return Direction(nf.flows.MaskedAffineAutoregressive(dim, **made))
        if kind == "spline coupling":
            coupling = nf.flows.neural_spline.coupling.PiecewiseRationalQuadraticCoupling
            return Direction(coupling(halves(dim, k % 2).int(), Conditioner, **spline))
        auto = nf.flows.neural_spline.autoregressive.MaskedPiecewiseRationalQuadraticAutoregressive
        return Direction(auto(dim, **made, **spline))

    layers: list[nf.flows.Flow] = []
    for k in range(LAYERS):
        swap = [] if "coupling" in kind or k == 0 else [nf.flows.Permute(dim, mode="swap")]
        layers += [*swap, layer(k)]
    model = nf.NormalizingFlow(nf.distributions.DiagGaussian(dim, trainable=False), layers)
    return Contender(model, model.log_prob, lambda n: model.sample(n)[0])


LIBRARIES = {"mnf_lite": ours, "zuko": in_zuko, "nflows": in_nflows, "normflows": in_normflows}
KINDS = ("coupling", "coupling, two networks", "MAF", "spline coupling", "spline autoregressive")
DIMS = (2, 16, 64)
# At most so much of the time of the fastest other library.
TARGETS = {"training step": 0.9, "log_prob": 0.9, "sampling": 1.0}
BATCH, POINTS = 128, 4096


def contenders(kind: str, dim: int) -> dict[str, Contender]:
    """The same flow in every library; raises where their parameter counts differ."""
    made = {name: build(kind, dim) for name, build in LIBRARIES.items()}
    counts = {name: parameters(c.model) for name, c in made.items()}
    if len(set(counts.values())) != 1:
        raise ValueError(f"{kind} with D = {dim} is not the same in every library: parameters {counts}")
    return made


def against_libraries(task: str, kinds: Sequence[str], dims: Sequence[int], budget: float) -> Iterator[Row]:
    """One of the ``TARGETS`` for every kind of flow at every dimension."""
    for kind, dim in product(kinds, dims):
        torch.manual_seed(0)
        made, label = contenders(kind, dim), f"{kind}, D = {dim}"
        x, few, points = torch.randn(POINTS, dim), torch.randn(BATCH, dim), POINTS
        if task == "sampling" and kind == "spline autoregressive" and dim > 2:
            points = 8192 // dim  # D passes take the other libraries a minute for 4,096 points at D = 64
            label += f", {points} points"
        runs: dict[str, Callable[[], object]] = {}
        for name, c in made.items():
            runs[name] = {
                "training step": training_step(c.model, lambda c=c, few=few: -c.log_prob(few).mean()),
                "log_prob": lambda c=c, x=x: c.log_prob(x),
                "sampling": lambda c=c, points=points: c.sample(points),
            }[task]
        with torch.set_grad_enabled(task == "training step"):
            yield Row(label, in_turns(runs, budget))


def training_memory(kinds: Sequence[str], dim: int = 64) -> Iterator[str]:
    """A line for every kind of flow: peak memory of each library, each in a process of its own."""

    def peak(kind: str, name: str) -> float:
        return peak_megabytes(
            "import torch\nfrom benchmarks.flows import LIBRARIES\n"
            f"c = LIBRARIES[{name!r}]({kind!r}, {dim})\n"
            f"x = torch.randn({POINTS}, {dim})\nc.log_prob(x[:8]).mean().backward()",
            "c.log_prob(x).mean().backward()",
        )

    for kind in kinds:
        with ThreadPoolExecutor() as pool:
            peaks = pool.map(partial(peak, kind), LIBRARIES)
        yield f"- {kind}: " + ", ".join(f"{n} {mb:.0f}" for n, mb in zip(LIBRARIES, peaks, strict=True))


def sampling_in_passes(budget: float, dim: int = 64) -> Row:
    """Sampling from one MAF against one pass of its own network times the dimension."""
    flow = flows.MAF(dim, hidden=HIDDEN)
    z = torch.randn(POINTS, dim)
    with torch.no_grad():
        seconds = in_turns({"mnf_lite": lambda: flow(z), "D passes": lambda: flow.net(z)}, budget)
    return Row(f"sampling from MAF, D = {dim}", seconds | {"D passes": seconds["D passes"] * dim})


def against_torch_mnf(budget: float) -> Iterator[Row]:
    """Training step of the two-moons models, where a checkout of torch-mnf can be imported (PYTHONPATH)."""
    if importlib.util.find_spec("torch_mnf") is None:
        return
    import torch_mnf.flows as tf

    def splines(make: Callable[[], nn.Module]) -> list[nn.Module]:
        return [flow for _ in range(3) for flow in (tf.ActNormFlow(dim=2), tf.Glow(dim=2), make())]

    theirs = [
        [tf.AffineHalfFlow(dim=2, parity=bool(k % 2)) for k in range(9)],
        [tf.MAF(dim=2, parity=bool(k % 2)) for k in range(9)],
        splines(lambda: tf.NSF_AR(dim=2, K=8, B=3, n_h=16)),
        splines(lambda: tf.NSF_CL(dim=2, K=8, B=3, n_h=16)),
    ]
    x = torch.randn(BATCH, 2)
    for (name, flow), their_flows in zip(two_moons_models().items(), theirs, strict=True):
        model = flows.NormalizingFlow(flow)
        base = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
        their_model = tf.NormalizingFlowModel(base, their_flows)

        def their_loss(their_model: nn.Module = their_model) -> Tensor:
            zs, log_det = their_model.inverse(x)  # once: their notebook runs it twice a step
            return -(log_det + their_model.base.log_prob(zs[-1])).mean()

        steps = {
            "mnf_lite": training_step(model, lambda model=model: -model.log_prob(x).mean()),
            "torch-mnf": training_step(their_model, their_loss),
        }
        yield Row(name, in_turns(steps, budget))
