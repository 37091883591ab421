"""Run the chapters as other processors would: nothing that a test compares may depend on one.

    python -m tools.processors                                     every setting in turn
    python -m tools.processors plain                               one of them
    python -m tools.processors plain --chapter flows/04_coupling   one chapter
    python -m tools.processors plain --tests tests/package         these tests besides the chapters

`make processors` calls this. A chapter is run and compared as `make test` does it, by nbval, but the
libraries below PyTorch and NumPy are told to take other instructions or more threads.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import nbformat

from tools import chapters

ASK = "import torch; print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads())"
# What the libraries say of themselves where a setting has its effect: instructions and number of threads.
EFFECT = {"plain": ("DEFAULT", "1"), "avx2": ("AVX2", "1"), "two-threads": (None, "2")}


class SettingError(Exception):
    """Why a setting cannot be had, in words."""


@dataclass
class Outcome:
    """What one setting gave."""

    setting: str
    chapters: int
    compared: int
    tests: int
    differences: list[str]
    seconds: float

    def row(self) -> str:
        """Its line of the table."""
        minutes, seconds = divmod(round(self.seconds), 60)
        counts = f"{self.chapters:8} {self.compared:8} {self.tests:6} {len(self.differences):11}"
        return f"{self.setting:12} {counts} {minutes:4}:{seconds:02}"


HEAD = "setting      chapters compared  tests differences   time"


def environment(setting: str) -> dict[str, str]:
    """All variables of a setting, one thread where it does not say otherwise; refuse one without effect."""
    if setting not in chapters.SETTINGS:
        raise SettingError(f"No setting {setting!r}. There are: {', '.join(chapters.SETTINGS)}.")
    variables = dict.fromkeys(chapters.THREADS, "1") | chapters.SETTINGS[setting]
    done = {**os.environ, **variables, "MNF_LITE_PROCESSOR": setting}
    if setting in EFFECT:
        answer = subprocess.run(
            [sys.executable, "-c", ASK], env=done, capture_output=True, text=True, check=True
        )
        for wanted, came in zip(EFFECT[setting], answer.stdout.split(), strict=True):
            if wanted not in {None, came}:
                raise SettingError(
                    f"This machine cannot emulate {setting!r}: PyTorch answers {came}, not {wanted}."
                )
    return done


def run(setting: str, notebooks: Sequence[Path], tests: Sequence[str], workers: int) -> Outcome:
    """Run chapters and tests under a setting."""
    variables = environment(setting)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        spread = ["-n", str(workers), "--dist", "loadscope"] if workers > 1 else []
        command = [sys.executable, "-m", "pytest", *map(chapters.name_of, notebooks), *tests, "-q", *spread]
        done = subprocess.run(
            [*command, f"--junitxml={report}"], cwd=chapters.ROOT, env=variables, check=False
        )
        if not report.is_file():
            raise SettingError(f"pytest gave no report under {setting!r} (exit code {done.returncode}).")
        cases = list(ElementTree.parse(report).iter("testcase"))
    differences = [
        message.get("message", "").splitlines()[0]
        for case in cases
        for message in (*case.findall("failure"), *case.findall("error"))
    ]
    if done.returncode and not differences:
        raise SettingError(
            f"pytest failed under {setting!r} (exit code {done.returncode}); it says why above."
        )
    ran = {case.get("classname"): [] for case in cases}
    for case in cases:
        if case.find("skipped") is None:
            ran[case.get("classname")].append(case.get("name"))
    used = [notebook for notebook in notebooks if ran.pop(scope(notebook), [])]
    compared = sum(map(compared_cells, used))
    rest = sum(map(len, ran.values()))
    return Outcome(setting, len(used), compared, rest, differences, time.monotonic() - started)


def scope(notebook: Path) -> str:
    """What pytest's report calls a notebook."""
    return chapters.name_of(notebook).replace("/", ".")


def compared_cells(notebook: Path) -> int:
    """How many cells of a notebook have their output compared."""
    cells = nbformat.read(notebook, as_version=4).cells
    return sum("nbval-check-output" in cell.metadata.get("tags", []) for cell in cells)


def main() -> None:
    """Run the settings that the command line names, print the table, and fail where anything differs."""
    parser = argparse.ArgumentParser(description="Run the chapters as other processors would.")
    parser.add_argument("setting", nargs="?", help=f"one of {', '.join(chapters.SETTINGS)}; by default all")
    parser.add_argument("--chapter", help="a chapter's path; by default all")
    parser.add_argument("--tests", nargs="*", default=[], help="tests to run besides, such as tests/package")
    parser.add_argument("--workers", type=int, default=2, help="processes that share the chapters")
    arguments = parser.parse_args()
    settings = [arguments.setting] if arguments.setting else list(chapters.SETTINGS)
    outcomes: list[Outcome] = []
    try:
        texts = chapters.chosen(arguments.chapter or "all")
        notebooks = [text.with_suffix(".ipynb") for text in texts]
        for setting in settings:
            outcomes.append(run(setting, notebooks, arguments.tests, arguments.workers))
    except (SettingError, chapters.ChapterError) as error:
        sys.exit(f"make processors: {error}")
    finally:
        if outcomes:
            print("\n".join(["", HEAD, *(outcome.row() for outcome in outcomes)]))
    for outcome in outcomes:
        for difference in outcome.differences:
            print(f"{outcome.setting}: {difference}")
    sys.exit(any(outcome.differences for outcome in outcomes))


if __name__ == "__main__":
    main()
