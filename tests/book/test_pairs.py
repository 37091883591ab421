"""The two files of every chapter are in step, and the tool that makes the second keeps its word."""

from pathlib import Path

from tools import chapters
import nbformat
import pytest

FRONT = "---\nkernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n"
CODE = """
```{code-cell} ipython3
:tags: [nbval-check-output]

import sys

from ipywidgets import IntSlider, VBox, jslink

left, right = IntSlider(description="left"), IntSlider(description="right")
jslink((left, "value"), (right, "value"))
print("a bar", file=sys.stderr)
print({"one", "two", "three"})
VBox([left, right])
```
"""


@pytest.mark.parametrize("text", chapters.text_notebooks(), ids=chapters.name_of)
def test_text_and_notebook_are_in_step(text: Path) -> None:
    fault = chapters.fault(text)
    assert fault is None, fault


@pytest.mark.parametrize("notebook", chapters.executed_notebooks(), ids=chapters.name_of)
def test_every_notebook_has_its_text(notebook: Path) -> None:
    text = notebook.with_suffix(".md")
    assert text.is_file(), (
        f"{chapters.name_of(notebook)} has no text beside it; write {chapters.name_of(text)}"
    )
    assert chapters.is_text_notebook(text), f"{chapters.name_of(text)} names no kernel in its front matter"


@pytest.fixture
def chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The text of a small chapter in a book of its own, not executed yet."""
    text = tmp_path / "book" / "part" / "01_small.md"
    text.parent.mkdir(parents=True)
    text.write_text(f"{FRONT}\n# Small\n\nSome prose.\n{CODE}")
    package = tmp_path / "mnf_lite"
    package.mkdir()
    (package / "nets.py").write_text("one = 1\n")
    monkeypatch.setattr(chapters, "ROOT", tmp_path)
    monkeypatch.setattr(chapters, "BOOK", tmp_path / "book")
    return text


def change(path: Path, before: str, after: str) -> None:
    content = path.read_text()
    assert before in content
    path.write_text(content.replace(before, after))


def test_two_executions_give_the_same_bytes(chapter: Path) -> None:
    first = chapters.execute(chapter).read_bytes()
    chapter.with_suffix(".ipynb").unlink()
    assert chapters.execute(chapter).read_bytes() == first
    assert chapters.fault(chapter) is None


def test_notebook_holds_widget_state_but_nothing_from_stderr(
    chapter: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = nbformat.read(chapters.execute(chapter), as_version=4)
    state = notebook.metadata.widgets[chapters.WIDGET_STATE]["state"]
    shown = next(
        output for output in notebook.cells[-1].outputs if chapters.WIDGET_VIEW in output.get("data", {})
    )
    assert {"IntSliderModel", "LinkModel", "VBoxModel"} <= {model["model_name"] for model in state.values()}
    assert shown["data"][chapters.WIDGET_VIEW]["model_id"] in state
    assert sorted(state) == [f"{number:032x}" for number in range(len(state))]
    assert not any(output.get("name") == "stderr" for output in notebook.cells[-1].outputs)
    assert "a bar" in capsys.readouterr().err


def test_missing_notebook_is_named_with_its_command(chapter: Path) -> None:
    fault = chapters.fault(chapter) or ""
    assert "book/part/01_small.md has no executed notebook" in fault
    assert "make execute CHAPTER=book/part/01_small.md" in fault


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Some prose.", "Other prose."),
        ("import sys", "import sys  # changed"),
        ("nbval-check-output", "hide-input"),
        ("# Small", "# Small\n\n+++\n\nOne cell more."),
    ],
    ids=["prose", "code", "tags", "one-cell-more"],
)
def test_changed_text_is_named_with_its_command(chapter: Path, before: str, after: str) -> None:
    chapters.execute(chapter)
    change(chapter, before, after)
    fault = chapters.fault(chapter) or ""
    assert "book/part/01_small.md and its notebook" in fault
    assert "make execute CHAPTER=book/part/01_small.md" in fault
    assert chapters.chosen(None) == [chapter]


def test_outputs_of_other_code_are_found_though_the_cells_agree(chapter: Path) -> None:
    twin = chapters.execute(chapter)
    for path in (chapter, twin):
        change(path, "import sys", "import sys  # changed")
    fault = chapters.fault(chapter) or ""
    assert "outputs in book/part/01_small.ipynb belong to other code" in fault
    assert "make execute CHAPTER=book/part/01_small.md" in fault


def test_changed_package_makes_a_chapter_stale_but_not_wrong(chapter: Path) -> None:
    chapters.execute(chapter)
    assert chapters.chosen(None) == []
    change(chapters.ROOT / "mnf_lite" / "nets.py", "one = 1", "one = 2")
    assert chapters.fault(chapter) is None
    assert chapters.chosen(None) == [chapter]


def test_failing_cell_leaves_the_old_notebook_alone(chapter: Path) -> None:
    before = chapters.execute(chapter).read_bytes()
    change(chapter, "import sys", "assert 1 + 1 == 3")
    with pytest.raises(chapters.ChapterError, match=r"01_small\.md: a cell failed(.|\n)*AssertionError"):
        chapters.execute(chapter)
    assert chapter.with_suffix(".ipynb").read_bytes() == before
    assert sorted(path.name for path in chapter.parent.iterdir()) == ["01_small.ipynb", "01_small.md"]


def test_address_in_memory_is_refused(chapter: Path) -> None:
    change(chapter, "VBox([left, right])", "object()")
    with pytest.raises(chapters.ChapterError, match="cell 2 prints an address in memory, <object"):
        chapters.execute(chapter)
    assert not chapter.with_suffix(".ipynb").exists()


def test_too_large_a_notebook_is_refused(chapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert chapters.LARGEST == 1_000_000
    monkeypatch.setattr(chapters, "LARGEST", 5_000)
    with pytest.raises(
        chapters.ChapterError, match=r"01_small\.md: the notebook would hold .* more than 5,000"
    ):
        chapters.execute(chapter)
    assert not chapter.with_suffix(".ipynb").exists()


def test_unknown_chapter_is_answered_with_the_known_ones(chapter: Path) -> None:
    assert chapters.chosen("01_small") == chapters.chosen("book/part/01_small.ipynb") == [chapter]
    with pytest.raises(chapters.ChapterError, match=r"No chapter '02_large'(.|\n)*book/part/01_small\.md"):
        chapters.chosen("02_large")
