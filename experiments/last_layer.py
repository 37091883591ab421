"""Our last-layer Laplace approximation beside that of a library: ``python -m experiments.last_layer``.

``experiments.truth`` has it in closed form. Here one network of each problem, trained to a maximum of its
posterior, is also handed to ``laplace-torch``, with the same prior. The precision matrices of the last layer
are compared number by number, and the predictions by the total variation of the chapter. The same distance
between two sets of our own draws says how much of it is sampling.

It needs the extra ``reference``. The result goes to ``book/results/last_layer.json``.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from experiments import truth
from experiments.problems import Problem, problem
from experiments.results import parser, read, write

Record = dict[str, Any]

DRAWS = 4000
LIBRARY = "laplace-torch 0.3"
SETTINGS: Record = {"draws": DRAWS, "schedules": truth.SCHEDULES, "decay": truth.SETTINGS["decay"]}
SETTINGS |= {"library": LIBRARY, "seed": 0}
MINUTES = 1


def theirs(network: truth.Network, case: Problem) -> Any:
    """The library's approximation: the last layer alone, all correlations, the prior N(0, 1)."""
    from laplace import Laplace  # all else of this module does without it

    model = nn.Sequential(network.first, nn.ReLU(), network.second)
    noise = {} if case.classifies else {"sigma_noise": case.noise(network.draws(1)).item()}
    found = Laplace(
        model,
        "classification" if case.classifies else "regression",
        subset_of_weights="last_layer",
        hessian_structure="full",
        prior_precision=1.0,
        **noise,
    )
    found.fit(DataLoader(TensorDataset(case.x, case.y), batch_size=len(case.x)))
    return found


def in_our_order(precision: Tensor, case: Problem) -> Tensor:
    """Reorder a matrix of the library, all weights and then all biases, output by output."""
    outputs, hidden = case.sizes[2], case.sizes[1]
    weights = torch.arange(outputs * hidden).view(outputs, hidden)
    biases = outputs * hidden + torch.arange(outputs)[:, None]
    order = torch.cat((weights, biases), 1).flatten()
    return precision[order][:, order]


def predicted(library: Any, case: Problem, region: str, y: Tensor) -> Tensor:
    """What the library predicts: probabilities of the classes, or the density at each y ``[B, G]``."""
    x = case.regions[region]
    if case.classifies:
        p: Tensor = library(x, pred_type="glm", link_approx="mc", n_samples=DRAWS)
        return p.detach()
    mean, variance = (part.detach().reshape(-1, 1) for part in library(x)[:2])
    std = (variance + library.sigma_noise**2).sqrt()
    return torch.distributions.Normal(mean, std).log_prob(y).exp()


def distance(case: Problem, p: Tensor, q: Tensor, y: Tensor) -> float:
    """Total variation of two predictions, averaged over inputs."""
    cell = 1.0 if case.classifies else y[:, 1] - y[:, 0]
    return ((p - q).abs().sum(1) * cell).mean().item() / 2


def check(network: truth.Network, case: Problem) -> Record:
    """Both approximations at one network: how far their precisions and their predictions are apart."""
    library, ours = theirs(network, case), truth.last_layer_precision(network, case)
    apart = (in_our_order(library.posterior_precision.detach().double(), case) - ours).abs().max()
    record: Record = {"weights": len(ours), "precision": (apart / ours.abs().max()).item()}
    key = "p" if case.classifies else "density"
    first = truth.summary(case, truth.laplace(network, case, DRAWS))
    axes = None if case.classifies else {region: entry["y"] for region, entry in first.items()}
    second = truth.summary(case, truth.laplace(network, case, DRAWS), axes)
    record["regions"] = {}
    for region, entry in first.items():
        y = entry.get("y", torch.empty(0))
        says = predicted(library, case, region, y)
        record["regions"][region] = {
            "library": distance(case, entry[key], says, y),
            "ourselves": distance(case, entry[key], second[region][key], y),
        }
    return record


def main() -> None:
    """Train one network of each problem and compare."""
    args = parser("last_layer", __doc__).parse_args()
    torch.set_num_threads(1)
    results = read(args.out, SETTINGS)
    for group in truth.GROUPS:
        torch.manual_seed(SETTINGS["seed"])
        cases = [problem(name) for name in group]
        networks = [truth.Network(case, "MAP") for case in cases]
        truth.train(networks, cases, truth.SCHEDULES[group[0]])
        for name, case, network in zip(group, cases, networks, strict=True):
            results.setdefault("problems", {})[name] = record = check(network, case)
            print(name, record, flush=True)
    write(args.out, results)


if __name__ == "__main__":
    main()
