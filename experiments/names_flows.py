"""What other libraries call the flows of this one, each tried out: a part of ``experiments.names``.

A flow is examined by its own library's calls, in D = 4 dimensions and float64, with parameters moved away
from the identity: its directions, its log-determinants against the Jacobian of the library's own automatic
differentiation, the density that the library makes of it, and what else one trips over, bounds and masks.
"""

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

D, POINTS = 4, 6
Verdict = dict[str, Any]


@dataclass
class Library:
    """How a library is called.

    The expressions may name ``flow``, points ``v`` and ``x``, ``parts`` of a chain, ``base``, ``density``,
    a number ``n``, and what the library is imported as.
    """

    link: str
    imports: dict[str, str]
    forward: str
    inverse: str
    chain: str
    density: str | None = None
    log_prob: str | None = None
    sample: str | None = None
    rsample: str | None = None
    base: str = "torch.distributions.MultivariateNormal(torch.zeros(D), torch.eye(D))"
    noise: str = "base.sample((n,))"
    package: str | None = None
    jax: bool = False


LIBRARIES = {
    "mnf_lite": Library(
        link="",
        imports={"flows": "mnf_lite.flows"},
        forward="flow(v)",
        inverse="flow.inverse(v)",
        chain="flows.Compose(parts)",
        density="flows.NormalizingFlow(flow)",
        log_prob="density.log_prob(x)",
        sample="density.sample((n,))",
        rsample="density.rsample((n,))",
    ),
    "zuko": Library(
        link="https://github.com/probabilists/zuko",
        imports={"zuko": "zuko", "F": "zuko.flows", "T": "zuko.transforms"},
        forward="flow().call_and_ladj(v)",
        inverse="flow().inv.call_and_ladj(v)",
        chain="zuko.lazy.LazyComposedTransform(*parts)",
        base="F.UnconditionalDistribution(zuko.distributions.DiagNormal, torch.zeros(D), torch.ones(D))",
        noise="base().sample((n,))",
        density="F.Flow([flow], base)",
        log_prob="density().log_prob(x)",
        sample="density().sample((n,))",
        rsample="density().rsample((n,))",
    ),
    "nflows": Library(
        link="https://github.com/bayesiains/nflows",
        imports={"T": "nflows.transforms", "F": "nflows.flows", "dist": "nflows.distributions"},
        forward="flow(v)",
        inverse="flow.inverse(v)",
        chain="T.CompositeTransform(parts)",
        base="dist.StandardNormal([D])",
        noise="base.sample(n)",
        density="F.Flow(flow, base)",
        log_prob="density.log_prob(x)",
        sample="density.sample(n)",
    ),
    "normflows": Library(
        link="https://github.com/VincentStimper/normalizing-flows",
        imports={"nf": "normflows"},
        forward="flow(v)",
        inverse="flow.inverse(v)",
        chain="nf.flows.Composite(parts)",
        base="nf.distributions.DiagGaussian(D, trainable=False)",
        noise="base(n)[0]",
        density="nf.NormalizingFlow(base, [flow])",
        log_prob="density.log_prob(x)",
        sample="density.sample(n)[0]",
    ),
    "pyro": Library(
        link="https://github.com/pyro-ppl/pyro",
        imports={"T": "pyro.distributions.transforms", "dist": "pyro.distributions", "pnn": "pyro.nn"},
        package="pyro-ppl",
        forward="(x := flow(v), flow.log_abs_det_jacobian(v, x))",
        inverse="(z := flow.inv(v), flow.inv.log_abs_det_jacobian(v, z))",
        chain="T.ComposeTransform(parts)",
        density="dist.TransformedDistribution(base, [flow])",
        log_prob="density.log_prob(x)",
        sample="density.sample((n,))",
        rsample="density.rsample((n,))",
    ),
    "FrEIA": Library(
        link="https://github.com/vislearn/FrEIA",
        imports={"Ff": "FrEIA.framework", "Fm": "FrEIA.modules"},
        forward="((out := flow([v]))[0][0], out[1])",
        inverse="((out := flow([v], rev=True))[0][0], out[1])",
        chain="Ff.SequenceINN(D, force_tuple_output=True)",
    ),
    "torch-mnf": Library(
        link="https://github.com/janosh/torch-mnf",
        imports={"F": "torch_mnf.flows"},
        package="torch_mnf",
        forward="flow(v)",
        inverse="flow.inverse(v)",
        chain="F.NormalizingFlow(parts)",
        density="F.NormalizingFlowModel(base, [flow])",
        log_prob="density.base_log_prob(x)",
        sample="density.sample((n,))",
    ),
    "distrax": Library(
        link="https://github.com/google-deepmind/distrax",
        imports={"dx": "distrax", "tfb": "tensorflow_probability.substrates.jax.bijectors"},
        forward="flow.forward_and_log_det(v)",
        inverse="flow.inverse_and_log_det(v)",
        chain="dx.Chain(parts)",
        base="dx.MultivariateNormalDiag(jnp.zeros(D), jnp.ones(D))",
        noise="base.sample(seed=key, sample_shape=n)",
        density="dx.Transformed(base, flow)",
        log_prob="density.log_prob(x)",
        sample="density.sample(seed=key, sample_shape=n)",
        jax=True,
    ),
}


@dataclass
class Absent:
    """A flow that a library lacks: no class of its sources has a name of the pattern.

    ``near`` makes the next best thing; ``note`` says where else to look.
    """

    pattern: str
    near: str = ""
    note: str = ""


NO_PLANAR, NO_RADIAL = Absent("(?i)planar"), Absent("(?i)radial")
NO_ACTNORM = Absent("(?i)act_?norm")
NO_GATE = Absent("(?i)gated.*coupl|coupl.*gate")
ZUKO_SPLINE = "univariate=T.MonotonicRQSTransform, shapes=[(8,), (8,), (7,)]"
TAILS = "tails='linear', tail_bound=3.0"
FLOWS: dict[str, dict[str, str | Absent]] = {
    "AffineConstant": {
        "mnf_lite": "flows.AffineConstant(D)",
        "zuko": "F.UnconditionalTransform(T.MonotonicAffineTransform, torch.zeros(D), torch.zeros(D))",
        "nflows": "T.PointwiseAffineTransform(torch.ones(D), 2 * torch.ones(D))",
        "normflows": "nf.flows.AffineConstFlow((D,))",
        "pyro": "T.AffineTransform(torch.ones(D), 2 * torch.ones(D), event_dim=1)",
        "FrEIA": "Fm.LearnedElementwiseScaling([(D,)])",
        "torch-mnf": "F.AffineConstantFlow(D)",
        "distrax": "dx.Block(dx.ScalarAffine(shift=jnp.ones(D), log_scale=jnp.ones(D)), 1)",
    },
    "ActNorm": {
        "mnf_lite": "flows.ActNorm(D)",
        "zuko": NO_ACTNORM,
        "nflows": "T.ActNorm(D)",
        "normflows": "nf.flows.ActNorm((D,))",
        "pyro": NO_ACTNORM,
        "FrEIA": "Fm.ActNorm([(D,)])",
        "torch-mnf": "F.ActNormFlow(D)",
        "distrax": NO_ACTNORM,
    },
    "Planar": {
        "mnf_lite": "flows.Planar(D)",
        "zuko": NO_PLANAR,
        "nflows": NO_PLANAR,
        "normflows": "nf.flows.Planar((D,))",
        "pyro": "T.Planar(D)",
        "FrEIA": NO_PLANAR,
        "torch-mnf": NO_PLANAR,
        "distrax": NO_PLANAR,
    },
    "Radial": {
        "mnf_lite": "flows.Radial(D)",
        "zuko": NO_RADIAL,
        "nflows": NO_RADIAL,
        "normflows": "nf.flows.Radial((D,))",
        "pyro": "T.Radial(D)",
        "FrEIA": NO_RADIAL,
        "torch-mnf": NO_RADIAL,
        "distrax": NO_RADIAL,
    },
    "AdditiveCoupling": {
        "mnf_lite": "flows.AdditiveCoupling(D)",
        "zuko": "F.GeneralCouplingTransform(D, univariate=T.AdditiveTransform, shapes=[()])",
        "nflows": "T.AdditiveCouplingTransform(mask, net)",
        "normflows": "nf.flows.AffineCouplingBlock(net(D // 2, D // 2), scale=False)",
        "pyro": Absent(
            "(?i)additive|nice",
            "T.AffineCoupling(D // 2, pnn.DenseNN(D // 2, [16], [D // 2, D // 2]),"
            " log_scale_min_clip=0.0, log_scale_max_clip=0.0)",
        ),
        "FrEIA": "Fm.NICECouplingBlock([(D,)], subnet_constructor=net)",
        "torch-mnf": "F.AffineHalfFlow(D, parity=False, scale=False)",
        "distrax": "dx.MaskedCoupling(mask == 1, jax_net, lambda p: dx.ScalarAffine(shift=p[..., 0]))",
    },
    "AffineCoupling": {
        "mnf_lite": "flows.AffineCoupling(D)",
        "zuko": "F.GeneralCouplingTransform(D)",
        "nflows": "T.AffineCouplingTransform(mask, net)",
        "normflows": "nf.flows.AffineCouplingBlock(net(D // 2, D))",
        "pyro": "T.AffineCoupling(D // 2, pnn.DenseNN(D // 2, [16], [D // 2, D // 2]))",
        "FrEIA": "Fm.AffineCouplingOneSided([(D,)], subnet_constructor=net)",
        "torch-mnf": "F.AffineHalfFlow(D, parity=False)",
        "distrax": "dx.MaskedCoupling(mask == 1, jax_net,"
        " lambda p: dx.ScalarAffine(shift=p[..., 0], log_scale=p[..., 1]))",
    },
    "GatedCoupling": {
        "mnf_lite": "flows.GatedCoupling(D)",
        "zuko": NO_GATE,
        "nflows": NO_GATE,
        "normflows": Absent(
            NO_GATE.pattern, "nf.flows.AffineCouplingBlock(net(D // 2, D), scale_map='sigmoid_inv')"
        ),
        "pyro": Absent(NO_GATE.pattern, "T.AffineAutoregressive(pnn.AutoRegressiveNN(D, [16]), stable=True)"),
        "FrEIA": NO_GATE,
        "torch-mnf": "F.RNVP(D)",
        "distrax": NO_GATE,
    },
    "MAF": {
        "mnf_lite": "flows.MAF(D)",
        "zuko": "F.MaskedAutoregressiveTransform(D)",
        "nflows": "T.MaskedAffineAutoregressiveTransform(D, 16)",
        "normflows": Absent("(?i)inverseautoreg|^maf$", note="The class in the row `IAF`, turned around."),
        "pyro": "T.AffineAutoregressive(pnn.AutoRegressiveNN(D, [16])).inv",
        "FrEIA": Absent("(?i)autoregress|^maf|^iaf"),
        "torch-mnf": "F.MAF(D, parity=False)",
        "distrax": "dx.as_bijector(tfb.MaskedAutoregressiveFlow(jax_made))",
    },
    "IAF": {
        "mnf_lite": "flows.IAF(D)",
        "zuko": "F.MaskedAutoregressiveTransform(D).inv",
        "nflows": "T.InverseTransform(T.MaskedAffineAutoregressiveTransform(D, 16))",
        "normflows": "nf.flows.MaskedAffineAutoregressive(D, 16)",
        "pyro": "T.AffineAutoregressive(pnn.AutoRegressiveNN(D, [16]))",
        "FrEIA": Absent("(?i)autoregress|^maf|^iaf"),
        "torch-mnf": "F.IAF(D, parity=False)",
        "distrax": "dx.Inverse(dx.as_bijector(tfb.MaskedAutoregressiveFlow(jax_made)))",
    },
    "InvertibleLinear": {
        "mnf_lite": "flows.InvertibleLinear(D)",
        "zuko": "F.UnconditionalTransform(T.LULinearTransform, torch.eye(D))",
        "nflows": "T.LULinear(D)",
        "normflows": "nf.flows.InvertibleAffine(D)",
        "pyro": "T.MatrixExponential(D)",
        "FrEIA": "Fm.HouseholderPerm([(D,)], n_reflections=2)",
        "torch-mnf": "F.Glow(D)",
        "distrax": "dx.LowerUpperTriangularAffine(jax_matrix, jnp.zeros(D))",
    },
    "SplineCoupling": {
        "mnf_lite": "flows.SplineCoupling(D)",
        "zuko": f"F.GeneralCouplingTransform(D, {ZUKO_SPLINE})",
        "nflows": f"T.PiecewiseRationalQuadraticCouplingTransform(mask, net, {TAILS})",
        "normflows": "nf.flows.CoupledRationalQuadraticSpline(D, 1, 16)",
        "pyro": "T.SplineCoupling(D, D // 2,"
        " pnn.DenseNN(D // 2, [16], [16, 16, 14]), order='quadratic', identity=True)",
        "FrEIA": Absent("(?i)spline"),
        "torch-mnf": "F.NSF_CL(D)",
        "distrax": "dx.MaskedCoupling(mask == 1, jax_net, lambda p:"
        " dx.RationalQuadraticSpline(p, -3.0, 3.0, boundary_slopes='identity'))",
    },
    "SplineAutoregressive": {
        "mnf_lite": "flows.SplineAutoregressive(D)",
        "zuko": f"F.MaskedAutoregressiveTransform(D, {ZUKO_SPLINE})",
        "nflows": f"T.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(D, 16, {TAILS})",
        "normflows": "nf.flows.AutoregressiveRationalQuadraticSpline(D, 1, 16)",
        "pyro": "T.SplineAutoregressive(D,"
        " pnn.AutoRegressiveNN(D, [16], param_dims=[8, 8, 7]), order='quadratic')",
        "FrEIA": Absent("(?i)spline"),
        "torch-mnf": "F.NSF_AR(D)",
        "distrax": Absent("(?i)spline.*autoreg|autoreg.*spline"),
    },
}
COUPLINGS = ("AdditiveCoupling", "AffineCoupling", "GatedCoupling", "SplineCoupling")
SCALED = ("AffineCoupling", "GatedCoupling", "MAF", "IAF")
SPLINES = ("SplineCoupling", "SplineAutoregressive")


class Net(nn.Sequential):
    """The conditioner that couplings are given: ``net(in, out)``, called with a context by some."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Linear(inputs, 16), nn.Tanh(), nn.Linear(16, outputs))

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        """``[..., in] -> [..., out]``; ``context`` is not used."""
        return super().forward(x)


def namespace(library: Library) -> dict[str, Any]:
    """What the expressions of a library may name."""
    names: dict[str, Any] = {"D": D, "torch": torch, "net": Net, "mask": torch.tensor([1, 1, 0, 0])}
    names |= {alias: import_module(module) for alias, module in library.imports.items()}
    if library.jax:
        names |= jax_helpers()
    return names


def jax_helpers() -> dict[str, Any]:
    """Conditioners in JAX: one for couplings, one that is strictly autoregressive."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    key = jax.random.PRNGKey(0)
    a = jax.random.normal(key, (D, D * 25)) / 3
    below = jnp.tril(jnp.ones((D, D)), -1)
    calls: list[None] = []

    def jax_made(v: Any) -> Any:
        calls.append(None)
        scale, shift = (v @ (below * a[:, k : k + D]).T for k in (0, D))
        return jnp.stack([shift, jnp.tanh(scale)], -1)

    return {
        "jax": jax,
        "jnp": jnp,
        "key": key,
        "mask": jnp.array([1, 1, 0, 0]),
        "jax_matrix": jnp.eye(D) + a[:, :D] / 3,
        "jax_net": lambda v: jnp.tanh(v @ a).reshape(*v.shape, 25),
        "jax_made": jax_made,
        "jax_calls": calls,
    }


class Products(TorchDispatchMode):
    """Counts matrix products, by which one pass of a network is told from many."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func._schema.name in {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}
        return func(*args, **(kwargs or {}))


class Subject:
    """A flow of a library, called as the library is called."""

    def __init__(self, library: Library, source: str, moved: bool = True) -> None:
        self.library, self.names = library, namespace(library)
        torch.manual_seed(1)
        self.flow = self.evaluate(source)
        self.module = self.flow if isinstance(self.flow, nn.Module) else getattr(self.flow, "inv", self.flow)
        with torch.no_grad():
            for p in self.parameters() if moved else ():  # away from the identity
                p.add_(0.3 * torch.randn_like(p))

    def parameters(self) -> list[nn.Parameter]:
        return list(self.module.parameters()) if isinstance(self.module, nn.Module) else []

    def evaluate(self, expression: str, **more: Any) -> Any:
        return eval(expression, self.names | more)

    def call(self, way: str, v: Tensor) -> tuple[Tensor, Tensor]:
        """What the library returns for the points ``v [..., D]``, its own randomness at a fixed seed."""
        torch.manual_seed(2)
        y, log_det = self.evaluate(getattr(self.library, way), flow=self.flow, v=self.theirs(v))
        return self.ours(y), self.ours(log_det)

    def theirs(self, v: Tensor) -> Any:
        return self.names["jnp"].asarray(v.detach().numpy()) if self.library.jax else v.clone()

    def ours(self, v: Any) -> Tensor:
        if isinstance(v, list):  # torch-mnf's chains return all states
            return self.ours(v[-1])
        if self.library.jax:
            return torch.tensor(self.names["jax"].device_get(v).tolist())
        return torch.as_tensor(v)

    def jacobian(self, way: str, v: Tensor) -> Tensor:
        """Jacobian at one point ``v [D]``, by the library's automatic differentiation."""
        if self.library.jax:

            def one(u: Any) -> Any:
                return self.evaluate(getattr(self.library, way), flow=self.flow, v=u[None])[0][0]

            return self.ours(self.names["jax"].jacfwd(one)(self.theirs(v)))
        try:
            return torch.autograd.functional.jacobian(lambda u: self.call(way, u[None])[0][0], v)
        except RuntimeError:  # its own writes in place stop autograd
            steps = 1e-6 * torch.eye(D)
            both = [self.call(way, v + step)[0].detach() for step in (steps, -steps)]
            return ((both[0] - both[1]) / 2e-6).T

    def log_det(self, way: str, points: Tensor) -> Tensor:
        """log|det| of the Jacobian at every point, ``[n, D] -> [n]``."""
        return torch.stack([torch.linalg.slogdet(self.jacobian(way, v))[1] for v in points])


def points(scale: float = 1.0) -> Tensor:
    """A few points, the same every time."""
    return scale * torch.randn(POINTS, D, generator=torch.Generator().manual_seed(3))


def attempt(run: Callable[[], Any]) -> tuple[Any, str]:
    """What a call gives, or the name of what it raises."""
    try:
        return run(), ""
    except Exception as error:  # libraries raise what they like
        return None, type(error).__name__


def close(a: Tensor | None, b: Tensor | None, atol: float = 1e-5) -> bool:
    """Whether both are there, of one shape and equal but for rounding."""
    return a is not None and b is not None and a.shape == b.shape and torch.allclose(a, b, atol=atol, rtol=0)


def examine_map(subject: Subject, way: str) -> Verdict:
    """One direction of a flow: whether it runs, and whose log-determinant it returns in which shape."""
    v = points()
    result, fails = attempt(lambda: subject.call(way, v))
    if fails:
        return {"fails": fails}
    # Point by point, so that what a flow draws at random is the same for its value and for its Jacobian.
    returned = torch.stack([subject.call(way, u[None])[1].sum() for u in v])
    exact = subject.log_det(way, v)
    own, opposite = ((returned - sign * exact).detach().abs().max().item() for sign in (1, -1))
    verdict = "own" if own < 1e-3 else "opposite" if opposite < 1e-3 else "wrong"
    shape = {(POINTS,): "[B]", (): "[]", (1,): "[1]", (POINTS, D): "[B, D]"}[tuple(result[1].shape)]
    more, _ = attempt(lambda: subject.call(way, torch.stack([v, v])))
    axes = more is not None and close(more[0][0], result[0]) and more[1].shape == (2, POINTS)
    found = {"log_det": verdict, "error": float(f"{own:.0e}"), "shape": shape, "leading_axes": axes}
    if not subject.library.jax:
        _, fails = attempt(lambda: torch.autograd.functional.jacobian(lambda u: subject.call(way, u)[0], v))
        found["gradient"] = fails or "yes"
    return found


def examine_density(subject: Subject) -> Verdict:
    """Which way forward goes, by what the library's own density does, and whether that is the density."""
    lib = subject.library
    if lib.density is None:
        return {}
    with torch.no_grad():
        base = subject.evaluate(lib.base)
        density = subject.evaluate(lib.density, flow=subject.flow, base=base)

        def drawn(expression: str) -> Tensor:
            torch.manual_seed(4)
            return subject.ours(subject.evaluate(expression, base=base, density=density, n=POINTS))

        x, no_sample = attempt(lambda: drawn(lib.sample or ""))
        z = drawn(lib.noise)
        ways = [
            way for way in ("forward", "inverse") if close(attempt(lambda w=way: subject.call(w, z)[0])[0], x)
        ]
        if no_sample:
            return {"sample": no_sample}
        if len(ways) != 1:
            return {"sample": "by no single direction", "ways": ways}
        found: Verdict = {"forward": "z → x" if ways == ["forward"] else "x → z"}
        score = {"z → x": "inverse", "x → z": "forward"}[found["forward"]]
        given = points()
        log_p, fails = attempt(
            lambda: subject.ours(
                subject.evaluate(lib.log_prob or "", density=density, x=subject.theirs(given))
            )
        )
    if fails:
        return found | {"log_prob": fails}
    z = subject.call(score, given)[0]
    normal = -(z.square().sum(-1) + D * math.log(2 * math.pi)) / 2
    without = close(log_p, normal)
    right = close(log_p, normal + subject.log_det(score, given))
    return found | {"log_prob": "right" if right else "the base's part alone" if without else "wrong"}


@cache
def forward_of(name: str) -> str:
    """Which way a library's forward goes; FrEIA has no density, there it is what its documentation says."""
    subject = Subject(LIBRARIES[name], str(FLOWS["AffineConstant"][name]))
    return examine_density(subject).get("forward", "x → z")


def network_runs(subject: Subject) -> str | None:
    """The direction in which the network runs once, where the other takes many passes."""
    loops = {}
    for way in ("forward", "inverse"):
        if subject.library.jax:
            subject.names["jax_calls"].clear()
            with subject.names["jax"].disable_jit():  # loops run in Python
                subject.call(way, points())
            loops[way] = len(subject.names["jax_calls"])
        else:
            with Products() as products, torch.no_grad():
                subject.call(way, points())
            loops[way] = products.count
    ratio = loops["inverse"] / loops["forward"]
    return "forward" if ratio > 1.5 else "inverse" if ratio < 1 / 1.5 else "neither"


def constants(subject: Subject, answer: float) -> None:
    """Make all networks of a flow answer one number, whatever they are asked."""
    for p in subject.parameters():
        p.zero_()
    for module in subject.module.modules():
        if hasattr(module, "unpack"):
            for _, bias in module.unpack(module.theta):
                bias.fill_(answer)
        elif isinstance(getattr(module, "bias", None), Tensor):
            module.bias.fill_(answer)


def scale_range(subject: Subject, generate: str, moving: int) -> list[float | None] | None:
    """Least and greatest log dx_i/dz_i of a moving coordinate, whatever networks answer; None: no bound."""
    if subject.library.jax:
        return None  # the caller writes the scale, there is nothing to find

    def log_slope(answer: float) -> float:
        with torch.no_grad():
            constants(subject, answer)
        return subject.jacobian(generate, torch.zeros(D))[moving, moving].abs().log().item()

    low, high = (log_slope(answer) for answer in (-1e5, 1e5))
    grows = log_slope(-1.0) < log_slope(1.0)
    ends: list[float | None] = [
        round(at, 1) + 0.0 if math.isfinite(at) and abs(at - log_slope(10 * answer)) < 0.01 else None
        for at, answer in ((low, -1e5), (high, 1e5))
    ]
    return ends if grows else ends[::-1]


def examine_flow(name: str, ours: str, source: str) -> Verdict:
    """All that is found about one flow of one library."""
    library = LIBRARIES[name]
    subject = Subject(library, source)
    generate, score = ("forward", "inverse") if forward_of(name) == "z → x" else ("inverse", "forward")
    found: Verdict = {"build": source}
    if not library.jax:
        found["trained"] = bool(subject.parameters())
    if ours == "ActNorm":
        found |= examine_first_batch(name, source, score)
        subject.call(score, points(2.0))
    for way in ("forward", "inverse"):
        found[way] = examine_map(subject, way)
    there_and_back, fails = attempt(lambda: subject.call("inverse", subject.call("forward", points())[0])[0])
    found["round_trip"] = None if fails else float(f"{(there_and_back - points()).abs().max():.0e}")
    if density := examine_density(subject):
        found["density"] = density
        if density.get("forward", forward_of(name)) != forward_of(name):
            raise ValueError(f"forward of {source} goes another way than that of other flows of {name}")
    if ours in ("MAF", "IAF", "SplineAutoregressive"):
        found["one_pass"] = network_runs(subject)
    moved = ((subject.call("forward", points())[0] - points()).abs().amax(0) > 1e-9).tolist()
    if ours in COUPLINGS:
        found["kept"] = [i for i in range(D) if not moved[i]]
    if ours in SPLINES:
        far = torch.full((1, D), 50.0)
        there, fails = attempt(lambda: subject.call("forward", far)[0])
        found["defaults"] = defaults(subject, source)
        found["outside"] = fails or ("identity" if close(there, far) else "moves")
    if ours in SCALED:
        found["log_scale"] = scale_range(subject, generate, moved.index(True))
    return found


def defaults(subject: Subject, source: str) -> dict[str, Any]:
    """What the maker of a spline takes where nothing is said about bins, box and kind."""
    parameters = inspect.signature(subject.evaluate(source.split("(")[0])).parameters
    named = re.compile("bins|bound|tails|order|identity|^K$|^B$")
    told = {name: p.default for name, p in parameters.items() if named.search(name)}
    return {
        name: value
        for name, value in told.items()
        if value is not inspect.Parameter.empty and value is not None
    }


def examine_first_batch(name: str, source: str, score: str) -> Verdict:
    """What the first batch does to an ActNorm, and whether a saved one knows that it has had it."""
    torch.manual_seed(5)
    x, other = 3 * torch.randn(500, D) + 2, torch.randn(500, D)
    fresh, copy = (Subject(LIBRARIES[name], source, moved=False) for _ in range(2))
    z = fresh.call(score, x)[0]
    standard = z.mean(0).abs().max() < 0.01 and (z.std(0) - 1).abs().max() < 0.01
    copy.flow.load_state_dict(fresh.flow.state_dict())
    saved = close(copy.call(score, other)[0], fresh.call(score, other)[0])
    return {"standardised": bool(standard), "saved": saved}


def examine_chain(name: str) -> str:
    """Which flow of a list a chain applies first in its own forward direction."""
    library = LIBRARIES[name]
    first, second = (
        Subject(library, str(FLOWS[ours][name])) for ours in ("AffineConstant", "AffineCoupling")
    )
    chain = Subject(library, "None")
    chain.flow = chain.evaluate(library.chain, parts=[first.flow, second.flow])
    if name == "FrEIA":  # its chain makes the flows itself
        for subject in (first, second):
            chain.flow.append(lambda dims, flow=subject.flow: flow)
    v = points()
    y = chain.call("forward", v)[0]
    in_order = second.call("forward", first.call("forward", v)[0])[0]
    turned = first.call("forward", second.call("forward", v)[0])[0]
    return "first" if close(y, in_order) else "last" if close(y, turned) else "neither"


def examine_library(name: str) -> Verdict:
    """Version, calls, and what holds for all flows of a library."""
    lib = LIBRARIES[name]
    found: Verdict = {
        "link": lib.link,
        "imports": lib.imports,
        "version": version_of(lib.package or name),
        "goes": forward_of(name),
    }
    for key in ("forward", "inverse", "chain", "density", "log_prob", "sample", "rsample"):
        found[key] = getattr(lib, key)
    found["applied_first"] = examine_chain(name)
    if lib.density and not lib.jax:
        subject = Subject(lib, str(FLOWS["AffineCoupling"][name]))
        density = subject.evaluate(lib.density, flow=subject.flow, base=subject.evaluate(lib.base))
        for key in ("sample", "rsample"):
            if expression := getattr(lib, key):
                found[f"{key}_has_gradient"] = subject.evaluate(
                    expression, density=density, n=1
                ).requires_grad
    return found


def version_of(package: str) -> str:
    """Version of a package that is installed, or of a checkout."""
    try:
        return version(package)
    except PackageNotFoundError:
        pyproject = Path(sources(package)).parent / "pyproject.toml"
        return re.findall(r'^version = "(.+)"', pyproject.read_text(), re.M)[0] + ", a checkout"


def sources(package: str) -> str:
    """The folder in which a package lies."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{package} is missing: pip install '.[bench,names]', torch-mnf on PYTHONPATH"
        )
    return spec.submodule_search_locations[0]


def examine_absence(name: str, ours: str, absent: Absent) -> Verdict:
    """Check that no class in a library's sources has such a name, and examine the next best thing."""
    root = Path(sources(next(iter(LIBRARIES[name].imports.values())).split(".")[0]))
    classes = [c for path in root.rglob("*.py") for c in re.findall(r"^class (\w+)", path.read_text(), re.M)]
    if found := [c for c in classes if re.search(absent.pattern, c)]:
        raise ValueError(f"{name} does have {found}, of pattern {absent.pattern!r}")
    near = examine_flow(name, ours, absent.near) if absent.near else None
    return {"absent": absent.pattern, "classes": len(classes), "near": near, "note": absent.note}
