"""Part III keeps to one protocol, and its networks are trained by one command."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from experiments import contract, table, trained
from experiments.results import RESULTS, as_stored, load
from mnf_lite import data, metrics
from mnf_lite.files import save_json

PART_3 = (
    "scores",
    "rotation",
    "out_of_distribution",
    "adversarial",
    "posterior",
    "training_size",
    "kl_weight",
)
FIRST_EDITION = set(PART_3)  # still; shrinks to nothing as they are measured anew


@pytest.mark.parametrize("name", PART_3)
def test_result_keeps_to_the_contract_or_is_listed_as_of_the_first_edition(name: str) -> None:
    breaches = contract.breaches(load(RESULTS / f"{name}.json"))
    assert bool(breaches) == (name in FIRST_EDITION), breaches


def test_every_new_result_keeps_to_the_contract() -> None:
    new = (RESULTS / "part3").glob("*.json")
    assert {path.name: contract.breaches(load(path)) for path in new if contract.breaches(load(path))} == {}


def test_result_with_another_number_or_an_untold_choice_breaks_the_contract() -> None:
    kept: dict[str, Any] = {
        "settings": {"contract": as_stored(contract.SETTINGS)},
        "tried": {"MNF": [1]},
        "chosen": {"MNF": 1},
    }
    assert contract.breaches(kept) == []
    fewer = {"settings": {"contract": kept["settings"]["contract"] | {"draws": 20}}}
    assert [breach.split()[0] for breach in contract.breaches(kept | fewer)] == ["draws"]
    assert contract.breaches(kept | {"tried": {}}) == ["does not say what was tried"]


def test_split_gives_every_image_to_one_side_and_is_the_same_each_time() -> None:
    x = torch.arange(60_000)
    train, choose = contract.split(TensorDataset(x, x))
    assert (len(train), len(choose)) == (contract.TRAIN, contract.CHOOSE)
    assert torch.equal(torch.cat((train.tensors[0], choose.tensors[0])).sort().values, x)
    assert torch.equal(choose.tensors[0], contract.split(TensorDataset(x, x))[1].tensors[0])


def answers(right: float) -> list[contract.Seed]:
    """Of three seeds on 400 images, of which a share of `right` is answered well."""
    labels = torch.zeros(400).long()
    found: list[contract.Seed] = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        good = torch.rand(400, generator=generator) < right
        found.append((torch.stack((good, ~good), 1).double(), labels))
    return found


def test_bootstrap_finds_a_difference_that_is_there_and_none_that_is_not() -> None:
    better, worse = answers(0.95), answers(0.85)
    found = contract.difference(metrics.accuracy, better, worse, (0, 0))
    assert 0 < found["low"] < found["difference"] < found["high"] < 0.2
    other_way = contract.difference(metrics.accuracy, worse, better, (0, 0))
    assert other_way["low"] == pytest.approx(-found["high"])
    same = contract.difference(metrics.accuracy, better, better, (0, 0))
    assert same == {"difference": 0, "low": 0, "high": 0}, "pairing leaves no noise"


def test_bootstrap_draws_two_sets_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    inside, outside = torch.rand(300, generator=generator), torch.rand(200, generator=generator)
    found = contract.difference(
        metrics.auroc, [(inside, outside + 0.5)] * 2, [(inside, outside + 0.1)] * 2, (0, 1)
    )
    assert 0.1 < found["low"] < found["difference"] < found["high"] < 0.5


def test_posterior_has_arrived_where_twice_the_training_takes_less_than_3_percent() -> None:
    once = {"objective": 0.100}
    assert contract.arrived(once, {"objective": 0.0975})
    assert contract.arrived(once, {"objective": 0.101})
    assert not contract.arrived(once, {"objective": 0.096})


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything at a size of seconds, in a folder of its own."""
    few = {"images": 40, "draws": 2, "draws_of_z": 2}
    generator = torch.Generator().manual_seed(0)
    images = TensorDataset(torch.rand(400, 1, 28, 28, generator=generator), torch.arange(400) % 10)
    monkeypatch.setattr(contract, "TRAIN", 300)
    monkeypatch.setattr(contract, "CHOOSE", 100)
    for name, value in {
        "CHECKPOINTS": tmp_path, "EPOCHS": 1, "WIDTHS": (4, 6, 8, 10), "PAPER": (4, 6, 12, 10),
        "PAPER_SEEDS": 1, "SEEDS": 2, "MEMBERS": 2, "DRAWS": 2, "JUDGED": few, "CURVE": few, "STRANGERS": 50,
        "TRIED": {model: settings[-4:-1] for model, settings in trained.TRIED.items()},
    }.items():  # fmt: skip
        monkeypatch.setattr(trained, name, value)
    monkeypatch.setattr(data, "mnist", lambda split: images)
    monkeypatch.setattr(data, "kmnist", lambda split: images)
    monkeypatch.setattr("sys.argv", ["trained"])
    return tmp_path


def test_one_command_trains_what_is_tried_and_then_what_is_chosen(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained.main()
    assert trained.left() == []
    names = {run.name for run in trained.runs()}
    assert {path.stem for path in small.iterdir()} == names, "a finished pass leaves logs and weights alone"
    assert set(trained.verdicts()) <= names
    for run in trained.runs():
        log = load(run.log)
        assert {"accuracy", "nll", "brier", "ece"} < set(log["choose"])
        assert len(log["curve"]) == (run.epochs if run.model in trained.BAYESIAN else 0)
    for seed in range(2):
        members = trained.methods(seed)["deep ensemble"]
        assert members[0] == trained.methods(seed)["LeNet"][0]
        assert len({run.name for run in members}) == 2
    trained.tidy()
    kept = {run.name for seed in range(2) for group in trained.methods(seed).values() for run in group}
    assert {path.stem for path in small.glob("*.safetensors")} == kept
    monkeypatch.setattr(trained, "RECIPE", trained.RECIPE | {"decay": 0.2})
    assert trained.left() == [run.name for run in [*trained.tried(), *trained.paper()]]


def test_interrupted_run_ends_with_the_same_weights(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained.Run("mnf-lenet", {"kl_weight": 1.0, "prior_std": "learned"}, epochs=2)
    trained.train(run)
    whole, curve = run.weights.read_bytes(), load(run.log)["curve"]
    run.weights.unlink()

    def interrupted(path: Path, content: object) -> None:
        save_json(path, content)
        raise KeyboardInterrupt

    monkeypatch.setattr(trained, "save_json", interrupted)  # after the first epoch
    with pytest.raises(KeyboardInterrupt):
        trained.train(run)
    monkeypatch.setattr(trained, "save_json", save_json)
    trained.train(run)
    assert run.weights.read_bytes() == whole
    assert load(run.log)["curve"] == curve


def test_table_of_small_networks_keeps_to_the_contract(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained.main()
    monkeypatch.setattr(contract, "SEEDS", 2)
    monkeypatch.setattr(contract, "DRAWS", 2)
    monkeypatch.setattr(contract, "RESAMPLES", 5)
    monkeypatch.setattr("sys.argv", ["table", "--out", str(small / "table.json")])
    table.main()
    found = load(small / "table.json")
    assert contract.breaches(found) == []
    assert found["comparisons"] == 4 * (len(found["chosen"]) - 1)
    assert all(len(found["scores"][method]) == 2 for method in found["chosen"])
    assert all(s["tempered"]["accuracy"] == s["accuracy"] for s in found["scores"]["MNF"])
