"""Files are whole or not there, and say where and when they were made."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mnf_lite.files import circumstances, load_tensors, save_json, save_tensors

SAVERS = {
    "tensors": (lambda path, n: save_tensors(path, {"x": torch.arange(n)}, {}), "write_bytes"),
    "JSON": (lambda path, n: save_json(path, list(range(n))), "write_text"),
}


@pytest.mark.parametrize("before", [None, 3])
@pytest.mark.parametrize(("save", "writes"), SAVERS.values(), ids=list(SAVERS))
def test_a_failed_save_leaves_the_old_file_or_none(
    save: Callable[[Path, int], None],
    writes: str,
    before: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "c"
    if before:
        save(path, before)
    there = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def half(path: Path, content: str | bytes, **options: str) -> None:
        with path.open("wb") as file:
            file.write(b"half of it")
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, writes, half)
    end = "the old file is intact" if before else "nothing was written"
    with pytest.raises(
        OSError, match=f"^cannot write {re.escape(str(path))}: No space left on device; {end}$"
    ):
        save(path, 100)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == there


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    save_json(tmp_path / "c", {"a": 1})
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_json(tmp_path / "c", {"a": torch.ones(1)})
    assert json.loads((tmp_path / "c").read_text()) == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_saved_files_give_back_what_they_were_given_and_make_their_folder(tmp_path: Path) -> None:
    content = {"nats": [0.1, None], "σ": "½"}
    for indent, lines in ((1, 7), (None, 1)):
        save_json(tmp_path / "new" / "c", content, indent)
        text = (tmp_path / "new" / "c").read_text(encoding="utf-8")
        assert json.loads(text) == content
        assert text.count("\n") == lines
        assert "σ" in text
    tensors = {"x": torch.randn(2, 3, dtype=torch.float64), "n": torch.arange(4)}
    save_tensors(tmp_path / "new" / "t", tensors, content)
    again, metadata = load_tensors(tmp_path / "new" / "t")
    assert metadata == content
    assert again.keys() == tensors.keys()
    assert all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_circumstances_name_versions_machine_and_day() -> None:
    found = circumstances()
    assert found["versions"].keys() == {"python", "torch", "numpy"}
    assert found["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    processor, threads = found["machine"].rsplit(", ", 1)
    assert processor
    assert threads in ("1 thread", f"{torch.get_num_threads()} threads")
    assert re.fullmatch(r"20\d\d-[01]\d-[0-3]\d", found["date"])
    assert json.loads(json.dumps(found)) == found
