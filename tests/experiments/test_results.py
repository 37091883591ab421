"""The tables of Part III show what was measured, on the networks that are in the repository."""

from importlib import import_module
from typing import Any

import pytest
import torch

from experiments import regression, rotating_nine, scores
from experiments.__main__ import SCRIPTS
from experiments.methods import METHODS
from experiments.networks import SEEDS
from experiments.results import README, RESULTS, load, why_stale

EACH = [(method, seed) for method in METHODS for seed in range(SEEDS)]
NAMES = [name for name in SCRIPTS if name != "networks"]
# Measured before a result had to name these, which the next run of the script will do.
UNSAID = {
    "mixing": {"machine", "date"},
    "regression": {"versions", "machine"},
}


def stored(name: str) -> dict[str, Any]:
    return load(RESULTS / f"{name}.json")


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return stored("scores")


def test_every_result_has_its_script_and_every_script_its_result() -> None:
    assert sorted(NAMES) == sorted(path.stem for path in RESULTS.glob("*.json"))


@pytest.mark.parametrize("name", NAMES)
def test_results_stand(name: str) -> None:
    reason = why_stale(import_module(f"experiments.{name}"))
    assert not reason, f"{reason}: run python -m experiments.{name}"


@pytest.mark.parametrize("name", NAMES)
def test_result_says_how_it_was_measured(name: str) -> None:
    found = stored(name)
    missing = {"settings", "versions", "machine", "date"} - {key for key in found if found[key]}
    assert missing == UNSAID.get(name, set())
    assert {"python", "torch"} <= set(found.get("versions", {})) or name in UNSAID


@pytest.mark.parametrize("name", [name for name in NAMES if name != "names"])  # its facts are not of chance
def test_result_names_its_seeds(name: str) -> None:
    def named(entry: Any) -> bool:
        """Seeds in the settings, as keys, in the runs, or one run each in a list."""
        if not isinstance(entry, dict):
            return isinstance(entry, list) and len(entry) >= SEEDS
        return bool({"seed", "seeds", *map(str, range(SEEDS))} & set(entry)) or any(
            map(named, entry.values())
        )

    found = stored(name)
    assert named(found["settings"]) or all(map(named, (found.get("scores") or found["runs"]).values()))


def test_data_of_the_regression_are_those_of_its_seeds() -> None:
    stored_data = torch.tensor(stored("regression")["data"])
    for seed, kept in enumerate(stored_data):
        drawn = torch.stack(regression.cubic(seed)).flatten(1)
        torch.testing.assert_close(kept, drawn, rtol=1e-5, atol=1e-5)
    assert len(stored_data) == regression.DATA_SETS


@pytest.mark.parametrize("script", [rotating_nine, scores], ids=["rotating_nine", "scores"])
def test_readme_shows_what_was_measured(script: Any) -> None:
    name, text = script.__name__.rpartition(".")[2], README.read_text(encoding="utf-8")
    found = stored(name) if script is rotating_nine else stored(name)["table"]
    assert script.in_readme(text, found) == text, f"README.md is out of date: run python -m {script.__name__}"


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
