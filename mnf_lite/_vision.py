"""torchvision, also where its compiled operators cannot load.

The registry's torchvision is built against CUDA.  Beside a CPU-only torch its operators are missing and the
plain import fails with ``operator torchvision::nms does not exist``.  Declaring the two operators by name is
enough for datasets and transforms.
"""

import importlib
import sys
from functools import cache
from types import ModuleType

import torch


@cache
def torchvision() -> ModuleType:
    """Import torchvision when it is first needed: it costs seconds, and most of the book never touches it.

    Returns:
        The module, with ``torchvision.datasets`` and ``torchvision.transforms`` loaded.  Whatever imports
        torchvision by itself (torchmetrics does) works from then on too.
    """
    try:
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
