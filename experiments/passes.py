"""One pass or D of them: how long flows take to score and to sample, ``python -m experiments.passes``.

MAF, IAF and a coupling of the same width are timed both ways at growing dimension D, one layer each. The
result goes to ``book/results/passes.json``, from which the chapter on autoregressive flows draws its figure:
execute that chapter again after running this.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from experiments.results import parser, write
from experiments.timing import in_turns
from mnf_lite.flows import IAF, MAF, AffineCoupling, Flow
from mnf_lite.flows.base import soft_bound

DIMS = (2, 4, 8, 16, 32, 64, 128, 256, 512)
HIDDEN, BATCH = (64, 64), 128
SETTINGS = {"dims": DIMS, "hidden": HIDDEN, "batch": BATCH, "seed": 0}
MINUTES = 1


def in_whole_passes(flow: MAF, z: Tensor) -> Tensor:
    """Sample a MAF by dim passes of its whole network, as the chapter builds it from nothing."""
    x = torch.zeros_like(z)
    for _ in range(flow.dim):
        a, t = flow.net(x).unbind(-1)
        x = torch.addcmul(t, z, torch.exp(soft_bound(a)))
    return x


def contenders(dim: int) -> dict[str, Callable[[], object]]:
    """What is timed at one dimension, by name."""
    flows: dict[str, Flow] = {
        "MAF": MAF(dim, hidden=HIDDEN),
        "IAF": IAF(dim, hidden=HIDDEN),
        "coupling": AffineCoupling(dim, hidden=HIDDEN, shared=True),
    }
    z = torch.randn(BATCH, dim)
    maf = flows["MAF"]
    assert isinstance(maf, MAF)
    torch.testing.assert_close(in_whole_passes(maf, z), maf(z)[0], rtol=1e-3, atol=1e-4)
    runs: dict[str, Callable[[], object]] = {"MAF, sample, whole passes": lambda: in_whole_passes(maf, z)}
    for name, flow in flows.items():
        runs[f"{name}, score"] = lambda flow=flow: flow.inverse(z)  # type: ignore[misc]
        runs[f"{name}, sample"] = lambda flow=flow: flow(z)  # type: ignore[misc]
    return runs


def main() -> None:
    """Time everything and write the file."""
    command = parser("passes", __doc__)
    command.add_argument("--budget", type=float, default=3.0, help="seconds for each dimension (3)")
    args = command.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    seconds: dict[str, list[float]] = {}
    with torch.no_grad():
        for dim in DIMS:
            for name, median in in_turns(contenders(dim), args.budget).items():
                seconds.setdefault(name, []).append(float(f"{median:.3g}"))
    write(args.out, {"settings": SETTINGS, "seconds": seconds})
    for name, medians in seconds.items():
        print(f"{name:<26}", *(f"{1e3 * median:8.3g}" for median in medians), "ms")


if __name__ == "__main__":
    main()
