"""The tables of Part III show what was measured, on the networks that are in the repository."""

import json
from typing import Any

import pytest

from benchmarks import scores
from benchmarks.methods import METHODS, weights
from benchmarks.results import RESULTS
from tools.checkpoints import README, SEEDS

EACH = [(method, seed) for method in METHODS for seed in range(SEEDS)]


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return json.loads((RESULTS / "scores.json").read_text(encoding="utf-8"))


def test_readme_shows_what_was_measured(results: dict[str, Any]) -> None:
    text = README.read_text(encoding="utf-8")
    up_to_date = scores.with_table(text, results["table"]) == text
    assert up_to_date, "README.md is out of date: run python -m benchmarks.scores"


def test_table_is_put_together_from_the_files_that_lie_there(results: dict[str, Any]) -> None:
    again = json.loads(json.dumps(scores.table(results)))
    assert again == results["table"], "scores.json is out of date: run python -m benchmarks.scores"


def test_table_is_full(results: dict[str, Any]) -> None:
    assert list(results["table"]) == list(scores.ROWS)
    for row, entry in results["table"].items():
        assert list(entry["methods"]) == list(METHODS), row
        assert {len(figures) for figures in entry["methods"].values()} in ({1}, {SEEDS}), row


@pytest.mark.parametrize(("method", "seed"), EACH)
def test_scores_are_those_of_the_stored_weights_and_agree(
    results: dict[str, Any], method: str, seed: int
) -> None:
    entry = results["scores"][method][str(seed)]
    assert entry["weights"] == weights(method, seed)
    errors = round(10_000 * (1 - entry["accuracy"]))
    assert errors == len(entry["wrong"]) == sum(entry["doubt"]["errors"])
    curve = entry["curve"]
    assert sum(curve["counts"]) == sum(entry["doubt"]["images"]) == 10_000
    gaps = [
        n * abs(accuracy - confidence)
        for n, accuracy, confidence in zip(
            *(curve[k] for k in ("counts", "accuracy", "confidence")), strict=True
        )
        if n
    ]
    assert sum(gaps) / 10_000 == pytest.approx(entry["ece"], abs=1e-4)
    for proper in ("nll", "brier"):
        assert entry[proper] <= entry["one_sample"][proper] + 1e-6, "a mean is no worse than its members"


@pytest.mark.parametrize("method", ["LeNet", "MNF"])
def test_full_training_reaches_99_percent_with_every_seed(results: dict[str, Any], method: str) -> None:
    assert min(results["table"]["test accuracy, %"]["methods"][method]) >= 99.0


def test_mean_and_spread_are_those_of_the_seeds() -> None:
    assert scores.shown([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"
    assert scores.shown([66_130], 0) == "66,130"
