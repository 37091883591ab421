"""Format the code of the chapters as the package's is formatted, at 79 columns, which paper can hold.

python -m tools.style                                         rewrite what is formatted otherwise
python -m tools.style book/flows/01_change_of_variables.md    in one chapter
python -m tools.style --check                                 name the chapters instead, and fail
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

from tools import chapters

COLUMNS = 79
CELL = re.compile(
    r"^(?P<head>```\{code-cell\}[^\n]*\n(?:---\n.*?\n---\n|(?::[^\n]*\n)+\n?)?)(?P<code>.*?)\n```$",
    re.DOTALL | re.MULTILINE,
)


def formatted(sources: list[str]) -> list[str]:
    """The cells as ruff formats a notebook: a semicolon that ends a cell stays."""
    cells = [
        {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": [source]}
        for source in sources
    ]
    notebook = {"cells": cells, "metadata": {"language_info": {"name": "python"}}}
    ruff = [
        str(Path(sys.executable).with_name("ruff")),
        "format",
        "--no-cache",
        "--line-length",
        str(COLUMNS),
    ]
    done = subprocess.run(
        [*ruff, "--stdin-filename", "chapter.ipynb", "-"],
        input=json.dumps(notebook | {"nbformat": 4, "nbformat_minor": 4}),
        capture_output=True,
        text=True,
        check=True,
    )
    return ["".join(cell["source"]) for cell in json.loads(done.stdout)["cells"]]


def restyled(text: str) -> str:
    """A chapter's text with every cell formatted."""
    cells = iter(formatted([match["code"] for match in CELL.finditer(text)]))
    return CELL.sub(lambda match: f"{match['head']}{next(cells)}\n```", text)


def main() -> None:
    """Rewrite or check the chapters that the command line names, by default all."""
    parser = argparse.ArgumentParser(description="Format the code of the chapters.")
    parser.add_argument("chapter", nargs="?", default="all", help="a chapter's path; by default all")
    parser.add_argument("--check", action="store_true", help="name the chapters, change nothing")
    arguments, found = parser.parse_args(), []
    try:
        texts = chapters.chosen(arguments.chapter)
    except chapters.ChapterError as error:
        sys.exit(str(error))
    for path in texts:
        text = path.read_text(encoding="utf-8")
        if (new := restyled(text)) != text:
            found.append(chapters.name_of(path))
            if not arguments.check:
                path.write_text(new, encoding="utf-8", newline="\n")
    print("\n".join(found) or "The code is formatted.")
    sys.exit("Run: python -m tools.style" if arguments.check and found else 0)


if __name__ == "__main__":
    main()
