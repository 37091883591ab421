"""The book's chapters: pairs of a text notebook `NN_name.md` and its executed twin `NN_name.ipynb`.

    python -m tools.chapters book/flows/01_change_of_variables.md    bring one chapter up to date
    python -m tools.chapters                                         bring up to date all that are stale
    python -m tools.chapters all                                     execute every chapter

`make execute CHAPTER=...` calls this. Two executions of the same text give the same bytes. Where only words
have changed nothing is executed: the notebook gets the new words and keeps its outputs. (To execute such a
chapter all the same, delete its notebook first.)
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import sys
import time
import tokenize
from base64 import b64decode, b64encode
from collections import Counter
from functools import cache
from hashlib import sha256
from io import BytesIO, StringIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import yaml
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
BOOK = ROOT / "book"
LARGEST = 1_000_000  # bytes of one notebook
SECONDS_A_CELL = 600
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
REAL_DATA = re.compile(r"\b(fashion_|k)?mnist", re.IGNORECASE)

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

# What makes a kernel's outputs the same every time: no random order of sets, one thread (sums in one order),
# no progress bars, and no date in SVG files.
KERNEL_ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    **dict.fromkeys(THREADS, "1"),
    "TQDM_DISABLE": "1",
    "SOURCE_DATE_EPOCH": "0",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
}

# As which processor a chapter is run, by the libraries' own switches: `make processors` chooses one.
SETTINGS: dict[str, dict[str, str]] = {
    "machine": {},
    "plain": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_CBWR": "COMPATIBLE",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "two-threads": {
        **dict.fromkeys(THREADS, "2"),
        # Two chapters at a time have four threads: those that wait must sleep, not spin on the others' cores.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
    },
}


class ChapterError(Exception):
    """What is wrong with a chapter, in words for its author."""


def name_of(path: Path) -> str:
    """The chapter's path from the root of the repository."""
    path = path.resolve()
    return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix()


def mend(text: Path) -> str:
    """The command that brings a pair in step again."""
    return f"make execute CHAPTER={name_of(text)}"


def is_text_notebook(path: Path) -> bool:
    """Whether a Markdown file is a notebook: its front matter names a kernel."""
    front = re.match(r"---\n(.*?)\n---\n", path.read_text(encoding="utf-8"), re.DOTALL)
    return front is not None and "kernelspec:" in front[1]


def text_notebooks() -> list[Path]:
    """The texts of all chapters, in reading order of their names."""
    return sorted(path for path in BOOK.rglob("*.md") if is_visible(path) and is_text_notebook(path))


def executed_notebooks() -> list[Path]:
    """All notebooks of the book."""
    return sorted(path for path in BOOK.rglob("*.ipynb") if is_visible(path))


def is_visible(path: Path) -> bool:
    """Whether no part of the path below the book starts with a dot (checkpoints of editors do)."""
    return not any(part.startswith(".") for part in path.relative_to(BOOK).parts)


def real_data() -> str | None:
    """The folder of the image sets: the named one, the one beside this checkout, or the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnf_lite"
    beside = ROOT.parent / "shared" / "data"
    named = os.environ.get("MNF_LITE_DATA")
    return next(
        (str(root) for root in (named, beside, home) if root and (Path(root) / "MNIST").is_dir()), None
    )


def files_in_toc() -> list[str]:
    """The files that the table of contents names, sections too, in their order."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    entries = [entry for part in toc["parts"] for entry in part["chapters"]]
    files = [entry["file"] for top in entries for entry in (top, *top.get("sections", []))]
    return [toc["root"], *files]


def asks_for_real_data(notebook: Path) -> bool:
    """Whether a chapter's code names MNIST or one of its relatives."""
    cells = read_text(notebook.with_suffix(".md")).cells
    return any(cell.cell_type == "code" and REAL_DATA.search(cell.source) for cell in cells)


def read_text(text: Path) -> NotebookNode:
    """A chapter's cells from its text, without outputs, with stable cell ids."""
    notebook = jupytext.read(text, fmt="md:myst")
    seen: Counter[str] = Counter()
    for cell in notebook.cells:
        content = sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        cell.id = f"{content}-{seen[content]}"
        seen[content] += 1
    return notebook


def cells_of(notebook: NotebookNode) -> list[tuple[str, str, str]]:
    """What both files of a pair must hold alike: kind, source and metadata of every cell."""
    volatile = {"execution", "ExecuteTime", "collapsed", "jupyter", "trusted"}
    return [
        (
            cell.cell_type,
            cell.source.rstrip(),
            json.dumps(
                {key: value for key, value in cell.metadata.items() if key not in volatile}, sort_keys=True
            ),
        )
        for cell in notebook.cells
    ]


def code_hashes(notebook: NotebookNode) -> list[str]:
    """Fingerprints of the code cells in their order."""
    code = (cell.source.rstrip() for cell in notebook.cells if cell.cell_type == "code")
    return [sha256(source.encode()).hexdigest()[:16] for source in code]


def statements(source: str) -> list[str]:
    """The lines of a module that do something: without docstrings, comments and empty lines.

    Made from positions alone, which every version of Python gives alike. A docstring has its lines to
    itself, as the formatter leaves it.
    """
    lines = source.splitlines()
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            first, last = node.body[0].lineno, node.body[0].end_lineno
            lines[first - 1 : last] = [""] * (last - first + 1)
    return [line.rstrip() for line in lines if line.strip()]


def package_hash() -> str:
    """Fingerprint of what mnf_lite does: its statements, whatever its docstrings, comments and line ends."""
    total = sha256()
    for path in sorted((ROOT / "mnf_lite").rglob("*.py")):
        code = statements(path.read_text(encoding="utf-8"))
        total.update(json.dumps([path.relative_to(ROOT).as_posix(), code]).encode())
    return total.hexdigest()


def reads_hash(notebook: NotebookNode) -> str:
    """Fingerprint of the stored files that the code may read.

    These are the tables of `book/results` that it names, and all of `book/checkpoints` where it names that
    folder, for the names of networks are put together from pieces.
    """
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    folders = [path for path in (BOOK / "results", BOOK / "checkpoints") if path.is_dir()]
    files = [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.name in code or (folder.name == "checkpoints" and folder.name in code)
    ]
    return sha256("".join(file_hash(path, path.stat().st_mtime_ns) for path in files).encode()).hexdigest()


@cache
def file_hash(path: Path, _changed: int) -> str:
    """Fingerprint of a file's name and content, a text's whatever its line ends."""
    content = path.read_bytes()
    if path.suffix == ".json":
        content = content.replace(b"\r\n", b"\n")
    return sha256(path.name.encode() + b"\0" + content).hexdigest()


def fingerprints(notebook: NotebookNode) -> dict[str, Any]:
    """What the outputs of a notebook come from: its own code, the package's, and stored results."""
    return {"code": code_hashes(notebook), "package": package_hash(), "reads": reads_hash(notebook)}


def fault(text: Path) -> str | None:
    """What is out of step in a pair, with the command that mends it, or None."""
    twin = text.with_suffix(".ipynb")
    if not twin.is_file():
        return f"{name_of(text)} has no executed notebook beside it. Run: {mend(text)}"
    wanted = read_text(text)
    stored = nbformat.read(twin, as_version=4)
    executed, there = stored.metadata.get("mnf_lite", {}).get("code", []), code_hashes(stored)
    if executed != there:
        numbers = [number for number, cell in enumerate(stored.cells, 1) if cell.cell_type == "code"]
        cells = zip_longest(numbers, executed, there)
        number, before, now = next(cell for cell in cells if cell[1] != cell[2])
        where = f"cell {number}" if number else "a cell that is gone"
        return (
            f"The outputs in {name_of(twin)} belong to other code: those of {where} to code with "
            f"fingerprint {before}, not {now}. Run: {mend(text)}"
        )
    for number, (ours, theirs) in enumerate(zip(cells_of(wanted), cells_of(stored), strict=False), 1):
        if ours != theirs:
            here, beside = first_difference("\n".join(ours[1:]), "\n".join(theirs[1:]))
            return (
                f"{name_of(text)} and its notebook differ in cell {number} ({ours[0]}): "
                f"{here!r} in the text, {beside!r} in the notebook. Run: {mend(text)}"
            )
    if len(wanted.cells) != len(stored.cells):
        counts = f"{len(wanted.cells)} cells and {len(stored.cells)}"
        return f"{name_of(text)} and its notebook hold {counts}. Run: {mend(text)}"
    return None


def what_a_cell_shows(outputs: list[NotebookNode]) -> str:
    """The words of a cell's outputs, without its pictures."""
    shown = [
        output.get("text", "")
        or "\n".join(v for k, v in output.get("data", {}).items() if k.startswith("text/"))
        for output in outputs
    ]
    return "\n".join(shown)


def mismatch(text: Path, number: int, stored: list[NotebookNode], now: list[NotebookNode]) -> str:
    """One sentence for a cell that failed when a test ran it, with both values and what mends it."""
    where = f"{name_of(text)}, cell {number}"
    for output in now:
        if output.output_type == "error":
            error = f"{output.ename}: {output.evalue}".splitlines()[0][:200].rstrip(": ")
            return f"{where}: fails with {error}. Mend the cell, then run: {mend(text)}"
    before, after = first_difference(what_a_cell_shows(stored), what_a_cell_shows(now))
    return f"{where}: {before!r} is stored, {after!r} came. Round it to what survives, then run: {mend(text)}"


def first_difference(ours: str, theirs: str) -> tuple[str, str]:
    """The first line in which two texts differ, as it stands in each, no longer than one can read."""
    lines = zip_longest(ours.splitlines(), theirs.splitlines(), fillvalue="")
    return next(
        ((a[:200], b[:200]) for a, b in lines if a.rstrip() != b.rstrip()), (ours[:200], theirs[:200])
    )


def changed(notebook: Path) -> str | None:
    """What has changed, besides its own text, since a notebook was executed, in words; or None."""
    stored = nbformat.read(notebook, as_version=4)
    before, now = stored.metadata.get("mnf_lite", {}), fingerprints(stored)
    if before.get("package") != now["package"]:
        return "the package"
    return (
        "what it reads of book/results and book/checkpoints" if before.get("reads") != now["reads"] else None
    )


def staleness(text: Path) -> str | None:
    """Why a chapter's outputs may be those of other code or results, with the command that mends it."""
    if (wrong := fault(text)) is not None:
        return wrong
    if (other := changed(text.with_suffix(".ipynb"))) is not None:
        return f"{name_of(text)} was executed before {other} changed. Run: {mend(text)}"
    return None


def runs_alike(cell: NotebookNode) -> tuple[str, bool]:
    """What decides what a code cell does: its source, and whether it may fail."""
    return cell.source.rstrip(), "raises-exception" in cell.metadata.get("tags", [])


def with_kept_outputs(text: Path) -> NotebookNode | None:
    """A chapter's text with the stored outputs of the same code, or None where they may be of other code."""
    twin = text.with_suffix(".ipynb")
    if not twin.is_file():
        return None
    stored, wanted = nbformat.read(twin, as_version=4), read_text(text)
    if stored.metadata.get("mnf_lite") != fingerprints(wanted):
        return None
    old, new = ([cell for cell in book.cells if cell.cell_type == "code"] for book in (stored, wanted))
    if list(map(runs_alike, old)) != list(map(runs_alike, new)):
        return None
    for ours, theirs in zip(new, old, strict=True):
        ours.execution_count, ours.outputs = theirs.execution_count, theirs.outputs
    if "widgets" in stored.metadata:
        wanted.metadata.widgets = stored.metadata.widgets
    return wanted


def kernel_environment() -> dict[str, str]:
    """The surroundings of a chapter's kernel, under the setting of `make processors` where it runs."""
    return KERNEL_ENVIRONMENT | SETTINGS[os.environ.get("MNF_LITE_PROCESSOR", "machine")]


def run(text: Path, environment: dict[str, str] | None = None) -> NotebookNode:
    """Execute a chapter's cells in a new kernel, in the chapter's folder."""
    notebook = read_text(text)
    client = NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=True,
        coalesce_streams=True,
        extra_arguments=["--IPKernelApp.log_level=40"],  # errors only: its warnings are not the chapter's
        resources={"metadata": {"path": str(text.parent)}},
    )
    try:
        client.execute(env={**os.environ, **kernel_environment(), **(environment or {})})
    except CellExecutionError as error:
        plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
        raise ChapterError(f"{name_of(text)}: a cell failed.\n{plain}") from None
    return notebook


def without_stderr(notebook: NotebookNode) -> list[str]:
    """Take what cells wrote to stderr (bars, warnings) out of a notebook and return it."""
    taken = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            errors = [out for out in cell.outputs if out.output_type == "stream" and out.name == "stderr"]
            taken += [out.text.strip() for out in errors]
            cell.outputs = [out for out in cell.outputs if out not in errors]
    return taken


def renumber_widgets(notebook: NotebookNode) -> NotebookNode:
    """Replace the random ids of widget models by their numbers, in the order of creation."""
    state = notebook.metadata.get("widgets", {}).get(WIDGET_STATE, {}).get("state", {})
    serial = nbformat.writes(notebook)
    for number, model in enumerate(state):
        serial = serial.replace(model, f"{number:032x}")
    return nbformat.reads(serial, as_version=4)


def shrink_pictures(notebook: NotebookNode) -> None:
    """Give every figure a palette of 256 colours: the same to the eye, a third of the size."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if png := output.get("data", {}).get("image/png"):
                small = BytesIO()
                picture = Image.open(BytesIO(b64decode(png))).convert("RGB")
                picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE).save(
                    small, format="PNG", optimize=True
                )
                output.data["image/png"] = b64encode(small.getvalue()).decode()


def check_outputs(text: Path, notebook: NotebookNode) -> None:
    """Refuse outputs that would differ at the next execution."""
    for number, cell in enumerate(notebook.cells, 1):
        for output in cell.get("outputs", []):
            texts = [output.get("text", ""), *output.get("data", {}).values()]
            for value in texts:
                if isinstance(value, str) and (
                    found := re.search(r"<[^<>\n]{1,120} at 0x[0-9a-f]{6,}>", value)
                ):
                    raise ChapterError(
                        f"{name_of(text)}: cell {number} prints an address in memory, {found[0]}. "
                        "End the cell's last line with a semicolon or assign its value."
                    )


def execute(text: Path) -> Path:
    """Execute a chapter from its text and write its notebook whole or not at all."""
    notebook = run(text)
    for message in without_stderr(notebook):
        print(f"{name_of(text)}: left out of the notebook, from stderr:\n{message}", file=sys.stderr)
    check_outputs(text, notebook)
    shrink_pictures(notebook)
    return write(text, renumber_widgets(notebook))


def write(text: Path, notebook: NotebookNode) -> Path:
    """Write a chapter's notebook, with its fingerprints, whole or not at all."""
    kernel = notebook.metadata.get("kernelspec", {})
    widgets = notebook.metadata.get("widgets")
    notebook.metadata = NotebookNode(
        jupytext={"formats": "md:myst,ipynb"},
        kernelspec={
            "display_name": kernel.get("display_name", "Python 3"),
            "language": "python",
            "name": "python3",
        },
        language_info={"file_extension": ".py", "mimetype": "text/x-python", "name": "python"},
        mnf_lite=fingerprints(notebook),
        **({"widgets": widgets} if widgets else {}),
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    serial = nbformat.writes(notebook, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if (size := len(serial.encode())) > LARGEST:
        raise ChapterError(
            f"{name_of(text)}: the notebook would hold {size:,} bytes, more than {LARGEST:,}. "
            "Draw fewer or smaller frames; a palette of 32 colours makes a PNG three times smaller."
        )
    twin = text.with_suffix(".ipynb")
    half = twin.with_name(f".{twin.name}.tmp")
    half.write_text(serial, encoding="utf-8", newline="\n")
    half.replace(twin)
    return twin


def bring_up_to_date(text: Path, always: bool = False) -> str:
    """Execute a chapter, or only renew its words where its outputs fit; say what was done."""
    if not always and (notebook := with_kept_outputs(text)) is not None:
        return f"{name_of(write(text, notebook))}: words renewed, outputs kept"
    started = time.monotonic()
    twin = execute(text)
    seconds = time.monotonic() - started
    return f"{name_of(twin)}: {twin.stat().st_size / 1000:,.0f} kB, executed in {seconds:.0f} s"


def chosen(chapter: str | None) -> list[Path]:
    """The texts that a command line names."""
    if chapter is None:
        return [text for text in text_notebooks() if staleness(text)]
    if chapter == "all":
        return text_notebooks()
    known = {name_of(text).removesuffix(".md"): text for text in text_notebooks()}
    wanted = chapter.removeprefix("./").removesuffix(".md").removesuffix(".ipynb")
    fits = [
        text
        for name, text in known.items()
        if name in (wanted, f"book/{wanted}") or name.endswith(f"/{wanted}")
    ]
    if len(fits) != 1:
        listed = "\n  ".join(["all", *(f"{name}.md" for name in known)])
        raise ChapterError(f"No chapter {chapter!r}. There are:\n  {listed}")
    return fits


def main() -> None:
    """Bring the chapters up to date that the command line names."""
    parser = argparse.ArgumentParser(description="Execute chapters of the book from their text.")
    parser.add_argument("chapter", nargs="?", help="a chapter's path, or all; by default every stale one")
    try:
        chapter = parser.parse_args().chapter or None
        texts = chosen(chapter)
        for text in texts:
            print(bring_up_to_date(text, always=chapter == "all"), flush=True)
        if not texts:
            print("No chapter is stale.")
    except ChapterError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
