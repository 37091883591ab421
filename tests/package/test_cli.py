"""The command line as a newcomer meets it: what it writes, how it continues, what it says of a mistake."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from mnf_lite import __main__ as cli
from mnf_lite import data, models
from mnf_lite.files import load_tensors, save_tensors

TRAIN = [
    "train",
    "--model",
    "mnf-lenet",
    "--data",
    "digits",
    "--epochs",
    "2",
    "--widths",
    "2",
    "3",
    "4",
    "10",
]
FEW = 96


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """A fraction of scikit-learn's digits."""

    def few(split):
        return TensorDataset(*(tensor[:FEW] for tensor in data.digits(split).tensors))

    monkeypatch.setitem(cli.DATA, "digits", few)


@pytest.fixture
def finished(tmp_path):
    """A run that was trained to its end."""
    assert cli.main([*TRAIN, "--out", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def sentence(capsys, *arguments) -> str:
    """What a command that fails says: one line on standard error, and nothing else."""
    capsys.readouterr()
    try:
        status = cli.main(list(map(str, arguments)))
    except SystemExit as exit_:  # argparse leaves this way
        status = exit_.code
    said = capsys.readouterr()
    assert status == 2
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    return said.err


def test_train_writes_weights_that_load_and_a_log_beside_them(finished):
    assert sorted(path.name for path in finished.parent.iterdir()) == ["run.json", "run.safetensors"]
    model = models.load(finished.with_suffix(".safetensors"))
    assert isinstance(model, models.MNFLeNet)
    log = json.loads(finished.with_suffix(".json").read_text())
    assert log["run"]["settings"]["widths"] == [2, 3, 4, 10]
    assert log["run"]["seed"] == 0
    assert log["likelihood"] == "Categorical()"
    assert log["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert log["versions"]["torch"] == torch.__version__
    figures = log["history"]
    assert figures.keys() >= {"loss", "nll", "kl", "accuracy", "val_accuracy", "seconds"}
    assert all(len(values) == 2 for values in figures.values())


def test_a_run_without_a_name_is_named_by_model_and_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(TRAIN) == 0
    names = ["mnf-lenet-digits.json", "mnf-lenet-digits.safetensors"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    assert cli.main(["evaluate", "runs/mnf-lenet-digits", "--samples", "2"]) == 0
    assert cli.main([*TRAIN, "--lr-log-var", "0.02", "--decay", "0.5", "--out", "runs/fast"]) == 0


def test_train_gives_the_same_weights_again_and_others_by_another_seed(finished, tmp_path):
    assert cli.main([*TRAIN, "--out", str(tmp_path / "again")]) == 0
    assert cli.main([*TRAIN, "--out", str(tmp_path / "other"), "--seed", "1"]) == 0
    run, again, other = (
        load_tensors(tmp_path / f"{name}.safetensors")[0] for name in ("run", "again", "other")
    )
    assert all(torch.equal(run[name], again[name]) for name in run)
    assert not all(torch.equal(run[name], other[name]) for name in run)


def test_an_interrupted_run_continues_by_the_same_command(finished, tmp_path, monkeypatch, capsys):
    command = [*TRAIN, "--out", str(tmp_path / "cut")]
    epochs = iter(range(10))

    def interrupting(*arguments):
        if next(epochs) == 1:
            raise KeyboardInterrupt
        return score(*arguments)

    score = cli.fit.__globals__["_score"]
    with monkeypatch.context() as patch:
        patch.setitem(cli.fit.__globals__, "_score", interrupting)
        assert cli.main(command) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert [path.name for path in tmp_path.glob("cut*")] == ["cut.unfinished.safetensors"]
    assert cli.main(command) == 0
    assert sorted(path.name for path in tmp_path.glob("cut*")) == ["cut.json", "cut.safetensors"]
    cut, whole = (load_tensors(tmp_path / f"{name}.safetensors")[0] for name in ("cut", "run"))
    assert all(torch.equal(cut[name], whole[name]) for name in whole)


def test_a_finished_run_is_not_repeated(finished, capsys, monkeypatch):
    monkeypatch.setattr(cli, "fit", None)
    assert cli.main([*TRAIN, "--out", str(finished)]) == 0
    assert capsys.readouterr().out.endswith("is finished already\n")


def test_evaluate_prints_the_scores_and_adds_them_to_the_log(finished, capsys):
    capsys.readouterr()
    assert cli.main(["evaluate", str(finished), "--samples", "5"]) == 0
    printed = capsys.readouterr().out
    log = json.loads(finished.with_suffix(".json").read_text())
    scores = log["test"]["digits"]
    assert scores["samples"] == 5
    assert "likelihood Categorical()" in " ".join(printed.split())
    assert f"accuracy {scores['accuracy']:.4f}" in " ".join(printed.split())
    assert 0 <= scores["expected_calibration_error"] <= 1
    assert scores["negative_log_likelihood"] > 0
    assert 0 <= scores["brier_score"] <= 2
    assert len(log["history"]["loss"]) == 2  # what training wrote is still there


def test_evaluate_takes_the_name_of_the_weights_too(finished, capsys):
    assert cli.main(["evaluate", f"{finished}.safetensors", "--samples", "1"]) == 0
    assert "test" in json.loads(finished.with_suffix(".json").read_text())


def test_predict_names_a_class_a_probability_and_an_entropy_for_each_image(finished, tmp_path, capsys):
    images, _ = data.digits("test").tensors
    light = (images[0, 0] * 255).byte().numpy()
    Image.fromarray(light).resize((60, 60)).save(tmp_path / "light.png")
    Image.fromarray(255 - light).resize((60, 60)).convert("RGB").save(tmp_path / "dark.png")
    capsys.readouterr()
    assert cli.main(["predict", str(finished), f"{tmp_path}/light.png", f"{tmp_path}/light.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0] == lines[1]
    assert "light.png: class" in lines[0]
    assert "probability" in lines[0]
    assert "nats" in lines[0]
    assert cli.main(["predict", str(finished), f"{tmp_path}/dark.png", "--invert"]) == 0
    assert capsys.readouterr().out.split(": ")[1] == lines[0].split(": ")[1] + "\n"


def test_images_of_any_size_and_kind_become_what_the_networks_know(tmp_path):
    gradient = np.linspace(0, 255, 56, dtype=np.uint8)[None].repeat(56, 0)
    Image.fromarray(gradient).save(tmp_path / "g.png")
    x = cli._image(tmp_path / "g.png", invert=False)
    assert x.shape == (1, 28, 28)
    assert x.dtype == torch.float32
    assert 0 <= x.min() < 0.05
    assert 0.95 < x.max() <= 1
    assert torch.allclose(cli._image(tmp_path / "g.png", invert=True), 1 - x)


# ------------------------------------------------------------------------------------------- bad input


def test_an_unknown_name_is_answered_with_the_known_ones(capsys, tmp_path):
    said = sentence(capsys, "train", "--model", "alexnet", "--out", tmp_path / "x")
    assert "'alexnet'" in said
    assert "mnf-lenet" in said
    assert "cifar" in sentence(
        capsys, "train", "--model", "lenet", "--data", "cifar", "--out", tmp_path / "x"
    )
    assert "'grow'" in sentence(capsys, "grow")
    assert "--model" in sentence(capsys, "train", "--out", tmp_path / "x")
    assert "'warp'" in sentence(capsys, *TRAIN, "--out", tmp_path / "x", "--device", "warp")
    assert list(tmp_path.iterdir()) == []


def test_options_that_cannot_be_are_named(capsys, tmp_path):
    for option, value, message in (
        ("--epochs", "0", "epochs must be an integer of at least 1, got 0"),
        ("--lr", "nan", "lr must be a positive finite number"),
        ("--lr-log-var", "0", "lr_log_var must be a positive finite number"),
        ("--decay", "2", "decay must be in [0, 1]"),
        ("--widths", "3", "widths must be at least three"),
        ("--widths", "0 3 10", "widths must be"),
        ("--widths", "2 3 5", "labels must be in 0..4"),
        ("--seed", "-1", "seed must be"),
    ):
        command = [*TRAIN, "--out", str(tmp_path / "x"), option, *value.split()]
        assert message in sentence(capsys, *command)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_before_training(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    assert f"cannot write {tmp_path}/file/x" in sentence(capsys, *TRAIN, "--out", tmp_path / "file" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_another_run_under_the_same_name_is_kept(finished, capsys):
    weights = finished.with_suffix(".safetensors").read_bytes()
    said = sentence(capsys, *TRAIN, "--out", finished, "--lr", "0.1")
    assert "a run with lr 0.001, not 0.1" in said
    assert finished.with_suffix(".safetensors").read_bytes() == weights


def test_a_missing_or_damaged_file_is_named(finished, capsys):
    assert "no such file" in sentence(capsys, "evaluate", finished.with_name("none"))
    assert "No such file" in sentence(capsys, "predict", finished, finished.with_name("none.png"))
    picture = finished.with_name("text.png")
    picture.write_text("no picture")
    assert "text.png" in sentence(capsys, "predict", finished, picture)
    weights = finished.with_suffix(".safetensors")
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "it may be cut off" in sentence(capsys, "evaluate", finished)
    weights.write_bytes(whole)
    finished.with_suffix(".json").write_text('{"run": ')
    assert "not a whole JSON file" in sentence(capsys, "evaluate", finished)
    assert "not a whole JSON file" in sentence(capsys, *TRAIN, "--out", finished)


def test_the_weights_of_another_model_are_refused(finished, capsys):
    weights = finished.with_suffix(".safetensors")
    tensors, _ = load_tensors(weights)
    save_tensors(weights, tensors, {"model": "lenet", "settings": {"widths": [2, 3, 4, 10]}})
    assert "its tensors are another model's" in sentence(capsys, "evaluate", finished)
    save_tensors(weights, tensors, {"something": "else"})
    assert "does not hold the weights of one of" in sentence(capsys, "evaluate", finished)


def test_data_that_are_not_there_are_named(capsys, tmp_path, monkeypatch):
    def absent(split):
        raise FileNotFoundError("no MNIST here; digits needs no download")

    monkeypatch.setitem(cli.DATA, "mnist", absent)
    command = ["train", "--model", "lenet", "--data", "mnist", "--out", str(tmp_path / "x")]
    assert sentence(capsys, *command) == "mnf_lite: no MNIST here; digits needs no download\n"


@pytest.mark.parametrize("command", [[], ["train"], ["evaluate"], ["predict"]])
def test_help_says_what_each_command_is_for(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        cli.main([*command, "--help"])
    assert exit_.value.code == 0
    assert "train" in capsys.readouterr().out


def test_the_package_runs_as_a_module():
    run = subprocess.run(
        [sys.executable, "-m", "mnf_lite", "bake"], capture_output=True, text=True, cwd=Path.cwd()
    )
    assert run.returncode == 2
    assert run.stderr.startswith("python -m mnf_lite: ")
    assert "Traceback" not in run.stderr
