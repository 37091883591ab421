"""Every method against the reference: distances are distances, and the methods are what they are called."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments import hmc, last_layer, truth
from experiments.problems import PROBLEMS, problem
from experiments.results import RESULTS, load

SMALL = {"steps": 50, "rows": 20, "lr": 1e-2}


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    return load(RESULTS / "truth.json")


def some(name: str, shift: float = 0.0) -> Tensor:
    """A few draws of the reference, the last bias shifted."""
    draws = hmc.load(name)[:, :50].flatten(0, 1).clone()
    case = problem(name)
    draws[:, case.size - case.learns_noise - 1] += shift
    return draws


@pytest.mark.parametrize("name", PROBLEMS)
def test_distance_is_zero_from_itself_and_grows(name: str) -> None:
    case, draws = problem(name), some(name)
    target = truth.summary(case, draws)
    for region in case.regions:
        distances = [truth.compare(case, some(name, s), target)[region] for s in (0.0, 0.3, 100.0)]
        same, near, far = (record["total_variation"] for record in distances)
        assert same == pytest.approx(0, abs=0.03)
        assert same < near < far <= 1.001
        assert distances[0]["spread"] == pytest.approx(1, abs=1e-4)
        assert far > (0.4 if case.classifies else 0.95)


@pytest.mark.parametrize("name", ["cubic", "cubic, noise learned", "gap"])
def test_densities_integrate_to_one(name: str) -> None:
    for entry in truth.summary(problem(name), some(name)).values():
        cell = entry["y"][:, 1] - entry["y"][:, 0]
        area = entry["density"].sum(1) * cell
        torch.testing.assert_close(area, torch.ones_like(area), atol=0.03, rtol=0)


@pytest.mark.parametrize("name", ["cubic", "moons"])
@pytest.mark.parametrize("method", truth.LAYERS)
def test_draws_are_networks_of_the_problem(name: str, method: str) -> None:
    case = problem(name)
    network = truth.Network(case, method)
    draws = network.draws(7)[:, : case.size]
    assert draws.shape == (7, case.size)
    random = method != "MAP"
    assert (draws.var(0).sum() > 0) == random
    assert case.outputs(draws, case.x).isfinite().all()
    if method == "MC-dropout":
        hidden = slice(case.sizes[1] * (case.sizes[0] + 1), -case.sizes[2])
        assert 0.02 < (draws[:, hidden] == 0).float().mean() < 0.25


@pytest.mark.parametrize("name", ["cubic", "moons"])
def test_laplace_has_the_curvature_of_the_last_layer(name: str) -> None:
    torch.manual_seed(0)
    case = problem(name)
    network = truth.Network(case, "MAP")
    theta = network.draws(1)[0, : case.size]
    last = (case.sizes[1] + 1) * case.sizes[2]
    head, tail = theta[:-last].double(), theta[-last:].double()
    moved = truth.laplace(network, case, 4000)[:, : case.size].double() - theta

    def potential(tail: Tensor) -> Tensor:
        flat = torch.cat((head, tail)).float()[None]
        return -case.log_joint(flat)[0]

    hessian = torch.autograd.functional.hessian(potential, tail).double()
    assert (moved[:, :-last] == 0).all()
    square = ((moved[:, -last:] @ hessian) * moved[:, -last:]).sum(1)
    assert square.mean().item() == pytest.approx(last, rel=0.03)
    ratio = moved[:, -last:].var(0) / hessian.inverse().diagonal()
    assert 0.85 < ratio.min() < ratio.max() < 1.15


def test_laplace_is_that_of_the_library() -> None:
    pytest.importorskip("laplace", reason="the extra 'reference' is not installed")
    torch.manual_seed(0)
    for name in ("cubic", "digits"):
        found = last_layer.check(truth.Network(problem(name), "MAP"), problem(name))
        assert found["precision"] < 1e-5


def test_precision_of_the_library_is_put_in_our_order() -> None:
    case = problem("moons")  # 2 outputs of 20 weights and a bias
    theirs = torch.arange(42.0).diag()
    ours = last_layer.in_our_order(theirs, case).diagonal().tolist()
    assert ours == [*range(20), 40, *range(20, 40), 41]


def test_stored_laplace_agrees_with_the_library() -> None:
    found = load(RESULTS / "last_layer.json")["problems"]
    assert set(found) == set(PROBLEMS)
    for record in found.values():
        assert record["precision"] < 1e-5
        for region in record["regions"].values():
            assert region["library"] < 3 * region["ourselves"] < 0.1


def test_script_lists_what_is_missing(stored: dict[str, Any]) -> None:
    assert len(truth.left({})) == len(truth.GROUPS) * len(truth.LAYERS)
    assert truth.left(stored) == []


def test_every_method_is_scored_on_every_problem_with_every_seed(stored: dict[str, Any]) -> None:
    for name in PROBLEMS:
        assert set(stored["scores"][name]) == set(truth.METHODS)
        for records in stored["scores"][name].values():
            assert len(records) == truth.SEEDS
            for record in records:
                assert record["nll"] < math.inf
                assert all(-0.02 <= record[r]["total_variation"] <= 1.02 for r in problem(name).regions)


def test_the_reference_is_nearer_to_itself_than_any_method(stored: dict[str, Any]) -> None:
    for name, methods in stored["scores"].items():
        noise = stored["reference"][name]["halves"]["at the data"]["total_variation"]
        nearest = min(r["at the data"]["total_variation"] for records in methods.values() for r in records)
        assert noise < nearest, name


def test_posteriors_have_arrived_where_the_package_says(stored: dict[str, Any]) -> None:
    for methods in stored["scores"].values():
        for method, records in methods.items():
            for record in records:
                if "bound" not in record:
                    continue
                curve, bound = record["curve"], sum(record["bound"].values())
                assert bound == pytest.approx(sum(curve[-3:]) / 3, rel=0.06), method
                assert sum(curve[-15:-10]) / 5 - sum(curve[-5:]) / 5 < 0.05 * curve[-1], method


@pytest.mark.parametrize("method", [m for m in truth.LAYERS if m not in ("MAP", "MC-dropout")])
def test_bound_in_jax_is_that_of_the_package(method: str) -> None:
    jax = pytest.importorskip("jax", reason="the extra 'reference' is not installed")
    from experiments import truth_bounds

    torch.manual_seed(0)
    layer = truth.LAYERS[method](4, 3).requires_grad_(False)
    for parameter in layer.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    layer.weight_log_var += 7
    parameters = {name: jax.numpy.asarray(p.numpy()) for name, p in layer.named_parameters()}
    x = torch.randn(1, 4).repeat(20_000, 1)
    penalty = jax.jit(jax.vmap(lambda key: truth_bounds.layer(parameters, x[:1].numpy(), key, 0.0)[1]))
    theirs = penalty(jax.random.split(jax.random.PRNGKey(0), 5000)).mean()
    ours = layer.kl(20_000).item()
    assert float(theirs) == pytest.approx(ours, abs=0.02 * abs(ours) + 0.1)
    y, _ = truth_bounds.layer(parameters, x.numpy(), jax.random.PRNGKey(1), 0.0)
    torch.testing.assert_close(torch.tensor(y.std(0).tolist()), layer(x).std(0), rtol=0.05, atol=0)


def test_script_runs_on_the_smallest_settings() -> None:
    pytest.importorskip("jax", reason="the extra 'reference' is not installed")
    found = truth.runs(("moons",), "MAP", 2, SMALL)["moons"]
    assert {method: len(records) for method, records in found.items()} == {
        "ensemble": 2,
        "last-layer Laplace": 2,
    }
    found = truth.runs(("cubic", "gap"), "MNF, 2 flows", 1, SMALL)
    assert len(found["gap"]["MNF, 2 flows"][0]["curve"]) == truth.CURVE
