"""Where the figures of the book's pages are kept: one JSON file for each script, whole or not there."""

import argparse
import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from mnf_lite.files import circumstances, replacing, save_json

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "book" / "results"
README = ROOT / "README.md"


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The command line of ``python -m experiments.NAME``, with ``--out``, the file of its results."""
    command = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=doc)
    command.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="default: %(default)s")
    return command


def read(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What an interrupted run with the same settings has measured so far, else the settings alone."""
    settings = as_stored(settings)
    found = load(path) if path.exists() else {}
    return found if found.get("settings") == settings else {"settings": settings}


def write(path: Path, results: dict[str, Any], indent: int | None = 1) -> None:
    """Results, versions, machine and day."""
    save_json(path, results | circumstances(), indent)


def load(path: Path) -> dict[str, Any]:
    """The content of a JSON file."""
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def fingerprint(path: Path) -> str:
    """Of a file's bytes."""
    return sha256(path.read_bytes()).hexdigest()


def as_stored(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as they come back from a file: lists for tuples, strings for keys."""
    stored: dict[str, Any] = json.loads(json.dumps(settings))
    return stored


def why_stale(script: ModuleType) -> str:
    """Why a script has to run again, in words; empty where its results stand.

    A script says what they depend on by ``SETTINGS``, and if it measures piece by piece by ``left(results)``:
    the pieces that are missing or belong to networks which have been trained again since. ``OUT`` says where
    they are if not under its name.
    """
    path = getattr(script, "OUT", RESULTS / f"{script.__name__.rpartition('.')[2]}.json")
    if not path.exists():
        return "never run"
    results = load(path)
    left = getattr(script, "left", lambda _: [])
    before, now = results.get("settings", {}), as_stored(script.SETTINGS)
    changed = [name for name in before | now if before.get(name) != now.get(name)]
    return f"other settings: {', '.join(changed)}" if changed else some(left(results))


def some(pieces: Sequence[str]) -> str:
    """The first of several pieces and how many there are, empty where there is none."""
    return ", ".join(pieces[:2]) + (f" and {len(pieces) - 2} more" if len(pieces) > 2 else "")


def with_table(text: str, marks: tuple[str, str], head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """The README's text with a table between two marks; all columns but the first are aligned right."""
    before, rest = text.split(marks[0])
    names = ["", *head]
    lines = [line(names), "|---" + "|---:" * (len(names) - 1) + "|", *map(line, rows)]
    return "\n".join([before + marks[0], *lines, marks[1] + rest.split(marks[1])[1]])


def line(cells: Sequence[str]) -> str:
    """One row of a Markdown table."""
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def write_readme(text: str) -> None:
    """Put the text in the README's place."""
    with replacing(README) as half:
        half.write_text(text, encoding="utf-8")
