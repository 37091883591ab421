"""What a reader takes away: notebooks that run where they land, the zip, the environment, the buttons."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from zipfile import ZipFile

import pytest
import yaml

from tools import chapters, handout

ROOT = handout.ROOT
CHAPTER = "book/mnf/03_dense_layer.ipynb"  # its first code cell reads ../results

# Runs the first code cells of a notebook as a fresh machine would: without this checkout on the path.
RUN = """
import json, sys
from pathlib import Path
elsewhere = [p for p in sys.path if not (Path(p or ".") / "mnf_lite" / "__init__.py").is_file()]
sys.path[:] = [*elsewhere, sys.argv[3]]
cells = [c for c in json.loads(Path(sys.argv[1]).read_text())["cells"] if c["cell_type"] == "code"]
for cell in cells[: int(sys.argv[2])]:
    exec("".join(cell["source"]), globals())
import mnf_lite
print(Path.cwd(), Path(mnf_lite.__file__).parent.parent, sep="\\n")
"""
OFFLINE = {"PIP_NO_DEPS": "1", "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0"}  # 0: without isolation


def published(folder: Path, address: str = "") -> Path:
    """A chapter as the build publishes it, alone in a folder."""
    notebook = json.loads((ROOT / CHAPTER).read_text(encoding="utf-8"))
    target = folder / Path(CHAPTER).name
    target.write_text(json.dumps(handout.with_first_cell(notebook, CHAPTER, address)), encoding="utf-8")
    return target


def run_first_cells(
    notebook: Path, monkeypatch: pytest.MonkeyPatch, number: int = 2
) -> subprocess.CompletedProcess[str]:
    """Run the first code cells of a notebook; what pip installs lies beside it."""
    site = notebook.parent / "site"
    for name, value in {**OFFLINE, "PIP_TARGET": str(site), "HOME": str(notebook.parent / "home")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    command = [sys.executable, "-c", RUN, str(notebook), str(number), str(site)]
    return subprocess.run(command, cwd=notebook.parent, capture_output=True, text=True, check=False)


def test_downloaded_notebook_brings_the_package_and_what_the_chapter_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handout.bring_zip_up_to_date(tmp_path / handout.ZIP)
    done = run_first_cells(published(tmp_path), monkeypatch)
    assert done.returncode == 0, done.stderr
    folder, package = done.stdout.splitlines()[-2:]
    assert Path(folder) == tmp_path / handout.FOLDER / "book" / "mnf"
    assert Path(package) == tmp_path / "site"


def test_notebook_alone_says_what_to_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run_first_cells(published(tmp_path), monkeypatch)
    assert done.returncode == 1
    assert f"Get {handout.ZIP} (the Preface links to it)" in done.stderr


def test_first_cell_asks_the_repository_where_the_build_knew_it(tmp_path: Path) -> None:
    address = "https://github.com/OWNER/NAME"
    source = "".join(json.loads(published(tmp_path, address).read_text())["cells"][0]["source"])
    asked: list[str] = []

    def urlretrieve(url: str, name: str) -> tuple[str, None]:
        asked.append(url)
        raise ConnectionError

    where = {"urlretrieve": urlretrieve}
    source = source.replace("urllib.request.urlretrieve", "urlretrieve").replace(
        'root = Path(*[".."]', f'root = Path("{tmp_path}", *["nowhere"]'
    )
    source = source.replace("Path.cwd(), Path.cwd().parent, Path.home()", f'Path("{tmp_path}")')
    with pytest.raises(ConnectionError):
        exec(source, where)
    assert asked == [f"{address}/archive/HEAD.zip"]


def test_first_cell_does_nothing_beside_the_book(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir((ROOT / CHAPTER).parent)
    source = handout.FIRST_CELL.format(address="", chapter=CHAPTER, zip=handout.ZIP)
    exec(source, {})
    assert Path.cwd() == (ROOT / CHAPTER).parent


def test_first_cell_installs_all_that_chapters_import() -> None:
    """Beside what mnf_lite[all] brings, only what the cell itself names."""
    imported = set()
    for text in chapters.text_notebooks():
        code = "\n".join(c.source for c in chapters.read_text(text).cells if c.cell_type == "code")
        imported |= set(re.findall(r"^(?:from|import) (\w+)", code, re.M))
    brought = {"mnf_lite", "torch", "numpy", "safetensors", "matplotlib", "sklearn", "pandas", "scipy"}
    brought |= {"IPython", "pytest"}
    assert imported - brought - set(sys.stdlib_module_names) == set()
    assert '["pytest"]' in handout.FIRST_CELL


def test_zip_holds_the_repository(tmp_path: Path) -> None:
    target = tmp_path / handout.ZIP
    handout.bring_zip_up_to_date(target)
    first = target.read_bytes()
    with ZipFile(target) as archive:
        held = {name.removeprefix(f"{handout.FOLDER}/") for name in archive.namelist()}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, check=True, text=True)
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    visible = {name for name in tracked if not re.search(r"(^|/)\.", name)}
    assert visible - held == set()
    assert not any(name.startswith(("_build", ".venv", "node_modules")) for name in held)
    target.unlink()
    handout.bring_zip_up_to_date(target)
    assert target.read_bytes() == first, "the same files gave other bytes"


def test_environment_for_conda_and_binder_has_the_pinned_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    python, pip, asked = environment["dependencies"]
    assert (python, pip) == ("python=3.11", "pip")
    assert asked["pip"] == ["--requirement requirements.txt", "--editable ."]
    # Without an index this passes only where each pin, and all that they need in turn, is installed here.
    resolve = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "-r", "requirements.txt"]
    done = subprocess.run(resolve, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Would install" not in done.stdout


def test_address_turns_on_the_buttons_and_only_an_address_does() -> None:
    app = SimpleNamespace()
    without = SimpleNamespace(book_address="", html_theme_options={})
    handout.buttons(app, without)
    assert without.html_theme_options == {}
    given = SimpleNamespace(book_address="https://github.com/OWNER/NAME", html_theme_options={})
    handout.buttons(app, given)
    options = given.html_theme_options
    assert options["repository_url"] == "https://github.com/OWNER/NAME"
    assert all(options[f"use_{name}_button"] for name in ("repository", "edit_page", "issues"))
    assert set(options["launch_buttons"]) == {"notebook_interface", "binderhub_url", "colab_url"}


def test_colab_opens_the_published_notebook_and_edit_the_text() -> None:
    there = "https://colab.research.google.com/github/OWNER/NAME/blob"
    edit = "https://github.com/OWNER/NAME/edit/main"
    links = [f"{there}/main/book/mnf/x.ipynb", f"{edit}/book/mnf/x.ipynb", f"{edit}/book/y.md"]
    aimed = handout.aim("".join(f'<a href="{link}">' for link in links))
    assert f'href="{there}/gh-pages/_sources/book/mnf/x.ipynb"' in aimed
    assert f'href="{edit}/book/mnf/x.md"' in aimed
    assert f'href="{edit}/book/y.md"' in aimed
