"""The trained networks are those that their logs describe, and a pass through all can be interrupted."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from torch.utils.data import TensorDataset

from experiments import networks
from mnf_lite import data, metrics, models, predict, training

RUNS = pytest.mark.parametrize("run", networks.RUNS, ids=lambda run: run.name)


def log_of(run: networks.Run) -> dict:
    return json.loads((networks.CHECKPOINTS / f"{run.name}.json").read_text(encoding="utf-8"))


@RUNS
def test_log_belongs_to_weights_and_to_settings(run: networks.Run) -> None:
    log, weights = log_of(run), networks.CHECKPOINTS / f"{run.name}.safetensors"
    assert run.name not in networks.left()
    assert len(log["history"]["seconds"]) == run.epochs + run.fine_epochs
    assert log.get("milestone", {}).get("epochs") == run.milestone
    model = models.load(weights)
    assert type(model) is models.IMAGE_MODELS[run.model]
    assert sum(parameter.numel() for parameter in model.parameters()) == log["parameters"]


@pytest.mark.parametrize("name", ["lenet-digits", "mnf-lenet-digits"])
def test_logged_accuracy_is_that_of_the_stored_weights(name: str) -> None:
    model = models.load(networks.CHECKPOINTS / f"{name}.safetensors")
    images, labels = data.digits("test").tensors
    logged = json.loads((networks.CHECKPOINTS / f"{name}.json").read_text(encoding="utf-8"))["test"]
    accuracy = metrics.accuracy(predict(model, images, n_samples=20), labels).item()
    assert abs(accuracy - logged["accuracy"]) <= 3 / len(labels)


def test_accuracy_on_mnist_is_what_the_book_promises() -> None:
    logs = {run.name: log_of(run) for run in networks.RUNS if run.name in ("lenet-mnist", "mnf-lenet-mnist")}
    assert logs["lenet-mnist"]["test"]["accuracy"] >= 0.985
    assert logs["mnf-lenet-mnist"]["test"]["accuracy"] >= 0.98
    assert logs["mnf-lenet-mnist"]["test"]["samples"] == 100


@pytest.mark.parametrize("model", ["lenet", "mnf-lenet"])
def test_fully_trained_networks_are_right_on_99_of_100_images(model: str) -> None:
    runs = [
        run for run in networks.RUNS if run.model == model and run.name.startswith(f"equal-{model}-mnist")
    ]
    accuracies = [log_of(run)["test"]["accuracy"] for run in runs]
    assert len(accuracies) >= networks.SEEDS
    assert min(accuracies) >= 0.99


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of a minute fraction each, in a folder of their own."""

    def few(split: str) -> TensorDataset:
        return TensorDataset(*(tensor[:64] for tensor in data.digits(split).tensors))

    runs = [
        networks.Run("lenet-few", "lenet", "few", 2, settings={"batch_size": 32, "progress": False}),
        networks.Run("mnf-lenet-few", "mnf-lenet", "few", 1, settings={"batch_size": 64, "progress": False}),
    ]
    monkeypatch.setattr(networks, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(networks, "DATA", {"few": few})
    monkeypatch.setattr(networks, "RUNS", runs)
    monkeypatch.setattr(networks, "SAMPLES", 2)
    monkeypatch.setattr("sys.argv", ["networks"])
    return tmp_path


def test_run_whose_files_do_not_fit_together_is_trained_again(small: Path) -> None:
    names = [run.name for run in networks.RUNS]
    assert networks.left() == names, "nothing is there"
    networks.main()
    assert networks.left() == []
    (small / f"{names[0]}.safetensors").write_bytes(b"other weights")
    assert networks.left() == names[:1]
    networks.RUNS[1] = replace(networks.RUNS[1], epochs=7)
    assert networks.left() == names


def test_interrupted_pass_continues_and_ends_with_the_same_weights(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks.main()
    whole = {path.name: path.read_bytes() for path in small.glob("*.safetensors")}
    assert sorted(path.name for path in small.iterdir()) == sorted(
        f"{name}.{ending}" for name in ("lenet-few", "mnf-lenet-few") for ending in ("json", "safetensors")
    ), "a finished pass leaves weights and logs and nothing else"

    train, trained = networks.train, []

    def interrupted(run: networks.Run) -> None:
        if run.model == "mnf-lenet" and not trained.count("again"):
            raise KeyboardInterrupt
        trained.append(run.name)
        train(run)

    monkeypatch.setattr(networks, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        networks.main()
    assert trained == ["lenet-few"]
    trained.append("again")
    networks.main()
    assert trained == ["lenet-few", "again", "mnf-lenet-few"], "a finished run is not trained twice"
    assert {path.name: path.read_bytes() for path in small.glob("*.safetensors")} == whole
    assert len(list(small.iterdir())) == 4


# Two epochs of two steps, the milestone is measured, an epoch, two fine epochs, the end is measured.
@pytest.mark.parametrize("event", [2, 5, 7, 10, 12])
def test_run_interrupted_in_any_phase_ends_with_the_same_weights_and_log(
    event: int, small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = networks.Run(
        "fine-few", "mnf-lenet", "few", epochs=3, fine_epochs=2, milestone=2, widths=(2, 3, 4, 10),
        settings={"batch_size": 32, "progress": False},
    )  # fmt: skip
    monkeypatch.setattr(networks, "RUNS", [run])
    events = iter(range(1, 100))

    def interruptible(function: Callable) -> Callable:
        def call(*arguments: object) -> object:
            if next(events) == 12 + event:
                raise KeyboardInterrupt
            return function(*arguments)

        return call

    def timeless() -> dict:
        log = log_of(run)
        del log["history"]["seconds"], log["test"]["seconds"]
        return log

    monkeypatch.setattr(training, "_update", interruptible(training._update))
    monkeypatch.setattr(networks, "evaluate", interruptible(networks.evaluate))
    networks.main()
    weights, log = (small / "fine-few.safetensors").read_bytes(), timeless()
    assert {len(values) for values in log["history"].values()} == {5}
    assert log["milestone"]["epochs"] == 2
    assert log["milestone"]["nll"] != log["test"]["nll"]
    with pytest.raises(KeyboardInterrupt):
        networks.main()
    networks.main()
    assert (small / "fine-few.safetensors").read_bytes() == weights
    assert timeless() == log
    assert len(list(small.iterdir())) == 2


def test_unknown_run_is_refused_by_name(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["networks", "resnet-mnist"])
    with pytest.raises(SystemExit, match=r"resnet-mnist.*lenet-few, mnf-lenet-few"):
        networks.main()
    assert not list(small.iterdir())
