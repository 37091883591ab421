"""The small RealNVP of a live figure: its training on the smallest settings, its files, its stored score."""

from pathlib import Path

import pytest
import torch

from experiments.live_coupling import SETTINGS, WEIGHTS, above_entropy, load, save, train
from experiments.results import RESULTS, as_stored
from experiments.results import load as load_results

SMALLEST = SETTINGS | {"couplings": 2, "hidden": (3,), "batch": 8, "steps": {"1e-2": 2}}


def test_weights_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    flow = train(SMALLEST)
    save(flow, tmp_path / "weights.js", SMALLEST["hidden"])
    z = torch.randn(50, 2, dtype=torch.float64)
    for before, after in zip(flow(z), load(tmp_path / "weights.js")(z), strict=True):
        assert torch.equal(before, after)


def test_stored_weights_are_small_and_as_good_as_their_result_says() -> None:
    assert WEIGHTS.stat().st_size < 100_000
    stored = load_results(RESULTS / "live_coupling.json")
    assert stored["settings"] == as_stored(SETTINGS)
    score = above_entropy(load(), SETTINGS["held_out"])
    assert score == pytest.approx(stored["above_entropy"], abs=1e-6)
    assert 0 < score < 0.05
