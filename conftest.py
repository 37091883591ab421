"""How pytest runs the chapters: as they were executed, on real data where it is at hand; a seed for tests."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import chapters
import pytest
import yaml

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share the cores, and sums keep one order

REAL_DATA = re.compile(r"\b(fashion_|k)?mnist", re.IGNORECASE)


def real_data() -> str | None:
    """The folder of the image sets: the named one, the one beside this checkout, or the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mnf_lite"
    beside = chapters.ROOT.parent / "shared" / "data"
    named = os.environ.get("MNF_LITE_DATA")
    return next(
        (str(root) for root in (named, beside, cache) if root and (Path(root) / "MNIST").is_dir()), None
    )


def files_in_toc() -> list[str]:
    """The files that the table of contents names, sections too, in their order."""
    toc = yaml.safe_load((chapters.ROOT / "_toc.yml").read_text(encoding="utf-8"))
    entries = [entry for part in toc["parts"] for entry in part["chapters"]]
    files = [entry["file"] for top in entries for entry in (top, *top.get("sections", []))]
    return [toc["root"], *files]


def asks_for_real_data(notebook: Path) -> bool:
    """Whether a chapter's code names MNIST or one of its relatives."""
    cells = chapters.read_text(notebook.with_suffix(".md")).cells
    return any(cell.cell_type == "code" and REAL_DATA.search(cell.source) for cell in cells)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out chapters on real data where there is none; tests/test_chapters.py runs these on digits."""
    if real_data() is not None:
        return
    reason = "no real data here: tests/test_chapters.py runs this chapter on digits"
    for notebook in {item.path for item in items if item.path.suffix == ".ipynb"}:
        if asks_for_real_data(notebook):
            for item in items:
                if item.path == notebook:
                    item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Give a chapter's kernel, which nbval starts for its first cell, the surroundings of `make execute`."""
    if item.path.suffix != ".ipynb":
        return (yield)
    data = real_data()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **chapters.KERNEL_ENVIRONMENT,
            **({"MNF_LITE_DATA": data} if data else {}),
        }.items():
            patch.setenv(name, value)
        return (yield)


@pytest.fixture
def seed() -> None:
    """The same random numbers for a test whatever ran before it."""
    import torch  # not above: it would fix its number of threads before that is set

    torch.manual_seed(0)
