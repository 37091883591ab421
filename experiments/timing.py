"""What timings share: calls in turns, peak memory, tables."""

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch


@dataclass
class Row:
    """Median seconds of every contender at one task."""

    task: str
    seconds: dict[str, float]

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


def keep_freed_memory() -> None:
    """Have glibc keep freed memory in the process, for every contender alike.

    By itself it returns freed blocks to the system once they exceed twice the largest so far; the next call
    then waits for fresh pages. That strikes whichever contender has the largest blocks, and can double its
    time. To free one block of 30 MB raises the threshold for all.
    """
    torch.empty(30 * 2**20, dtype=torch.uint8)


def in_turns(contenders: Mapping[str, Callable[[], object]], budget: float) -> dict[str, float]:
    """Median seconds of each contender, called in turns until ``budget`` seconds are spent on all of them.

    Each is called once to warm up and then at least three times. Whatever else the machine does in between
    strikes all contenders alike, so ratios hold.
    """
    for run in contenders.values():
        run()
    spent: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    end = clock() + budget
    while clock() < end or min(map(len, spent.values())) < 3:
        for name, run in contenders.items():
            start = clock()
            run()
            spent[name].append(clock() - start)
    gc.enable()
    return {name: statistics.median(times) for name, times in spent.items()}


def training_step(
    model: torch.nn.Module, loss: Callable[[], torch.Tensor], fused: bool = False
) -> Callable[[], None]:
    """One step of Adam on ``loss``, as torch runs it unless asked or in one call for all parameters."""
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=fused)

    def step() -> None:
        adam.zero_grad()
        loss().backward()
        adam.step()

    return step


def parameters(model: torch.nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def peak_megabytes(setup: str, run: str) -> float:
    """By how many megabytes memory grows at the peak of ``run``, in a fresh process where ``setup`` has run.

    Both are Python source. The peak is Linux's ``VmHWM``, reset after the setup: getrusage would report that
    of the parent, too, if it is higher.
    """
    program = f"""
from pathlib import Path
def peak():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
{setup}
Path("/proc/self/clear_refs").write_text("5")
before = peak()
{run}
print(peak() - before)"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def table(title: str, rows: Iterable[Row]) -> Iterator[str]:
    """Lines of a Markdown table, each as soon as its row is measured: milliseconds, then ratios to others.

    A row of other contenders than the row before starts with a new head; without rows there are no lines.
    """
    head: list[str] = []
    for row in rows:
        others = [name for name in row.seconds if name != "mnf_lite"]
        names = ["task", *(f"{name} ms" for name in row.seconds), *(f"/ {name}" for name in others)]
        if names != head:
            yield "" if head else f"\n### {title}\n"
            yield "| " + " | ".join(names) + " |"
            yield "|---" + "|---:" * (len(names) - 1) + "|"
            head = names
        times = [f"{1e3 * seconds:.3g}" for seconds in row.seconds.values()]
        yield "| " + " | ".join([row.task, *times, *(f"{row.ratio(name):.2f}" for name in others)]) + " |"
