"""The reference: what is stored are draws from the posterior that the problem says, and enough of them."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from experiments import hmc
from experiments.problems import NOISE_PRIOR_STD, PROBLEMS, Problem, problem
from experiments.results import RESULTS, load
from mnf_lite.likelihoods import Categorical, Gaussian


def plain(case: Problem) -> nn.Sequential:
    inputs, hidden, outputs = case.sizes
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


@pytest.mark.parametrize("name", PROBLEMS)
def test_flat_weights_are_those_of_torch(name: str) -> None:
    case = problem(name)
    network = plain(case)
    flat = parameters_to_vector(network.parameters()).detach()[None]
    if case.learns_noise:
        flat = torch.cat((flat, torch.tensor([[-1.0]])), 1)
    assert flat.shape == (1, case.size)
    torch.testing.assert_close(case.outputs(flat, case.x)[0], network(case.x))
    likelihood = (
        Categorical()
        if case.classifies
        else Gaussian(noise_std=case.noise_std or 2.718281828 ** (-NOISE_PRIOR_STD / 2))
    )
    expected = likelihood.log_prob(network(case.x), case.y)
    torch.testing.assert_close(case.log_likelihood(flat, case.x, case.y)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", PROBLEMS)
def test_regions_and_test_pairs_have_the_problems_inputs(name: str) -> None:
    case = problem(name)
    assert next(iter(case.regions)) == "at the data"
    for x in (case.x, case.test[0], *case.regions.values()):
        assert x.dtype == torch.float32
        assert x.ndim == 2
        assert x.shape[1] == case.sizes[0]
    assert len(case.test[0]) == len(case.test[1]) >= 400
    if not case.classifies:
        assert case.x.std() == pytest.approx(1.0, abs=0.8)


def test_files_are_small() -> None:
    sizes = [hmc.file_of(name).stat().st_size for name in PROBLEMS]
    assert max(sizes) < 4e6
    assert sum(sizes) < 6e6


@pytest.mark.parametrize("name", PROBLEMS)
def test_stored_draws_are_those_the_sampler_spoke_of(name: str) -> None:
    """The potential that JAX computed for every draw, and torch's for those that were kept."""
    draws, run = hmc.load(name), load(RESULTS / "hmc.json")["runs"][name]
    assert draws.shape[0] == len(run["potential"]) == hmc.SETTINGS["chains"]
    assert draws.shape[2] == run["parameters"] == problem(name).size
    ours = -problem(name).log_joint(draws.flatten(0, 1)).mean()
    theirs = sum(run["potential"]) / len(run["potential"])
    assert ours.item() == pytest.approx(theirs, abs=0.03 * run["parameters"] ** 0.5 + 1.0)


@pytest.mark.parametrize("name", PROBLEMS)
def test_stored_draws_fulfil_the_virial_identity(name: str) -> None:
    """The mean of w · dU/dw is the number of weights under the posterior, and under no density beside it."""
    case, draws = problem(name), hmc.load(name).flatten(0, 1)

    def distance(w: Tensor) -> float:
        w.requires_grad_()
        (slope,) = torch.autograd.grad(-case.log_joint(w).sum(), w)
        virial = (w * slope).sum(1)
        error = 1.5 * virial.std() / len(virial) ** 0.5  # draws of a chain remember one another
        return (abs(virial.mean() - case.size) / error).item()

    assert distance(1.0 * draws) < 4
    assert distance(1.05 * draws) > 8


@pytest.mark.parametrize("name", PROBLEMS)
def test_chains_agree_in_what_the_networks_say(name: str) -> None:
    run = load(RESULTS / "hmc.json")["runs"][name]
    assert run["functions"]["r_hat"]["worst"] < 1.01
    assert run["functions"]["ess"]["worst"] > 500
    assert min(run["e_bfmi"]) > 0.8
    assert run["divergences"] <= 0.001 * run["functions"]["ess"]["draws"]
    assert run["rounding"] < 0.01


def test_script_lists_what_is_missing() -> None:
    assert hmc.left({}) == list(PROBLEMS)
    assert hmc.left({"runs": {"cubic": {}, "gap": {}}}) == ["cubic, noise learned", "moons", "digits"]


@pytest.mark.parametrize(("name", "sampler"), [("cubic, noise learned", "NUTS"), ("moons", "HMC")])
def test_script_runs_on_the_smallest_settings(name: str, sampler: str, tmp_path: Path) -> None:
    pytest.importorskip("numpyro", reason="the extra 'reference' is not installed")
    options = {"sampler": sampler, "max_tree_depth": 3, "trajectory_length": 0.1}
    record = hmc.run(name, options | {"warmup": 5, "draws": 8, "thin": 2}, tmp_path)
    assert hmc.load(name, tmp_path).shape == (4, 4, problem(name).size)
    assert len(record["acceptance"]) == 4
    assert record["functions"]["ess"]["draws"] == 32
