"""The study of arrival on the smallest settings, and what its stored figures say."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from experiments import arrival
from experiments.results import RESULTS, load
from mnf_lite import layers, models


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    return load(RESULTS / "arrival.json")["runs"]  # type: ignore[no-any-return]


def few(split: str) -> TensorDataset:
    generator = torch.Generator().manual_seed(len(split))
    return TensorDataset(torch.rand(80, 1, 28, 28, generator=generator), torch.arange(80) % 10)


def test_a_run_is_judged_after_every_epoch_and_at_its_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = {"epochs": 2, "batch_size": 40, "prior": "learned"}
    monkeypatch.setattr(arrival, "runs", lambda: {"small": run})
    monkeypatch.setattr(arrival.data, "mnist", few)
    monkeypatch.setattr(arrival, "WIDTHS", (2, 3, 4, 10))
    found = arrival.measure("small", tmp_path / "small.safetensors")
    assert len(found["curve"]) == 2
    for point in (*found["curve"], found["end"]):
        kl = point["weights"] + point["bias"] + point["log_q"] - point["log_r"]
        assert point["kl"] == pytest.approx(kl, abs=0.3)
        assert point["bound"] == pytest.approx(point["nll"] + point["kl"] / 60_000, abs=2e-5)
    weights = 2 * 25 + 3 * 2 * 25 + 48 * 4 + 4 * 10
    assert {sum(point["widths"]) for point in found["curve"]} == {weights}
    assert models.load(tmp_path / "small.safetensors").settings["prior_std"] == "learned"


@pytest.mark.parametrize("posterior", arrival.POSTERIORS)
@pytest.mark.parametrize("prior", arrival.PRIORS)
def test_networks_are_what_their_names_say(posterior: str, prior: str) -> None:
    model = arrival.network({"posterior": posterior, "prior": prior, "start": -6.0})
    for layer in arrival.bayesian_layers(model).values():
        assert isinstance(layer, layers.MeanFieldLinear | layers.MeanFieldConv2d) == (
            posterior == "mean-field"
        )
        assert (layer.weight_log_var == -6).all()
        assert isinstance(layer.prior_std, torch.Tensor) == (prior == "learned")
        if isinstance(layer, layers.MNFLinear | layers.MNFConv2d):
            assert len(layer.flow_q) == (0 if posterior == "no flow" else 2)
            assert layer.auxiliary == ("published" if posterior == "published" else "conjugate")


def test_every_stored_run_is_whole(runs: dict[str, Any]) -> None:
    for name, run in runs.items():
        setting = arrival.runs()[name]
        assert len(run["curve"]) == (1 if "stored" in setting else (arrival.RECIPE | setting)["epochs"]), name
        if not setting.keys() & {"stored", "ivon"}:
            assert run["curve"][-1]["bound"] < run["curve"][0]["bound"], name


def test_variances_of_ivon_are_those_of_its_posterior() -> None:
    model = arrival.models.LeNet(arrival.WIDTHS)
    n = sum(p.numel() for p in model.parameters())
    group = {"ess": 100, "hess": torch.full((n,), 0.03), "weight_decay": 0.01}
    twin = arrival.gaussian(model, SimpleNamespace(param_groups=[group]))
    for name, p in model.named_parameters():
        assert torch.equal(twin.get_parameter(f"{name}_mean"), p)
        variances = twin.get_parameter(f"{name}_log_var").exp()
        assert torch.allclose(variances, torch.tensor(1 / (100 * 0.04)))


def test_what_the_study_is_cited_for(runs: dict[str, Any]) -> None:
    end = {name: run["end"]["bound"] for name, run in runs.items()}
    for posterior in arrival.POSTERIORS:
        for seed in range(arrival.SEEDS):
            learned, fixed = (end[f"study/{posterior}, {prior}, {seed}"] for prior in ("learned", "fixed"))
            assert learned < 0.95 * fixed
    assert end["longer/twice as long"] < end["study/conjugate, learned, 0"]
    assert end["recipe/one rate"] > 1.2 * end["recipe/0.001 and 0.02"]
    assert end["longer/one rate"] > 0.3 > end["defaults/0"]
    assert end["longer/conjugate, fixed"] < end["longer/mean-field, fixed"]
    assert end["longer/mean-field, learned"] < end["longer/conjugate, learned"]
    assert all(end[f"first edition/{seed}"] > 2 for seed in range(arrival.SEEDS))
