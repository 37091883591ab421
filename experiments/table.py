"""All methods on the test images of MNIST, looked at once: ``python -m experiments.table``.

The networks are those of ``experiments.trained``. ``book/results/part3/table.json`` holds what was tried and
chosen on the 5,000 images, ``scores[method][seed]`` and, as the control, the same after one temperature for
all images that has the lowest nll on the 5,000, ``arrived`` by the rule of the contract, and ``differences``:
MNF less each other method with its interval, and how many comparisons these are.
"""

from typing import Any

import torch
from torch import Tensor

from experiments import contract, trained
from experiments.methods import SCORES, scored
from experiments.results import RESULTS, load, parser, read, write
from mnf_lite import data, models, predict

SETTINGS: dict[str, Any] = {"contract": contract.SETTINGS}
TEMPERATURES = torch.logspace(-0.5, 0.5, 101)
MINUTES = 30
OUT = RESULTS / "part3" / "table.json"


def answers(runs: list[trained.Run], images: Tensor) -> Tensor:
    """The mean prediction ``[B, C]``; an ensemble's draws are its members, a LeNet has one."""
    networks = [models.load(run.weights) for run in runs]
    plain = runs[0].model == "lenet"
    torch.manual_seed(0)
    return predict(networks, images, n_samples=len(networks) if plain else contract.DRAWS).double().mean(0)


def tempered(p: Tensor, temperature: Tensor) -> Tensor:
    """Probabilities at another temperature, which changes no order among them."""
    return (p.clamp_min(1e-30).log() / temperature).softmax(-1)


def temperature(p: Tensor, labels: Tensor) -> Tensor:
    """That with the lowest nll."""
    nll = torch.stack([SCORES["nll"](tempered(p, t), labels) for t in TEMPERATURES])
    return TEMPERATURES[nll.argmin()]


def main() -> None:
    """Judge all networks and compare them."""
    command = parser("table", __doc__)
    command.set_defaults(out=OUT)
    out = command.parse_args().out
    torch.set_num_threads(1)
    (images, labels), held_out = data.mnist("test").tensors, contract.split()[1].tensors
    results = read(out, SETTINGS)
    tuned = {run.name: load(run.log) for run in trained.tried()}
    looks = ("choose", "end", "auroc_kmnist", "entropy_turned_nines")
    results["tried"] = {name: {look: log[look] for look in looks} for name, log in tuned.items()}
    results["chosen"] = {name: group[0].setting for name, group in trained.methods(0).items()}
    results["arrived"] = trained.verdicts()
    seeds = [trained.methods(seed) for seed in range(contract.SEEDS)]
    kept: dict[str, list[contract.Seed]] = {}
    scores: dict[str, list[dict[str, Any]]] = {}
    for method in seeds[0]:
        for runs in (groups[method] for groups in seeds):
            p, t = answers(runs, images), temperature(answers(runs, held_out[0]), held_out[1])
            cooled = scored(tempered(p, t), labels)
            kept.setdefault(method, []).append((p, labels))
            entry = {"temperature": round(t.item(), 3), "tempered": cooled, **scored(p, labels)}
            scores.setdefault(method, []).append(entry)
    for run in trained.paper():
        found = scored(answers([run], images), labels)
        scores.setdefault(f"paper's {run.model}", []).append(found)
    results["scores"] = scores
    others = [method for method in kept if method != "MNF"]
    results["differences"] = {
        method: {
            name: contract.difference(score, kept["MNF"], kept[method], (0, 0))
            for name, score in SCORES.items()
        }
        for method in others
    }
    results["comparisons"] = len(others) * len(SCORES)
    write(out, results)


if __name__ == "__main__":
    main()
