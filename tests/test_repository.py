"""What holds for the repository as a whole: its size, its floors, its commands, and what it must not name."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools import chapters

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mnf_lite"
MODULES = sorted(PACKAGE.rglob("*.py"))

# A module imports only from floors below its own; the modules of one entry may know each other.
# architecture.md has no number for two: the libraries that only a part needs and the atomic writing of files.
FLOORS = [
    ("_extras", "_inputs", "files"),
    ("nets", "data", "metrics", "likelihoods"),
    ("flows",),
    ("layers",),
    ("models",),
    ("training", "_batches", "_checkpoint", "prediction"),
    ("plots", "widgets"),
    ("__main__",),
]


def tracked() -> list[Path]:
    """The files that git tracks, as they lie in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_tracked_file_is_large() -> None:
    sizes = {named(path): path.stat().st_size for path in tracked()}
    assert {name: size for name, size in sizes.items() if size > 4_000_000} == {}
    assert {name: size for name, size in sizes.items() if name.endswith(".ipynb") and size > 1_000_000} == {}


def test_no_tracked_file_names_a_registry_or_a_folder_of_one_machine() -> None:
    # Put together here, so that this file does not name them either.
    forbidden = re.compile(
        "|".join(["pypi" + r"\.org", "registry" + r"\.npmjs", "deb" + r"\.debian", "python" + "hosted"])
        + "|"
        + r"(?<![\w.*~])/(?:"
        + "|".join(["work", "root", "farm"])
        + r")/"
    )
    found = []
    for path in tracked():
        try:
            content = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{named(path)}: {match[0]}" for match in forbidden.finditer(content)]
    assert found == []


def test_text_has_its_line_ends_in_every_checkout() -> None:
    """A checkout under Windows, where git would write CRLF, must leave ``.ci/run`` able to start."""
    listed = subprocess.run(
        ["git", "ls-files", "--eol"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.splitlines()
    rows = [(*about.split(maxsplit=2), name) for about, name in (line.split("\t") for line in listed)]
    assert [name for index, _, _, name in rows if index == "i/crlf" or index == "i/mixed"] == []
    attributes = {name: attribute for _, _, attribute, name in rows}
    text = {name for index, _, _, name in rows if index == "i/lf"}
    assert {name for name in text if "eol=lf" not in attributes[name]} == set()
    binary = {name for name in attributes if name.endswith((".png", ".safetensors"))}
    assert {name for name in binary if attributes[name].strip() != "attr/-text"} == set()


def test_npm_lock_file_pins_by_hash_without_addresses() -> None:
    lock = (ROOT / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert lock.count('"integrity"') > 2


def test_every_page_of_the_table_of_contents_exists_and_every_page_is_in_it() -> None:
    listed = chapters.files_in_toc()
    assert len(listed) == len(set(listed))
    assert [name for name in listed if not (ROOT / name).is_file()] == []
    there = {
        named(path) for path in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
    }
    assert there - set(listed) == set(), "notebooks that no reader can reach"


def test_requirements_are_exact() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []
    assert {"torch==2.13.0", "torchvision==0.28.0"} <= set(lines)


def test_bare_make_lists_every_command() -> None:
    # make test is itself a make: a make within it would say which folder it enters
    make = ["make", "--no-print-directory"]
    listed = subprocess.run(make, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    commands = {line.split()[1] for line in listed.splitlines()}
    assert commands == {
        *(
            "help",
            "book",
            "pdf",
            "test",
            "processors",
            "lab",
            "execute",
            "experiments",
            "bench",
            "mutants",
            "lint",
            "clean",
        )
    }


def floor(module: str) -> int:
    """The floor of a module of the package, counted from the ground."""
    numbers = [number for number, names in enumerate(FLOORS) if module in names]
    assert numbers, f"mnf_lite.{module} has no floor"
    return numbers[0]


def imported(path: Path) -> set[str]:
    """The modules of the package that a module imports, by the first name below mnf_lite."""
    package = ("mnf_lite", *path.relative_to(PACKAGE).parent.parts)
    names: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = (*above, *(node.module.split(".") if node.module else ()))
            names |= {(*base, alias.name) for alias in node.names}
    return {name[1] for name in names if name[0] == "mnf_lite" and len(name) > 1}


@pytest.mark.parametrize("path", [path for path in MODULES if path != PACKAGE / "__init__.py"], ids=named)
def test_module_imports_only_from_floors_below(path: Path) -> None:
    own = path.relative_to(PACKAGE).with_suffix("").parts[0]
    wrong = {name for name in imported(path) - {own} if floor(name) > floor(own)}
    assert wrong == set(), f"{named(path)} on floor {floor(own)} imports from above"


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    reach: dict[str, set[str]] = {}
    for path in MODULES:
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        reach.setdefault(own, set()).update(imported(path) - {own})
    for _ in reach:
        reach = {
            own: names.union(*(reach.get(name, set()) for name in names)) for own, names in reach.items()
        }
    assert [own for own, names in reach.items() if own in names] == []


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_no_import_hides_inside_a_function(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    hidden = [
        f"{named(path)}:{node.lineno} in {function.name}"
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert hidden == []


def test_package_imports_without_printing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import mnf_lite"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
