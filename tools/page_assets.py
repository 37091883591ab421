"""The scripts that the built pages load: formulas (MathJax) and sliders (Jupyter's widget manager).

As a module it copies them from the npm registry, at the versions of `package-lock.json`, into
`book/_static/vendor`. As a Sphinx extension (see `_config.yml`) it points the pages at these copies, or at a
CDN where there are none.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
VENDOR = ROOT / "book" / "_static" / "vendor"
STAMP = VENDOR / "from-lock"
WORKSHOP = ROOT / "node_modules"  # not in _build, which a build that starts anew empties
AXE = WORKSHOP / "axe.min.js"  # judges how accessible a page is; for the tests, not published

# One MathJax file with every TeX extension that draws its own glyphs: nothing more is loaded, which matters
# from a file, where Firefox refuses fonts that lie in a parent folder.
MATHJAX = ("mathjax", "es5/tex-svg-full.js")
WIDGETS = ("@jupyter-widgets/html-manager", "dist/embed.js")
ICONS = "dist/*.woff2"  # beside the widget manager: the signs on the buttons of Play


def lock_hash() -> str:
    """Fingerprint of everything that decides what lies in the vendor folder."""
    chosen = repr((MATHJAX, WIDGETS, ICONS)).encode()
    return sha256((ROOT / "package-lock.json").read_bytes() + chosen).hexdigest()


def present() -> bool:
    """Whether the vendor folder holds what the lock file asks for."""
    return AXE.is_file() and STAMP.is_file() and STAMP.read_text() == lock_hash()


def fetch() -> str | None:
    """Fill the vendor folder where needed; return None, or one line on why the pages must use a CDN."""
    if present():
        return None
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "Node.js is not installed: the pages load MathJax and the widget manager from a CDN."
    WORKSHOP.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORKSHOP, prefix="npm-") as folder:
        work = Path(folder)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(ROOT / name, work / name)
        done = subprocess.run(
            [npm, "ci", "--loglevel=error"],
            cwd=work,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode != 0:
            why = " ".join(done.stderr.split())[:300]
            return (
                f"npm ci failed, so the pages load MathJax and the widget manager from a CDN; npm said: {why}"
            )
        new = work / "vendor"
        modules = work / "node_modules"
        for package, inside in (MATHJAX, WIDGETS):
            target = new / package / inside
            target.parent.mkdir(parents=True)
            shutil.copy(modules / package / inside, target)
        for icons in (modules / WIDGETS[0]).glob(ICONS):
            shutil.copy(icons, (new / WIDGETS[0] / WIDGETS[1]).parent)
        shutil.copy(modules / "axe-core" / AXE.name, AXE)
        (new / STAMP.name).write_text(lock_hash())
        shutil.rmtree(VENDOR, ignore_errors=True)
        os.replace(new, VENDOR)
    return None


def address(package: str, inside: str) -> str:
    """Where a page finds a script: in the book's own static folder, else on a CDN at the same version."""
    if present():
        return f"vendor/{package}/{inside}"
    version = json.loads((ROOT / "package.json").read_text())["dependencies"][package]
    return f"https://cdn.jsdelivr.net/npm/{package}@{version}/{inside}"


def setup(app: Any) -> dict[str, bool]:
    """Sphinx calls this when it loads the extension."""

    def point(app: Any, config: Any) -> None:
        config.mathjax_path = address(*MATHJAX)
        config.nb_ipywidgets_js = {address(*WIDGETS): {}}

    app.connect("config-inited", point, priority=1)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
