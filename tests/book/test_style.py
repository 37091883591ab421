"""The code of the chapters is formatted, fits on paper, and comes in cells that one reads at a glance."""

from pathlib import Path

import pytest

from tools import chapters, style

LONGEST = 25  # lines of code of a cell that stands open on the page
REMOVED = {"remove-input", "remove-cell"}
FOLDED = REMOVED | {"hide-input", "hide-cell"}


@pytest.mark.parametrize("text", chapters.text_notebooks(), ids=chapters.name_of)
def test_code_is_formatted_at_79_columns(text: Path) -> None:
    written = text.read_text(encoding="utf-8")
    assert written == style.restyled(written), f"Run: python -m tools.style {chapters.name_of(text)}"


@pytest.mark.parametrize("text", chapters.text_notebooks(), ids=chapters.name_of)
def test_no_line_of_code_is_cut_on_paper(text: Path) -> None:
    long = [
        f"cell {number}: {line}"
        for number, cell in enumerate(chapters.read_text(text).cells, 1)
        if cell.cell_type == "code" and not REMOVED & set(cell.metadata.get("tags", []))
        for line in cell.source.splitlines()
        if len(line) > style.COLUMNS
    ]
    assert long == [], f"{chapters.name_of(text)} has lines beyond column {style.COLUMNS}"


@pytest.mark.parametrize("text", chapters.text_notebooks(), ids=chapters.name_of)
def test_no_open_cell_is_longer_than_a_glance(text: Path) -> None:
    long = [
        f"cell {number}: {lines} lines, beginning {cell.source.splitlines()[0]!r}"
        for number, cell in enumerate(chapters.read_text(text).cells, 1)
        if cell.cell_type == "code"
        and not FOLDED & set(cell.metadata.get("tags", []))
        and (lines := sum(bool(line.strip()) for line in cell.source.splitlines())) > LONGEST
    ]
    assert long == [], f"{chapters.name_of(text)}: fold these cells (hide-input) or divide them"


def test_formatter_notices_what_is_not_formatted() -> None:
    head = "```{code-cell} ipython3\n:tags: [hide-input]\n\n"
    assert style.restyled(f"{head}x=1;\n```\n") == f"{head}x = 1;\n```\n"
    assert style.restyled("Prose with x=1.\n") == "Prose with x=1.\n"
