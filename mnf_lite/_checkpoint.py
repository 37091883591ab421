"""A training run in one safetensors file: state of objective and optimizer, and its figures so far."""

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor
from torch.optim import Optimizer

from mnf_lite.files import difference, load_tensors, save_tensors

Figures = dict[str, list[float]]


class Objective(Protocol):
    """What is trained: a module that says which of its tensors are its own."""

    def state(self) -> dict[str, Tensor]:
        """Return them by name."""

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool) -> object:
        """Set them."""


class Checkpoint:
    """The file of a run.

    Args:
        path: of the file.
        run: the settings that two runs must share for one to continue the other.
        objective, optimizer: whose state is saved and loaded.

    Raises:
        ValueError: the path is a folder.
    """

    def __init__(self, path: Path, run: dict[str, Any], objective: Objective, optimizer: Optimizer) -> None:
        self.path, self.run, self.objective, self.optimizer = path, run, objective, optimizer
        if path.is_dir():
            raise ValueError(f"{path} is a folder; a checkpoint needs the name of a file")

    def save(self, history: Figures) -> None:
        """Write the file anew."""
        tensors = self.objective.state()
        optimizer = _pack(self.optimizer.state_dict(), "optimizer", tensors)
        save_tensors(self.path, tensors, {"run": self.run, "history": history, "optimizer": optimizer})

    def load(self, epochs: int) -> Figures:
        """Set objective and optimizer to the file's, where there is one, and return its figures.

        Raises:
            ValueError: it is no checkpoint, one of another run, or one of more ``epochs``; all is then as
                it was.
        """
        if not self.path.exists():
            return {}
        tensors, metadata = load_tensors(self.path)
        if "run" not in metadata:
            raise ValueError(f"{self.path} is not a checkpoint of fit; name another file, or delete this one")
        before, run = metadata["run"], self.run
        came = "another model" if before.get("model") != run["model"] else difference(before, run)
        if came:
            hint = " (rates that decay belong to a number of epochs: decay=0 lets a run go on)"
            raise ValueError(
                f"{self.path} belongs to a run with {came}{hint if came.startswith('epochs') else ''}; name "
                "another file, or delete this one"
            )
        history: Figures = metadata["history"]
        if len(history["loss"]) > epochs:
            came = f"{len(history['loss'])} epochs already, more than the {epochs} asked for"
            raise ValueError(f"{self.path} holds {came}")
        # The likelihood's are missing where it is part of the model.
        self.objective.load_state_dict({name: tensors[name] for name in self.objective.state()}, strict=False)
        self.optimizer.load_state_dict(_unpack(metadata["optimizer"], tensors))
        return history


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """What JSON can hold of an optimizer's state; its tensors are put into `tensors` and named there."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[key, _pack(part, f"{name}.{key}", tensors)] for key, part in value.items()]}
    if isinstance(value, list | tuple):
        parts = [_pack(part, f"{name}.{k}", tensors) for k, part in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint keeps tensors, numbers and text, but {name} is a {type(value).__name__}")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `_pack`."""
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _unpack(part, tensors) for key, part in content}
    parts = [_unpack(part, tensors) for part in content]
    return tuple(parts) if kind == "tuple" else parts
