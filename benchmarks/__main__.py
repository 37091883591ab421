"""``python -m benchmarks``: every timing of this folder, as tables."""

import argparse
from collections import defaultdict

import torch

from benchmarks import flows, layers, timing
from benchmarks.timing import Row, table


def main() -> None:
    """Print the tables; with ``--only`` those of one half."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", choices=["flows", "layers"], help="one half alone")
    parser.add_argument("--budget", type=float, default=3.0, help="seconds for each row (3)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (2)")
    parser.add_argument("--cpu-time", action="store_true", help="CPU time of one thread, for a busy machine")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.cpu_time:
        timing.count_cpu_time()
    what = "CPU time of one thread" if args.cpu_time else f"{args.threads} threads"
    print(f"torch {torch.__version__}, {what}, {args.budget:g} s a row; medians, in turns.")

    if args.only != "layers":
        tables: dict[str, list[Row]] = defaultdict(list)
        for title, row in flows.against_libraries(args.budget):
            tables[title].append(row)
        for title, rows in tables.items():
            print(table(title, rows), flush=True)
            print(f"\nOver the fastest of the others: at most {max(row.over_fastest() for row in rows):.2f}.")
        print(table("D passes", [flows.sampling_in_passes(args.budget)]))
        if rows := list(flows.against_torch_mnf(args.budget)):
            print(table("two-moons models, training step, batch 128", rows), flush=True)
        print("\n### peak memory of a training step with 4096 points, D = 64, MB\n")
        for line in flows.training_memory():
            print(line, flush=True)
    if args.only != "flows":
        print(table("MNF-LeNet, training", list(layers.training(args.budget))), flush=True)
        print(table("MNF-LeNet, prediction", list(layers.prediction(args.budget))), flush=True)
        print("\n### peak memory of predict above model, images and output, MB\n")
        for case, megabytes in layers.prediction_memory().items():
            print(f"- {case}: {megabytes:.0f}", flush=True)


if __name__ == "__main__":
    main()
