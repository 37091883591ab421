"""What a reader takes away from the pages: notebooks that run where they land, and the whole book as a zip.

As a Sphinx extension it puts a first cell into the published notebooks. Where the build knows the address of
the repository (`make book ADDRESS=…`) it also turns on the buttons that need one: Colab, Binder, edit, issue,
repository.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parent.parent
ZIP = "mnf_lite.zip"
FOLDER = "mnf_lite-book"  # in the zip
BRANCH, PAGES_BRANCH = "main", "gh-pages"  # of the repository: its sources, and the built pages
FOLDERS = ("book", "mnf_lite", "experiments", "benchmarks", "tests", "tools")
MADE = {"__pycache__", "vendor", "node_modules"}

FIRST_CELL = """\
# @title This cell lets the notebook run where it lies alone. Beside the rest of the book it does nothing.
import importlib.util
import os
import subprocess
import sys
import urllib.request
import zipfile
from pathlib import Path

ADDRESS = "{address}"  # of the repository
CHAPTER = Path("{chapter}")
root = Path(*[".."] * (len(CHAPTER.parts) - 1))
if not (root / "mnf_lite" / "__init__.py").is_file():
    places = [Path.cwd(), Path.cwd().parent, Path.home() / "Downloads"]
    found = [place / "{zip}" for place in places if (place / "{zip}").is_file()]
    if not found and ADDRESS:
        found = [urllib.request.urlretrieve(ADDRESS + "/archive/HEAD.zip", "{zip}")[0]]
    if not found:
        raise FileNotFoundError(
            "Get {zip} (the Preface links to it), put it beside this notebook, run this cell again."
        )
    with zipfile.ZipFile(found[0]) as archive:
        archive.extractall()
        root = Path(archive.namelist()[0].split("/")[0])
    if importlib.util.find_spec("mnf_lite") is None:
        others = [name for name in ["pytest"] if importlib.util.find_spec(name) is None]
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"./{{root}}[all]", *others], check=True)
        importlib.invalidate_caches()
    os.chdir((root / CHAPTER).parent)  # the chapter reads ../results and ../checkpoints
"""


def with_first_cell(notebook: dict[str, Any], chapter: str, address: str) -> dict[str, Any]:
    """The notebook, with a cell before all others that brings the package and what the chapter reads."""
    source = FIRST_CELL.format(address=address, chapter=chapter, zip=ZIP)
    cell = {
        "cell_type": "code",
        "execution_count": None,
        "id": "bring-the-book",
        "metadata": {"cellView": "form", "jupyter": {"source_hidden": True}, "tags": ["remove-cell"]},
        "outputs": [],
        "source": source.splitlines(keepends=True),
    }
    return {**notebook, "cells": [cell, *notebook["cells"]]}


def files() -> Iterator[Path]:
    """What the zip holds: the repository, without what is made from it."""
    yield from sorted(p for p in ROOT.iterdir() if p.is_file() and (p.name[0] != "." or p.name == ".npmrc"))
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            parts = path.relative_to(ROOT).parts
            if path.is_file() and not MADE & set(parts) and not any(part.startswith(".") for part in parts):
                yield path


def bring_zip_up_to_date(target: Path) -> None:
    """Write the zip where it is older than what it holds; the same files give the same bytes."""
    held = list(files())
    if target.is_file() and target.stat().st_mtime >= max(path.stat().st_mtime for path in held):
        return
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for path in held:
            entry = ZipInfo(f"{FOLDER}/{path.relative_to(ROOT).as_posix()}")
            archive.writestr(entry, path.read_bytes(), ZIP_DEFLATED)


def buttons(app: Any, config: Any) -> None:
    """With an address, turn on what leads there."""
    if config.book_address:
        config.html_theme_options |= {
            "repository_url": config.book_address,
            "repository_branch": BRANCH,
            "use_repository_button": True,
            "use_edit_page_button": True,
            "use_issues_button": True,
            "launch_buttons": {
                "notebook_interface": "jupyterlab",
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
            },
        }


def aim(page: str) -> str:
    """Let Colab open the notebook with the first cell, and *edit* the text, not the executed notebook."""
    page = re.sub(
        rf'(href="https://colab\.[^"]*/blob)/{BRANCH}/(book/[^"]*\.ipynb")',
        rf"\1/{PAGES_BRANCH}/_sources/\2",
        page,
    )
    return re.sub(rf'(href="[^"]*/edit/{BRANCH}/book/[^"]*)\.ipynb"', r'\1.md"', page)


def finish(app: Any, exception: Exception | None) -> None:
    """Write the first cells and the links of the buttons."""
    if exception is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    (out / ".nojekyll").touch()  # else GitHub leaves out the folders that begin with an underscore
    for path in sorted((out / "_sources").rglob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        chapter = path.relative_to(out / "_sources").as_posix()
        whole = with_first_cell(notebook, chapter, app.config.book_address)
        path.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    if app.config.book_address:
        for path in (out / "book").rglob("*.html"):
            path.write_text(aim(path.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this when it loads the extension."""
    app.add_config_value("book_address", "", "html")
    app.connect("config-inited", buttons, priority=1)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
