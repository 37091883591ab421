"""Files that are either whole or not there: safetensors and JSON, written beside and renamed."""

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path in the same folder and rename it to ``path`` if the block succeeds.

    A rename within a folder is atomic: whoever reads ``path`` sees the old file or the new one, never a part.

    Args:
        path: the file to write; missing folders are made.

    Raises:
        OSError: the folder cannot be made or written, or the disk is full. The old file is then intact.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with replacing(f"{folder}/log.txt") as half:
        ...         n = half.write_text("whole")
        ...     Path(folder, "log.txt").read_text()
        'whole'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.part")  # one name: what a killed process left is overwritten
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        kept = "the old file is intact" if path.exists() else "nothing was written"
        raise OSError(f"cannot write {path}: {error}; {kept}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def save_json(path: str | Path, content: Any, indent: int | None = 1) -> None:
    """Write a JSON file, atomically.

    Args:
        path: the file to write.
        content: whatever JSON can hold.
        indent: spaces of each level; ``None`` writes one line.

    Raises:
        OSError: as :func:`replacing`.
        TypeError: ``content`` holds what JSON cannot.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_json(f"{folder}/log.json", {"loss": 0.5})
        ...     json.loads(Path(folder, "log.json").read_text())
        {'loss': 0.5}
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def difference(before: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    """Say which setting of ``run`` was another one ``before``, the first of them; nothing where all agree.

    Example:
        >>> difference({"lr": 0.1, "seed": 0}, {"lr": 0.01, "seed": 0})
        'lr 0.1, not 0.01'
    """
    for name, value in run.items():
        if before.get(name) != value:
            return f"{name} {before.get(name)}, not {value}"
    return ""


def circumstances() -> dict[str, Any]:
    """Return what else the results of a run depend on: versions, machine and date.

    Example:
        >>> sorted(circumstances())
        ['date', 'machine', 'versions']
    """
    packages = {name: version(name) for name in ("torch", "numpy")}
    threads = torch.get_num_threads()
    return {
        "versions": {"python": platform.python_version(), **packages},
        "machine": f"{_processor()}, {threads} thread{'s' if threads > 1 else ''}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    """The processor's own name where the system tells it, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON metadata to one safetensors file, atomically.

    Args:
        path: the file to write.
        tensors: any shapes, dtypes and devices; they are stored from the CPU.
        metadata: whatever JSON can hold.

    Raises:
        OSError: as :func:`replacing`.

    Source:
        The format: https://huggingface.co/docs/safetensors

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     save_tensors(f"{folder}/run.safetensors", {"w": torch.ones(2)}, {"seed": 0})
        ...     load_tensors(f"{folder}/run.safetensors")
        ({'w': tensor([1., 1.])}, {'seed': 0})
    """
    # Cloned: safetensors refuses tensors that share memory.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.write_bytes(save(whole, {"mnf_lite": json.dumps(metadata)}))


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote; its example shows both.

    Args:
        path: a file written by :func:`save_tensors`.

    Returns:
        The tensors by name, on the CPU, and the metadata.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is cut off, not safetensors, or not written by this package.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        with safe_open(path, "pt") as file:
            metadata = (file.metadata() or {}).get("mnf_lite")
            # Cloned: the loaded tensors are windows into one mapped file, at any alignment.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file ({error}); it may be cut off") from error
    if metadata is None:
        raise ValueError(f"{path} is a safetensors file, but not one written by mnf_lite")
    return tensors, json.loads(metadata)
