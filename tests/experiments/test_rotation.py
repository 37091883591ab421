"""The parts of the figures of the turning digits fit together."""

import json
import math
from typing import Any

import pytest

from experiments.methods import METHODS
from experiments.results import RESULTS

ROUNDING = 2e-5  # figures are stored with five places


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads((RESULTS / "rotation.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("method", METHODS)
def test_doubt_between_networks_is_a_part_of_all_doubt(results: dict[str, Any], method: str) -> None:
    for entry in results["scores"][method].values():
        for asked in (entry, entry["nine"]):
            for h, between in zip(asked["entropy"], asked["mutual_information"], strict=True):
                assert -ROUNDING <= between <= h + ROUNDING <= math.log(10) + 2 * ROUNDING
                assert (between <= ROUNDING) or method != "LeNet", "one network cannot disagree"
        assert entry["entropy_90"] == entry["nine"]["entropy"][results["settings"]["angles"].index(90)]


@pytest.mark.parametrize("method", METHODS)
def test_surely_wrong_is_sure_and_wrong(results: dict[str, Any], method: str) -> None:
    for entry in results["scores"][method].values():
        for bold, sure, right in zip(*(entry[k] for k in ("sure_wrong", "sure", "accuracy")), strict=True):
            assert bold <= min(sure, 1 - right) + ROUNDING
        assert entry["accuracy"][0] > 0.97, "upright"
