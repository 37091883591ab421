"""How pytest runs the chapters: as they were executed, on real data where it is at hand; a seed for tests."""

import os
from collections.abc import Iterator

import pytest

from tools import chapters

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers share the cores, and sums keep one order


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without real data leave out the chapters on it: tests/book/test_chapters.py runs them on digits."""
    if chapters.real_data() is not None:
        return
    reason = "no real data here: tests/book/test_chapters.py runs this chapter on digits"
    for notebook in {item.path for item in items if item.path.suffix == ".ipynb"}:
        if chapters.asks_for_real_data(notebook):
            for item in items:
                if item.path == notebook:
                    item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Give a chapter's kernel, which nbval starts for its first cell, the surroundings of `make execute`."""
    if item.path.suffix != ".ipynb":
        return (yield)
    data = chapters.real_data()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            **chapters.kernel_environment(),
            **({"MNF_LITE_DATA": data} if data else {}),
        }.items():
            patch.setenv(name, value)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Put one sentence before what nbval says of a cell that failed: where, both values, what mends it."""
    report = yield
    if item.path.suffix == ".ipynb" and report.when == "call" and report.failed:
        number = next(n for n, cell in enumerate(item.parent.nb.cells, 1) if cell is item.cell)
        text = item.path.with_suffix(".md")
        sentence = chapters.mismatch(text, number, item.cell.outputs, item.test_outputs or [])
        report.longrepr = f"{sentence}\n{report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def seed() -> None:
    """The same random numbers for a test whatever ran before it: no test is a lottery that some run loses."""
    import torch  # not above: it would fix its number of threads before that is set

    torch.manual_seed(0)
