"""What the scripts share: their results, the methods of Part III, the models they train side by side."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import experiments.__main__ as everything
from experiments import all_flows, methods, results
from experiments.densities import Scorer, two_moons_models
from experiments.methods import METHODS, names, samples
from experiments.networks import MEMBERS, RUNS, SEEDS
from mnf_lite.files import circumstances
from mnf_lite.flows import NormalizingFlow

SCRIPTS = ("all_flows", "convolution", "mixing", "passes", "regression", "two_moons")
SETTINGS = {"steps": 3, "widths": (2, 4), "rates": {"slow": 0.1}}


def test_run_with_the_same_settings_continues(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    first = results.read(path, SETTINGS)
    assert first == {"settings": {"steps": 3, "widths": [2, 4], "rates": {"slow": 0.1}}}
    results.write(path, first | {"scores": {"MNF": [0.5]}})
    again = results.read(path, SETTINGS)
    assert again["scores"] == {"MNF": [0.5]}
    results.write(path, again)
    assert json.loads(path.read_text()) == again, "nothing but circumstances is added"


@pytest.mark.parametrize("change", [{"steps": 4}, {"widths": (2, 5)}, {"rates": {}}, {"more": 1}])
def test_run_with_other_settings_starts_anew(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    results.write(path, results.read(path, SETTINGS) | {"scores": {"MNF": [0.5]}})
    found = results.read(path, SETTINGS | change)
    assert list(found) == ["settings"]
    assert found["settings"] == json.loads(json.dumps(SETTINGS | change))


def test_results_name_their_own_circumstances(tmp_path: Path) -> None:
    results.write(tmp_path / "r.json", {"date": "yesterday", "machine": "another", "score": 1})
    assert json.loads((tmp_path / "r.json").read_text()) == {"score": 1} | circumstances()


def test_results_lie_in_the_book_unless_the_command_says_otherwise(tmp_path: Path) -> None:
    command = results.parser("scores", "What it does.")
    assert command.parse_args([]).out == results.RESULTS / "scores.json"
    assert command.parse_args(["--out", str(tmp_path / "r")]).out == tmp_path / "r"


def script(name: str, **content: object) -> ModuleType:
    module = ModuleType(f"experiments.{name}")
    module.__dict__.update({"SETTINGS": SETTINGS} | content)
    return module


def test_result_is_stale_without_a_file_with_other_settings_or_with_pieces_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert results.why_stale(script("r")) == "never run"
    results.write(tmp_path / "r.json", {"settings": SETTINGS, "done": ["a"]})
    assert results.why_stale(script("r")) == ""
    assert results.why_stale(script("r", SETTINGS=SETTINGS | {"steps": 4})) == "other settings: steps"
    assert results.why_stale(script("r", SETTINGS={"steps": 3})) == "other settings: widths, rates"
    left = [name for name in "abcde" if name not in results.load(tmp_path / "r.json")["done"]]
    assert results.why_stale(script("r", left=lambda found: left)) == "b, c and 2 more"


def test_only_what_is_stale_is_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    ran: list[str] = []
    found = [("networks", 78.0, ""), ("mixing", 10.0, "never run"), ("scores", 5.0, "the table")]
    monkeypatch.setattr(everything, "reasons", lambda: iter(found))
    monkeypatch.setattr(everything, "run", ran.append)
    monkeypatch.setattr("sys.argv", ["experiments", "--list"])
    everything.main()
    assert not ran
    assert capsys.readouterr().out.splitlines()[1].split() == ["mixing", "10", "min", "never", "run"]
    monkeypatch.setattr("sys.argv", ["experiments"])
    everything.main()
    assert ran == ["mixing", "scores"]


def test_methods_are_measured_where_their_weights_are_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    path, measured = tmp_path / "r.json", []

    def measure(method: str, seed: int) -> dict[str, float]:
        measured.append((method, seed))
        return {"nll": 0.5}

    prints = {(method, seed): [f"{method}-{seed}"] for method in METHODS for seed in range(SEEDS)}
    monkeypatch.setattr(methods, "weights", lambda method, seed: prints.get((method, seed)))
    methods.measure_missing(path, SETTINGS, measure)
    assert set(measured) == set(prints)
    assert results.load(path)["scores"]["MNF"]["2"] == {"weights": ["MNF-2"], "nll": 0.5}
    assert methods.left(results.load(path)) == []
    measured.clear()
    prints["MNF", 1] = ["trained anew"]
    del prints["LeNet", 0]
    assert methods.left(results.load(path)) == ["LeNet with seed 0", "MNF with seed 1"]
    methods.measure_missing(path, SETTINGS, measure)
    assert measured == [("MNF", 1)]
    assert "LeNet, seed 0: not trained yet, left out" in capsys.readouterr().out


def test_models_side_by_side_are_trained_as_each_would_be_alone() -> None:
    def models() -> list[NormalizingFlow]:
        made = []
        for seed in range(3):
            torch.manual_seed(seed)
            made.append(NormalizingFlow(all_flows.chain("affine")).double())
        return made

    points, rates, clip = torch.randn(20, 3, 32, 2, dtype=torch.double), [1e-3, 1e-2, 1e-1], 0.5
    losses = all_flows.train(models(), points, torch.tensor(rates, dtype=torch.double), clip)
    for k, model in enumerate(models()):
        model.log_prob(points[0, k])
        adam = torch.optim.Adam(model.parameters(), lr=rates[k])
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, len(points))
        for x, side_by_side in zip(points[:, k], losses[:, k], strict=True):
            adam.zero_grad()
            alone = -model.log_prob(x).mean()
            alone.backward()
            assert torch.allclose(alone, side_by_side, atol=1e-6)
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            adam.step()
            schedule.step()


def test_ensembles_share_no_member_and_begin_with_the_lenet_of_their_seed() -> None:
    ensembles = [names("deep ensemble", seed) for seed in range(SEEDS)]
    assert [len(set(members)) for members in ensembles] == [MEMBERS] * SEEDS
    assert len(set().union(*ensembles)) == MEMBERS * SEEDS
    for seed, members in enumerate(ensembles):
        assert members[0] == names("LeNet", seed)[0]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_made_of_runs_of_its_own_model_and_seed(method: str) -> None:
    runs = {run.name: run for run in RUNS}
    for source, seeds in (("mnist", SEEDS), ("digits", 1)):
        for seed in range(seeds):
            for name in names(method, seed, source):
                run = runs[name]
                assert (run.model, run.data, run.seed % SEEDS) == (METHODS[method], source, seed)
            assert len(names(method, seed, source)) == (MEMBERS if method == "deep ensemble" else 1)


def test_no_sample_is_taken_twice_where_nothing_is_drawn() -> None:
    wanted = {"LeNet": 1, "MC-dropout": 20, "deep ensemble": MEMBERS, "mean-field": 20, "MNF": 20}
    assert {method: samples(method, 20) for method in METHODS} == wanted


def test_a_scorer_is_the_log_density_of_its_model() -> None:
    torch.manual_seed(0)
    model, x = NormalizingFlow(two_moons_models()["9 x MAF"]), torch.randn(5, 2)
    assert torch.equal(Scorer(model)(x), model.log_prob(x))


@pytest.mark.parametrize("family", all_flows.FAMILIES)
def test_a_family_makes_a_chain_on_the_plane_and_a_wide_layer(family: str) -> None:
    torch.manual_seed(0)
    reported = json.loads((results.RESULTS / "all_flows.json").read_text())["flows"][family]
    chain = all_flows.chain(family)
    assert sum(p.numel() for p in chain.parameters()) == reported["parameters"]
    assert all_flows.used_parameters(chain) == reported["used"]
    for flow, dim in ((chain, 2), (all_flows.wide_layers()[family], all_flows.WIDE)):
        z = torch.randn(4, dim)
        flow.inverse(z)  # ActNorm's first batch
        assert flow(flow.inverse(z)[0])[0].allclose(z, atol=1e-4)


def test_what_feeds_the_book_needs_no_other_library() -> None:
    scripts = ", ".join(f"experiments.{name}" for name in SCRIPTS)
    loaded = f"import sys, {scripts}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert not {"zuko", "nflows", "normflows"} & set(done.stdout.split())


@pytest.mark.parametrize("folder", ["experiments", "benchmarks"])
def test_experiments_stand_on_the_package_and_benchmarks_on_both(folder: str) -> None:
    above = {"experiments": {"benchmarks", "tools", "tests"}, "benchmarks": {"tools", "tests"}}[folder]
    for path in (results.ROOT / folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not {name.split(".")[0] for name in names} & above, path.name
