"""Mutation: run checks on a copy of the package in which one line is wrong, and expect them to notice.

A check is a test function of another file, ``file::function`` or ``file::Class::function``; it runs with
every combination of its parameters until one fails.
"""

import importlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from itertools import product
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

TESTS = str(Path(__file__).parents[1])


class _Mutant(SourceFileLoader, MetaPathFinder):
    """Loads one module with ``old`` replaced by ``new``, and leaves all others alone."""

    def __init__(self, module: str, old: str, new: str) -> None:
        self.module, self.old, self.new = module, old, new

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        if fullname != self.module:
            return None
        found = PathFinder.find_spec(fullname, path)
        assert isinstance(found, ModuleSpec)
        super().__init__(fullname, str(found.origin))
        found.loader = self
        return found

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname)
        if source.count(self.old) != 1:  # no AssertionError: that would read as a mistake that was noticed
            raise LookupError(f"{self.old!r} is {source.count(self.old)} times in {fullname}")
        return compile(source.replace(self.old, self.new), self.path, "exec")


def _ours(name: str, module: ModuleType) -> bool:
    if name.split(".")[0] == "mnf_lite":
        return True
    return str(Path(getattr(module, "__file__", None) or "")).startswith(TESTS) and name != __name__


@contextmanager
def mutated(module: str, old: str, new: str) -> Iterator[None]:
    """Within it, imports give a copy of the package, and of the tests, in which ``old`` reads ``new``."""
    kept = {name: m for name, m in sys.modules.items() if _ours(name, m)}
    for name in kept:
        del sys.modules[name]
    finder = _Mutant(module, old, new)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name, m in sys.modules.items() if _ours(name, m)]:
            del sys.modules[name]
        sys.modules.update(kept)


def run(check: str) -> None:
    """Call a test function with every combination of its parameters."""
    file, *names = check.split("::")
    found: Any = importlib.import_module(f"tests.package.{file}")
    for name in names:
        found = getattr(found, name)() if inspect.isclass(getattr(found, name)) else getattr(found, name)
    marks = [m for m in getattr(found, "pytestmark", []) if m.name == "parametrize"]
    for values in product(*(m.args[1] for m in marks)):
        arguments: dict[str, Any] = {}
        for mark, value in zip(marks, values, strict=True):
            names_, value = mark.args[0], value.values if hasattr(value, "marks") else value
            names_ = [n.strip() for n in names_.split(",")] if isinstance(names_, str) else list(names_)
            arguments.update(zip(names_, value if len(names_) > 1 else (value,), strict=True))
        found(**arguments)


def notices(module: str, old: str, new: str, checks: Sequence[str]) -> bool:
    """Whether one of the checks fails, by an assertion, on the package in which ``old`` reads ``new``."""
    with mutated(module, old, new):
        for check in checks:
            try:
                run(check)
            except AssertionError:
                return True
    return False
