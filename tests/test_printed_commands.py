"""What README.md and CONTRIBUTING.md print is run, long commands on their smallest settings."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
COMMAND = r"(?:make|pip|\.venv/bin/python|python) [^`\n]+?"
PYTHON = [sys.executable, "-m"]
PIP = [*PYTHON, "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
COLLECT = [*PYTHON, "pytest", "--collect-only", "-qq", "-p", "no:cacheprovider"]

SMALL = ["train", "--model=mnf-lenet", "--data=digits", "--epochs=1", "--widths", "2", "2", "8", "10"]

# What is run instead of a printed command, and why not the command itself. {folder} is an empty folder.
INSTEAD: dict[str, tuple[list[str], str]] = {
    "make lab": ([*PYTHON, "jupyterlab", "--version"], "it opens a browser and waits"),
    "make lint": ([*PYTHON, "ruff", "check", "."], "it is run before a commit; mypy takes half a minute"),
    "make experiments": ([*PYTHON, "experiments", "--list"], "it trains for hours where something is stale"),
    "make bench": ([*PYTHON, "compileall", "-q", "benchmarks"], "it installs other libraries from a network"),
    "make mutants": (
        [*PYTHON, "compileall", "-q", "tests/mutants"],
        "it installs another library from a network",
    ),
    "make clean": (["make", "--directory={folder}", "clean"], "it would remove this environment"),
    "pip install .": ([*PIP, "--target={folder}", "."], "what it depends on comes from a network"),
    "pip install '.[all]'": (
        [*PIP, "--target={folder}", ".[all]"],
        "what it depends on comes from a network",
    ),
    ".venv/bin/python -m mnf_lite train --model mnf-lenet --data mnist --epochs 3": (
        [*PYTHON, "mnf_lite", *SMALL],
        "minutes, and MNIST",
    ),
    "python -m experiments.NAME": (
        [*PYTHON, "experiments.passes", "--help"],
        "a script measures for minutes",
    ),
    "python -m experiments.rotating_nine": (
        [*PYTHON, "experiments.rotating_nine", "--help"],
        "it needs MNIST",
    ),
    "python -m experiments.scores": ([*PYTHON, "experiments.scores", "--help"], "it measures for minutes"),
    "python -m tools.style": ([*PYTHON, "tools.style", "--help"], "it rewrites chapters"),
    ".venv/bin/python -m tools.style book/flows/01_change_of_variables.md": (
        [*PYTHON, "tools.style", "--check", "book/flows/01_change_of_variables.md"],
        "it rewrites the chapter",
    ),
    ".venv/bin/python -m tools.shoot shots book/flows/01_change_of_variables": (
        [*PYTHON, "tools.shoot", "--help"],
        "it needs Chromium and the built book",
    ),
}
# What another test of the suite runs.
ELSEWHERE = {
    "make book": ("tests/book/test_pages.py", "def book() -> Path:"),
    "make pdf": ("tests/book/test_pdf.py", "pdf.make("),
    "make test": ("Makefile", "pytest tests book"),  # this very run
    "make processors": ("tests/book/test_processors.py", "processors.run("),
    "make execute": ("tests/book/test_pairs.py", "chapters.bring_up_to_date("),
}


BLOCK = re.compile(r"^(`{3,})([^\n]*)\n(.*?)^\1$", re.M | re.S)


def printed() -> list[str]:
    """The commands of both pages, in blocks without a language and in backticks, each once."""
    found = []
    for text in PAGES.values():
        blocks = "\n".join(block for _, language, block in BLOCK.findall(text) if not language)
        found += re.findall(rf"^({COMMAND})(?: +#.*)?$", blocks, re.M)
        found += re.findall(rf"`({COMMAND})`", BLOCK.sub("", text))
        found += re.findall(r"written by ((?:make|python) [^>]+) -->", text)
    return list(dict.fromkeys(command.strip() for command in found))


def test_pages_print_commands() -> None:
    there = printed()
    assert len(there) > 20
    assert {*INSTEAD, "make book", "make test", "make execute"} <= set(there), "one is listed here in vain"


@pytest.mark.parametrize("command", printed())
def test_printed_command_runs(command: str, tmp_path: Path) -> None:
    target = command.split()[1]
    if command in INSTEAD:
        argv = [part.format(folder=tmp_path) for part in INSTEAD[command][0]]
    elif " -m pytest " in command:  # what it names is run by this very run
        argv = [*COLLECT, *shlex.split(command.split(" -m pytest ")[1])]
    elif (said := " ".join(command.split()[:2])) in ELSEWHERE:
        path, words = ELSEWHERE[said]
        assert words in (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^{target}: ", (ROOT / "Makefile").read_text(), re.M)
        options = dict(option.split("=") for option in command.split("#")[0].split()[2:])
        assert set(options) <= {"ADDRESS", "CHAPTER", "SETTING", "TESTS", "PYTEST"}
        chapter = options.get("CHAPTER", "all")
        assert chapter in {"all", "…"} or "NN_name" in chapter or (ROOT / chapter).is_file()
        return
    else:
        pytest.fail(f"{command!r} is printed, and no test says how it is run")
    shutil.copy(ROOT / "Makefile", tmp_path)
    done = subprocess.run(
        argv,
        cwd=tmp_path if "mnf_lite" in argv else ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_python_on_the_page_runs_as_it_is_printed(page: str) -> None:
    there: dict[str, object] = {}
    snippets = [block for _, language, block in BLOCK.findall(PAGES[page]) if language == "python"]
    assert bool(snippets) == (page == "README.md")
    for snippet in snippets:
        torch.manual_seed(0)
        exec(snippet, there)


def test_links_on_the_pages_lead_somewhere() -> None:
    for name, text in PAGES.items():
        links = re.findall(r"\]\((?!https?:)([^)#]+)\)", BLOCK.sub("", text))
        assert [link for link in links if not (ROOT / link).exists()] == [], name
