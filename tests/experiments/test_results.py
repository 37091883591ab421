"""The tables of Part III show what was measured, on the networks that are in the repository."""

import json
from types import ModuleType
from typing import Any

import pytest

from experiments import (
    adversarial,
    kl_weight,
    out_of_distribution,
    posterior,
    rotation,
    scores,
    training_size,
)
from experiments.methods import METHODS, weights
from experiments.networks import README, SEEDS
from experiments.results import RESULTS

EACH = [(method, seed) for method in METHODS for seed in range(SEEDS)]
ON_STORED_WEIGHTS = (adversarial, out_of_distribution, posterior, rotation, scores)


def name(script: ModuleType) -> str:
    return script.__name__.split(".")[-1]


def stored(script: ModuleType) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name(script)}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return stored(scores)


@pytest.mark.parametrize("script", [*ON_STORED_WEIGHTS, kl_weight, training_size], ids=name)
def test_settings_are_those_of_the_script(script: ModuleType) -> None:
    settings = json.loads(json.dumps(script.SETTINGS))  # as they come back from a file: lists for tuples
    assert stored(script)["settings"] == settings, f"run python -m experiments.{name(script)}"


@pytest.mark.parametrize("script", ON_STORED_WEIGHTS, ids=name)
def test_every_method_and_seed_was_measured_on_the_stored_weights(script: ModuleType) -> None:
    found = stored(script)["scores"]
    for method, seed in EACH:
        entry = found[method].get(str(seed), {})
        assert entry.get("weights") == weights(method, seed), f"run python -m experiments.{name(script)}"


def test_own_trainings_have_all_seeds() -> None:
    sizes, weights_of_the_kl = stored(training_size)["scores"], stored(kl_weight)["scores"]
    assert [*sizes] == [*METHODS]
    assert [*weights_of_the_kl] == [*kl_weight.VARIANTS]
    for by_size in sizes.values():
        assert [*by_size] == [*training_size.SETTINGS["epochs"]]
        assert {len(runs) for runs in by_size.values()} == {SEEDS}
    assert {len(runs) for runs in weights_of_the_kl.values()} == {SEEDS}


def test_readme_shows_what_was_measured(results: dict[str, Any]) -> None:
    text = README.read_text(encoding="utf-8")
    up_to_date = scores.with_table(text, results["table"]) == text
    assert up_to_date, "README.md is out of date: run python -m experiments.scores"


def test_table_is_put_together_from_the_files_that_lie_there(results: dict[str, Any]) -> None:
    again = json.loads(json.dumps(scores.table(results)))
    assert again == results["table"], "scores.json is out of date: run python -m experiments.scores"


def test_table_is_full(results: dict[str, Any]) -> None:
    assert list(results["table"]) == list(scores.ROWS)
    for row, entry in results["table"].items():
        assert list(entry["methods"]) == list(METHODS), row
        assert {len(figures) for figures in entry["methods"].values()} in ({1}, {SEEDS}), row


@pytest.mark.parametrize(("method", "seed"), EACH)
def test_scores_of_a_network_agree(results: dict[str, Any], method: str, seed: int) -> None:
    entry = results["scores"][method][str(seed)]
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


def test_mean_and_spread_are_those_of_the_seeds() -> None:
    assert scores.shown([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"
    assert scores.shown([66_130], 0) == "66,130"
