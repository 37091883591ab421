"""Draws from the true posterior of five small networks: ``python -m experiments.hmc``.

Hamiltonian Monte Carlo by NumPyro: for the four smaller problems of ``experiments.problems`` the
No-U-Turn sampler, for the digits trajectories of a fixed length. Several chains each, started apart from
one another. Convergence is judged where it matters, in what the networks say: a hidden layer has too many
symmetries for single weights to agree.

It needs the extra ``reference``. The diagnostics go to ``book/results/hmc.json``, the thinned draws in 16
bits to ``book/results/hmc_PROBLEM.safetensors``; an interrupted run goes on where it stopped.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.problems import NOISE_PRIOR_STD, PROBLEMS, Problem, problem
from experiments.results import RESULTS, parser, read, write
from mnf_lite.files import load_tensors, save_tensors

Record = dict[str, Any]

SMALL: Record = {"sampler": "NUTS", "max_tree_depth": 9, "warmup": 500, "draws": 1000, "thin": 2}
LARGE: Record = {"sampler": "HMC", "trajectory_length": 1.5, "warmup": 200, "draws": 450, "thin": 3}
SETTINGS: Record = {"chains": 4, "seed": 0, "start_std": 0.5, "target_accept_prob": 0.8}
SETTINGS |= {name: LARGE if name == "digits" else SMALL for name in PROBLEMS}
MINUTES = 3


def file_of(name: str, folder: Path = RESULTS) -> Path:
    """Where the draws of a problem are kept."""
    return folder / f"hmc_{name.replace(', ', '_').replace(' ', '_')}.safetensors"


def load(name: str, folder: Path = RESULTS) -> Tensor:
    """The stored draws of a problem, ``[chains, draws, P]``."""
    tensors, _ = load_tensors(file_of(name, folder))
    return tensors["draws"].float()


def functions(case: Problem, draws: Tensor) -> Tensor:
    """What the networks of ``[S, P]`` say, one number for each input: ``[S, B]``.

    Means of a regression, probabilities of a classifier's right class or, without one, of its first class.
    """
    if not case.classifies:
        return case.outputs(draws, torch.cat(list(case.regions.values())))[..., 0]
    beyond = [case.outputs(draws, x).softmax(-1)[..., 0] for x in list(case.regions.values())[1:]]
    return torch.cat((case.log_likelihood(draws, *case.test).exp(), *beyond), 1)


def sample(name: str, options: Record) -> tuple[np.ndarray, Record]:
    """Run the chains: draws ``[chains, draws, P]`` before thinning, and what the sampler says of them."""
    # One thread, said before JAX starts. JAX is imported here, for all else of this module does without.
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["NPROC"] = "1"
    import jax
    import jax.numpy as jnp
    from numpyro.infer import HMC, MCMC, NUTS

    case = problem(name)
    inputs, hidden, outputs = case.sizes
    x, y = jnp.asarray(case.x.numpy()), jnp.asarray(case.y.numpy())
    ends = np.cumsum([hidden * inputs, hidden, outputs * hidden, outputs])

    def potential(theta: Any) -> Any:
        """Minus the log density of the posterior, but for a constant."""
        w1, b1, w2, b2, rest = jnp.split(theta, ends)
        h = jax.nn.relu(x @ w1.reshape(hidden, inputs).T + b1)
        out = h @ w2.reshape(outputs, hidden).T + b2
        if case.classifies:
            nll = -jax.nn.log_softmax(out)[jnp.arange(len(y)), y].sum()
        else:
            log_var = NOISE_PRIOR_STD * rest[0] if case.learns_noise else 2 * np.log(case.noise_std)
            nll = ((y - out) ** 2 * jnp.exp(-log_var) + log_var + np.log(2 * np.pi)).sum() / 2
        return nll + (theta**2).sum() / 2

    shared = {"target_accept_prob": SETTINGS["target_accept_prob"]}
    if options["sampler"] == "NUTS":
        kernel = NUTS(potential_fn=potential, max_tree_depth=options["max_tree_depth"], **shared)
    else:
        length = options["trajectory_length"]
        kernel = HMC(potential_fn=potential, trajectory_length=length, adapt_mass_matrix=False, **shared)
    chains = MCMC(
        kernel,
        num_warmup=options["warmup"],
        num_samples=options["draws"],
        num_chains=SETTINGS["chains"],
        chain_method="vectorized",
        progress_bar=False,
    )
    start_key, key = jax.random.split(jax.random.PRNGKey(SETTINGS["seed"]))
    start = SETTINGS["start_std"] * jax.random.normal(start_key, (SETTINGS["chains"], case.size))
    fields = ("energy", "potential_energy", "num_steps", "accept_prob", "diverging", "adapt_state.step_size")
    chains.run(key, init_params=start, extra_fields=fields)
    said = {k: np.asarray(v) for k, v in chains.get_extra_fields(group_by_chain=True).items()}
    energy = said["energy"]
    return np.asarray(chains.get_samples(group_by_chain=True)), {
        "parameters": case.size,
        "acceptance": said["accept_prob"].mean(1).tolist(),
        "step_size": said["adapt_state.step_size"][:, -1].tolist(),
        "leapfrog_steps": said["num_steps"].mean(1).tolist(),
        "divergences": int(said["diverging"].sum()),
        "e_bfmi": (np.square(np.diff(energy, axis=1)).mean(1) / energy.var(1)).tolist(),
        "potential": said["potential_energy"].mean(1).tolist(),
    }


def mixing(values: np.ndarray) -> Record:
    """Split R-hat and effective sample size of each of ``[chains, draws, B]``: median and worst."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    r_hat, size = split_gelman_rubin(values), effective_sample_size(values)
    return {
        "r_hat": {"median": float(np.median(r_hat)), "worst": float(r_hat.max())},
        "ess": {"median": float(np.median(size)), "worst": float(size.min()), "draws": values[..., 0].size},
    }


def run(name: str, options: Record, folder: Path) -> Record:
    """Sample one problem, keep the thinned draws and say how well the chains mixed."""
    case, start = problem(name), time.process_time()
    draws, record = sample(name, options)
    record["minutes"] = (time.process_time() - start) / 60

    def say(flat: Tensor) -> Tensor:
        return torch.cat([functions(case, part) for part in flat.flatten(0, 1).split(100)])

    said = say(torch.tensor(draws))
    record["functions"] = mixing(said.unflatten(0, draws.shape[:2]).numpy())
    record["weights"] = mixing(draws)
    thinned = torch.tensor(draws[:, :: options["thin"]])
    save_tensors(file_of(name, folder), {"draws": thinned.half()}, {"problem": name})
    exact, rounded = say(thinned), say(load(name, folder))
    record["rounding"] = ((exact - rounded).square().mean() / exact.var(0).mean()).sqrt().item()
    return record


def left(results: Record) -> list[str]:
    """The problems that the file of results lacks."""
    return [name for name in PROBLEMS if name not in results.get("runs", {})]


def main() -> None:
    """Sample what is missing in the file of results."""
    args = parser("hmc", __doc__).parse_args()
    torch.set_num_threads(1)
    results = read(args.out, SETTINGS)
    for name in left(results):
        record = run(name, SETTINGS[name], args.out.parent)
        results.setdefault("runs", {})[name] = record
        write(args.out, results)
        worst = record["functions"]
        print(
            f"{name}: {record['minutes']:.1f} min, R-hat at most {worst['r_hat']['worst']:.3f}, "
            f"ESS at least {worst['ess']['worst']:.0f} of {worst['ess']['draws']}",
            flush=True,
        )


if __name__ == "__main__":
    main()
