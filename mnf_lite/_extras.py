"""Libraries that only a part of the package needs: where one is missing, a sentence says how to get it.

torchvision has a second way to be missing.  The registry's wheel is built against CUDA; beside a CPU-only
torch its operators are missing and the plain import fails with ``operator torchvision::nms does not exist``.
Declaring the two operators by name is enough for datasets and transforms.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import ModuleType

import torch


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Say of an import that fails inside the block which extra of the package brings the library.

    Args:
        name: of the extra in ``pyproject.toml``.
        what: needs it.

    Raises:
        ModuleNotFoundError: the library is missing.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "mnf_lite":
            raise
        library = {"sklearn": "scikit-learn", "PIL": "Pillow"}.get(error.name or "", error.name)
        raise ModuleNotFoundError(
            f"{what} needs {library}, which is not installed; run: pip install 'mnf_lite[{name}]'",
            name=error.name,
        ) from error


def sklearn(module: str) -> ModuleType:
    """Import a module of scikit-learn when it is first needed, for the digits and for ROC curves.

    Raises:
        ModuleNotFoundError: scikit-learn is not installed.
    """
    with extra("data", "This"):
        return importlib.import_module(f"sklearn.{module}")


@cache
def torchvision() -> ModuleType:
    """Import torchvision when it is first needed: it costs seconds, and most of the book never touches it.

    Returns:
        The module, with ``torchvision.datasets`` and ``torchvision.transforms`` loaded.  Whatever imports
        torchvision by itself (torchmetrics does) works from then on too.

    Raises:
        ModuleNotFoundError: torchvision is not installed.
    """
    try:
        with extra("data", "An image set"):
            return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    # A failed import leaves its finished submodules behind; the second attempt has to start from none.
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for operator in ("nms", "qnms"):
        schema = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        library.define(schema)  # type: ignore[no-untyped-call]
    module = importlib.import_module("torchvision")
    module.__dict__["_declared_operators"] = library  # a declaration lasts as long as its Library object
    return module
