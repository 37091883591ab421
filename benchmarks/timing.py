"""What the benchmarks share: timing in turns, peak memory, tables."""

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch


@dataclass
class Row:
    """Median seconds of every contender at one task."""

    task: str
    seconds: dict[str, float]
    parameters: dict[str, int] = field(default_factory=dict)

    def ratio(self, to: str) -> float:
        """Time of mnf_lite over the time of ``to``."""
        return self.seconds["mnf_lite"] / self.seconds[to]

    def over_fastest(self) -> float:
        """Time of mnf_lite over the time of the fastest other contender."""
        return max(self.ratio(name) for name in self.seconds if name != "mnf_lite")


clock: Callable[[], float] = time.perf_counter


def count_cpu_time() -> None:
    """From here on, time is that of this thread alone: for a busy machine, where others are noise."""
    global clock
    torch.set_num_threads(1)
    clock = time.thread_time


def in_turns(contenders: Mapping[str, Callable[[], object]], budget: float) -> dict[str, float]:
    """Median seconds of each contender, called in turns until ``budget`` seconds are spent on all of them.

    Whatever else the machine does in between strikes all contenders alike, so ratios hold.
    """
    for run in contenders.values():
        run()
        run()
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    end = clock() + budget
    while clock() < end or min(map(len, spent.values())) < 5:
        for name, run in contenders.items():
            start = clock()
            run()
            spent[name].append(clock() - start)
    gc.enable()
    return {name: statistics.median(times) for name, times in spent.items()}


def training_step(model: torch.nn.Module, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """One step of Adam on ``loss``, the same optimiser with the same settings for every contender."""
    adam = torch.optim.Adam(model.parameters(), lr=1e-4)

    def step() -> None:
        adam.zero_grad()
        loss().backward()
        adam.step()

    return step


def parameters(model: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def peak_megabytes(setup: str, run: str) -> float:
    """By how many megabytes ``run`` raises the peak memory of a fresh process in which ``setup`` has run.

    Both are Python source; a process of its own, since a peak never goes down again.
    """
    measure = "import resource\npeak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
    program = f"{measure}{setup}\nbefore = peak()\n{run}\nprint(peak() - before)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def table(title: str, rows: Sequence[Row]) -> str:
    """The rows as a Markdown table: milliseconds, then the time of mnf_lite over each other time."""
    names = list(dict.fromkeys(name for row in rows for name in row.seconds))
    others = [name for name in names if name != "mnf_lite"]
    head = ["task", *(f"{name} ms" for name in names), *(f"/ {name}" for name in others)]
    lines = [f"\n### {title}\n", "| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for row in rows:
        times = [f"{1e3 * row.seconds[name]:.3g}" if name in row.seconds else "" for name in names]
        ratios = [f"{row.ratio(name):.2f}" if name in row.seconds else "" for name in others]
        lines.append("| " + " | ".join([row.task, *times, *ratios]) + " |")
    return "\n".join(lines)
