"""``python -m benchmarks``: every timing of this folder, as tables that grow as they are measured."""

import argparse
import importlib.util
import time
from collections.abc import Iterable

import torch

from benchmarks import flows, layers
from experiments import timing
from experiments.timing import Row, table


def show(title: str, rows: Iterable[Row]) -> list[Row]:
    """Print a table row by row and return the rows."""
    measured: list[Row] = []
    for line in table(title, (measured.append(row) or row for row in rows)):
        print(line, flush=True)
    return measured


def show_flows(kinds: list[str], dims: list[int], budget: float) -> None:
    """Flows against the other libraries and torch-mnf, and the memory of their training."""
    for task, target in flows.TARGETS.items():
        size = f"batch {flows.BATCH}" if task == "training step" else f"{flows.POINTS} points"
        rows = show(f"{task}, {size}", flows.against_libraries(task, kinds, dims, budget))
        worst = max(rows, key=Row.over_fastest)
        print(f"\nOver the fastest other at most {worst.over_fastest():.2f}, {worst.task}; target {target}.")
    if "MAF" in kinds:
        show("one MAF, D passes of its network; target 1.1", [flows.sampling_in_passes(budget)])
        show("two-moons models, training step, batch 128; target 0.6", flows.against_torch_mnf(budget))
    print(f"\n### peak memory of a training step with {flows.POINTS} points, D = 64, MB\n")
    for line in flows.training_memory(kinds):
        print(line, flush=True)


def show_layers(budget: float) -> None:
    """MNF layers against plain networks and torch-mnf, and the memory of predictions."""
    show("MNF-LeNet, training; targets 3 and 0.5", layers.training(budget))
    show("MNF-LeNet, training by sampling of the convolutions", layers.training_by_sampling(budget))
    show("MNF-LeNet, prediction; targets 0.2 and 1.3", layers.prediction(budget))
    print("\n### peak memory of predict above model, images and output, MB; target 512\n")
    for case, megabytes in layers.prediction_memory():
        print(f"- {case}: {megabytes:.0f}", flush=True)


def main() -> None:
    """Print the tables; with ``--only`` those of one half, with ``--kind`` and ``--dim`` some of the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=["flows", "layers"], help="one half alone")
    parser.add_argument("--kind", choices=flows.KINDS, action="append", help="this kind of flow alone")
    parser.add_argument("--dim", type=int, action="append", help="this dimension alone (2, 16 and 64)")
    parser.add_argument("--budget", type=float, default=2.0, help="seconds for each row (2)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of one thread, for a busy machine")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    timing.keep_freed_memory()
    if args.cpu_time:
        timing.count_cpu_time()
    what = "CPU time of one thread" if args.cpu_time else f"{args.threads} threads"
    print(f"torch {torch.__version__}, {what}, {args.budget:g} s a row; medians, in turns.")
    if importlib.util.find_spec("torch_mnf") is None:
        print("Without torch-mnf: no checkout of it is on PYTHONPATH.")
    start = time.perf_counter()
    if args.only != "layers":
        show_flows(args.kind or list(flows.KINDS), args.dim or list(flows.DIMS), args.budget)
    if args.only != "flows":
        show_layers(args.budget)
    print(f"\n{time.perf_counter() - start:.0f} s in all.")


if __name__ == "__main__":
    main()
