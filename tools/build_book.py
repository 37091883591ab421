"""Build the book into `_build/html`: `make book`, and the tests of the built pages.

Nothing is executed, warnings are errors, and where nothing has changed since the last good build nothing is
done. A changed page is read anew, a page of the appendix API also where a docstring has changed, and every
page is written anew, since the side bar of each shows the titles of all; a change of anything else
(configuration, styles, tools, versions) starts from an empty folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from tools import handout, page_assets

ROOT = page_assets.ROOT
BUILD = ROOT / "_build"
HTML = BUILD / "html"
STAMP = BUILD / "built-from.json"
MACHINERY = ["_config.yml", "_toc.yml", "requirements.txt", "package-lock.json"]
MACHINERY += ["tools/build_book.py", "tools/pages.py", "tools/handout.py"]
PAGES = (".md", ".ipynb", ".bib", ".py")  # the package too: the appendix API is made from its docstrings


def digest(paths: list[Path]) -> str:
    """Fingerprint of names and contents."""
    total = sha256()
    for path in sorted(paths):
        total.update(path.relative_to(ROOT).as_posix().encode() + b"\0")
        total.update(path.read_bytes() if path.is_file() else b"-")
    return total.hexdigest()


def sources(address: str) -> dict[str, str]:
    """Fingerprints of the pages and of all else that the built book depends on."""
    files = [
        path
        for folder in ("book", "mnf_lite")
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and not {"checkpoints", "__pycache__"} & set(path.parts)
        and not any(part.startswith(".") for part in path.parts)
    ]
    return {
        "pages": digest([path for path in files if path.suffix in PAGES]),
        "names": " ".join(
            sorted(path.relative_to(ROOT).as_posix() for path in files if path.suffix in PAGES)
        ),
        "machinery": digest(
            [path for path in files if path.suffix not in PAGES] + [ROOT / name for name in MACHINERY]
        ),
        "assets": page_assets.address(*page_assets.MATHJAX),
        "address": address,
        "python": sys.version,
    }


def build(address: str = "") -> Path:
    """Bring `_build/html` up to date and return its first page; leave with a message where that fails.

    With the address of the repository the pages have the buttons that lead there.
    """
    if address and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", address):
        sys.exit(f"make book: ADDRESS is that of a repository, https://github.com/OWNER/NAME, not {address}")
    page_assets.WORKSHOP.mkdir(exist_ok=True)
    with FileLock(page_assets.WORKSHOP / "build.lock"):  # two workers of the tests may want the book at once
        note = page_assets.fetch()
        now = sources(address)
        whole = STAMP.is_file() and (HTML / "index.html").is_file()
        before = json.loads(STAMP.read_text()) if whole else {}
        if before != now:
            fresh = {**before, "pages": None} != {**now, "pages": None}
            if fresh:
                shutil.rmtree(BUILD, ignore_errors=True)
            STAMP.unlink(missing_ok=True)
            run_sphinx(address)
            STAMP.write_text(json.dumps(now))
        handout.bring_zip_up_to_date(HTML / handout.ZIP)
        if note:
            print(note)
    return HTML / "index.html"


def run_sphinx(address: str) -> None:
    """One pass of Jupyter Book's own Sphinx build, with every page written."""
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    from jupyter_book.sphinx import build_sphinx  # a second to import, and not needed where nothing changed

    result = build_sphinx(
        ROOT,
        HTML,
        noconfig=True,
        path_config=ROOT / "_config.yml",
        confoverrides={
            "book_address": address,
            "external_toc_path": (ROOT / "_toc.yml").as_posix(),
            "latex_individualpages": False,
        },
        doctreedir=BUILD / ".doctrees",
        builder="html",
        force_all=True,
        warningiserror=True,
        keep_going=True,
        quiet=True,
    )
    if result != 0:
        sys.exit(
            "make book: the build failed. Each warning above names its page; mend these and run it again."
        )


if __name__ == "__main__":
    first = os.path.relpath(build(*sys.argv[1:2]))
    print(f"The book is built. Open {first}")
