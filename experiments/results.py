"""Where the figures of the book's pages are kept: one JSON file for each script, whole or not there."""

import argparse
import json
from pathlib import Path
from typing import Any

from mnf_lite.files import circumstances, save_json

RESULTS = Path(__file__).resolve().parent.parent / "book" / "results"


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """The command line of ``python -m experiments.NAME``, with ``--out``, the file of its results."""
    command = argparse.ArgumentParser(prog=f"python -m experiments.{name}", description=doc)
    command.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help="default: %(default)s")
    return command


def read(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What an interrupted run with the same settings has measured so far, else the settings alone."""
    settings = json.loads(json.dumps(settings))  # as they come back from a file: lists for tuples
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found if found.get("settings") == settings else {"settings": settings}


def write(path: Path, results: dict[str, Any], indent: int | None = 1) -> None:
    """Results, versions, machine and day."""
    save_json(path, results | circumstances(), indent)
