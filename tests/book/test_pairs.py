"""The two files of every chapter are in step, and the tool that makes the second keeps its word."""

import inspect
import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

from tools import chapters

FRONT = "---\nkernelspec:\n  display_name: Python 3\n  language: python\n  name: python3\n---\n"
CODE = """
```{code-cell} ipython3
:tags: [nbval-check-output]

import sys
from pathlib import Path

from ipywidgets import IntSlider, VBox, jslink

left, right = IntSlider(description="left"), IntSlider(description="right")
jslink((left, "value"), (right, "value"))
print("a bar", file=sys.stderr)
print(Path("../results/small.json").read_text())
print({"one", "two", "three"})
VBox([left, right])
```
"""
MODULE = '''"""Networks."""

one = 1  # the first


def half(x):
    """Return half of ``x``.

    Example:
        >>> half(2)
    """
    # exact
    return x / 2
'''


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


@pytest.mark.parametrize("text", chapters.text_notebooks(), ids=chapters.name_of)
def test_chapter_is_not_stale(text: Path) -> None:
    why = chapters.staleness(text)
    assert why is None, why


def small_book(root: Path) -> Path:
    """A book of one chapter, with a package and a result beside it; returns the chapter's text."""
    files = {
        "book/part/01_small.md": f"{FRONT}\n# Small\n\nSome prose.\n{CODE}",
        "book/results/small.json": '{\n "loss": 1\n}\n',
        "mnf_lite/nets.py": MODULE,
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root / "book" / "part" / "01_small.md"


@contextmanager
def at_home(root: Path) -> Iterator[None]:
    """The tool works on the book in this folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chapters, "ROOT", root)
        patch.setattr(chapters, "BOOK", root / "book")
        yield


@pytest.fixture
def chapter(tmp_path: Path) -> Iterator[Path]:
    """The text of a small chapter in a book of its own, not executed yet."""
    with at_home(tmp_path):
        yield small_book(tmp_path)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The notebook of the small chapter, executed once for all tests."""
    root = tmp_path_factory.mktemp("executed")
    with at_home(root):
        return chapters.execute(small_book(root)).read_bytes()


@pytest.fixture
def executed(chapter: Path, notebook: bytes) -> Path:
    """The text of the small chapter, its notebook beside it."""
    chapter.with_suffix(".ipynb").write_bytes(notebook)
    return chapter


def change(path: Path, before: str, after: str) -> None:
    content = path.read_bytes().decode()
    assert before in content
    path.write_bytes(content.replace(before, after).encode())


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
def test_changed_text_is_named_with_its_command(executed: Path, before: str, after: str) -> None:
    change(executed, before, after)
    fault = chapters.fault(executed) or ""
    assert "book/part/01_small.md and its notebook differ in cell" in fault
    assert "make execute CHAPTER=book/part/01_small.md" in fault
    assert chapters.chosen(None) == [executed]


def test_both_values_of_a_difference_are_named(executed: Path) -> None:
    change(executed, "import sys", "import sys as system")
    fault = chapters.fault(executed) or ""
    assert "cell 2 (code): 'import sys as system' in the text, 'import sys' in the notebook." in fault


def test_outputs_of_other_code_are_found_though_the_cells_agree(chapter: Path) -> None:
    twin = chapters.execute(chapter)
    for path in (chapter, twin):
        change(path, "import sys", "import sys  # changed")
    fault = chapters.fault(chapter) or ""
    assert "outputs in book/part/01_small.ipynb belong to other code: those of cell 2 to code with" in fault
    assert "make execute CHAPTER=book/part/01_small.md" in fault


@pytest.mark.parametrize(
    ("before", "after"),
    [("one = 1", "one = 2"), ("x / 2", "x // 2"), ("def half(x)", "def half(x: float)")],
    ids=["constant", "formula", "signature"],
)
def test_changed_package_makes_a_chapter_stale_but_not_wrong(executed: Path, before: str, after: str) -> None:
    assert chapters.chosen(None) == []
    change(chapters.ROOT / "mnf_lite" / "nets.py", before, after)
    assert chapters.fault(executed) is None
    assert chapters.chosen(None) == [executed]
    assert chapters.staleness(executed) == (
        "book/part/01_small.md was executed before the package changed. "
        "Run: make execute CHAPTER=book/part/01_small.md"
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Return half of", "Return one half of"),
        ("        >>> half(2)\n", "        >>> half(2)\n        1.0\n"),
        ("# exact", "# exact in binary"),
        ("  # the first", ""),
        ("\n\n\ndef", "\n\ndef"),
        ("\n", "\r\n"),
    ],
    ids=["docstring", "example", "comment", "comment-at-the-end", "empty-line", "line-ends"],
)
def test_words_and_line_ends_of_the_package_make_nothing_stale(
    executed: Path, before: str, after: str
) -> None:
    change(chapters.ROOT / "mnf_lite" / "nets.py", before, after)
    assert chapters.staleness(executed) is None


def test_line_ends_of_a_whole_checkout_make_nothing_stale(executed: Path) -> None:
    for path in chapters.ROOT.rglob("*.*"):
        change(path, "\n", "\r\n")
    assert chapters.staleness(executed) is None


@pytest.mark.parametrize("version", ["python3.11", "python3.12", "python3.13"])
def test_every_version_of_python_gives_the_package_the_same_fingerprint(version: str) -> None:
    python = shutil.which(version)
    if python is None or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"no {version} on this machine")
    source = inspect.getsource(chapters.statements)
    program = (
        f"import ast, json, sys, tokenize\nfrom io import StringIO\n{source}\n"
        "print(json.dumps([statements(open(path, encoding='utf-8').read()) for path in sys.argv[1:]]))"
    )
    modules = sorted((chapters.ROOT / "mnf_lite").rglob("*.py"))
    done = subprocess.run([python, "-c", program, *modules], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [chapters.statements(path.read_text("utf-8")) for path in modules]


def test_changed_result_makes_a_chapter_stale(executed: Path) -> None:
    results = chapters.BOOK / "results"
    (results / "other.json").write_text("{}")
    assert chapters.staleness(executed) is None, "it does not read that one"
    (results / "small.json").write_text('{\n "loss": 20\n}\n')
    assert "before what it reads of book/results" in (chapters.staleness(executed) or "")


def test_changed_words_are_renewed_without_executing(executed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = nbformat.read(executed.with_suffix(".ipynb"), as_version=4)
    change(executed, "Some prose.", "Other prose.\n\n+++\n\nOne cell more.")
    change(executed, ":tags: [nbval-check-output]", ":tags: [nbval-check-output, hide-input]")
    monkeypatch.setattr(chapters, "run", None)  # whoever executes now fails
    assert "words renewed" in chapters.bring_up_to_date(executed)
    assert chapters.staleness(executed) is None
    after = nbformat.read(executed.with_suffix(".ipynb"), as_version=4)
    assert [cell.source for cell in after.cells[:-1]] == ["# Small\n\nOther prose.", "One cell more."]
    assert after.cells[-1].metadata.tags == ["nbval-check-output", "hide-input"]
    assert after.cells[-1].outputs == before.cells[-1].outputs
    assert after.metadata.widgets == before.metadata.widgets


def test_renewed_words_give_the_bytes_of_an_execution(executed: Path) -> None:
    change(executed, "Some prose.", "Other prose.")
    chapters.bring_up_to_date(executed)
    renewed = executed.with_suffix(".ipynb").read_bytes()
    assert chapters.execute(executed).read_bytes() == renewed


@pytest.mark.parametrize("kind", ["code", "may-fail", "package", "result"])
def test_outputs_are_not_kept_where_they_may_be_others(executed: Path, kind: str) -> None:
    assert chapters.with_kept_outputs(executed) is not None
    if kind == "code":
        change(executed, "import sys", "import sys as system")
    elif kind == "may-fail":
        change(executed, "nbval-check-output", "raises-exception")
    elif kind == "package":
        change(chapters.ROOT / "mnf_lite" / "nets.py", "one = 1", "one = 2")
    else:
        change(chapters.BOOK / "results" / "small.json", "1", "20")
    assert chapters.with_kept_outputs(executed) is None


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
