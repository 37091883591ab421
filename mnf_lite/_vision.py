"""torchvision, also where its compiled operators cannot load.

The registry's torchvision is built against CUDA.  Beside a CPU-only torch its operators are missing and the plain
import fails with ``operator torchvision::nms does not exist``.  Declaring the names of the two operators is enough
for datasets and transforms.  Every module that needs torchvision, or a library that imports it, imports this first.
"""

import importlib
import sys

import torch


def _declare_missing_operators() -> torch.library.Library:
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


try:
    importlib.import_module("torchvision")
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    # A failed import leaves its finished submodules behind; the second attempt starts from none.
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    _library = _declare_missing_operators()  # the declarations live as long as this object
    importlib.import_module("torchvision")
