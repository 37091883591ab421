"""What flows and networks cannot take is refused in words: the class, what came and what was expected."""

import math
from collections.abc import Callable
from inspect import isclass, signature

import numpy as np
import pytest
import torch
from torch import distributions as D
from torch import nn

from mnf_lite import flows
from mnf_lite.flows import Compose, NormalizingFlow
from mnf_lite.nets import MADE, MLP, MaskedLinear, StackedMLP

# a new flow is found here by itself
OFFERED = {
    name: signature(kind).parameters
    for name in flows.__all__
    if isclass(kind := getattr(flows, name)) and issubclass(kind, flows.Flow)
}
OFFERED = {
    name: found for name, found in OFFERED.items() if next(iter(found), "") == "dim" and name != "Flow"
}
NETWORKS = [name for name, found in OFFERED.items() if "hidden" in found]
PLAIN = [name for name in OFFERED if name not in NETWORKS]
SPLINES = [name for name, found in OFFERED.items() if "bins" in found]

Case = tuple[str, Callable[[], object], str]  # the class, what is tried, and what the message must say


def constructors() -> list[Case]:
    """Wrong arguments."""
    cases: list[Case] = []
    for name in PLAIN + NETWORKS:
        make = getattr(flows, name)
        for dim in (0, -1, 2.0, "2", True, None):
            what = f"{name}'s dim must be an integer of at least 1, got {dim!r}"
            cases.append((f"{name}(dim={dim!r})", lambda make=make, dim=dim: make(dim), what))
    for name in NETWORKS:
        make = getattr(flows, name)
        options = {
            "parity": [
                (2, "parity must be 0 or 1, got 2"),
                (1.0, "got 1.0"),
                (True, "got True"),
                ("0", "got '0'"),
            ],
            "hidden": [
                (24, "hidden must be a sequence of integers of at least 1, got 24"),
                ("24", "got '24'"),
                ((24, 0), "hidden must be an integer of at least 1, got 0"),
                ((2.5,), "got 2.5"),
                (None, "got None"),
            ],
            "context": [
                (-1, "context must be an integer of at least 0, got -1"),
                (1.0, "got 1.0"),
                (None, "got None"),
            ],
        }
        if name in SPLINES:
            options["bins"] = [
                (0, "bins must be an integer of at least 1, got 0"),
                (2.5, "got 2.5"),
                (True, "got True"),
                (1000, "must be < 1, got 1000 bins"),
            ]
            options["bound"] = [
                (0, "bound must be a positive finite number, got 0"),
                (-1.0, "got -1.0"),
                (math.inf, "got inf"),
                (math.nan, "got nan"),
                ("3", "got '3'"),
                (True, "got True"),
            ]
        for option, values in options.items():
            for value, what in values:
                cases.append(
                    (
                        f"{name}({option}={value!r})",
                        lambda make=make, option=option, value=value: make(3, **{option: value}),
                        what,
                    )
                )
    return cases


def calls() -> list[Case]:
    """Wrong points and contexts, in both directions."""
    cases: list[Case] = []
    points = {
        "two coordinates": (torch.zeros(4, 2), r"expects shape [..., 3], got [4, 2]"),
        "a scalar": (torch.tensor(1.0), "expects shape [..., 3], got []"),
        "integers": (torch.zeros(4, 3, dtype=torch.long), "floating-point tensor, got a torch.int64 tensor"),
        "complex numbers": (torch.zeros(4, 3, dtype=torch.cfloat), "got a torch.complex64 tensor"),
        "a list": ([[0.0, 0.0, 0.0]], "expects a floating-point tensor, got list"),
        "an array": (np.zeros((4, 3)), "got ndarray"),
    }
    own = {
        "float64": (
            torch.zeros(4, 3).double(),
            "has parameters of torch.float32, got a torch.float64 tensor",
        ),
        "another device": (torch.zeros(4, 3, device="meta"), "is on cpu, got a tensor on meta"),
    }
    for name in PLAIN + NETWORKS:
        tried = points | ({} if name in ("Sigmoid", "Exp") else own)
        for direction in ("forward", "inverse"):
            flow = getattr(flows, name)(3)
            for label, (x, what) in tried.items():
                cases.append(
                    (f"{name}.{direction}: {label}", lambda f=flow, d=direction, x=x: getattr(f, d)(x), what)
                )
            cases.append(
                (
                    f"{name}.{direction}: a context nobody asked for",
                    lambda f=flow, d=direction: getattr(f, d)(torch.zeros(4, 3), torch.zeros(2)),
                    "takes no context",
                )
            )
    contexts = {
        "no context": (None, "expects a context [..., 2], got none"),
        "a wide context": (torch.zeros(4, 3), "expects a context [..., 2], got shape [4, 3]"),
        "a scalar context": (torch.tensor(0.0), "got shape []"),
        "a context of integers": (torch.zeros(2, dtype=torch.long), "got a torch.int64 tensor"),
        "a context of float64": (torch.zeros(2).double(), "of torch.float32, got a torch.float64 tensor"),
        "a listed context": ([0.0, 0.0], "got list"),
        "a context of other axes": (torch.zeros(5, 2), "leading axes that broadcast, got points [4, 3]"),
        "a context elsewhere": (torch.zeros(2, device="meta"), "got one on meta"),
    }
    for name in NETWORKS:
        flow = getattr(flows, name)(3, context=2)
        for label, (context, what) in contexts.items():
            cases.append((f"{name}: {label}", lambda f=flow, c=context: f(torch.zeros(4, 3), c), what))
    return cases


def others() -> list[Case]:
    """Chains, densities and networks."""
    normal = D.MultivariateNormal(torch.zeros(2), torch.eye(2))
    density = NormalizingFlow(flows.Radial(2))
    given = NormalizingFlow(Compose([flows.MAF(2, context=3)]))
    x = torch.zeros(4, 2)
    return [
        ("Compose of nothing", lambda: Compose([]), "an empty list and no dim"),
        ("Compose of two dims", lambda: Compose([flows.Radial(2), flows.Radial(3)]), "got [2, 3]"),
        ("Compose of another dim", lambda: Compose([flows.Radial(2)], dim=3), "got [2, 3]"),
        ("Compose of dim 0", lambda: Compose([], dim=0), "Compose's dim must be an integer"),
        ("Compose of a text", lambda: Compose(["Radial"]), "(modules with dim, forward, inverse), got str"),
        (
            "Compose of a module",
            lambda: Compose([nn.Linear(2, 2)]),
            "(modules with dim, forward, inverse), got Linear",
        ),
        ("Compose of one flow", lambda: Compose(flows.Radial(2)), "expects a list of flows, got Radial"),
        (
            "Compose of two contexts",
            lambda: Compose([flows.MAF(2, context=1), flows.MAF(2, context=2)]),
            "contexts of one size, got [1, 2]",
        ),
        ("Compose without context", lambda: given.flow(x), "Compose expects a context [..., 3], got none"),
        ("Compose given a context", lambda: Compose([flows.Radial(2)])(x, x), "Compose takes no context"),
        (
            "Compose traced wrongly",
            lambda: Compose([flows.Radial(2)]).trace(torch.zeros(3)),
            "[..., 2], got [3]",
        ),
        (
            "NormalizingFlow of no flow",
            lambda: NormalizingFlow(nn.Linear(2, 2)),
            "NormalizingFlow expects flows (modules with dim, forward, inverse), got Linear",
        ),
        (
            "NormalizingFlow on a distribution",
            lambda: NormalizingFlow(flows.Radial(2), normal),
            "flows.Density",
        ),
        (
            "NormalizingFlow on a module",
            lambda: NormalizingFlow(flows.Radial(2), nn.Linear(2, 2)),
            "got Linear",
        ),
        (
            "NormalizingFlow on another dim",
            lambda: NormalizingFlow(flows.Radial(3), density),
            "base of the flow's dim=3 that takes no context, got dim=2",
        ),
        ("NormalizingFlow on a conditional", lambda: NormalizingFlow(flows.Radial(2), given), "context=3"),
        (
            "log_prob of a list",
            lambda: density.log_prob([0.0, 0.0]),
            "Radial expects a floating-point tensor",
        ),
        ("log_prob of float64", lambda: density.log_prob(x.double()), "got a torch.float64 tensor"),
        ("log_prob without context", lambda: given.log_prob(x), "expects a context [..., 3], got none"),
        ("log_prob given a context", lambda: density.log_prob(x, x), "Radial takes no context"),
        ("sample without context", lambda: given.sample(3), "expects a context [..., 3], got none"),
        ("sample given a context", lambda: density.sample(3, x), "Radial takes no context"),
        ("sample of -1", lambda: density.sample(-1), "NormalizingFlow's sample shape must be an integer"),
        ("sample of 2.5", lambda: density.sample(2.5), "got 2.5"),
        ("sample of a text", lambda: density.rsample("5"), "got '5'"),
        ("sample of a bool", lambda: density.sample((True,)), "got True"),
        ("sample of None", lambda: density.rsample_and_log_prob(None), "got None"),
        ("StandardNormal(0)", lambda: flows.StandardNormal(0), "StandardNormal's dim must be an integer"),
        ("StandardNormal of a tensor", lambda: flows.StandardNormal(torch.zeros(2)), "StandardNormal's dim"),
        ("Flow without maps", lambda: flows.Flow(2)(x), "Flow defines no forward"),
        ("Flow without an inverse", lambda: flows.Flow(2).inverse(x), "Flow defines no inverse"),
        ("Density without log_prob", lambda: flows.Density(2).log_prob(x), "Density defines no log_prob"),
        ("Density without rsample", lambda: flows.Density(2).sample(3), "Density defines no rsample"),
        (
            "MLP of 0 inputs",
            lambda: MLP(0, (3,), 2),
            "MLP's in_features must be an integer of at least 1, got 0",
        ),
        ("MLP of 2.0 outputs", lambda: MLP(3, (3,), 2.0), "MLP's out_features"),
        ("MLP of a number", lambda: MLP(3, 8, 2), "MLP's hidden must be a sequence"),
        ("StackedMLP of no net", lambda: StackedMLP(0, 3, (3,), 2), "StackedMLP's n must be"),
        ("StackedMLP of -1 inputs", lambda: StackedMLP(1, -1, (3,), 2), "StackedMLP's in_features"),
        ("MADE of dim 0", lambda: MADE(0, (3,), 2), "MADE's dim must be"),
        ("MADE of 0 outputs", lambda: MADE(3, (3,), 0), "MADE's outputs must be"),
        ("MADE of parity 2", lambda: MADE(3, (3,), 2, parity=2), "MADE's parity must be 0 or 1, got 2"),
        ("MADE of hidden 0", lambda: MADE(3, (0,), 2), "every size in MADE's hidden must be"),
        ("MADE of context -1", lambda: MADE(3, (3,), 2, context=-1), "MADE's context must be"),
        (
            "MaskedLinear of a vector",
            lambda: MaskedLinear(torch.ones(3)),
            "expects a mask [out_features, in_",
        ),
        ("MaskedLinear of a list", lambda: MaskedLinear([[1]]), "MaskedLinear expects a mask"),
    ]


CASES = [*constructors(), *calls(), *others()]


def check(what: str, attempt: Callable[[], object], message: str) -> None:
    """The attempt is refused in our words, and they name the class it was tried on."""
    with pytest.raises((ValueError, TypeError)) as refused:
        attempt()
    assert message in str(refused.value), what


def test_at_least_300_cases_are_tried():
    assert len(CASES) >= 300
    assert len({what for what, _, _ in CASES}) == len(CASES)


@pytest.mark.parametrize("name", [*PLAIN, *NETWORKS])
def test_a_flow_refuses_what_it_cannot_take_and_names_itself(name):
    for what, attempt, message in CASES:
        if what.startswith((f"{name}(", f"{name}.", f"{name}:")):
            check(what, attempt, message)
            with pytest.raises((ValueError, TypeError), match=name):
                attempt()


@pytest.mark.parametrize(("what", "attempt", "message"), others(), ids=[case[0] for case in others()])
def test_chains_densities_and_networks_refuse_what_they_cannot_take(what, attempt, message):
    check(what, attempt, message)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_hidden_layers_mean_a_linear_network(name):
    flow = getattr(flows, name)(3, hidden=())
    z = torch.randn(5, 3)
    torch.testing.assert_close(flow.inverse(flow(z)[0])[0], z, rtol=0, atol=1e-4)
