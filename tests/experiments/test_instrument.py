"""The file for the browser is written whatever the log variances are, and its result belongs to it."""

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import instrument, results
from mnf_lite import data
from mnf_lite.layers import MNFLinear


@pytest.mark.parametrize(("low", "high"), [(-14.0, 2.0), (-9.0, -9.0), (-8.0, -5.0)])
def test_rounding_a_log_variance_costs_half_a_step(low: float, high: float) -> None:
    layer = MNFLinear(40, 30)
    with torch.no_grad():
        layer.weight_log_var.uniform_(low, high)
        stored = instrument.rounded(layer, 3)
    log_var = stored["low"] + stored["step"] * stored["steps"].float()
    assert stored["step"] <= (high - low) / 255 + 1e-6
    assert (log_var - layer.weight_log_var).abs().max() <= stored["step"] / 2 + 1e-5


def test_drawn_weights_have_the_moments_of_the_posterior() -> None:
    layer = MNFLinear(3, 2)
    with torch.no_grad():
        layer.weight_log_var.uniform_(-2, 0)
        layer.bias_log_var.fill_(-1)
        stored = instrument.rounded(layer, 1)
        draws = [instrument.drawn_weights(stored, 0) for _ in range(4000)]
    w, b = (torch.stack(part) for part in zip(*draws, strict=True))
    z = stored["z"][0].float()
    error = 5 * w.std(0) / 4000**0.5
    assert ((w.mean(0) - z * layer.weight_mean).abs() < error + 2e-3).all()
    assert ((w.var(0) / layer.weight_log_var.exp() - 1).abs() < 0.15).all()
    assert ((b.var(0) / layer.bias_log_var.exp() - 1).abs() < 0.15).all()


def test_script_writes_the_file_and_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instrument.data, "mnist", data.digits)  # always there
    small = {"draws": 3, "digits": 2, "images": 20, "turns": [0]}
    start = {"digit": 4, "which": 1, "angles": [0, 90]}
    monkeypatch.setattr(instrument, "SETTINGS", instrument.SETTINGS | small | {"start": start})
    found: dict[str, Any] = instrument.measure(tmp_path / "data.js")
    text = (tmp_path / "data.js").read_text()
    assert found["file"] == {"sha256": instrument.fingerprint(tmp_path / "data.js"), "bytes": len(text)}
    head = json.loads(text.split(" = ", 1)[1].removesuffix(";\n"))
    assert head["labels"] == [c for c in range(10) for _ in range(2)]
    assert head["start"] == {"digit": 9, "angle": found["start"]["angle"]}
    sizes = [int(torch.tensor(layer["shape"]).prod()) for layer in head["lenet"]]
    outputs = sum(layer["shape"][0] for layer in head["lenet"])
    z = sum(layer["shape"][layer["axis"]] for layer in head["mnf"])
    bytes_each = 2 * sum(sizes) + 4 * outputs + 3 * sum(sizes) + 8 * outputs + 3 * 2 * z + 20 * 784
    assert len(b64decode(head["bytes"])) == bytes_each
    assert set(found["networks"]) == set(instrument.SETTINGS["networks"])
    assert len(found["drawn"]["0"]) == 50


def test_fifty_digits_were_drawn_five_of_each_inside_the_field() -> None:
    drawings = json.loads(instrument.DRAWN.read_text())
    assert sorted(drawing["label"] for drawing in drawings) == [c for c in range(10) for _ in range(5)]
    points = torch.tensor([p for drawing in drawings for stroke in drawing["strokes"] for p in stroke])
    assert points.min() >= 0
    assert points.max() <= instrument.SIDE


def test_stored_result_is_whole() -> None:
    found = results.load(results.RESULTS / "instrument.json")
    assert list(found["drawn"]) == [str(angle) for angle in instrument.SETTINGS["turns"]]
    for entries in found["drawn"].values():
        assert len(entries) == 50
        assert all(entry["one"]["disagreement"] == pytest.approx(0, abs=1e-4) for entry in entries)
        for entry in entries:
            assert 0 <= entry["hundred"]["disagreement"] <= entry["hundred"]["entropy"] + 1e-4
    for scores in found["networks"].values():
        assert scores["rounded"]["accuracy"] >= 0.98
        assert abs(scores["rounded"]["nll"] - scores["trained"]["nll"]) < 0.01, "what rounding costs"
