"""What other libraries call the flows and layers of this one, all tried: ``python -m experiments.names``.

``names_flows`` and ``names_layers`` hold the names, as expressions that are evaluated there and shown in the
book, and examine what they make. The result goes to ``book/results/names.json``, from which the appendix
*Names in other libraries* makes its tables: execute that page again after running this.

It needs the extras ``bench`` and ``names``, and a checkout of torch-mnf on PYTHONPATH. A missing library is
an error.
"""

import warnings
from pathlib import Path
from typing import Any

import jupytext
import torch

from experiments.names_flows import (
    FLOWS,
    LIBRARIES,
    POINTS,
    Absent,
    D,
    Subject,
    Verdict,
    examine_absence,
    examine_flow,
    examine_library,
    version_of,
)
from experiments.names_layers import LAYER_PACKAGES, LAYERS, examine_layer, examine_recipes
from experiments.results import parser, write
from mnf_lite import flows

SETTINGS = {"dim": D, "points": POINTS}
MINUTES = 5
PAGE = Path(__file__).resolve().parent.parent / "book" / "appendix" / "names.md"


def examine_wrappers() -> dict[str, Verdict]:
    """Run the wrappers that the page shows, as they stand there, with flows of other libraries."""
    scope: dict[str, Any] = {}
    exec("import torch\nfrom torch import Tensor, nn\nfrom mnf_lite import flows", scope)
    for cell in jupytext.read(PAGE, fmt="md:myst").cells:
        if cell.cell_type == "code" and cell.source.startswith("class "):
            exec(cell.source, scope)
    found = {}
    for wrapper, name, ours in (
        ("Turned", "nflows", "MAF"),
        ("Turned", "nflows", "SplineCoupling"),
        ("FromTransform", "pyro", "AffineCoupling"),
        ("FromTransform", "pyro", "MAF"),
        ("FromTransform", "zuko", "MAF"),
    ):
        lib = LIBRARIES[name]
        subject = Subject(lib, str(FLOWS[ours][name]))
        theirs = subject.evaluate(lib.density or "", flow=subject.flow, base=subject.evaluate(lib.base))
        inner = subject.flow().inv if name == "zuko" else subject.flow
        density = flows.NormalizingFlow(scope[wrapper](inner, D))
        with torch.no_grad():
            x = density.sample((POINTS,))
            difference = density.log_prob(x) - subject.evaluate(lib.log_prob or "", density=theirs, x=x)
        if not difference.abs().max() < 1e-6:
            raise ValueError(f"{wrapper} of {subject.flow} is not the density of {name}: {difference}")
        found[f"{wrapper}, {name}, {ours}"] = {"difference": float(f"{difference.abs().max():.0e}")}
    return found


def main() -> None:
    """Examine everything and write the file."""
    args = parser("names", __doc__).parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    found_flows: dict[str, dict[str, Verdict]] = {}
    for ours, table in FLOWS.items():
        found_flows[ours] = {}
        for name, entry in table.items():
            absent = isinstance(entry, Absent)
            found_flows[ours][name] = (
                examine_absence(name, ours, entry) if absent else examine_flow(name, ours, entry)
            )
    found_layers: dict[str, dict[str, Verdict]] = {}
    for name, library in LAYERS.items():
        for ours, source in library.layers.items():
            found_layers.setdefault(ours, {})[name] = examine_layer(library, source)
    results = {
        "settings": SETTINGS,
        "libraries": {name: examine_library(name) for name in LIBRARIES},
        "flows": found_flows,
        "layer_libraries": {
            name: {"link": lib.link, "version": version_of(LAYER_PACKAGES.get(name, name)), "kl": lib.kl}
            for name, lib in LAYERS.items()
        },
        "layers": found_layers,
        "recipes": examine_recipes(),
        "wrappers": examine_wrappers(),
    }
    write(args.out, results)
    tried = sum(
        "build" in v for table in [*found_flows.values(), *found_layers.values()] for v in table.values()
    )
    print(f"{tried} flows and layers tried, written to {args.out}")


if __name__ == "__main__":
    main()
